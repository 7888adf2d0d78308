"""What a model remembers of its training text, measured on the model itself: extraction, membership, canaries.

These ask the model, not the texts it happened to write, and cost a run over training text. Each is done only when the
settings ask for it; near copies in its texts, which cost seconds, always.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from gpt2kit.errors import UsageError
from gpt2kit.evaluation.canaries import Canaries, count_in_training
from gpt2kit.evaluation.exposure import Exposure, measure_exposure
from gpt2kit.evaluation.extraction import Excerpt, Extraction, draw_excerpts, extract, shortened
from gpt2kit.evaluation.heldout import HeldOut, placed_training_texts, read_held_out, training_texts
from gpt2kit.evaluation.likelihood import Protocol, TokenDocument, token_nats, units
from gpt2kit.evaluation.membership import Membership, membership
from gpt2kit.evaluation.memorisation import Copies
from gpt2kit.evaluation.models import ModelRecord
from gpt2kit.evaluation.near_copies import NearCopies, near_copies_of
from gpt2kit.evaluation.settings import EvaluateSettings
from gpt2kit.evaluation.statistics import Figure, ratio_figure
from gpt2kit.evaluation.texts import TextReport, TextSet
from gpt2kit.generation import LanguageModel
from gpt2kit.runtime import uniform
from gpt2kit.tokens import PreparedData

_NEAR_COPIES_KEPT = 20

Floats = npt.NDArray[np.float64]
Figures = TypeVar("Figures")


@dataclass(frozen=True, slots=True)
class NearFigures:
    """Near copies in a set of texts.

    Attributes:
        share: share of words that stand in a near copy, exact ones among them.
        copies: by text.
    """

    share: Figure | None
    copies: list[NearCopies]

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values, with the longest near copies that are not exact."""
        changed = [each for of_text in self.copies for each in of_text.copies if not each.is_exact]
        changed.sort(key=lambda each: -each.num_words)
        return {
            "share": None if self.share is None else self.share.to_dict(),
            "num_near_copies": len(changed),
            "longest": [each.to_dict() for each in changed[:_NEAR_COPIES_KEPT]],
        }


