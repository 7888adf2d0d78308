"""GPT-2 itself: the network, its cache and loss, its folder on disk, adapters, and its anatomy."""

from typing import TYPE_CHECKING

from gpt2kit.lazy import lazy_names

if TYPE_CHECKING:
    from gpt2kit.model.adapters import save_adapter as save_adapter
    from gpt2kit.model.adapters import tokenizer_folder as tokenizer_folder
    from gpt2kit.model.anatomy import ModelReport as ModelReport
    from gpt2kit.model.anatomy import inspect as inspect
    from gpt2kit.model.cache import KVCache as KVCache
    from gpt2kit.model.folder import load_model as load_model
    from gpt2kit.model.folder import read_config as read_config
    from gpt2kit.model.folder import save_model as save_model
    from gpt2kit.model.gpt2 import GPT2 as GPT2
    from gpt2kit.model.gpt2 import GPT2Config as GPT2Config
    from gpt2kit.model.lora import add_lora as add_lora
    from gpt2kit.model.lora import merge_lora as merge_lora
    from gpt2kit.model.merge import merge_adapter as merge_adapter

__getattr__ = lazy_names(
    __name__,
    {
        "save_adapter": "adapters",
        "tokenizer_folder": "adapters",
        "ModelReport": "anatomy",
        "inspect": "anatomy",
        "KVCache": "cache",
        "load_model": "folder",
        "read_config": "folder",
        "save_model": "folder",
        "GPT2": "gpt2",
        "GPT2Config": "gpt2",
        "add_lora": "lora",
        "merge_lora": "lora",
        "merge_adapter": "merge",
    },
)
