"""A trial of training settings: a training, and the best validation loss in it."""

import itertools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gpt2kit.errors import TrainingError, UsageError
from gpt2kit.tokens import PreparedData
from gpt2kit.training import TrainSettings, train
from gpt2kit.training.build import find_start
from gpt2kit.training.guard import Validation
from gpt2kit.training.plan import make_validation_batches
from gpt2kit.tuning.objective import Ground, Interrupted, Report
from gpt2kit.tuning.settings import TuneSettings
from gpt2kit.tuning.space import default_training_space

_MOST_VALIDATION_TOKENS = 131_072  # as many as a training takes at most by itself
_MOST_ROWS = 65_536


class TrainingObjective:
    """The best validation loss of a training.

    All trials are measured on the same validation text. By itself a training takes whole batches, and as many as suit
    its length; `examine` finds an amount that is whole batches of every size.

    Args:
        settings: of the search.

    Raises:
        UsageError: the data are not there, or have no validation text.
    """

    unit = "nats per token on the validation text"
    command = "train"

    def __init__(self, settings: TuneSettings) -> None:
        self.settings = settings
        self.data = PreparedData.open(settings.data_dir)
        self.validation_tokens = self.data.store("validation").num_tokens
        if self.validation_tokens == 0:
            raise UsageError(
                f"{settings.data_dir}: its validation split is empty, so there is nothing to tune by: prepare with "
                "--validation_fraction 0.1"
            )
        self.base: str | None = settings.base
        self.shared: dict[str, Any] = {
            "data_dir": settings.data_dir,
            "base": settings.base,
            "method": settings.method,
            "device": settings.device,
            "eval_tokens": min(self.validation_tokens, _MOST_VALIDATION_TOKENS),
        } | (settings.fixed or {})

    def examine(self) -> Ground:
        """Let a training say what it would do by itself."""
        wanted = TrainSettings(**self.shared, seed=self.settings.seed, dry_run=True)
        start, plan = find_start(wanted, self.data), train(wanted).plan
        self.base = start.base
        known = {"learning_rate": plan.learning_rate, "epochs": plan.epochs, "batch_size": plan.batch_size}
        known |= {"max_steps": plan.total_steps, "dropout": start.config.attn_pdrop}
        known |= {"n_layer": start.config.n_layer, "n_head": start.config.n_head, "n_embd": start.config.n_embd}
        space = self.settings.parsed_space() or default_training_space(
            known,
            method=self.settings.method,
            num_layers=start.config.n_layer,
            from_scratch=start.folder is None,
            fixed=self.settings.fixed or {},
        )
        if {"epochs", "max_steps"} <= space.keys() | (self.settings.fixed or {}).keys():
            raise UsageError("--space, --fixed: epochs and max_steps exclude each other: give one")
        for name, dimension in space.items():
            for value in dimension.corners():
                TrainSettings(**(self.shared | {name: value}))
        if "batch_size" not in space:  # by default it hangs on how long a run is, which is searched, perhaps
            self.shared["batch_size"] = plan.batch_size
        sizes = {plan.batch_size, *(space["batch_size"].every_value() if "batch_size" in space else ())}
        self.shared["eval_tokens"] = self._eval_tokens(wanted, context=plan.context, batch_sizes=sizes)
        return Ground(
            defaults={name: known.get(name, getattr(wanted, name)) for name in space},
            space=space,
            fixed={name: self.shared[name] for name in ("eval_tokens", "batch_size") if name in self.shared},
            identity={"data_dir": str(self.data.manifest["fingerprint"]), "base": start.fingerprint()}
            | {"context": plan.context, "dtype": plan.dtype, "eval_tokens": self.shared["eval_tokens"]},
            about={"data": str(self.data.folder), "model": plan.model, "context": f"{plan.context} tokens"}
            | {"validation text": f"{self.shared['eval_tokens']:,} of {self.validation_tokens:,} tokens"},
        )

    def _eval_tokens(self, settings: TrainSettings, *, context: int, batch_sizes: Iterable[int]) -> int:
        """Tokens of the fewest validation rows that are whole batches of every size and hold what is wanted."""
        rows = math.lcm(*batch_sizes)
        if rows > _MOST_ROWS:
            return self.validation_tokens
        batches = make_validation_batches(settings, self.data, context=context, batch_size=rows)
        assert batches is not None  # there is validation text
        tokens = 0
        for step in range(batches.steps_in_epoch()):
            tokens += batches.targets_in_step(step)
            if tokens >= self.shared["eval_tokens"]:
                break
        return tokens

    def measure(self, values: Mapping[str, Any], *, seed: int, folder: Path, report: Report) -> float:
        """Train once; see `Objective.measure`."""
        places = itertools.count()  # validations are compared by how much of the run lies behind them

        def on_validation(validation: Validation) -> None:
            report(next(places), validation.loss)

        settings = TrainSettings(
            **(self.shared | dict(values)),
            seed=seed,
            model_output_dir=folder,
            sample_tokens=0,
            tensorboard=False,
        )
        result = train(settings, on_validation=on_validation)
        if result.status == "interrupted" or result.stop_requested:  # a finished one is there when the search goes on
            raise Interrupted
        if result.validation_loss is None:
            raise TrainingError("the training ended without a validation")
        return result.validation_loss

    def settings_of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Those of `gpt2kit train`."""
        found = self.shared | {"base": self.base, "seed": self.settings.seed} | dict(values)
        return {name: value for name, value in found.items() if value is not None}