@dataclass(frozen=True)
class Memory:
    """What was found of a model's memory.

    Attributes:
        near: near copies by set of texts; empty when they were not looked for.
        extraction: by model, for each prompt length the training and the held-out sequences (None where the held-out
            text has no room for one).
        membership: of the model, or None.
        exposure: by model; empty without canaries.
    """

    near: dict[str, NearFigures]
    extraction: dict[str, list[tuple[Extraction, Extraction | None]]]
    membership: Membership | None
    exposure: dict[str, Exposure]

    def spans(self, name: str, texts: TextReport | None) -> list[list[dict[str, Any]]] | None:
        """What to highlight in each text of a set, see `copied_spans`; None when copies were not looked for."""
        if texts is None or not texts.sets[name].copies:
            return None
        return copied_spans(texts.sets[name].copies, self.near[name].copies)

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values; null for what was not measured."""
        return {
            "near_copies": {name: each.to_dict() for name, each in self.near.items()} or None,
            "extraction": {
                role: [
                    {"training": one.to_dict(), "held_out": None if other is None else other.to_dict()}
                    for one, other in pairs
                ]
                for role, pairs in self.extraction.items()
            }
            or None,
            "membership": None if self.membership is None else self.membership.to_dict(),
            "exposure": {role: each.to_dict() for role, each in self.exposure.items()} or None,
        }


class Probes:
    """Asks models one after the other, as each is loaded.

    Args:
        settings: what is asked.
        records: the models that will be asked.
        data: the prepared data; None without any.
        canaries: sentences with numbers to ask for; documents that hold them are no part of the other measurements.
        protocol: how likelihood is measured.
        note: is told what is left out, and why.

    Raises:
        UsageError: something is asked that needs training text, and there is none; or more than a model's context.
    """

    def __init__(
        self,
        settings: EvaluateSettings,
        *,
        records: Sequence[ModelRecord],
        data: PreparedData | None,
        canaries: Canaries | None,
        protocol: Protocol,
        note: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._data = data
        self._protocol = protocol
        self._note = note
        self._canaries = canaries
        self._counts: list[int] | None = None
        for name, is_asked in (("extraction", settings.extraction > 0), ("membership", settings.membership)):
            if is_asked and data is None:
                raise UsageError(f"--{name} needs the training text: --data_dir {settings.data_dir} is not there")
        smallest = min(records, key=lambda record: record.context)
        longest = max(settings.extraction_prompt_tokens)
        if settings.extraction and longest + settings.extraction_tokens + 1 > smallest.context:
            raise UsageError(
                f"--extraction_prompt_tokens {longest} and --extraction_tokens {settings.extraction_tokens} are more "
                f"than the {smallest.context} tokens that {smallest.name} can look back on"
            )
        self._training: HeldOut | None = None
        self._tokenizers: dict[str, str] = {}
        self._units: dict[str, tuple[str, Floats, Floats]] = {}
        self._extraction: dict[str, list[tuple[Extraction, Extraction | None]]] = {}
        self._exposure: dict[str, Exposure] = {}

    def measure(
        self,
        role: str,
        loaded: LanguageModel,
        held_out: Sequence[TokenDocument],
        held_out_nats: Sequence[Floats],
    ) -> None:
        """Ask a model.

        Args:
            role: whose figures these are: "model", "base" or "other".
            loaded: the model.
            held_out: the held-out documents as it sees them.
            held_out_nats: the nats of their tokens.
        """
        settings = self._settings
        self._tokenizers[role] = loaded.tokenizer.fingerprint
        if self._data is not None and (settings.extraction or settings.membership):
            if self._training is None:
                self._training = read_held_out(
                    self._data,
                    "train",
                    max_tokens=settings.max_tokens,
                    seed=settings.seed,
                    canaries=self._canaries,
                )
            training = self._training.encode(loaded.tokenizer)
            if settings.membership:
                self._measure_units(role, loaded, training, held_out, held_out_nats)
            if settings.extraction:
                self._extract(role, loaded, training, held_out)
        if self._canaries is not None:
            if self._counts is None and self._data is not None:
                self._counts = count_in_training(self._canaries, training_texts(self._data))
            self._exposure[role] = measure_exposure(
                loaded.model,
                self._canaries,
                tokenizer=loaded.tokenizer,
                counts=self._counts,
                seed=settings.seed,
                batch_size=settings.batch_size,
            )

    def _measure_units(
        self,
        role: str,
        loaded: LanguageModel,
        training: Sequence[TokenDocument],
        held_out: Sequence[TokenDocument],
        held_out_nats: Sequence[Floats],
    ) -> None:
        """Measure about as much training text as there is held-out text."""
        chosen: list[TokenDocument] = []
        num_bytes = 0
        wanted = sum(document.num_bytes for document in held_out)
        for number in sorted(range(len(training)), key=lambda each: uniform(self._settings.seed, "members", each)):
            if num_bytes >= wanted and len(chosen) >= min(len(held_out), len(training)):
                break
            chosen.append(training[number])
            num_bytes += training[number].num_bytes
        nats = token_nats(
            loaded.model,
            chosen,
            protocol=self._protocol,
            end_of_text=loaded.tokenizer.end_of_text,
            batch_size=self._settings.batch_size,
            what="measuring training text",
        )
        # The same kind of unit on both sides: the one with fewer documents decides.
        sides = [units(chosen, nats, protocol=self._protocol), units(held_out, held_out_nats, protocol=self._protocol)]
        if sides[0][0] != sides[1][0]:
            sides = [
                ("window", _windows(documents, values, self._protocol))
                for documents, values in ((chosen, nats), (held_out, held_out_nats))
            ]
        self._units[role] = (sides[0][0], sides[0][1], sides[1][1])

    def _extract(
        self, role: str, loaded: LanguageModel, training: Sequence[TokenDocument], held_out: Sequence[TokenDocument]
    ) -> None:
        settings = self._settings
        lengths = sorted(set(settings.extraction_prompt_tokens))
        drawn = [self._excerpts(documents, loaded, longest=lengths[-1]) for documents in (training, held_out)]
        for what, excerpts in zip(("training", "held-out"), drawn, strict=True):
            if len(excerpts) < settings.extraction and role == "model":
                self._note(
                    f"extraction: the {what} text has room for {len(excerpts)} sequences of "
                    f"{lengths[-1]} + {settings.extraction_tokens} tokens; {settings.extraction} were asked for"
                )
        if not drawn[0]:
            return
        self._extraction[role] = []
        for length in lengths:
            pair = []
            for excerpts in drawn:
                asked = list(excerpts) if length == lengths[-1] else shortened(excerpts, prompt_tokens=length)
                pair.append(
                    extract(
                        loaded.model,
                        asked,
                        tokenizer=loaded.tokenizer,
                        prompt_tokens=length,
                        seed=settings.seed,
                        what=f"extracting from {role}",
                    )
                    if asked
                    else None
                )
            assert pair[0] is not None
            self._extraction[role].append((pair[0], pair[1]))

    def _excerpts(self, documents: Sequence[TokenDocument], loaded: LanguageModel, *, longest: int) -> list[Excerpt]:
        return draw_excerpts(
            documents,
            number=self._settings.extraction,
            prompt_tokens=longest,
            target_tokens=self._settings.extraction_tokens,
            end_of_text=loaded.tokenizer.end_of_text,
            seed=self._settings.seed,
            only_beginnings=self._settings.extraction_from == "beginning",
        )

    def results(self, sets: Mapping[str, TextSet]) -> Memory:
        """What was found, with the near copies in some sets of texts."""
        near: dict[str, NearFigures] = {}
        data = self._data
        if data is not None and sets:
            found = iter(
                near_copies_of(
                    [text for each in sets.values() for text in each.texts],
                    lambda: placed_training_texts(data),
                    shortest=self._settings.near_words,
                )
            )
            for name, each in sets.items():
                copies = [_numbered(next(found), number) for number in range(len(each.texts))]
                share = ratio_figure(
                    [one.num_copied for one in copies], [one.num_words for one in copies], seed=self._settings.seed
                )
                near[name] = NearFigures(share, copies)
        return Memory(near, _model_first(self._extraction), self._membership(), _model_first(self._exposure))

    def _membership(self) -> Membership | None:
        if "model" not in self._units:
            return None
        unit, members, others = self._units["model"]
        base = None
        for role, (base_unit, *of_base) in self._units.items():
            # Windows of another tokenizer are other stretches of text.
            if role != "model" and (base_unit, *map(len, of_base)) == (unit, len(members), len(others)):
                base = (of_base[0], of_base[1])
        same = len(set(self._tokenizers.values())) == 1
        return membership(members, others, base=base, same_tokenizer=same, unit=unit, seed=self._settings.seed)


def _model_first(found: dict[str, Figures]) -> dict[str, Figures]:
    """The model before the one it stands beside, in whatever order they were asked."""
    return dict(sorted(found.items(), key=lambda item: item[0] != "model"))


def copied_spans(copies: Sequence[Copies], near: Sequence[NearCopies]) -> list[list[dict[str, Any]]]:
    """What to highlight in each text, in order: the exact copies, and the near copies that are not exact.

    Args:
        copies: the exact copies in each text.
        near: the near copies in each; empty when they were not looked for.

    Returns:
        For each text its spans: `kind` ("exact" or "near"), `start` and `end` in characters (end excluded),
        `num_words`, `edits`, `source` and `place` in the training text, and `training_text` of near ones. Spans may
        overlap.
    """
    found: list[list[dict[str, Any]]] = []
    for number, of_text in enumerate(copies):
        of_this: list[dict[str, Any]] = [
            {
                "kind": "exact",
                "start": match.start,
                "end": match.end,
                "num_words": match.num_words,
                "edits": 0,
                "source": match.source,
                "place": match.place,
            }
            for match in of_text.matches
        ]
        for each in near[number].copies if near else ():
            if not each.is_exact:
                values = each.to_dict()
                names = ("start", "end", "num_words", "edits", "source", "place", "training_text")
                of_this.append({"kind": "near", **{name: values[name] for name in names}})
        found.append(sorted(of_this, key=lambda span: (span["start"], span["end"])))
    return found


def _numbered(copies: NearCopies, number: int) -> NearCopies:
    return replace(copies, copies=[replace(each, text_index=number) for each in copies.copies])


def _windows(documents: Sequence[TokenDocument], nats: Sequence[Floats], protocol: Protocol) -> Floats:
    """[nats, tokens, bytes] of each window of each document."""
    parts = [
        units([document], [values], protocol=protocol)[1] for document, values in zip(documents, nats, strict=True)
    ]
    return np.concatenate([part for part in parts if len(part)])
