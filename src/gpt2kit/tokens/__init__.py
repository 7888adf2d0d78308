"""From documents to token batches: the tokenizer, the token store, and batches as a function of (seed, step)."""

from gpt2kit.tokens.chat import render_chat
from gpt2kit.tokens.packing import Batch, PackedBatches
from gpt2kit.tokens.store import TokenStore, TokenStoreWriter
from gpt2kit.tokens.tokenizer import StreamDecoder, Tokenizer, train_tokenizer

__all__ = [
    "Batch",
    "PackedBatches",
    "StreamDecoder",
    "TokenStore",
    "TokenStoreWriter",
    "Tokenizer",
    "render_chat",
    "train_tokenizer",
]
