"""How well a model predicts held-out text: perplexity and bits per byte.

The protocol. Every document is a stream of its own, `t1 .. tn EOT`: its first token is predicted from end-of-text, and
each token is predicted exactly once. A document longer than the context C is read in windows of C tokens, each S tokens
(the stride) behind the one before; a window's predictions count only where no earlier window made them.

    window 0   inputs EOT t1 .. t(C-1)         predicts t1 .. tC
    window k   inputs t(kS) .. t(kS+C-1)       predicts t(kS+C-S+1) .. t(kS+C)

With S = C windows do not overlap (a token at a window's beginning has no context); with S = 1 every token has all the
context there is.

    perplexity    = exp(nats / predicted tokens)          depends on the tokenizer
    bits per byte = nats / ln 2 / UTF-8 bytes             does not

Both count the nats of a document's end-of-text token, as the training loss does; `text_perplexity` leaves it out.

Legend of the shapes: B rows of a batch, T tokens of a row, N predicted tokens of a document.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gpt2kit.console import Progress
from gpt2kit.evaluation.statistics import Interval, ratio_interval
from gpt2kit.model import GPT2
from gpt2kit.model.loss import IGNORED_TARGET, perplexity

# Of fewer documents no difference can be told from chance (two-sided, 2 / 2^5 > 5%), and intervals are over windows.
FEWEST_UNITS = 6


@dataclass(frozen=True, slots=True)
class TokenDocument:
    """A held-out document as a model's tokenizer sees it.

    Attributes:
        ids_N: its tokens, with its end-of-text; its inputs are these, one place later, behind an end-of-text.
        counts_N: which of them are predicted; the prompts of chats and pairs are only read.
        num_bytes: UTF-8 bytes of the predicted text.
        name: where it comes from, for a reader.
        source: the file it comes from.
    """

    ids_N: npt.NDArray[np.int64]
    counts_N: npt.NDArray[np.bool_]
    num_bytes: int
    name: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a document that is read at once: inputs `start` to `end`, of which those from `first` predict."""

    document: int
    start: int
    end: int
    first: int


@dataclass(frozen=True, slots=True)
class Protocol:
    """How perplexity was measured; figures compare only under the same one.

    Attributes:
        context: tokens a prediction may look back on, at most.
        stride: tokens a window moves on by.
        full_last_window: the last window of a document reaches back for a full context.
    """

    context: int
    stride: int
    full_last_window: bool = False

    def to_text(self) -> str:
        """The protocol in a sentence."""
        overlap = "no overlap" if self.stride == self.context else f"stride {self.stride}"
        last = ", the last window of a document full" if self.full_last_window else ""
        return (
            f"context {self.context} tokens, {overlap}{last}; each document on its own, its first token predicted from "
            "end-of-text, its end-of-text predicted too, each token once"
        )


