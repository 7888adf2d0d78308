"""What a trial is: values in, one number out, the lower the better, with numbers on the way by which it is given up."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gpt2kit.tuning.space import Space

Report = Callable[[int, float], None]


class Interrupted(Exception):  # noqa: N818 (no error)
    """A trial was interrupted by Ctrl-C or SIGTERM."""


@dataclass(frozen=True)
class Ground:
    """What a search stands on.

    Attributes:
        defaults: the searched settings as they are by default.
        space: what is searched.
        fixed: settings that all trials share and nobody gave; they are for `TuneSettings.fixed` of the workers.
        identity: fingerprints of what the trials are made of.
        about: the same for a reader, by title.
    """

    defaults: dict[str, Any]
    space: Space
    fixed: dict[str, Any]
    identity: dict[str, Any]
    about: dict[str, str]


class Objective(Protocol):
    """A number to be made small."""

    @property
    def unit(self) -> str:
        """What the number is, for a reader."""

    @property
    def command(self) -> str:
        """The command that takes the best settings."""

    def examine(self) -> Ground:
        """Look at data and model, without a trial.

        Raises:
            UsageError: they do not fit.
        """

    def measure(self, values: Mapping[str, Any], *, seed: int, folder: Path, report: Report) -> float:
        """Make one trial.

        Args:
            values: of the searched settings.
            seed: of the trial.
            folder: a new folder for what it makes.
            report: takes numbers on the way, each with its place 0, 1, ...; what it raises ends the trial.

        Raises:
            TrainingError: these values do not work.
            Interrupted: by Ctrl-C or SIGTERM.
        """

    def settings_of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """All settings that the command needs to do as a trial of these values did."""
