"""Several models on the same held-out text and from the same prompts: which is better, and how clearly."""

from typing import TYPE_CHECKING

from gpt2kit.lazy import lazy_names

if TYPE_CHECKING:
    from gpt2kit.comparison.run import ModelComparison as ModelComparison
    from gpt2kit.comparison.run import compare as compare
    from gpt2kit.comparison.settings import CompareSettings as CompareSettings

__getattr__ = lazy_names(
    __name__,
    {
        "ModelComparison": "run",
        "compare": "run",
        "CompareSettings": "settings",
    },
)
