"""Blind human review: which of two hidden texts is better, asked one pair at a time, and what the answers say."""

from typing import TYPE_CHECKING

from gpt2kit.lazy import lazy_names

if TYPE_CHECKING:
    from gpt2kit.review.run import Review as Review
    from gpt2kit.review.run import review as review
    from gpt2kit.review.settings import ReviewSettings as ReviewSettings

__getattr__ = lazy_names(
    __name__,
    {
        "Review": "run",
        "review": "run",
        "ReviewSettings": "settings",
    },
)
