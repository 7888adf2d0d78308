"""The space that is searched: for each setting a range, or a list of choices."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from gpt2kit.config import Settings, suggestion

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_RANGE_KEYS = ("low", "high", "log", "step")


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Attributes:
        low: the least.
        high: the greatest.
        log: whether each factor, and not each difference, is as likely.
        step: distance of the values, counted from `low`; None is any (for whole numbers 1).
        whole: whether only whole numbers are meant.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False

    def holds(self, value: Any) -> bool:
        """Whether the range has this value."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return math.isclose(steps, round(steps), abs_tol=1e-9) and (not self.whole or float(value).is_integer())

    def corners(self) -> list[Any]:
        """The values that a setting has to allow for it to allow all."""
        return [self.low, self.high]

    def every_value(self) -> list[Any]:
        """All values of a range of whole numbers."""
        return list(range(int(self.low), int(self.high) + 1, int(self.step or 1)))

    def height(self, value: float) -> float:
        """Where a value stands between `low` (0) and `high` (1)."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low)

    def distribution(self) -> "BaseDistribution":
        """The range as Optuna takes it."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def to_dict(self) -> dict[str, Any]:
        """The range as a settings file has it."""
        values: dict[str, Any] = {"low": self.low, "high": self.high}
        return values | ({"log": True} if self.log else {}) | ({} if self.step is None else {"step": self.step})


