"""The figures of a task, from what a model makes of its examples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from gpt2kit.evaluation.likelihood import FEWEST_UNITS, Protocol, TokenDocument, token_nats
from gpt2kit.evaluation.statistics import Figure, Interval, ratio_interval, share_figure
from gpt2kit.evaluation.tasks.examples import Page, Question
from gpt2kit.evaluation.tasks.scoring import encode_pair, score
from gpt2kit.generation import LanguageModel
from gpt2kit.model.loss import perplexity


@dataclass(frozen=True, slots=True)
class TaskResult:
    """A model's figures on a task.

    Attributes:
        kind: "lambada", "wikitext", "multiple_choice", "cloze", or "harness".
        task: the file, or lm-eval's name of the task.
        protocol: how it was measured, in a sentence.
        num_examples: questions or pages.
        figures: by name, those of lm-eval where it has them; of shares Wilson's interval, of others the bootstrap's.
        standard_errors: of shares and of what lm-eval gives one for.
        nats: the logarithms of the perplexities, by name. A perplexity may be too large for a number; these never are.
    """

    kind: str
    task: str
    protocol: str
    num_examples: int
    figures: dict[str, Figure]
    standard_errors: dict[str, float]
    nats: dict[str, Figure] = field(default_factory=dict)

    @property
    def remark(self) -> str | None:
        """What is too little to trust, if anything is."""
        if not self.nats or not 1 < self.num_examples < FEWEST_UNITS:
            return None
        examples = "pages" if self.kind == "wikitext" else "examples"
        return (
            f"{self.task}: only {self.num_examples} {examples}. The intervals of its perplexities say little about "
            "others and are likely too narrow"
        )

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values; a perplexity that is infinite has a note."""
        return {
            "kind": self.kind,
            "task": self.task,
            "protocol": self.protocol,
            "num_examples": self.num_examples,
            "figures": {name: self._figure(name) for name in self.figures},
            "standard_errors": self.standard_errors,
            "remark": self.remark,
        }

    def _figure(self, name: str) -> dict[str, Any]:
        figure, nats = self.figures[name], self.nats.get(name)
        values = figure.to_dict()
        if nats is not None:
            values |= {"nats": nats.value, "nats_interval": nats.to_dict()["interval"]}
        if nats is not None and not all(map(math.isfinite, (figure.value, *(figure.interval or ())))):
            values["note"] = "null is e to the power of the nats beside it, which is too large for a number"
        return values


def measure_cloze(
    model: LanguageModel, questions: Sequence[Question], path: Path, *, kind: str, batch_size: int, seed: int
) -> TaskResult:
    """Accuracy and perplexity of the one right continuation.

    `acc` is the share of answers that greedy search would write, token by token; `perplexity` is exp of the mean nats
    of an answer (not of a token).
    """
    pairs = [encode_pair(model.tokenizer, each.context, each.choices[0]) for each in questions]
    scored = score(model.model, pairs, batch_size=batch_size, what=f"measuring {kind}")
    nats = [each.nats for each in scored]
    mean = Figure(math.fsum(nats) / len(nats), ratio_interval(nats, np.ones(len(nats)), seed=seed))
    figures = {"acc": share_figure([each.is_greedy for each in scored])}
    what = "last word" if kind == "lambada" else "answer"
    protocol = f"{what} behind its context; right if greedy search writes it; perplexity of a whole {what}"
    return _result(kind, path, protocol, len(questions), figures, nats={"perplexity": mean})


