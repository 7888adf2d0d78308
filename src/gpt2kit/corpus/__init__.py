"""From raw files to documents: reading, cleaning, dropping duplicates, splitting."""

from typing import TYPE_CHECKING

from gpt2kit.lazy import lazy_names

if TYPE_CHECKING:
    from gpt2kit.corpus.collect import collect_documents as collect_documents
    from gpt2kit.corpus.document import Document as Document
    from gpt2kit.corpus.document import Message as Message
    from gpt2kit.corpus.document import Piece as Piece
    from gpt2kit.corpus.document import read_pieces as read_pieces
    from gpt2kit.corpus.report import CorpusReport as CorpusReport

__getattr__ = lazy_names(
    __name__,
    {
        "collect_documents": "collect",
        "Document": "document",
        "Message": "document",
        "Piece": "document",
        "read_pieces": "document",
        "CorpusReport": "report",
    },
)
