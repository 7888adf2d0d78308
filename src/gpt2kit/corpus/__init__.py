"""From raw files to documents: reading, cleaning, dropping duplicates, splitting."""

from gpt2kit.corpus.collect import collect_documents
from gpt2kit.corpus.document import Document, Message, Piece, read_pieces
from gpt2kit.corpus.report import CorpusReport

__all__ = ["CorpusReport", "Document", "Message", "Piece", "collect_documents", "read_pieces"]
