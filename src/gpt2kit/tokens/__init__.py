"""From documents to token batches: the tokenizer, the token store, and batches as a function of (seed, step)."""

from gpt2kit.tokens.chat import render_chat
from gpt2kit.tokens.data import PreparedData
from gpt2kit.tokens.learn import LearnedTokenizer, TokenizerSettings, learn_tokenizer
from gpt2kit.tokens.packing import Batch, PackedBatches
from gpt2kit.tokens.prepare import PrepareSettings, prepare
from gpt2kit.tokens.store import TokenStore, TokenStoreWriter
from gpt2kit.tokens.tokenizer import StreamDecoder, Tokenizer, train_tokenizer

__all__ = [
    "Batch",
    "LearnedTokenizer",
    "PackedBatches",
    "PrepareSettings",
    "PreparedData",
    "StreamDecoder",
    "TokenStore",
    "TokenStoreWriter",
    "Tokenizer",
    "TokenizerSettings",
    "learn_tokenizer",
    "prepare",
    "render_chat",
    "train_tokenizer",
]
