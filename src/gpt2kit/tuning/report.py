"""What a search found: a settings file, and a report in Markdown and JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2kit.console import text_table
from gpt2kit.tuning.noise import Gain
from gpt2kit.tuning.study import TrialStore, values_of
from gpt2kit.tuning.worker import shown

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_FEWEST_FOR_IMPORTANCE = 8
_BEST_SHARE = 0.25
_TRIALS_SHOWN = 10


def to_toml(table: str, values: Mapping[str, Any], *, comment: str) -> str:
    """A settings file of one table; paths become strings."""
    lines = [f"# {line}" for line in comment.splitlines()]
    lines.append(f"[{table}]")
    lines += [f"{name} = {_toml_value(value)}" for name, value in values.items()]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml_value(item) for item in value)}]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def trial_record(trial: "FrozenTrial") -> dict[str, Any]:
    """A trial as JSON values."""
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "value": trial.value if trial.state.name == "COMPLETE" else None,
        "values": values_of(trial) if "values" in trial.user_attrs else dict(trial.params),
        "on_the_way": {str(place): value for place, value in sorted(trial.intermediate_values.items())},
        **{name: trial.user_attrs.get(name) for name in ("role", "seed", "ended", "seconds", "retry_of")},
    }


def importance(store: TrialStore) -> tuple[dict[str, float], str]:
    """How much each setting decides whether a trial is among the best quarter (PED-ANOVA, Watanabe et al. 2023).

    Returns:
        Shares of 1, the greatest first, and why there are none (else empty).
    """
    usable = [trial for trial in store.complete() if trial.params]
    if len(usable) < _FEWEST_FOR_IMPORTANCE:
        return {}, f"{len(usable)} trials were finished; importance needs {_FEWEST_FOR_IMPORTANCE}"
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    evaluator = PedAnovaImportanceEvaluator(target_quantile=_BEST_SHARE)
    return {name: float(share) for name, share in get_param_importances(store.study, evaluator=evaluator).items()}, ""


def counts(trials: Sequence["FrozenTrial"]) -> dict[str, int]:
    """How the trials ended."""
    found = {"complete": 0, "pruned": 0, "time": 0, "failed": 0, "retried": 0}
    for trial in trials:
        ended = str(trial.user_attrs.get("ended", ""))
        if trial.state.name == "FAIL":
            found["retried"] += not TrialStore.was_skipped(trial)
        elif trial.state.name in ("COMPLETE", "PRUNED"):
            found["failed" if ended.startswith("failed") else ended or "pruned"] += 1
    return found


def counts_text(found: Mapping[str, int]) -> str:
    """The same in words."""
    words = {
        "complete": "finished",
        "pruned": "given up early",
        "time": "stopped because time was up",
        "failed": "failed",
        "retried": "cut off by a kill and tried again",
    }
    return ", ".join(f"{found[name]} {text}" for name, text in words.items() if found[name]) or "none"


def ended_untrained(record: Mapping[str, Any]) -> bool:
    """Whether the best of a training is its validation before the first step: what it left is the model it began with.

    Args:
        record: of a trial of `--what training`.
    """
    return record["value"] is not None and record["value"] == record["on_the_way"].get("0")


def before_training(records: Sequence[Mapping[str, Any]]) -> tuple[float | None, str]:
    """The loss before the first step, and how many trainings ended there, in words.

    Args:
        records: of the trials of `--what training`.

    Returns:
        That loss (None when no trial got so far), and the sentence.
    """
    before = next((record["on_the_way"]["0"] for record in records if "0" in record["on_the_way"]), None)
    if before is None:
        return None, ""
    finished = [record for record in records if record["value"] is not None]
    untrained = [record for record in finished if ended_untrained(record)]
    text = f"Before training the loss is {before:.4f}"
    if not untrained:
        return before, f"{text}; every finished trial came below it."
    of_defaults = any(record["role"] == "defaults" for record in untrained)
    return before, (
        f"{text}; {len(untrained)} of {len(finished)} finished trials never came below it, and end as the model they "
        f"began with, unchanged{': the defaults among them' if of_defaults else ''}."
    )


def statement(
    *,
    unit: str,
    best: "FrozenTrial",
    baseline: "FrozenTrial | None",
    gain: Gain | None,
    compared: int,
    before: float | None = None,
) -> str:
    """What the search comes to, and how much of it is noise.

    Args:
        unit: of the results.
        best: the best trial.
        baseline: the trial of the defaults, if it is complete.
        gain: over the defaults, where there is one.
        compared: trials beside the defaults that were finished, or given up as worse.
        before: the loss before training; None where nothing is trained.
    """
    if before is not None and ended_untrained(trial_record(best)):
        return (
            f"No trial came below the loss before training ({before:.4f} {unit}): these settings leave the model as it "
            "was. Search lower learning rates, more epochs or more text."
        )
    if baseline is not None and gain is None and not compared:
        return (
            f"Only the defaults were tried to their end ({baseline.value:.4f} {unit}): nothing was compared with them. "
            "The same command with more --minutes or --trials goes on."
        )
    if baseline is None:
        return (
            f"The best settings reached {best.value:.4f} {unit}. The defaults were not tried to their end, so there "
            "is nothing to measure a gain by."
        )
    if gain is None:
        return f"No trial was better than the defaults, which reached {baseline.value:.4f} {unit}. Keep them."
    untrained = ""
    if before is not None and ended_untrained(trial_record(baseline)):
        untrained = ", the loss before training: they leave the model as it was"
    return (
        f"The best settings reached {best.value:.4f}, the defaults {baseline.value:.4f}{untrained}. "
        f"{gain.to_text(unit)}"
    )


def markdown_text(values: Mapping[str, Any], *, picture: Path | None) -> str:
    """The report as a page."""
    parts = [f"# Tuning: {values['what']}", values["statement"]]
    if picture is not None:
        parts.append(f"![The search: its course, what mattered, and the trials side by side]({picture.name})")
    rows = [
        (name, _cell(value), _cell(values["defaults"].get(name, "")))
        for name, value in values["best"]["values"].items()
    ]
    best = values["best"]
    parts += [
        "## The best settings",
        f"Trial {best['number']}: {best['value']:.4f} {values['unit']}. `{values['command']}` takes them.",
        text_table(rows, ["setting", "best", "default"], markdown=True),
    ]
    if values["gain"] is not None and values["gain"]["seeds"]:
        gain = values["gain"]
        repeats = [
            (seed, f"{defaults:.4f}", f"{tuned:.4f}", f"{defaults - tuned:.4f}")
            for seed, defaults, tuned in zip(gain["seeds"], gain["defaults"], gain["best"], strict=True)
        ]
        parts += [
            "## On fresh seeds",
            "Both settings on seeds that had no part in the choice. The held-out text is the same as in the search, "
            "so that this shows the luck of the seed, and not that of the text; `gpt2kit evaluate` on a test split "
            "shows that.",
            text_table(repeats, ["seed", "defaults", "best", "gain"], markdown=True, right_align=(0, 1, 2, 3)),
        ]
    parts.append("## What mattered")
    if values["importance"]:
        parts += [
            "How much each setting decided whether a trial was among the best quarter (PED-ANOVA, Watanabe et al. "
            "2023); from few trials a rough figure.",
            text_table(
                [(name, f"{share:.0%}") for name, share in values["importance"].items()],
                ["setting", "share"],
                markdown=True,
                right_align=(1,),
            ),
        ]
    else:
        parts.append(f"Not told: {values['why_no_importance']}.")
    parts += ["## Trials", f"{counts_text(values['counts'])}; {values['seconds'] / 60:.1f} minutes in all."]
    parts += [_trials_table(values["trials"]), "## What was measured"]
    about = [f"{title}: {text}" for title, text in values["about"].items()]
    parts.append("\n".join(f"- {line}" for line in [*about, *values["notes"]]))
    return "\n\n".join(parts) + "\n"


def _trials_table(trials: Sequence[Mapping[str, Any]]) -> str:
    finished = sorted((trial for trial in trials if trial["value"] is not None), key=lambda trial: trial["value"])
    rows = [
        (trial["number"], f"{trial['value']:.4f}", f"{trial['seconds'] or 0:.0f}", shown(trial["values"]))
        for trial in finished[:_TRIALS_SHOWN]
    ]
    title = "The best of those that were finished" if len(finished) > _TRIALS_SHOWN else "Those that were finished"
    table = text_table(rows, ["trial", "result", "seconds", "settings"], markdown=True, right_align=(0, 1, 2))
    return f"{title}, the others are in the JSON:\n\n{table}"


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
