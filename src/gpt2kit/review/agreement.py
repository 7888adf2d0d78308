"""Whether people agree: Krippendorff's alpha for answers without an order."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far people agree on the pairs that two or more of them judged.

    Attributes:
        num_pairs: pairs that two or more judged.
        share: of two different people's answers to the same pair, the share that are the same.
        alpha: 1 - observed disagreement / disagreement by chance: 1 full agreement, 0 as by chance; None when there is
            only one kind of answer, for then chance agrees too.
    """

    num_pairs: int
    share: float
    alpha: float | None


def agreement(answers: Mapping[int, Sequence[Hashable]]) -> Agreement | None:
    """Krippendorff's alpha of nominal data (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability").

        alpha = 1 - (n - 1) Σ_{c≠k} o_ck / Σ_{c≠k} n_c n_k

    where o_ck counts pairs of answers c and k to the same question by different people, each weighted by
    1 / (answers to it - 1), and n_c the answers c in questions with two answers or more.

    Args:
        answers: of each question, one of each person who answered.

    Returns:
        The agreement; None when no question has two answers.
    """
    several = [list(each) for each in answers.values() if len(each) > 1]
    if not several:
        return None
    totals: Counter[Hashable] = Counter()
    differing = agreeing = compared = 0.0
    for each in several:
        counts = Counter(each)
        totals.update(counts)
        m = len(each)
        same = sum(count * (count - 1) for count in counts.values())
        agreeing += same
        compared += m * (m - 1)
        differing += (m * (m - 1) - same) / (m - 1)
    n = sum(totals.values())
    by_chance = n * n - sum(count * count for count in totals.values())
    alpha = None if by_chance == 0 else 1 - (n - 1) * differing / by_chance
    return Agreement(len(several), agreeing / compared, alpha)
