"""A trial of sampling settings: texts begun as held-out texts begin, and their distance to how humans went on."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpt2kit.console import warn
from gpt2kit.errors import MissingExtraError, NetworkError, TrainingError, UsageError
from gpt2kit.evaluation.heldout import Opening, choose_split, openings, read_held_out
from gpt2kit.evaluation.mauve import FEWEST_MAUVE_TEXTS, FEWEST_TEXTS, MauveReader
from gpt2kit.evaluation.models import find_model
from gpt2kit.evaluation.samples import human_texts
from gpt2kit.generation import GenerateSettings, LanguageModel, generate, load
from gpt2kit.runtime import derive_seed
from gpt2kit.tokens import PreparedData
from gpt2kit.tuning.distance import MauveDistance, TextDistance, diversity_distance
from gpt2kit.tuning.objective import Ground, Report
from gpt2kit.tuning.settings import TuneSettings
from gpt2kit.tuning.space import default_sampling_space

_PROMPT_WORDS = 24
_LOTS = 4  # after each, a trial may be given up
_FEWEST_TEXTS = 8  # with fewer a setting's figures are chance
_MOST_TOKENS = 1_000_000


@contextmanager
def _named(option: str) -> Iterator[None]:
    """Say of a model that is not there which option named it, and not how a training would get another base."""
    try:
        yield
    except MissingExtraError:
        raise
    except (UsageError, NetworkError) as error:
        words = str(error).replace("--base nano", f"{option} nano")
        raise type(error)(f"{option}: {words}") from error


class SamplingObjective:
    """The distance of a model's texts to human ones.

    Args:
        settings: of the search.

    Raises:
        UsageError: a model or the data are not there, or the held-out text is too short.
        MissingExtraError: MAUVE is wanted, and its library is not installed.
    """

    command = "generate"

    def __init__(self, settings: TuneSettings) -> None:
        self.settings = settings
        self.reader = None
        if settings.measure == "mauve":
            with _named("--mauve_model"):
                self.reader = MauveReader(settings.mauve_model, device=settings.device)
        self.distance: TextDistance = (
            diversity_distance if self.reader is None else MauveDistance(self.reader, seed=settings.seed)
        )
        with _named("--model_dir"):
            self.record = find_model(settings.model_dir, role="model")
        self.data = PreparedData.open(settings.data_dir)
        held_out = read_held_out(
            self.data, choose_split(self.data, "validation"), max_tokens=_MOST_TOKENS, seed=settings.seed
        )
        self.openings: list[Opening] = openings(
            held_out,
            number=settings.num_samples,
            prompt_words=_PROMPT_WORDS,
            continuation_words=settings.sample_tokens,
        )
        fewest = _FEWEST_TEXTS if self.reader is None else FEWEST_TEXTS
        if settings.num_samples < fewest:
            raise UsageError(
                f"--num_samples {settings.num_samples}: --measure {settings.measure} needs at least {fewest}"
            )
        if len(self.openings) < fewest:
            raise UsageError(
                f"{settings.data_dir}: its validation split has room for {len(self.openings)} prompts, and "
                f"{fewest} are needed: prepare more text, or with a greater --validation_fraction"
            )
        self.model: LanguageModel | None = None

    @property
    def unit(self) -> str:
        """What is made small."""
        if self.reader is None:
            return "distance to human text, 1 being that of two sets of human texts"
        return f"1 - MAUVE, read by {self.reader.record.name}"

    def examine(self) -> Ground:
        """Look at model and prompts."""
        if len(self.openings) < self.settings.num_samples:
            warn(
                f"{self.settings.data_dir}: its validation split has room for {len(self.openings)} prompts and not for "
                f"--num_samples {self.settings.num_samples}; of so few, gains may be luck: prepare more text, or with "
                "a greater --validation_fraction"
            )
        if self.reader is not None and len(self.openings) < FEWEST_MAUVE_TEXTS:
            warn(
                f"MAUVE of {len(self.openings)} texts is rough, and gains by it may be luck: raise --num_samples "
                f"towards {FEWEST_MAUVE_TEXTS}"
            )
        space = self.settings.parsed_space() or default_sampling_space(self.settings.fixed or {})
        by_default = GenerateSettings()
        return Ground(
            defaults={name: getattr(by_default, name) for name in space},
            space=space,
            fixed={},
            identity={
                "data_dir": str(self.data.manifest["fingerprint"]),
                "model_dir": self.record.sha256,
                "measure": self.settings.measure,
            }
            | ({} if self.reader is None else {"mauve_model": self.reader.record.sha256}),
            about={
                "data": str(self.data.folder),
                "model": self.record.name,
                "texts": f"{len(self.openings)} of at most {self.settings.sample_tokens} tokens",
            },
        )

    def measure(self, values: Mapping[str, Any], *, seed: int, folder: Path, report: Report) -> float:  # noqa: ARG002
        """Write in lots, and measure after each; see `Objective.measure`."""
        if self.model is None:
            self.model = load(self.record.folder, device=self.settings.device)
        human = human_texts(self.openings, self.model.tokenizer, max_tokens=self.settings.sample_tokens).texts
        texts: list[str] = []
        size, found = math.ceil(len(self.openings) / _LOTS), math.inf
        for lot, first in enumerate(range(0, len(self.openings), size)):
            prompts = [opening.prompt for opening in self.openings[first : first + size]]
            settings = GenerateSettings(
                **((self.settings.fixed or {}) | dict(values)),
                max_new_tokens=self.settings.sample_tokens,
                seed=derive_seed(seed, "tuning", lot),
                stream=False,
            )
            texts += [sample.text for sample in generate(self.model, prompts, settings)]
            found = self.distance(texts, human[: len(texts)])
            if math.isfinite(found):
                report(lot, found)
        if not math.isfinite(found):
            raise TrainingError("hardly a text has words, so that nothing can be measured")
        return found

    def settings_of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Those of `gpt2kit generate`."""
        return {"model_dir": self.settings.model_dir} | (self.settings.fixed or {}) | dict(values)
