"""Many trainings (or many ways of writing): a search for settings under a budget, and how much of its gain is noise."""

from typing import TYPE_CHECKING

from gpt2kit.lazy import lazy_names

if TYPE_CHECKING:
    from gpt2kit.tuning.run import Tuning as Tuning
    from gpt2kit.tuning.run import tune as tune
    from gpt2kit.tuning.settings import TuneSettings as TuneSettings

__getattr__ = lazy_names(
    __name__,
    {
        "Tuning": "run",
        "tune": "run",
        "TuneSettings": "settings",
    },
)