def measure_multiple_choice(
    model: LanguageModel, questions: Sequence[Question], path: Path, *, batch_size: int
) -> TaskResult:
    """Accuracy of choosing the likeliest of several continuations.

    `acc` compares log-probabilities as they are, `acc_norm` divides them by the choice's characters and `acc_bytes` by
    its UTF-8 bytes, without the space before it; of equals, the first one counts. All three as in lm-eval.
    """
    pairs = [encode_pair(model.tokenizer, each.context, choice) for each in questions for choice in each.choices]
    scored = iter(score(model.model, pairs, batch_size=batch_size, what="measuring multiple choice"))
    right: dict[str, list[bool]] = {"acc": [], "acc_norm": [], "acc_bytes": []}
    for each in questions:
        nats = np.array([next(scored).nats for _ in each.choices])
        bare = [choice[1:] for choice in each.choices]
        right["acc"].append(int(np.argmin(nats)) == each.answer)
        right["acc_norm"].append(int(np.argmin(nats / [len(choice) for choice in bare])) == each.answer)
        right["acc_bytes"].append(int(np.argmin(nats / [len(choice.encode()) for choice in bare])) == each.answer)
    figures = {name: share_figure(flags) for name, flags in right.items()}
    protocol = "the likeliest choice; acc_norm per character, acc_bytes per UTF-8 byte of the choice"
    return _result("multiple_choice", path, protocol, len(questions), figures)


def measure_wikitext(
    model: LanguageModel, pages: Sequence[Page], path: Path, *, batch_size: int, seed: int
) -> TaskResult:
    """Perplexity of whole pages by their words and bytes as published, the text detokenised."""
    nats = rolling_nats(model, [page.text for page in pages], batch_size=batch_size)
    words, num_bytes = [page.num_words for page in pages], [page.num_bytes for page in pages]
    total = math.fsum(nats)
    of_words, of_bytes = ratio_interval(nats, words, seed=seed), ratio_interval(nats, num_bytes, seed=seed)
    bits = of_bytes and (of_bytes[0] / math.log(2), of_bytes[1] / math.log(2))
    figures = {"bits_per_byte": Figure(total / math.log(2) / sum(num_bytes), bits)}
    of_perplexities = {
        "word_perplexity": Figure(total / sum(words), of_words),
        "byte_perplexity": Figure(total / sum(num_bytes), of_bytes),
    }
    protocol = (
        f"{rolling_protocol(model).to_text().partition(';')[0]}; each page on its own, detokenised, divided by the "
        "words and bytes of the page as published"
    )
    return _result("wikitext", path, protocol, len(pages), figures, nats=of_perplexities)


def rolling_protocol(model: LanguageModel) -> Protocol:
    """lm-eval's: the model's whole context, windows that do not overlap, the last one reaching back."""
    return Protocol(model.config.n_positions, model.config.n_positions, full_last_window=True)


def rolling_nats(model: LanguageModel, texts: Sequence[str], *, batch_size: int) -> list[float]:
    """Nats of whole texts, by lm-eval's protocol: the first token from end-of-text, the text's end not predicted."""
    documents = [
        TokenDocument(np.array(ids, dtype=np.int64), np.ones(len(ids), dtype=np.bool_), len(text.encode()))
        for text in texts
        for ids in [model.tokenizer.encode(text, allow_special=True)]
    ]
    nats = token_nats(
        model.model,
        documents,
        protocol=rolling_protocol(model),
        end_of_text=model.tokenizer.end_of_text,
        batch_size=batch_size,
    )
    return [math.fsum(each) for each in nats]


def _result(
    kind: str,
    path: Path,
    protocol: str,
    num_examples: int,
    figures: Mapping[str, Figure | None],
    *,
    nats: Mapping[str, Figure] = MappingProxyType({}),
) -> TaskResult:
    """A result of some figures and of perplexities, which are given by their logarithms."""
    found = {name: figure for name, figure in figures.items() if figure is not None}
    found |= {name: Figure(perplexity(each.value), _exp(each.interval)) for name, each in nats.items()}
    # That of a mean of 0 and 1 with n - 1, as lm-eval gives it; of perplexities an interval says more.
    errors = {
        name: math.sqrt(figure.value * (1 - figure.value) / (num_examples - 1))
        for name, figure in found.items()
        if name.startswith("acc") and num_examples > 1
    }
    return TaskResult(kind, str(path), protocol, num_examples, found, errors, dict(nats))


def _exp(bounds: Interval | None) -> Interval | None:
    return None if bounds is None else (perplexity(bounds[0]), perplexity(bounds[1]))
