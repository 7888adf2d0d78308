"""gpt2kit: turn a folder of text into your own GPT-2.

    import gpt2kit

    gpt2kit.prepare(gpt2kit.PrepareSettings(input="data/raw", data_dir="data/processed"))
    gpt2kit.train(gpt2kit.TrainSettings(data_dir="data/processed", model_output_dir="models/mine"))
    model = gpt2kit.load("models/mine")
    for sample in gpt2kit.generate(model, ["Once upon a time"], gpt2kit.GenerateSettings(seed=0)):
        print(sample.text)

Names are imported when they are first used, so that importing gpt2kit is instant.
"""

from typing import TYPE_CHECKING, Any

from gpt2kit.lazy import lazy_names

if TYPE_CHECKING:
    from gpt2kit.comparison import CompareSettings as CompareSettings
    from gpt2kit.comparison import ModelComparison as ModelComparison
    from gpt2kit.comparison import compare as compare
    from gpt2kit.errors import Gpt2kitError as Gpt2kitError
    from gpt2kit.evaluation import EvaluateSettings as EvaluateSettings
    from gpt2kit.evaluation import Evaluation as Evaluation
    from gpt2kit.evaluation import evaluate as evaluate
    from gpt2kit.evaluation.tasks import TaskResults as TaskResults
    from gpt2kit.evaluation.tasks import TaskSettings as TaskSettings
    from gpt2kit.evaluation.tasks import run_tasks as run_tasks
    from gpt2kit.generation import Chat as Chat
    from gpt2kit.generation import ChatSettings as ChatSettings
    from gpt2kit.generation import GenerateSettings as GenerateSettings
    from gpt2kit.generation import LanguageModel as LanguageModel
    from gpt2kit.generation import Sample as Sample
    from gpt2kit.generation import generate as generate
    from gpt2kit.generation import load as load
    from gpt2kit.model import inspect as inspect
    from gpt2kit.tokens import PreparedData as PreparedData
    from gpt2kit.tokens import PrepareSettings as PrepareSettings
    from gpt2kit.tokens import prepare as prepare
    from gpt2kit.training import TrainingResult as TrainingResult
    from gpt2kit.training import TrainSettings as TrainSettings
    from gpt2kit.training import train as train
    from gpt2kit.tuning import TuneSettings as TuneSettings
    from gpt2kit.tuning import Tuning as Tuning
    from gpt2kit.tuning import tune as tune

_HOME = {
    "CompareSettings": "comparison",
    "ModelComparison": "comparison",
    "compare": "comparison",
    "Gpt2kitError": "errors",
    "EvaluateSettings": "evaluation",
    "Evaluation": "evaluation",
    "evaluate": "evaluation",
    "TaskResults": "evaluation.tasks",
    "TaskSettings": "evaluation.tasks",
    "run_tasks": "evaluation.tasks",
    "Chat": "generation",
    "ChatSettings": "generation",
    "GenerateSettings": "generation",
    "LanguageModel": "generation",
    "Sample": "generation",
    "generate": "generation",
    "load": "generation",
    "inspect": "model",
    "PreparedData": "tokens",
    "PrepareSettings": "tokens",
    "prepare": "tokens",
    "TrainingResult": "training",
    "TrainSettings": "training",
    "train": "training",
    "TuneSettings": "tuning",
    "Tuning": "tuning",
    "tune": "tuning",
}

__all__ = sorted(_HOME)  # noqa: PLE0605 (one list of names, not two)


_get = lazy_names("gpt2kit", _HOME)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from gpt2kit.runtime import VERSION

        return VERSION
    return _get(name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
