"""What a model remembers, for a reader: sentences with an alarm where there is cause, and tables.

The thresholds are ours; every sentence carries its figures, so that a reader can judge otherwise.
"""

import math
from collections.abc import Mapping, Sequence

from gpt2kit.console import text_table
from gpt2kit.evaluation.differences import FEWEST_COMPARED, is_above
from gpt2kit.evaluation.exposure import EXPECTED_BITS, Exposure
from gpt2kit.evaluation.extraction import Extraction
from gpt2kit.evaluation.likelihood import FEWEST_UNITS
from gpt2kit.evaluation.membership import Membership
from gpt2kit.evaluation.probes import Memory, NearFigures
from gpt2kit.evaluation.statistics import SIGNIFICANCE, Figure, Interval, fisher_p_value
from gpt2kit.evaluation.texts import Metric, TextReport

_RECITES_SHARE = 0.05  # of words, more than humans
_FEWEST_EXTRACTED = 0.01  # of sequences
_LARGE_GAP_NATS = 0.3  # per token, more than in the base model's eyes: training text is 1.35 times as probable
_TELLING_AUC = 0.7
_ORDERS = 40  # one in forty is the 2.5% that a 95% interval leaves out on a side
_STANDS_OUT_BITS = 8.0  # happens to one unplanted number in 256
_REMEDY = "Train for fewer epochs, on more text, or without passages that come again and again."
_REMEDY_OF_ONE_EPOCH = "Train on more text, or without passages that come again and again."
_NUMBERS_NAMED = 5
_SHARE = Metric("", "", is_share=True)


def remedy_for(epochs: float | None) -> str:
    """What to do about a model that recites.

    Args:
        epochs: how often it read its training text, None if that is not known; of one, fewer are no advice.
    """
    return _REMEDY_OF_ONE_EPOCH if epochs is not None and epochs <= 1 else _REMEDY


def memory_verdict(memory: Memory, *, near_words: int, epochs: float | None = None) -> list[str]:
    """What was found, in sentences; those that begin in capitals are alarms.

    Args:
        memory: what was found.
        near_words: words of the shortest near copy.
        epochs: as for `remedy_for`.
    """
    remedy = remedy_for(epochs)
    lines = []
    if "model" in memory.near:
        lines += _near(memory.near["model"], memory.near.get("human"), near_words=near_words, remedy=remedy)
    if pairs := memory.extraction.get("model"):
        other = next((of for role, of in memory.extraction.items() if role != "model"), None)
        lines.append(_extraction(pairs, other, remedy=remedy))
    if memory.membership is not None:
        lines.append(_membership(memory.membership, remedy=remedy))
    if "model" in memory.exposure:
        lines.append(_exposure(memory.exposure["model"], remedy=remedy))
    return lines


def memory_tables(
    memory: Memory, texts: TextReport | None, *, titles: Mapping[str, str], near_words: int, markdown: bool
) -> list[str]:
    """The figures as tables: copies by length, extraction, membership, canaries; those that were measured."""
    tables = [_copies_table(memory, texts, near_words=near_words, markdown=markdown)] if memory.near and texts else []
    if memory.extraction:
        tables.append(_extraction_table(memory.extraction, titles, markdown=markdown))
    if memory.membership is not None:
        tables.append(_membership_table(memory.membership, markdown=markdown))
    if memory.exposure:
        tables.append(_exposure_table(memory.exposure, titles, markdown=markdown))
    return tables


def memory_page(tables: Sequence[str]) -> str:
    """The tables as a part of the Markdown report; empty without any."""
    if not tables:
        return ""
    return "\n\n".join(["## Memorisation", *tables, "What each figure is: docs/evaluation.md."])


def _near(own: NearFigures, human: NearFigures | None, *, near_words: int, remedy: str) -> list[str]:
    if own.share is None:
        return []
    theirs = None if human is None else human.share
    figures = (
        f"{100 * own.share.value:.1f}% of its words stand in passages of {near_words} words or more that are the "
        "training text with no more than a fifth of the words changed"
    )
    if theirs is not None:
        figures += f" (human held-out text: {100 * theirs.value:.1f}%)"
    # A text without a word has no part in the share.
    is_enough = sum(each.num_words > 0 for each in own.copies) >= FEWEST_COMPARED
    if is_above(own.share, theirs, by=_RECITES_SHARE, is_enough=is_enough):
        return [f"RECITES NEARLY: {figures}. {remedy}"]
    if own.share.value > _RECITES_SHARE + (0.0 if theirs is None else theirs.value):
        return [f"Whether it nearly recites is unclear from so few texts: {figures}."]
    return [f"{'Few' if own.share.value else 'No'} near copies: {figures}."]


