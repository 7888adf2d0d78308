"""Model and prompt to samples: sampling, decoding, stopping, long texts, and the files they are written to."""

from typing import TYPE_CHECKING

from gpt2kit.lazy import lazy_names

if TYPE_CHECKING:
    from gpt2kit.generation.chat import Chat as Chat
    from gpt2kit.generation.command import Generation as Generation
    from gpt2kit.generation.command import run as run
    from gpt2kit.generation.language_model import LanguageModel as LanguageModel
    from gpt2kit.generation.language_model import load as load
    from gpt2kit.generation.sample import Sample as Sample
    from gpt2kit.generation.settings import ChatSettings as ChatSettings
    from gpt2kit.generation.settings import GenerateSettings as GenerateSettings
    from gpt2kit.generation.texts import generate as generate
    from gpt2kit.generation.texts import stream as stream

__getattr__ = lazy_names(
    __name__,
    {
        "Chat": "chat",
        "Generation": "command",
        "run": "command",
        "LanguageModel": "language_model",
        "load": "language_model",
        "Sample": "sample",
        "ChatSettings": "settings",
        "GenerateSettings": "settings",
        "generate": "texts",
        "stream": "texts",
    },
)
