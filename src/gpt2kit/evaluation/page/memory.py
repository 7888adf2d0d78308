"""What a model remembers, as tables from the JSON values of a report."""

from collections.abc import Mapping, Sequence
from typing import Any

from gpt2kit.evaluation.page.passages import printable
from gpt2kit.evaluation.page.tables import Table, figure_of, in_words, tables_of
from gpt2kit.evaluation.texts import Metric

_SHARE = Metric("", "", is_share=True)
_LONGEST = 8
_LONGEST_PASSAGE_CHARACTERS = 600


def longest_copies(values: Mapping[str, Any]) -> Table | None:
    """The longest passages of the model's texts that are copies, exact ones and near ones; None without any."""
    matches = (values["texts"] or {}).get("sets", {}).get("model", {}).get("matches", ())
    shortest = values["settings"]["copy_words"]
    exact = [
        (each, "word for word" if each["num_words"] >= shortest else "word for word, too short to count")
        for each in matches
    ]
    near: Mapping[str, Any] = values["memorisation"].get("near_copies") or {}
    changed = [(each, f"{each['edits']} changed") for each in near.get("model", {}).get("longest", ())]
    found = _outermost(exact + changed)[:_LONGEST]
    if not found:
        return None
    rows = [
        [
            f"{each['num_words']:,}",
            kind,
            printable(_short(each["text"])),
            printable(", ".join(part for part in (each["source"], each["place"]) if part)),
        ]
        for each, kind in found
    ]
    return Table(
        "Longest copied passages in its texts",
        ["words", "kind", "passage", "also in the training text"],
        rows,
        (1, 2, 3),
    )


def _outermost(passages: Sequence[tuple[Mapping[str, Any], str]]) -> list[tuple[Mapping[str, Any], str]]:
    """Passages with what kind they are, the longest first, without those that lie within another one."""
    kept: list[tuple[Mapping[str, Any], str]] = []
    # Of two that are the same passage, the one that comes first.
    for each, kind in sorted(passages, key=lambda pair: int(pair[0]["start"]) - int(pair[0]["end"])):
        if not any(
            other["text_index"] == each["text_index"]
            and other["start"] <= each["start"]
            and each["end"] <= other["end"]
            for other, _ in kept
        ):
            kept.append((each, kind))
    return sorted(kept, key=lambda pair: -int(pair[0]["num_words"]))


def memory_tables(values: Mapping[str, Any], names: Mapping[str, str]) -> list[Table]:
    """Extraction, membership and canaries, those that were measured, and whatever else there is."""
    memory = dict(values["memorisation"])
    memory.pop("near_copies", None)
    tables = []
    if extraction := memory.pop("extraction", None):
        tables.append(_extraction(extraction, names))
    if found := memory.pop("membership", None):
        tables.append(_membership(found))
    if exposure := memory.pop("exposure", None):
        tables.append(_exposure(exposure, names))
    return tables + tables_of({key: each for key, each in memory.items() if each is not None}, "", names=names)


def _extraction(found: Mapping[str, Any], names: Mapping[str, str]) -> Table:
    rows = []
    for role, pairs in found.items():
        for pair in pairs:
            for what, each in pair.items():
                if each is not None:
                    rows.append(
                        [
                            names[role],
                            in_words(what),
                            f"{each['prompt_tokens']:,}",
                            f"{each['num_sequences']:,}",
                            _SHARE.show(figure_of(each["extracted"])),
                            _SHARE.show(figure_of(each["tokens_matched"])),
                            Metric("", "", digits=1).show(figure_of(each["first_tokens"])),
                        ]
                    )
    headers = ["model", "text", "prompt tokens", "sequences", "given back", "tokens right", "tokens until one is wrong"]
    return Table("Extraction: does it go on word for word?", headers, rows, (1,))


def _membership(found: Mapping[str, Any]) -> Table:
    digits = Metric("", "")
    titles = {
        "train_nats_per_token": "training text, nats per token",
        "held_out_nats_per_token": "held-out text, nats per token",
        "gap": "gap",
        "base_gap": "gap in the other model's eyes",
        "gap_beyond_base": "gap beyond the other model's",
        "auc": "AUC by loss (0.5 is guessing)",
        "calibrated_auc": "AUC by loss below the other model's",
    }
    rows = []
    for key, title in titles.items():
        if found[key] is not None:
            figure = figure_of(found[key])
            rows.append([title, f"{found[key]:.3f}" if figure is None else digits.show(figure)])
    rows.append([f"training and held-out {found['unit']}s", f"{found['num_members']:,} and {found['num_others']:,}"])
    return Table("Membership: can one tell what it was trained on?", ["", "value"], rows)


def _exposure(found: Mapping[str, Any], names: Mapping[str, str]) -> Table:
    own = next(iter(found.values()))["canaries"]
    rows = []
    for place in sorted(range(len(own)), key=lambda place: -float(own[place]["bits"])):
        canary = own[place]
        seen = canary["repetitions"] if canary["num_in_training"] is None else canary["num_in_training"]
        if seen:
            bits = (f"{each['canaries'][place]['bits']:.1f}" for each in found.values())
            rows.append([canary["secret"], f"{seen:,}", *bits])
    means = (each["control_mean_bits"] for each in found.values())
    rows.append(["not planted, mean", "0", *("–" if mean is None else f"{mean:.1f}" for mean in means)])
    headers = ["canary", "times in the training text", *(f"{names[role]}: exposure in bits" for role in found)]
    return Table("Canaries: does it know planted numbers?", headers, rows)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_PASSAGE_CHARACTERS else line[:_LONGEST_PASSAGE_CHARACTERS].rstrip() + " …"