def _extraction(
    pairs: Sequence[tuple[Extraction, Extraction | None]],
    base: Sequence[tuple[Extraction, Extraction | None]] | None,
    *,
    remedy: str,
) -> str:
    """About the longest prompt."""
    own, control = pairs[-1]
    figures = (
        f"from {own.prompt_tokens} tokens of a training text it goes on word for word for {own.target_tokens} tokens "
        f"in {_share(own.extracted)} of {own.num_sequences} cases"
    )
    if control is not None:
        figures += f" (held-out text: {_share(control.extracted)})"
    if base is not None:
        figures += f"; the other model in {_share(base[-1][0].extracted)}"
    usual = 0.0 if control is None else control.extracted.value
    if own.extracted.value < max(_FEWEST_EXTRACTED, usual) or own.extracted.value == usual:
        return f"No sign that training text can be extracted: {figures}."
    if control is not None:
        p_value = fisher_p_value(own.num_extracted, own.num_sequences, control.num_extracted, control.num_sequences)
        figures += f"; p = {p_value:.2g}"
        if p_value > SIGNIFICANCE:
            return (
                f"Training text comes back, but so few cases do not tell whether more of it than held-out text: "
                f"{figures}. Ask for more with --extraction, or hold out more text."
            )
    return f"MEMORISED: {figures}. {remedy}"


def _membership(found: Membership, *, remedy: str) -> str:
    own_gap = found.gap if found.gap_beyond_base is None else found.gap_beyond_base
    attack = found.calibrated_auc or found.auc
    figures = (
        f"training text costs it {found.gap.value:.3f} nats per token less than held-out text{_interval(found.gap)}"
    )
    if found.base_gap is not None:
        figures += (
            f", the other model {found.base_gap.value:.3f} (beyond that: {own_gap.value:.3f}{_interval(own_gap)})"
        )
    figures += f"; by its loss one tells them apart with AUC {found.auc.value:.2f}"
    if found.calibrated_auc is not None:
        figures += f", beside the other model's with {found.calibrated_auc.value:.2f}"
    figures += " (0.5 is guessing)"
    is_clear = own_gap.interval is not None and own_gap.interval[0] > 0
    if attack.interval is None:  # they separate perfectly, which happens by chance once in so many orders of them
        is_sure = math.comb(found.num_members + found.num_others, found.num_members) >= _ORDERS
    else:
        is_sure = attack.interval[0] > 0.5
    told = attack.value > _TELLING_AUC and is_sure
    if (own_gap.value > _LARGE_GAP_NATS and is_clear) or told:
        if found.unit == "document":
            return f"KNOWS ITS TRAINING TEXT: {figures}. {remedy}"
        return (
            f"Unclear whether it knows its training text: {figures}. These are {found.num_members} and "
            f"{found.num_others} windows of fewer than {FEWEST_UNITS} documents on a side; windows of one document are "
            "alike, so chance is not ruled out. Hold out more documents."
        )
    return f"Little to tell training from held-out text by: {figures}."


def _exposure(found: Exposure, *, remedy: str) -> str:
    planted = found.planted
    if not planted:
        return "None of the canaries stands in its training text: nothing can be said about them."
    # The more canaries, the likelier one stands out by chance. What no reference number comes near stands out in any
    # case: more bits than that cannot be counted.
    most = max(math.log2(found.num_references + 1), _STANDS_OUT_BITS)
    limit = min(_STANDS_OUT_BITS + math.log2(len(planted)), most) - 1e-9
    known = [each for each in planted if each.sampled_bits >= limit]
    control = found.control_mean_bits
    usual = (
        f"numbers it never saw: {control:.1f} bits on average, {EXPECTED_BITS:.1f} expected"
        if control is not None
        else f"{EXPECTED_BITS:.1f} expected of numbers it never saw"
    )
    best = planted[0]
    times = best.num_in_training or best.repetitions
    figures = (
        f"the most exposed stands {times} times in its training text and has {best.bits:.1f} of {found.most_bits:.1f} "
        f"bits ({usual})"
    )
    absent = [each.secret for each in found.canaries if each.repetitions and not each.is_planted]
    planted_text = f"{len(planted) + len(absent)} planted numbers{_absent(absent)}"
    if known:
        return f"REMEMBERS {len(known)} of {planted_text}: {figures}. {remedy}"
    return f"None of {planted_text} stands out: {figures}."


