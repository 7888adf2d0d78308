"""How rich the vocabulary of texts is: Zipf's exponent, words said once, and diversity that does not hang on length.

Words here are lower-case and without punctuation marks. Zipf's exponent and the share of words said once depend on how
much text there is: compare only sets cut alike. MTLD and MATTR are made not to.
"""

from collections.abc import Sequence

import numpy as np

from gpt2kit.evaluation.jackknife import Ints
from gpt2kit.evaluation.statistics import Floats

MTLD_THRESHOLD = 0.72
MATTR_WINDOW_WORDS = 50
_FEWEST_RANKS = 10
_NEWTON_STEPS = 30


def plain_words(words: Sequence[str]) -> list[str]:
    """The words among words and punctuation marks, in lower case."""
    return [word.lower() for word in words if word[0].isalnum()]


def zipf_exponents(counts_GV: Ints) -> Floats:
    """Zipf's exponent s of texts by maximum likelihood: a word's share is `rank^-s / Σ_k k^-s`, ranks 1 to V.

    With F words in all, the likelihood is greatest where the mean of ln rank is the model's: Σ f_r ln r / F =
    Σ k^-s ln k / Σ k^-s; Newton's method finds it, for the likelihood has one maximum. It weighs each occurrence
    alike, where the usual line through log rank and log frequency weighs the many rare words most (Clauset et al.
    2009, section 3.1, on power laws in general).

    Args:
        counts_GV: how often each word occurs, a row for each collection of texts; 0 for none.

    Returns:
        s of each row; nan for fewer than ten different words. 1 is Zipf's own law; steeper means fewer common words
        that carry more of the text.
    """
    ordered_GV = -np.sort(-counts_GV.astype(np.float64), axis=1)
    V_G = (ordered_GV > 0).sum(axis=1)
    logs_V = np.log(np.arange(1, counts_GV.shape[1] + 1, dtype=np.float64))
    inside_GV = ordered_GV > 0
    observed_G = (ordered_GV @ logs_V) / np.maximum(ordered_GV.sum(axis=1), 1)
    s_G = np.ones(len(counts_GV))
    for _ in range(_NEWTON_STEPS):
        weights_GV = np.where(inside_GV, np.exp(-s_G[:, None] * logs_V), 0.0)
        total_G = np.maximum(weights_GV.sum(axis=1), 1e-300)
        mean_G = weights_GV @ logs_V / total_G
        variance_G = np.maximum(weights_GV @ logs_V**2 / total_G - mean_G**2, 1e-12)
        step_G = np.clip((mean_G - observed_G) / variance_G, -0.5, 0.5)
        s_G = s_G + step_G
        if np.abs(step_G).max(initial=0.0) < 1e-10:
            break
    return np.where(V_G >= _FEWEST_RANKS, s_G, np.nan)


def zipf_slopes(counts_GV: Ints) -> Floats:
    """Zipf's exponent as often published: minus the slope of the least-squares line of log frequency on log rank.

    Args:
        counts_GV: as for `zipf_exponents`.

    Returns:
        Of each row (Holtzman et al. 2020, section 6.1, report it); nan for fewer than ten different words.
    """
    slopes = []
    for counts_V in counts_GV:
        found = -np.sort(-counts_V[counts_V > 0].astype(np.float64))
        if len(found) < _FEWEST_RANKS:
            slopes.append(np.nan)
            continue
        x = np.log(np.arange(1, len(found) + 1))
        x -= x.mean()
        slopes.append(-float(x @ np.log(found) / (x @ x)))
    return np.array(slopes)


def mtld_factors(words: Sequence[str]) -> float:
    """How often a text uses up its variety; words / factors is MTLD (McCarthy and Jarvis 2010).

    Read from its beginning, a factor is full when different words / words falls to 0.72 or below; then counting starts
    anew. What is left over counts as the part of a factor that it has come, (1 - ratio) / (1 - 0.72).

    Returns:
        The mean of reading forwards and backwards; 0 when no word comes twice.
    """
    return (_factors(words) + _factors(words[::-1])) / 2


def _factors(words: Sequence[str]) -> float:
    full, seen, since = 0, set[str](), 0
    for word in words:
        seen.add(word)
        since += 1
        if len(seen) <= MTLD_THRESHOLD * since:
            full, seen, since = full + 1, set(), 0
    if not since:
        return float(full)
    return full + (1 - len(seen) / since) / (1 - MTLD_THRESHOLD)


def mattr(words: Sequence[str], window: int = MATTR_WINDOW_WORDS) -> float | None:
    """The mean over all windows of 50 words of different words / words (Covington and McFall 2010).

    Returns:
        0 to 1; None for a text shorter than a window.
    """
    if len(words) < window:
        return None
    counts: dict[str, int] = {}
    total = 0
    for place, word in enumerate(words):
        counts[word] = counts.get(word, 0) + 1
        if place >= window:
            left = words[place - window]
            counts[left] -= 1
            if not counts[left]:
                del counts[left]
        if place >= window - 1:
            total += len(counts)
    return total / (window * (len(words) - window + 1))