@dataclass(frozen=True)
class Choice:
    """A few values, of which none is between two others."""

    values: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        """Whether it is one of them."""
        return value in self.values

    def corners(self) -> list[Any]:
        """The values that a setting has to allow for it to allow all."""
        return list(self.values)

    def every_value(self) -> list[Any]:
        """All values."""
        return list(self.values)

    def height(self, value: Any) -> float:
        """Where a value stands between the first (0) and the last (1)."""
        return self.values.index(value) / (len(self.values) - 1)

    def distribution(self) -> "BaseDistribution":
        """The choice as Optuna takes it."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def to_dict(self) -> list[Any]:
        """The choice as a settings file has it."""
        return list(self.values)


Dimension: TypeAlias = Range | Choice
Space: TypeAlias = dict[str, Dimension]


def parse_space(table: Mapping[str, Any], settings: type[Settings], searchable: tuple[str, ...]) -> Space:
    """Read a table of a settings file: `learning_rate = {low = 1e-5, high = 1e-3, log = true}`, `lora_rank = [4, 8]`.

    Args:
        table: by the name of a setting, its range or its choices.
        settings: what the searched settings belong to; says which are whole numbers, and what is in range.
        searchable: the settings that may be searched.

    Raises:
        ValueError: naming every wrong entry at once.
    """
    space: Space = {}
    problems = []
    for name, entry in table.items():
        if name not in searchable:
            why = suggestion(name, searchable) or f"; these can: {', '.join(searchable)}"
            problems.append(f"{name} cannot be searched{why}")
            continue
        try:
            space[name] = _parse_dimension(entry, whole=_is_whole(settings, name))
        except ValueError as error:
            problems.append(f"{name}: {error}")
    if not table:
        problems.append("should name at least one setting to search")
    if problems:
        raise ValueError("; ".join(problems))
    return space


def _parse_dimension(entry: Any, *, whole: bool) -> Dimension:
    if isinstance(entry, Mapping) and set(entry) == {"choices"}:
        entry = entry["choices"]
    if isinstance(entry, list | tuple):
        return _parse_choice(list(entry))
    if not isinstance(entry, Mapping):
        raise ValueError(f"{entry!r} should be a list of choices, or a range such as {{low = 1, high = 4}}")  # noqa: TRY004
    if unknown := [str(key) for key in entry if key not in _RANGE_KEYS]:
        raise ValueError(f"unknown key {unknown[0]!r}{suggestion(unknown[0], (*_RANGE_KEYS, 'choices'))}")
    if missing := [key for key in ("low", "high") if key not in entry]:
        raise ValueError(f"a range needs low and high, and {missing[0]} is missing")
    return _parse_range(entry, whole=whole)


def _parse_choice(values: list[Any]) -> Choice:
    if len(values) < 2:
        raise ValueError("should have at least two choices; put a single value into --fixed")
    for value in values:
        if not isinstance(value, bool | int | float | str):
            raise ValueError(f"{value!r} should be a number, a word, true or false")  # noqa: TRY004
    if len(set(values)) < len(values):
        raise ValueError("has a choice twice")
    return Choice(tuple(values))


def _parse_range(entry: Mapping[str, Any], *, whole: bool) -> Range:
    numbers = {key: entry[key] for key in ("low", "high", "step") if entry.get(key) is not None}
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{key} = {value!r} should be a number")
        if whole and not float(value).is_integer():
            raise ValueError(f"{key} = {value} should be a whole number")
    log, step = entry.get("log", False), numbers.get("step")
    if not isinstance(log, bool):
        raise ValueError(f"log = {log!r} should be true or false")  # noqa: TRY004
    low, high = numbers["low"], numbers["high"]
    if not low < high:
        raise ValueError(f"low = {low} should be less than high = {high}")
    if log and low <= 0:
        raise ValueError(f"low = {low} should be greater than 0 with log")
    if step is not None and (step <= 0 or log):
        raise ValueError("step and log exclude each other" if log else f"step = {step} should be greater than 0")
    if step is not None and not math.isclose((high - low) / step, round((high - low) / step), abs_tol=1e-9):
        raise ValueError(f"steps of {step} from {low} do not end at high = {high}")
    kind = int if whole else float
    return Range(kind(low), kind(high), log, step if step is None else kind(step), whole)


def _is_whole(settings: type[Settings], name: str) -> bool:
    annotation = settings.model_fields[name].annotation
    return annotation is int or int in get_args(annotation)


def default_training_space(
    defaults: Mapping[str, Any], *, method: str, num_layers: int, from_scratch: bool, fixed: Mapping[str, Any]
) -> Space:
    """Where to look when nobody says: around what `gpt2kit train` does by itself.

    Args:
        defaults: what it does by itself: learning_rate, epochs, batch_size, dropout.
        method: "full" or "lora".
        num_layers: blocks of the model.
        from_scratch: whether there is no base model.
        fixed: settings that all trials share, which are not searched.
    """
    rate, rows = float(defaults["learning_rate"]), int(defaults["batch_size"])
    space: Space = {"learning_rate": Range(rate / 10, min(rate * 10, 1.0), log=True)}
    if "max_steps" not in fixed:
        space["epochs"] = Range(float(defaults["epochs"]) / 3, float(defaults["epochs"]) * 2)
    space["batch_size"] = Choice(tuple(sorted({max(rows // 2, 1), rows, 2 * rows})))
    if method == "lora":
        space["lora_rank"] = Choice((4, 8, 16, 32))
        space["lora_dropout"] = Range(0.0, 0.2)
    else:
        # Choices, so that many trials have none at all: a model that was made without it learns badly with a little.
        space["dropout"] = Choice(tuple(sorted({0.0, 0.1, 0.2, float(defaults["dropout"])})))
        if not from_scratch and num_layers > 1:
            space["freeze_layers"] = Range(0, num_layers // 2, whole=True)
    return {name: dimension for name, dimension in space.items() if name not in fixed}


def default_sampling_space(fixed: Mapping[str, Any]) -> Space:
    """Where to look for a way of writing when nobody says."""
    space: Space = {
        "temperature": Range(0.5, 1.3),
        "top_p": Range(0.7, 1.0),
        "top_k": Choice((0, 20, 50, 100)),
        "min_p": Range(0.0, 0.1),
        "repetition_penalty": Range(1.0, 1.2),
    }
    return {name: dimension for name, dimension in space.items() if name not in fixed}
