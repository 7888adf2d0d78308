"""Where a model predicts well and where it does not: its nats by context, place, source, and rarity of the token.

A figure of a part is that of the whole, `exp(nats / tokens)`, over the part's tokens; the parts of a table hold each
predicted token once, so their nats add up to the whole.

Legend of the shapes: N predicted tokens of all documents, one behind the other; K parts of a breakdown; U units; V
entries of the vocabulary.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpt2kit.console import text_table
from gpt2kit.evaluation.likelihood import FEWEST_UNITS, Protocol, TokenDocument, windows
from gpt2kit.evaluation.statistics import Figure, ratio_interval, with_interval
from gpt2kit.model.loss import perplexity
from gpt2kit.tokens import PreparedData, Tokenizer

Ids = npt.NDArray[np.int64]

# Shares of the training text: its commonest entries make half of it, and so on.
_RARITY_EDGES = (0.5, 0.9, 0.99, 0.999)
_RARITY_TITLES = (
    "commonest, half of the training text",
    "next 40%",
    "next 9%",
    "next 0.9%",
    "rarest 0.1%",
    "not in the training text",
)
_ROWS_SHOWN = 20
_BLOCK_TOKENS = 1 << 24


@dataclass(frozen=True, slots=True)
class Part:
    """A model's figures on a part of the predicted tokens.

    Attributes:
        title: which part, e.g. "16 to 31".
        num_tokens: its predicted tokens.
        num_units: documents (or windows) that hold any of them.
        nats: sum over them.
        perplexity: exp(nats / tokens); an interval where six units or more hold some of them.
    """

    title: str
    num_tokens: int
    num_units: int
    nats: float
    perplexity: Figure

    def to_dict(self) -> dict[str, Any]:
        """The part as JSON values."""
        return {
            "title": self.title,
            "num_tokens": self.num_tokens,
            "num_units": self.num_units,
            "nats": self.nats,
            "perplexity": self.perplexity.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class Breakdown:
    """What a model makes of held-out text, part by part.

    Attributes:
        documents: of each document its name, source, tokens, bytes, nats, perplexity and bits per byte.
        parts: the parts by "context" (tokens a prediction could look back on, end-of-text counted), "place" (in the
            document), "source", and "rarity" (where the training tokens are known).
    """

    documents: list[dict[str, Any]]
    parts: dict[str, list[Part]]

    def to_dict(self) -> dict[str, Any]:
        """The breakdown as JSON values."""
        parts = {name: [part.to_dict() for part in parts] for name, parts in self.parts.items()}
        return {"documents": self.documents, **parts}


def break_down(
    documents: Sequence[TokenDocument],
    nats: Sequence[npt.NDArray[np.float64]],
    *,
    protocol: Protocol,
    seed: int,
    training_counts_V: Ids | None = None,
) -> Breakdown:
    """Take the nats of every token apart.

    Args:
        documents: the documents.
        nats: what `token_nats` gave.
        protocol: what it was given.
        seed: of the intervals.
        training_counts_V: how often the training text holds each entry of the vocabulary, or None.
    """
    masks = [document.counts_N for document in documents]

    def predicted(values: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        return np.concatenate([each[mask] for each, mask in zip(values, masks, strict=True)])

    nats_N = predicted(nats)
    cuts = [windows(len(document.ids_N), protocol) for document in documents]
    starts = [np.repeat([cut.start for cut in each], [cut.end - cut.first for cut in each]) for each in cuts]
    places = [np.arange(len(document.ids_N)) for document in documents]
    numbers = [np.full(len(document.ids_N), number) for number, document in enumerate(documents)]
    if len(documents) >= FEWEST_UNITS:
        units_N = predicted(numbers)
    else:
        of_window = [np.repeat(np.arange(len(each)), [cut.end - cut.first for cut in each]) for each in cuts]
        firsts = np.cumsum([0, *(len(each) for each in cuts)])
        units_N = predicted([first + each for first, each in zip(firsts[:-1], of_window, strict=True)])

    def parts_of(parts_N: Ids, titles: Sequence[str]) -> list[Part]:
        return _parts(nats_N, parts_N, units_N, titles=titles, seed=seed)

    contexts_N = predicted([place - start + 1 for place, start in zip(places, starts, strict=True)])
    places_N = predicted(places) + 1
    sources = [document.source or document.name for document in documents]
    titles = list(dict.fromkeys(sources))
    number_of = {title: number for number, title in enumerate(titles)}
    found = {
        "context": parts_of(*_doubling(contexts_N)),
        "place": parts_of(*_doubling(places_N)),
        "source": parts_of(
            predicted([np.full(len(each), number_of[s]) for each, s in zip(nats, sources, strict=True)]), titles
        ),
    }
    if training_counts_V is not None:
        classes_V = rarity_classes(training_counts_V)
        found["rarity"] = parts_of(classes_V[predicted([document.ids_N for document in documents])], _RARITY_TITLES)
    return Breakdown([_of_document(document, values) for document, values in zip(documents, nats, strict=True)], found)


def training_counts(data: PreparedData | None, tokenizer: Tokenizer) -> Ids | None:
    """How often the training text holds each entry of a vocabulary; None where it was encoded with another one."""
    if data is None:
        return None
    store = data.store("train")
    if store.tokenizer_fingerprint != tokenizer.fingerprint:
        return None
    counts_V = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for start in range(0, store.num_tokens, _BLOCK_TOKENS):
        counts_V += np.bincount(store.ids_N[start : start + _BLOCK_TOKENS], minlength=len(counts_V))
    return counts_V


def rarity_classes(training_counts_V: Ids) -> Ids:
    """Sort the vocabulary by how common its entries are in the training text.

    Args:
        training_counts_V: how often each entry is there.

    Returns:
        Of each entry a class, 0 for the commonest, which make half of the training text, to 4 for the rarest, which
        make its last thousandth, and 5 for those that are not in it.
    """
    order_V = np.argsort(-training_counts_V, kind="stable")
    sorted_V = training_counts_V[order_V]
    before_V = np.cumsum(sorted_V) - sorted_V
    classes_V = np.empty(len(order_V), dtype=np.int64)
    # An entry is of the class that its first occurrence falls into.
    shares_V = before_V / max(int(sorted_V.sum()), 1)
    classes_V[order_V] = np.where(sorted_V > 0, np.searchsorted(_RARITY_EDGES, shares_V, side="right"), 5)
    return classes_V


def breakdown_page(
    breakdowns: Mapping[str, Breakdown], titles: Mapping[str, str], *, same_tokenizer: bool, over_documents: bool
) -> str:
    """The tables as a part of the Markdown report; a column a model where they see the same tokens.

    Args:
        breakdowns: by the role of the model.
        titles: what to call the models.
        same_tokenizer: whether all of them see the same tokens; if not, the tables are of "model" alone.
        over_documents: whether intervals are made over documents; if not, over windows.
    """
    # The model first, in whatever order they were measured.
    ordered = sorted(breakdowns.items(), key=lambda item: item[0] != "model")
    shown = dict(ordered if same_tokenizer else ordered[:1])
    first = next(iter(shown.values()))
    by_place = [] if _same_cut(first) else [("place", "place in the document, in tokens")]
    wanted = [("context", "tokens to look back on"), *by_place, ("source", "source"), ("rarity", "token")]
    tables = [
        _table([each.parts[name] for each in shown.values()], [heading, *(titles[role] for role in shown)])
        for name, heading in wanted
        if len(first.parts.get(name, ())) > 1
    ]
    made_over = "documents" if over_documents else "windows, likely too narrow"
    words = f"Perplexity of each part of the tokens; in brackets 95% intervals over {made_over}."
    return "\n\n".join(["## Where it predicts well", words, *tables])


def _same_cut(breakdown: Breakdown) -> bool:
    """Whether no document is longer than the context, so that context and place are one."""
    return breakdown.parts["context"] == breakdown.parts["place"]


def _table(columns: Sequence[Sequence[Part]], headers: Sequence[str]) -> str:
    """Parts as a Markdown table, a column a model; of very many, those with the most tokens."""
    order = list(range(len(columns[0])))
    if len(order) > _ROWS_SHOWN:
        order = sorted(order, key=lambda row: -columns[0][row].num_tokens)[:_ROWS_SHOWN]
    rows = [
        [_cell(columns[0][row].title), f"{columns[0][row].num_tokens:,}", *(_shown(parts[row]) for parts in columns)]
        for row in order
    ]
    table = text_table(
        rows, [headers[0], "tokens", *headers[1:]], markdown=True, right_align=range(1, len(headers) + 1)
    )
    left_out = len(columns[0]) - len(rows)
    return table + (f"\n\n{left_out:,} more are in the JSON." if left_out else "")


def _shown(part: Part) -> str:
    return with_interval(part.perplexity.value, part.perplexity.interval, digits=2)


def _cell(title: str) -> str:
    return title.replace("|", "\\|")


def _doubling(values_N: Ids) -> tuple[Ids, list[str]]:
    """Numbers from 1 on in parts that double: 1, 2 to 3, 4 to 7; with their titles."""
    parts_N = np.frexp(values_N.astype(np.float64))[1].astype(np.int64) - 1
    highest = int(values_N.max(initial=1))
    titles = ["1"]
    while 2 ** len(titles) <= highest:
        low = 2 ** len(titles)
        high = min(2 * low - 1, highest)
        titles.append(f"{low:,} to {high:,}" if high > low else f"{low:,}")
    return parts_N, titles


def _parts(
    nats_N: npt.NDArray[np.float64], parts_N: Ids, units_N: Ids, *, titles: Sequence[str], seed: int
) -> list[Part]:
    """The parts that hold any tokens."""
    # Tokens in the order of their parts, so that each part is a slice.
    order_N = np.argsort(parts_N, kind="stable")
    ends = np.cumsum(np.bincount(parts_N, minlength=len(titles)))
    found = []
    for title, start, end in zip(titles, [0, *ends[:-1]], ends, strict=True):
        if start == end:
            continue
        here = order_N[start:end]
        _, unit_of = np.unique(units_N[here], return_inverse=True)
        tokens_U = np.bincount(unit_of)
        nats_U = np.bincount(unit_of, weights=nats_N[here])
        bounds = ratio_interval(nats_U, tokens_U, seed=seed) if len(tokens_U) >= FEWEST_UNITS else None
        total = math.fsum(nats_N[here])
        figure = Figure(perplexity(total / len(here)), bounds and (perplexity(bounds[0]), perplexity(bounds[1])))
        found.append(Part(title, len(here), len(tokens_U), total, figure))
    return found


def _of_document(document: TokenDocument, nats_N: npt.NDArray[np.float64]) -> dict[str, Any]:
    total, num_tokens = math.fsum(nats_N), int(document.counts_N.sum())
    return {
        "name": document.name,
        "source": document.source,
        "num_tokens": num_tokens,
        "num_bytes": document.num_bytes,
        "nats": total,
        "perplexity": perplexity(total / max(num_tokens, 1)),
        "bits_per_byte": total / math.log(2) / max(document.num_bytes, 1),
    }
