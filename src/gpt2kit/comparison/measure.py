"""One model of a comparison: opened once, read with, written with, and let go."""

import gc
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from gpt2kit.comparison.pairs import Reading
from gpt2kit.comparison.settings import CompareSettings
from gpt2kit.evaluation.heldout import HeldOut, Opening
from gpt2kit.evaluation.likelihood import Protocol, TokenDocument, summarise, token_nats, windows
from gpt2kit.evaluation.models import ModelRecord
from gpt2kit.evaluation.samples import generate_texts, human_texts
from gpt2kit.evaluation.texts import TextSet
from gpt2kit.generation import load
from gpt2kit.runtime import release_freed_memory

_LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Cost:
    """What a model takes.

    Attributes:
        num_parameters: tied weights counted once, an adapter merged into its base.
        weight_bytes: memory of its weights.
        peak_memory_bytes: the most that the process (on a GPU: its tensors) held while the model was there.
        read_tokens_per_second: of held-out text, in batches.
        written_tokens_per_second: of all texts together, in batches; None when none were written.
    """

    num_parameters: int
    weight_bytes: int
    peak_memory_bytes: int
    read_tokens_per_second: float
    written_tokens_per_second: float | None

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return dict(vars(self))


@dataclass(frozen=True)
class Measured:
    """Everything that was found with a model open.

    Attributes:
        record: which model it is.
        reading: its likelihood.
        cost: what it takes.
        texts: what it wrote; None when none were asked for.
        human: what humans wrote behind the same prompts, cut as its tokenizer cuts.
    """

    record: ModelRecord
    reading: Reading
    cost: Cost
    texts: TextSet | None
    human: TextSet | None


def measure_model(
    record: ModelRecord,
    held_out: HeldOut,
    openings: Sequence[Opening],
    *,
    protocol: Protocol,
    end_of_text_first: bool,
    settings: CompareSettings,
) -> Measured:
    """Open a model, let it read the held-out text and go on from its beginnings.

    Args:
        record: the model; its name is its title.
        held_out: the text.
        openings: the beginnings; none leave texts out.
        protocol: of the likelihood.
        end_of_text_first: put an end-of-text in front of every prompt.
        settings: of the comparison.

    Raises:
        ModelError: the model's files are damaged.
    """
    with _peak_memory(settings.device) as peak:
        model = load(record.folder, device=settings.device, precision=settings.precision, engine="torch")
        documents = held_out.encode(model.tokenizer)
        started = time.monotonic()
        nats = token_nats(
            model.model,
            documents,
            protocol=protocol,
            end_of_text=model.tokenizer.end_of_text,
            batch_size=settings.batch_size,
            what=f"measuring {record.name}",
        )
        read_seconds = time.monotonic() - started
        likelihood = summarise(documents, nats, protocol=protocol, seed=settings.seed, seconds=round(read_seconds, 3))
        texts = human = None
        write_seconds = 0.0
        if openings:
            started = time.monotonic()
            texts = generate_texts(
                model,
                openings,
                title=record.name,
                settings=settings.writing(),
                end_of_text_first=end_of_text_first,
            )
            write_seconds = time.monotonic() - started
            human = human_texts(openings, model.tokenizer, max_tokens=settings.sample_tokens)
    written = 0 if texts is None else sum(map(len, model.tokenizer.encode_batch(texts.texts)))
    parameters = list(model.model.parameters())
    cost = Cost(
        sum(each.numel() for each in parameters),
        sum(each.numel() * each.element_size() for each in parameters),
        peak[0],
        _num_read(documents, protocol) / max(read_seconds, 1e-9),
        written / max(write_seconds, 1e-9) if texts is not None else None,
    )
    reading = Reading(record.name, likelihood, documents, model.tokenizer.fingerprint)
    return Measured(record, reading, cost, texts, human)


def _num_read(documents: Sequence[TokenDocument], protocol: Protocol) -> int:
    return sum(
        window.end - window.start
        for document in documents
        for window in windows(len(document.ids_N), protocol)
        if document.counts_N[window.first : window.end].any()
    )


@contextmanager
def _peak_memory(device: str) -> Iterator[list[int]]:
    """Yields a list whose item will be the peak in bytes. What earlier models left behind is given back first."""
    gc.collect()
    release_freed_memory()
    on_gpu = torch.cuda.is_available() and not device.startswith("cpu")
    peak = [0]
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        yield peak
        peak[0] = int(torch.cuda.max_memory_allocated())
        return
    process, ended = psutil.Process(), threading.Event()

    def look() -> None:
        while True:
            peak[0] = max(peak[0], int(process.memory_info().rss))
            if ended.wait(_LOOK_SECONDS):
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()
