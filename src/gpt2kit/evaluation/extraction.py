"""How much of its training text a model gives back when it is prompted with what stands before.

Carlini et al. 2023, *Quantifying Memorization Across Neural Language Models*: sequences are drawn from the training
text; the model reads the first P tokens of each and continues by greedy search; a sequence is extracted when the next S
tokens are those of the text, all of them. To compare prompt lengths, the same S tokens are asked for, and a shorter
prompt is the last part of the longer one.

The same is done with held-out text, which the model has not seen: some sequences go on in the only likely way (lists,
refrains, set phrases), and what is extracted there is no memory.

A small model that always saw a short text from its beginning may know it there and nowhere else: its positions count
from the beginning. For collections of short texts, ask from the beginnings of documents.

Legend of the shapes: N tokens of a document, S tokens asked for.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gpt2kit.console import Progress
from gpt2kit.evaluation.likelihood import TokenDocument
from gpt2kit.evaluation.statistics import Figure, mean_figure, share_figure
from gpt2kit.generation.decoding import next_logits
from gpt2kit.generation.reader import Reader
from gpt2kit.model import GPT2
from gpt2kit.runtime import derive_seed
from gpt2kit.tokens import Tokenizer

_TRIES = 20  # for each sequence wanted, until one is found that overlaps no other
_EXTRACTED_KEPT = 20


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A stretch of a document that a model is to continue.

    Attributes:
        prompt_ids: what the model reads; an end-of-text stands before a document's beginning, as in training.
        target_ids: what stands there.
        name: where it comes from.
    """

    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    name: str


@dataclass(frozen=True, slots=True)
class Extracted:
    """A sequence that a model gave back token by token.

    Attributes:
        prompt: what it read.
        text: what it wrote, as the text has it.
        source: where that stands.
    """

    prompt: str
    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Extraction:
    """What a model gave back of some sequences.

    Attributes:
        num_sequences: sequences asked for.
        prompt_tokens: tokens of each prompt.
        target_tokens: tokens asked for.
        extracted: share of sequences given back in full, with Wilson's interval.
        tokens_matched: share of tokens that are those of the text at their place.
        first_tokens: mean number of tokens until the first one that differs.
        examples: some of those given back in full.
    """

    num_sequences: int
    prompt_tokens: int
    target_tokens: int
    extracted: Figure
    tokens_matched: Figure
    first_tokens: Figure
    examples: list[Extracted] = field(repr=False)

    @property
    def num_extracted(self) -> int:
        """Sequences given back in full."""
        return round(self.extracted.value * self.num_sequences)

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {
            "num_sequences": self.num_sequences,
            "prompt_tokens": self.prompt_tokens,
            "target_tokens": self.target_tokens,
            "extracted": self.extracted.to_dict(),
            "tokens_matched": self.tokens_matched.to_dict(),
            "first_tokens": self.first_tokens.to_dict(),
            "examples": [asdict(each) for each in self.examples],
        }


def draw_excerpts(
    documents: Sequence[TokenDocument],
    *,
    number: int,
    prompt_tokens: int,
    target_tokens: int,
    end_of_text: int,
    seed: int,
    only_beginnings: bool = False,
) -> list[Excerpt]:
    """Draw sequences that do not overlap, all places alike.

    Args:
        documents: what they are drawn from.
        number: how many; fewer come of little text.
        prompt_tokens: tokens of a prompt.
        target_tokens: tokens behind it, of which every one is predicted in training; a document's end-of-text is none.
        end_of_text: its id.
        seed: of the draw.
        only_beginnings: take documents from their beginning, all documents alike.
    """
    length = prompt_tokens + target_tokens
    starts = [_possible_starts(each, prompt_tokens=prompt_tokens, target_tokens=target_tokens) for each in documents]
    if only_beginnings:
        starts = [each[each == 0] for each in starts]
    ends = np.cumsum([len(each) for each in starts])
    total = int(ends[-1]) if len(ends) else 0
    if not total:
        return []
    taken: dict[int, list[int]] = {}
    found: list[Excerpt] = []
    generator = np.random.Generator(np.random.PCG64(derive_seed(seed, "extraction")))
    for _ in range(_TRIES * number):
        if len(found) == number:
            break
        place = int(generator.integers(total))
        index = int(np.searchsorted(ends, place, side="right"))
        start = int(starts[index][place - int(ends[index])])  # counted from the end of its document's starts
        if any(abs(start - other) < length for other in taken.get(index, ())):
            continue
        taken.setdefault(index, []).append(start)
        ids = documents[index].ids_N[start : start + length].tolist()
        before = [end_of_text] if start == 0 else []
        found.append(Excerpt((*before, *ids[:prompt_tokens]), tuple(ids[prompt_tokens:]), documents[index].name))
    return found