def _absent(secrets: Sequence[str]) -> str:
    """Planted numbers that the training text does not hold, in brackets; nothing without any."""
    if not secrets:
        return ""
    named = ", ".join(secrets[:_NUMBERS_NAMED]) + (" and others" if len(secrets) > _NUMBERS_NAMED else "")
    return f" ({len(secrets)} not in its training text: {named})"


def _copies_table(memory: Memory, texts: TextReport, *, near_words: int, markdown: bool) -> str:
    sets = {name: each for name, each in texts.sets.items() if each.copied_by_length}
    lengths = next(iter(sets.values())).copied_by_length if sets else {}
    rows = [
        [
            f"word for word, runs of {length} or more",
            *(f"{100 * each.copied_by_length[length]:.1f}%" for each in sets.values()),
        ]
        for length in lengths
    ]
    near = [memory.near[name].share if name in memory.near else None for name in sets]
    rows.append([f"nearly, passages of {near_words} or more", *(_SHARE.show(share) for share in near)])
    headers = ["words copied from the training text", *(each.title for each in sets.values())]
    return text_table(rows, headers, markdown=markdown, right_align=range(1, len(headers)))


def _extraction_table(
    found: Mapping[str, Sequence[tuple[Extraction, Extraction | None]]], titles: Mapping[str, str], *, markdown: bool
) -> str:
    rows = []
    for role, pairs in found.items():
        for pair in pairs:
            for what, each in zip(("training", "held-out"), pair, strict=True):
                if each is not None:
                    rows.append(
                        [
                            titles[role],
                            what,
                            each.prompt_tokens,
                            each.num_sequences,
                            _SHARE.show(each.extracted),
                            _SHARE.show(each.tokens_matched),
                            Metric("", "", digits=1).show(each.first_tokens),
                        ]
                    )
    headers = [
        "extraction",
        "text",
        "prompt",
        "sequences",
        "given back",
        "tokens right",
        "tokens until the first wrong",
    ]
    return text_table(rows, headers, markdown=markdown, right_align=range(2, len(headers)))


def _membership_table(found: Membership, *, markdown: bool) -> str:
    digits = Metric("", "", digits=3)
    rows = [
        ["training text, nats per token", f"{found.train_nats_per_token:.3f}"],
        ["held-out text, nats per token", f"{found.held_out_nats_per_token:.3f}"],
        ["gap", digits.show(found.gap)],
        ["gap in the other model's eyes", digits.show(found.base_gap)],
        ["gap beyond the other model's", digits.show(found.gap_beyond_base)],
        ["AUC by loss (0.5 is guessing)", digits.show(found.auc)],
        ["AUC by loss below the other model's", digits.show(found.calibrated_auc)],
        [f"training and held-out {found.unit}s", f"{found.num_members} and {found.num_others}"],
    ]
    return text_table([row for row in rows if row[1] != "-"], ["membership", ""], markdown=markdown, right_align=[1])


def _exposure_table(found: Mapping[str, Exposure], titles: Mapping[str, str], *, markdown: bool) -> str:
    own = next(iter(found.values()))
    places = sorted(range(len(own.canaries)), key=lambda place: -own.canaries[place].bits)
    rows = []
    for place in places:
        canary = own.canaries[place]
        if canary.is_planted:
            seen = canary.repetitions if canary.num_in_training is None else canary.num_in_training
            rows.append([canary.secret, seen, *(f"{each.canaries[place].bits:.1f}" for each in found.values())])
    means = [each.control_mean_bits for each in found.values()]
    rows.append(["not planted, mean", 0, *("-" if bits is None else f"{bits:.1f}" for bits in means)])
    headers = ["canary", "times in the training text", *(f"{titles[role]}: exposure in bits" for role in found)]
    return text_table(rows, headers, markdown=markdown, right_align=range(1, len(headers)))


def _share(figure: Figure) -> str:
    return f"{100 * figure.value:.1f}%{_percent(figure.interval)}"


def _percent(interval: Interval | None) -> str:
    return "" if interval is None else f" (95% interval {100 * interval[0]:.1f} to {100 * interval[1]:.1f})"


def _interval(figure: Figure) -> str:
    interval = figure.interval
    return "" if interval is None else f" (95% interval {interval[0]:.3f} to {interval[1]:.3f})"
