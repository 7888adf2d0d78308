"""From documents to token batches: the tokenizer, the token store, and batches as a function of (seed, step)."""

from typing import TYPE_CHECKING

from gpt2kit.lazy import lazy_names

if TYPE_CHECKING:
    from gpt2kit.tokens.chat import render_chat as render_chat
    from gpt2kit.tokens.data import PreparedData as PreparedData
    from gpt2kit.tokens.learn import LearnedTokenizer as LearnedTokenizer
    from gpt2kit.tokens.learn import TokenizerSettings as TokenizerSettings
    from gpt2kit.tokens.learn import learn_tokenizer as learn_tokenizer
    from gpt2kit.tokens.packing import Batch as Batch
    from gpt2kit.tokens.packing import PackedBatches as PackedBatches
    from gpt2kit.tokens.preparation import PrepareSettings as PrepareSettings
    from gpt2kit.tokens.preparation import prepare as prepare
    from gpt2kit.tokens.store import TokenStore as TokenStore
    from gpt2kit.tokens.store import TokenStoreWriter as TokenStoreWriter
    from gpt2kit.tokens.tokenizer import StreamDecoder as StreamDecoder
    from gpt2kit.tokens.tokenizer import Tokenizer as Tokenizer
    from gpt2kit.tokens.tokenizer import train_tokenizer as train_tokenizer

__getattr__ = lazy_names(
    __name__,
    {
        "render_chat": "chat",
        "PreparedData": "data",
        "LearnedTokenizer": "learn",
        "TokenizerSettings": "learn",
        "learn_tokenizer": "learn",
        "Batch": "packing",
        "PackedBatches": "packing",
        "PrepareSettings": "preparation",
        "prepare": "preparation",
        "TokenStore": "store",
        "TokenStoreWriter": "store",
        "StreamDecoder": "tokenizer",
        "Tokenizer": "tokenizer",
        "train_tokenizer": "tokenizer",
    },
)