def shortened(excerpts: Sequence[Excerpt], *, prompt_tokens: int) -> list[Excerpt]:
    """The same sequences with the last tokens of their prompts only."""
    return [Excerpt(each.prompt_ids[-prompt_tokens:], each.target_ids, each.name) for each in excerpts]


@torch.inference_mode()
def extract(
    model: GPT2,
    excerpts: Sequence[Excerpt],
    *,
    tokenizer: Tokenizer,
    prompt_tokens: int,
    seed: int,
    batch_size: int = 32,
    what: str = "extracting",
) -> Extraction:
    """Let a model continue the prompts by greedy search, and compare with the text.

    Args:
        model: in eval mode; its context has room for prompt, target and an end-of-text.
        excerpts: at least one, with targets of one length.
        tokenizer: the model's.
        prompt_tokens: tokens of each prompt.
        seed: of the intervals.
        batch_size: sequences at a time.
        what: what the progress bar says.
    """
    S = len(excerpts[0].target_ids)
    written: list[list[int]] = []
    with Progress(what, total=len(excerpts), unit=" sequences") as progress:
        for start in range(0, len(excerpts), batch_size):
            batch = excerpts[start : start + batch_size]
            reader = Reader(model, [each.prompt_ids for each in batch], max_new_tokens=S)
            texts: list[list[int]] = [[] for _ in batch]
            for _ in range(S):
                ids = next_logits(model, reader.hidden_BD).argmax(dim=1).tolist()
                for text, identifier in zip(texts, ids, strict=True):
                    text.append(identifier)
                if len(texts[0]) < S:
                    reader.step(ids)
            written += texts
            progress.advance(len(batch))
    agrees = [np.array(text) == np.array(each.target_ids) for text, each in zip(written, excerpts, strict=True)]
    exact = [bool(flags.all()) for flags in agrees]
    extracted = share_figure(exact)
    matched = mean_figure([float(flags.mean()) for flags in agrees], seed=seed)
    first = mean_figure([float(np.cumprod(flags).sum()) for flags in agrees], seed=seed)
    assert extracted is not None
    assert matched is not None
    assert first is not None
    examples = [
        Extracted(tokenizer.decode(each.prompt_ids), tokenizer.decode(each.target_ids), each.name)
        for each, is_exact in zip(excerpts, exact, strict=True)
        if is_exact
    ]
    return Extraction(len(excerpts), prompt_tokens, S, extracted, matched, first, examples[:_EXTRACTED_KEPT])


def _possible_starts(document: TokenDocument, *, prompt_tokens: int, target_tokens: int) -> npt.NDArray[np.int64]:
    """Where a sequence may begin in a document: all of its target is predicted, and none of it is the end-of-text."""
    is_target_N = document.counts_N[:-1]
    sums_N1 = np.concatenate([[0], np.cumsum(is_target_N)])
    last = len(is_target_N) - prompt_tokens - target_tokens
    if last < 0:
        return np.zeros(0, dtype=np.int64)
    firsts = np.arange(last + 1) + prompt_tokens
    return np.flatnonzero(sums_N1[firsts + target_tokens] - sums_N1[firsts] == target_tokens)