@dataclass(frozen=True)
class Likelihood:
    """What a model makes of held-out text.

    Attributes:
        perplexity: exp(nats / tokens).
        text_perplexity: the same without the tokens that end a document.
        bits_per_byte: nats / ln 2 / bytes.
        perplexity_interval: 95% bootstrap interval, or None with a single unit.
        bits_per_byte_interval: likewise.
        nats: sum over all predicted tokens.
        num_tokens: predicted tokens.
        num_bytes: UTF-8 bytes of the predicted text.
        num_documents: documents.
        unit: what the intervals were made over: "document" or "window".
        num_units: how many there are.
        seconds: time it took.
        token_nats: the nats of each token, by document; 0 where it is only read.
    """

    perplexity: float
    text_perplexity: float
    bits_per_byte: float
    perplexity_interval: Interval | None
    bits_per_byte_interval: Interval | None
    nats: float
    num_tokens: int
    num_bytes: int
    num_documents: int
    unit: str
    num_units: int
    seconds: float
    token_nats: list[npt.NDArray[np.float64]] = field(repr=False)

    @property
    def is_over_documents(self) -> bool:
        """Whether intervals are made over documents, and so say something about other ones."""
        return self.unit == "document"

    @property
    def intervals_text(self) -> str:
        """What the intervals were made over, and what to make of them, in words."""
        over = f"95% intervals over {self.num_units:,} {self.unit}{'s' * (self.num_units != 1)}"
        if self.is_over_documents:
            return over
        return (
            f"{over} of {self.num_documents:,} document{'s' * (self.num_documents != 1)}: likely too narrow, and "
            "nothing is judged by them"
        )

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values, without those of single tokens."""
        values = {name: value for name, value in vars(self).items() if name != "token_nats"}
        for name in ("perplexity_interval", "bits_per_byte_interval"):
            values[name] = None if values[name] is None else list(values[name])
        return values | {"intervals": self.intervals_text}


def windows(num_tokens: int, protocol: Protocol, *, document: int = 0) -> list[Window]:
    """Cut a document into windows.

    Args:
        num_tokens: N, its tokens.
        protocol: context and stride.
        document: its number.

    Returns:
        Windows whose predictions, `first` to `end`, are 0 .. N - 1, each once.
    """
    found: list[Window] = []
    first = start = 0
    while first < num_tokens:
        end = min(start + protocol.context, num_tokens)
        if protocol.full_last_window:
            start = max(end - protocol.context, 0)
        found.append(Window(document, start, end, first))
        first = end
        start += protocol.stride
    return found


@torch.inference_mode()
def token_nats(
    model: GPT2,
    documents: Sequence[TokenDocument],
    *,
    protocol: Protocol,
    end_of_text: int,
    batch_size: int = 8,
    what: str = "measuring",
) -> list[npt.NDArray[np.float64]]:
    """The nats of every token of every document.

    Windows of like length share a batch, so there is little padding. Padding stands behind the text, where causal
    attention never looks, so it changes nothing.

    Args:
        model: in eval mode.
        documents: encoded with the model's tokenizer.
        protocol: context (at most the model's) and stride.
        end_of_text: its id, which stands before every document.
        batch_size: full windows in a batch; of shorter ones more.
        what: what the progress bar says.

    Returns:
        For each document an array [N]; 0 where a token is only read.
    """
    nats = [np.zeros(len(document.ids_N)) for document in documents]
    cuts = [
        window
        for number, document in enumerate(documents)
        for window in windows(len(document.ids_N), protocol, document=number)
        if document.counts_N[window.first : window.end].any()
    ]
    cuts.sort(key=lambda window: window.start - window.end)
    with Progress(what, total=sum(window.end - window.start for window in cuts), unit=" tokens") as progress:
        done = 0
        while done < len(cuts):
            longest = cuts[done].end - cuts[done].start
            rows = cuts[done : done + max(batch_size * protocol.context // longest, 1)]
            _measure(model, documents, rows, nats, end_of_text=end_of_text)
            done += len(rows)
            progress.advance(sum(window.end - window.start for window in rows))
    return nats


def _measure(
    model: GPT2,
    documents: Sequence[TokenDocument],
    rows: Sequence[Window],
    nats: list[npt.NDArray[np.float64]],
    *,
    end_of_text: int,
) -> None:
    """Put the nats of some windows' predictions in their places; the first window is the longest."""
    T = rows[0].end - rows[0].start
    input_ids_BT = np.full((len(rows), T), end_of_text, dtype=np.int64)
    target_ids_BT = np.full((len(rows), T), IGNORED_TARGET, dtype=np.int64)
    for row, window in enumerate(rows):
        document = documents[window.document]
        length = window.end - window.start
        skipped = 1 if window.start == 0 else 0  # the end-of-text before the document is there already
        input_ids_BT[row, skipped:length] = document.ids_N[window.start - 1 + skipped : window.end - 1]
        targets = document.ids_N[window.first : window.end]
        counts = document.counts_N[window.first : window.end]
        target_ids_BT[row, window.first - window.start : length] = np.where(counts, targets, IGNORED_TARGET)
    losses_BT = model.token_losses(
        torch.from_numpy(input_ids_BT).to(model.device), torch.from_numpy(target_ids_BT).to(model.device)
    )
    losses = losses_BT.double().cpu().numpy()
    for row, window in enumerate(rows):
        nats[window.document][window.first : window.end] = losses[
            row, window.first - window.start : window.end - window.start
        ]


def summarise(
    documents: Sequence[TokenDocument],
    nats: list[npt.NDArray[np.float64]],
    *,
    protocol: Protocol,
    seed: int,
    seconds: float = 0.0,
) -> Likelihood:
    """Perplexity and bits per byte with their intervals, from the nats of every token.

    Args:
        documents: the documents.
        nats: what `token_nats` gave.
        protocol: what it was given.
        seed: of the bootstrap.
        seconds: time it took, to be kept with it.
    """
    num_tokens = sum(int(document.counts_N.sum()) for document in documents)
    num_bytes = sum(document.num_bytes for document in documents)
    total = math.fsum(float(values.sum()) for values in nats)
    ends = [document for document in documents if document.counts_N[-1]]
    end_nats = math.fsum(float(nats[number][-1]) for number, each in enumerate(documents) if each.counts_N[-1])
    unit, sums_U3 = units(documents, nats, protocol=protocol)
    tokens_interval = ratio_interval(sums_U3[:, 0], sums_U3[:, 1], seed=seed)
    bytes_interval = ratio_interval(sums_U3[:, 0], sums_U3[:, 2], seed=seed)
    return Likelihood(
        perplexity=perplexity(total / num_tokens),
        text_perplexity=perplexity((total - end_nats) / max(num_tokens - len(ends), 1)),
        bits_per_byte=total / math.log(2) / max(num_bytes, 1),
        perplexity_interval=tokens_interval and (perplexity(tokens_interval[0]), perplexity(tokens_interval[1])),
        bits_per_byte_interval=bytes_interval and (bytes_interval[0] / math.log(2), bytes_interval[1] / math.log(2)),
        nats=total,
        num_tokens=num_tokens,
        num_bytes=num_bytes,
        num_documents=len(documents),
        unit=unit,
        num_units=len(sums_U3),
        seconds=seconds,
        token_nats=nats,
    )


def units(
    documents: Sequence[TokenDocument], nats: Sequence[npt.NDArray[np.float64]], *, protocol: Protocol
) -> tuple[str, npt.NDArray[np.float64]]:
    """What intervals are made over: the documents, or their windows where there are few documents.

    A document's bytes are shared out among its windows by their predicted tokens.

    Returns:
        "document" or "window", and for each unit [nats, predicted tokens, bytes].
    """
    if len(documents) >= FEWEST_UNITS:
        return "document", document_sums(documents, nats)
    rows = []
    for document, values in zip(documents, nats, strict=True):
        count = document.counts_N.sum()
        for window in windows(len(values), protocol):
            stretch = slice(window.first, window.end)
            predicted = document.counts_N[stretch].sum()
            if predicted:
                rows.append((values[stretch].sum(), predicted, document.num_bytes * predicted / count))
    return "window", np.array(rows, dtype=np.float64)


def document_sums(
    documents: Sequence[TokenDocument], nats: Sequence[npt.NDArray[np.float64]]
) -> npt.NDArray[np.float64]:
    """For each document [nats, predicted tokens, bytes]."""
    rows = [
        (values.sum(), document.counts_N.sum(), document.num_bytes)
        for document, values in zip(documents, nats, strict=True)
    ]
    return np.array(rows, dtype=np.float64)
