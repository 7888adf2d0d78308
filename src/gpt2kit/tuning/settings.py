"""What a search is told."""

import json
import tomllib
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from gpt2kit.config import Settings, suggestion
from gpt2kit.errors import UsageError
from gpt2kit.generation.settings import DEFAULT_MODEL_DIR, GenerateSettings
from gpt2kit.training.settings import SHAPE_FIELDS, TrainSettings
from gpt2kit.tuning.space import Space, parse_space

What = Literal["training", "sampling"]
DEFAULT_TRIALS = 20
# Settings that change what a training learns, and not what it is measured on: losses of all trials compare.
SEARCHABLE_IN_TRAINING = (
    "learning_rate",
    "epochs",
    "max_steps",
    "batch_size",
    "dropout",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "freeze_layers",
    "freeze_embeddings",
    "optimizer",
    "schedule",
    "final_learning_rate_ratio",
    "warmup_ratio",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "gradient_clip",
    *SHAPE_FIELDS,
)
SEARCHABLE_IN_SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "no_repeat_ngram_size",
)
_SAID_HERE_IN_TRAINING = (
    "data_dir",
    "model_output_dir",
    "base",
    "method",
    "seed",
    "device",
    "dry_run",
    "overwrite",
    "tensorboard",
    "sample_prompts",
    "sample_tokens",
)
_ONLY_FOR: dict[What, tuple[str, ...]] = {
    "training": ("base", "method", "keep"),
    "sampling": ("model_dir", "num_samples", "sample_tokens", "measure", "mauve_model"),
}


class TuneSettings(Settings):
    """Settings of `gpt2kit tune`."""

    stage: ClassVar[str] = "tune"

    what: What = Field(
        "training",
        description="training: settings of `gpt2kit train`, by the validation loss; sampling: how a trained model "
        "writes, by how near its texts are to human ones.",
    )
    data_dir: Path = Field(Path("data/processed"), description="Folder that `gpt2kit prepare` made.")
    output_dir: Path | None = Field(
        None,
        description="Folder for the study and its report; the same command goes on with it. Default: "
        "results/tuning/training or results/tuning/sampling.",
    )
    trials: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Trials, the defaults being the first; more than a study has goes on with it. Default: 20, or with "
        "--minutes as many as there is time for.",
    )
    minutes: float | None = Field(
        None,
        gt=0,
        description="Time for everything, also over several starts. A trial in course is stopped at its next "
        "validation; three tenths are kept for --repeats.",
    )
    workers: int = Field(
        1, ge=1, le=256, description="Trials at a time, in processes that share the cores. On a GPU they share it."
    )
    pruner: Literal["median", "hyperband", "none"] = Field(
        "median",
        description="Which trials are given up: median: those worse than half of the others at the same point; "
        "hyperband: most of them early, for 50 trials and more.",
    )
    repeats: int = Field(
        3,
        ge=0,
        le=100,
        description="Seeds with which the best settings and the defaults are tried again, to tell gain from luck; "
        "0 does not.",
    )
    space: dict[str, Any] | None = Field(
        None,
        description="What is searched, as a table [tune.space] of the settings file, or TOML or JSON text: "
        "learning_rate = {low = 1e-5, high = 1e-3, log = true}. Default: around the defaults of `gpt2kit train`.",
    )
    fixed: dict[str, Any] | None = Field(
        None,
        description="Settings of `gpt2kit train` (or generate) that all trials share, as a table [tune.fixed], or TOML "
        "or JSON text: max_steps = 200.",
    )

    base: str | None = Field(
        None, description="Model to start from, as in `gpt2kit train`. Default: the base the data were prepared for."
    )
    method: Literal["full", "lora"] = Field("full", description="How it is trained, as in `gpt2kit train`.")
    keep: bool = Field(False, description="Keep the model of every trial; else only settings and losses are kept.")

    model_dir: str = Field(
        DEFAULT_MODEL_DIR, description="For sampling: the model that writes: a folder, nano, or a name on the Hub."
    )
    num_samples: int = Field(
        32, ge=8, le=100_000, description="For sampling: texts of a trial, begun as held-out texts begin."
    )
    sample_tokens: int = Field(
        200, ge=8, le=100_000, description="For sampling: tokens of a text. Loops show only in long ones."
    )
    measure: Literal["diversity", "mauve"] = Field(
        "diversity",
        description="For sampling: how far texts are from human ones: diversity: by how varied and how repetitive they "
        "are; mauve: by a model that reads both (needs the extra mauve, and some hundred --num_samples).",
    )
    mauve_model: str = Field(
        "nano",
        description="For sampling with --measure mauve: the model that reads: a folder, nano, or a name on the Hub.",
    )

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    seed: int = Field(0, ge=0, description="Seed of the search and of its trials.")
    overwrite: bool = Field(
        False, description="Start anew although the folder holds a study; that one is moved aside, not deleted."
    )

    @field_validator("space", "fixed", mode="before")
    @classmethod
    def _a_table(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value) if value.lstrip().startswith("{") else tomllib.loads(value)
        except ValueError as error:  # of both
            raise ValueError(f"should be a table in TOML or JSON ({error})") from error

    @model_validator(mode="after")
    def _check_tables(self) -> Self:
        fixed = self.fixed or {}
        said_here = _SAID_HERE_IN_TRAINING if self.what == "training" else ("model_dir", "device", "seed")
        allowed = [
            name
            for name in (TrainSettings if self.what == "training" else GenerateSettings).model_fields
            if name not in said_here and (self.what == "training" or name in SEARCHABLE_IN_SAMPLING)
        ]
        for name in fixed:
            if name not in allowed:
                raise ValueError(f"--fixed: {name} cannot be fixed there{suggestion(name, allowed)}")
        self._check_with(fixed, "--fixed")
        space = self.parsed_space()
        for name, dimension in (space or {}).items():
            if name in fixed:
                raise ValueError(f"--space and --fixed both name {name}: give it in one")
            for value in dimension.corners():
                self._check_with(fixed | {name: value}, f"--space: {name}")
        return self

    def parsed_space(self) -> Space | None:
        """The space that was asked for, or None.

        Raises:
            ValueError: naming every wrong entry.
        """
        if self.space is None:
            return None
        try:
            if self.what == "training":
                return parse_space(self.space, TrainSettings, SEARCHABLE_IN_TRAINING)
            return parse_space(self.space, GenerateSettings, SEARCHABLE_IN_SAMPLING)
        except ValueError as error:
            raise ValueError(f"--space: {error}") from error

    def _check_with(self, values: dict[str, Any], place: str) -> None:
        try:
            if self.what == "training":
                TrainSettings(**({"method": self.method} | values))
            else:
                GenerateSettings(**values)
        except UsageError as error:
            raise ValueError(f"{place}: {error}") from error

    @property
    def folder(self) -> Path:
        """Where the study lies."""
        return Path("results/tuning") / self.what if self.output_dir is None else self.output_dir

    @property
    def trial_limit(self) -> int | None:
        """How many trials there may be; None is as many as there is time for."""
        return DEFAULT_TRIALS if self.trials is None and self.minutes is None else self.trials

    def without_effect(self) -> list[str]:
        """The settings that were given, and are for the other kind of search."""
        other: What = "sampling" if self.what == "training" else "training"
        return [name for name in _ONLY_FOR[other] if name in self.model_fields_set]
