"""`gpt2kit generate`: from settings to texts on the terminal and in the output folder."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2kit.console import Progress, output, say
from gpt2kit.generation.language_model import LanguageModel, load
from gpt2kit.generation.output import HEADER_KIND, OutputFiles, command_line, model_record, shown
from gpt2kit.generation.plan import Plan, make_plan, puts_end_of_text_first
from gpt2kit.generation.prompts import collect_prompts
from gpt2kit.generation.sample import Sample
from gpt2kit.generation.settings import NATIVE_METHODS, Engine, GenerateSettings
from gpt2kit.generation.texts import pieces
from gpt2kit.generation.writing import Writing
from gpt2kit.runtime import provenance

_RULE = "=" * 20


@dataclass(frozen=True)
class Generation:
    """What a run of `gpt2kit generate` wrote.

    Attributes:
        header: what made the texts, as it stands in the first line of the files.
        samples: the texts, in order.
        files: the files they were written to: a .txt and a .jsonl for each of `nfiles`.
        was_shown: whether the texts were on the terminal already, while they were written.
        include_prefix: whether prompts are shown in front of their texts.
    """

    header: dict[str, Any]
    samples: tuple[Sample, ...]
    files: tuple[Path, ...]
    was_shown: bool
    include_prefix: bool

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "header": self.header,
            "files": [str(path) for path in self.files],
            "samples": [sample.to_dict() for sample in self.samples],
        }

    def to_text(self) -> str:
        """The texts to read, with a rule between two."""
        if self.was_shown:
            return ""
        texts = [shown(sample, include_prefix=self.include_prefix) for sample in self.samples]
        return f"\n{_RULE}\n".join(texts)


def run(settings: GenerateSettings) -> Generation:
    """Write texts to the output folder, and to the terminal while they are written if asked to.

    Raises:
        UsageError: a setting, prompt file or folder cannot be used.
        DataError: the prompt file cannot be read.
        ModelError: the model folder cannot be trusted.
        DiskError: the output cannot be written; texts finished before are kept.
    """
    prompts = collect_prompts(settings.prompts, settings.prompts_file)
    settings = _resolved(settings, prompts)
    model = load(
        settings.model_dir,
        device=settings.device,
        precision=settings.precision,
        engine=_engine(settings),
        weights=settings.weights,
    )
    plan = make_plan(model, prompts, settings, num_samples=settings.nsamples * settings.nfiles)
    settings = settings.model_copy(update={"seed": plan.seed})
    header = _header(settings, model, plan)
    with _files(settings, header) as files:
        was_shown = _wants_stream(settings, plan)
        _write(plan, settings, files, show=was_shown)
    for each in files:
        say(f"written: {each.text} and {each.lines.name}")
    return Generation(
        header=header,
        samples=tuple(sample for each in files for sample in each.samples),
        files=tuple(path for each in files for path in (each.text, each.lines)),
        was_shown=was_shown,
        include_prefix=settings.include_prefix,
    )


def _resolved(settings: GenerateSettings, prompts: list[str]) -> GenerateSettings:
    r"""The settings with every prompt in them, one name for each thing, and \n in stop strings made a line end."""
    return settings.model_copy(
        update={
            "prompt": tuple(prompts),
            "prefix": (),
            "prompts_file": None,
            "max_new_tokens": settings.token_limit,
            "length": None,
            "stop": tuple(string.replace("\\n", "\n") for string in settings.stop_strings),
            "truncate": None,
        }
    )


def _header(settings: GenerateSettings, model: LanguageModel, plan: Plan) -> dict[str, Any]:
    return {
        "kind": HEADER_KIND,
        "method": settings.method,
        "seed": plan.seed,
        "settings": settings.to_dict(),
        "end_of_text_first": puts_end_of_text_first(model, settings),
        "again": command_line(settings),
        "model": model_record(model.folder, known=plan.native.packed.hashes if plan.native else None),
        **_computed_by(plan),
        **provenance(),
    }


def _engine(settings: GenerateSettings) -> Engine:
    """The engine to open: for the methods that are PyTorch's alone, its own, unless another one is asked for."""
    if settings.engine == "auto" and settings.weights in ("auto", "fp32") and settings.method not in NATIVE_METHODS:
        return "torch"
    return settings.engine


def _computed_by(plan: Plan) -> dict[str, str]:
    if plan.native is not None:
        weights = plan.native.packed.weights
        return {"engine": "native", "weights": weights, "device": "cpu", "dtype": "float32"}
    embedding = plan.model.model.transformer.wte.weight
    dtype = str(embedding.dtype).removeprefix("torch.")
    return {"engine": "torch", "device": str(embedding.device), "dtype": dtype}


@contextmanager
def _files(settings: GenerateSettings, header: dict[str, Any]) -> Iterator[list[OutputFiles]]:
    """The files of a run; whatever ends it, the texts that are finished stay in them."""
    files: list[OutputFiles] = []
    try:
        for number in range(settings.nfiles):
            own = header | ({"file": number + 1, "num_files": settings.nfiles} if settings.nfiles > 1 else {})
            files.append(OutputFiles.claim(settings.output_dir, own, include_prefix=settings.include_prefix))
        yield files
    finally:
        for each in files:
            each.finish()


def _write(plan: Plan, settings: GenerateSettings, files: list[OutputFiles], *, show: bool) -> None:
    total = len(plan.jobs) * settings.max_new_tokens
    shown_tokens: Counter[Writing] = Counter()  # some engines give several texts out whole
    with Progress("writing", total=total, unit="tokens") as progress:
        if show and settings.include_prefix:
            output(plan.jobs[0].prompt, end="")
        for writing, piece in pieces(plan):
            if show:
                output(piece, end="")
            else:
                progress.advance(len(writing.ids) - shown_tokens[writing])
                shown_tokens[writing] = len(writing.ids)
            if writing.finish_reason is not None:
                sample = writing.sample(seed=plan.seed, logprobs=plan.settings.logprobs)
                files[sample.sample_index // settings.nsamples].add(sample)
                if show:
                    output("")
                else:
                    progress.advance(settings.max_new_tokens - len(sample.ids))


def _wants_stream(settings: GenerateSettings, plan: Plan) -> bool:
    """Only one text can be shown while it is written."""
    if len(plan.jobs) > 1:
        if settings.stream:
            say(f"--stream: shows a single text; these {len(plan.jobs)} are shown when they are finished")
        return False
    return settings.stream if settings.stream is not None else sys.stdout.isatty()
