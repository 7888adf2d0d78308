"""Whether a text hangs together: similarity of its parts in a space learned from the training text.

Neighbouring sentences, the prompt and what follows it, the beginning and the end.

Latent semantic analysis (Deerwester et al. 1990; for coherence: Foltz et al. 1998): TF-IDF of passages of the training
text, reduced by a singular value decomposition. A sentence is a point in that space, and the coherence of a text the
mean cosine of neighbouring sentences. It needs no network and no neural model, only scikit-learn (extra `metrics`).

A figure alone says nothing: its scale is set by the embedding. It is read between two marks made with the same one,
human held-out text above and human sentences in random order below. More than human is no praise: a text that repeats
itself scores highest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gpt2kit.errors import DataError
from gpt2kit.evaluation.heldout import training_texts
from gpt2kit.evaluation.statistics import Figure, mean_figure
from gpt2kit.evaluation.words import split_sentences
from gpt2kit.runtime import derive_seed, require_extra, uniform
from gpt2kit.tokens import PreparedData

_DIMENSIONS = 100
_SPACE_CHARACTERS = 4_000_000  # of training text; more makes the space hardly better
_FEWEST_PASSAGES = 20
_PASSAGE_SENTENCES = 4
_LARGEST_VOCABULARY = 20_000
_PARTS = 4  # of a text, from its beginning to its end
_FEWEST_PART_WORDS = 10
_LONGEST_TEXT_CHARACTERS = 200_000  # of one piece, so that a single long one does not fill the sample


@dataclass(frozen=True)
class Coherence:
    """The coherence of a set of texts.

    Attributes:
        figure: the mean over texts of the mean cosine of neighbouring sentences.
        num_pairs: pairs of neighbours.
        num_texts: texts with at least one pair.
    """

    figure: Figure
    num_pairs: int
    num_texts: int


class SentenceSpace:
    """A latent semantic space.

    Args:
        passages: the text it is learned from, in passages of a few sentences.
        seed: of the randomised decomposition.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        DataError: there is too little text.
    """

    def __init__(self, passages: Sequence[str], *, seed: int) -> None:
        text = require_extra("sklearn.feature_extraction.text", extra="metrics", purpose="measuring coherence")
        decomposition = require_extra("sklearn.decomposition", extra="metrics", purpose="measuring coherence")
        if len(passages) < _FEWEST_PASSAGES:
            raise DataError(
                f"coherence needs {_FEWEST_PASSAGES} passages of {_PASSAGE_SENTENCES} sentences of training text to "
                f"learn from, and there are {len(passages)}"
            )
        self._words = text.TfidfVectorizer(sublinear_tf=True, min_df=2, max_features=_LARGEST_VOCABULARY)
        try:
            weights = self._words.fit_transform(passages)
        except ValueError as error:  # no word stands in two passages
            raise DataError("coherence: no word occurs in two passages of the training text") from error
        dimensions = min(_DIMENSIONS, *(size - 1 for size in weights.shape))
        if dimensions < 1:
            raise DataError("coherence: the training text has too few different words to learn from")
        self._directions = decomposition.TruncatedSVD(dimensions, random_state=derive_seed(seed, "space") % 2**32)
        self._directions.fit(weights)
        self.dimensions: int = dimensions
        self.num_passages = len(passages)

    def embed(self, sentences: Sequence[str]) -> npt.NDArray[np.float64]:
        """Points of length 1, [sentences, dimensions]; zeros for a sentence without a known word."""
        points = np.asarray(self._directions.transform(self._words.transform(sentences)), dtype=np.float64)
        lengths = np.linalg.norm(points, axis=1, keepdims=True)
        # A sentence with only unseen words comes out as rounding noise at most.
        return np.where(lengths > 1e-9, points / np.maximum(lengths, 1e-9), 0.0)


def passages(texts: Iterable[str], *, max_characters: int) -> list[str]:
    """Texts cut into passages of four sentences, until there are enough characters."""
    found: list[str] = []
    left = max_characters
    for text in texts:
        sentences = split_sentences(text[: min(left, _LONGEST_TEXT_CHARACTERS)])
        found += [
            " ".join(sentences[start : start + _PASSAGE_SENTENCES])
            for start in range(0, len(sentences), _PASSAGE_SENTENCES)
        ]
        left -= len(text)
        if left <= 0:
            break
    return found


def coherence(texts: Sequence[Sequence[str]], space: SentenceSpace, *, seed: int) -> Coherence | None:
    """The coherence of texts that are given as sentences.

    Args:
        texts: the sentences of each text; a sentence without a word known to the space makes no pairs.
        space: where they are compared.
        seed: of the interval.

    Returns:
        The figures, or None when no text has two neighbouring sentences that can be compared.
    """
    pairs = [of_text for of_text in texts if len(of_text) > 1]
    if not pairs:
        return None
    # All at once: a call for each text would take longer than what it computes.
    points = space.embed([sentence for of_text in pairs for sentence in of_text])
    known = np.abs(points).sum(axis=1) > 0
    means, num_pairs, start = [], 0, 0
    for sentences in pairs:
        here = slice(start, start + len(sentences))
        start += len(sentences)
        inside, has = points[here], known[here]
        cosines = (inside[1:] * inside[:-1]).sum(axis=1)[has[1:] & has[:-1]]
        if len(cosines):
            means.append(float(cosines.mean()))
            num_pairs += len(cosines)
    figure = mean_figure(means, seed=seed)
    return None if figure is None else Coherence(figure, num_pairs, len(means))


def shuffled(texts: Sequence[Sequence[str]], *, seed: int) -> list[list[str]]:
    """The same sentences dealt out at random over all texts, each text as long as before."""
    sentences = [sentence for text in texts for sentence in text]
    order = np.random.Generator(np.random.PCG64(derive_seed(seed, "shuffled"))).permutation(len(sentences))
    dealt = iter(order.tolist())
    return [[sentences[next(dealt)] for _ in text] for text in texts]


def prompt_similarity(
    prompts: Sequence[str], texts: Sequence[str], space: SentenceSpace, *, seed: int
) -> Figure | None:
    """The mean cosine of a prompt and the whole of what follows it.

    Args:
        prompts: what each text goes on from; an empty one is left out.
        texts: without their prompts.
        space: where they are compared.
        seed: of the interval.

    Returns:
        The figure, or None when no prompt and its text have words known to the space.
    """
    pairs = [(prompt, text) for prompt, text in zip(prompts, texts, strict=True) if prompt.strip() and text.strip()]
    if not pairs:
        return None
    return _mean_cosine(space.embed([prompt for prompt, _ in pairs]), space.embed([text for _, text in pairs]), seed)


def topic_figures(texts: Sequence[str], space: SentenceSpace, *, seed: int) -> dict[str, Figure | None]:
    """How far texts leave their topic, from their four quarters by words.

    "first_to_last" is the mean cosine of the first and the last quarter. "topic_drift" is the mean of the cosine of the
    first and second quarter less that: what is lost on the way from the beginning to the end. It is 0 for a text that
    stays where it is, and for one that jumps in every sentence; so it is read together with the other.

    Args:
        texts: those of fewer than forty words are left out.
        space: where the quarters are compared.
        seed: of the intervals.

    Returns:
        Each figure, or None when no text is long enough.
    """
    quarters = [_quarters(text) for text in texts]
    parts = [part for of_text in quarters for part in of_text]
    if not parts:
        return {"first_to_last": None, "topic_drift": None}
    points_TPD = space.embed(parts).reshape(-1, _PARTS, space.dimensions)
    known_T = (np.abs(points_TPD[:, [0, 1, -1]]).sum(axis=2) > 0).all(axis=1)
    points_TPD = points_TPD[known_T]
    near_T = (points_TPD[:, 0] * points_TPD[:, 1]).sum(axis=1)
    far_T = (points_TPD[:, 0] * points_TPD[:, -1]).sum(axis=1)
    return {
        "first_to_last": mean_figure(far_T.tolist(), seed=seed),
        "topic_drift": mean_figure((near_T - far_T).tolist(), seed=seed),
    }


def _quarters(text: str) -> list[str]:
    """Four parts of as many words, or none of a short text."""
    words = text.split()
    if len(words) < _PARTS * _FEWEST_PART_WORDS:
        return []
    edges = [part * len(words) // _PARTS for part in range(_PARTS + 1)]
    return [" ".join(words[start:end]) for start, end in pairwise(edges)]


def _mean_cosine(one_ND: npt.NDArray[np.float64], other_ND: npt.NDArray[np.float64], seed: int) -> Figure | None:
    """The mean cosine of points of length 1, without those that have none."""
    known_N = (np.abs(one_ND).sum(axis=1) > 0) & (np.abs(other_ND).sum(axis=1) > 0)
    return mean_figure((one_ND * other_ND).sum(axis=1)[known_N].tolist(), seed=seed)


def space_of_training_text(data: PreparedData, *, seed: int) -> SentenceSpace:
    """The space of a drawn part of the training text.

    Args:
        data: what `gpt2kit prepare` made.
        seed: of the draw.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        DataError: there is too little training text.
    """
    size = int(data.manifest["splits"]["train"].get("num_bytes") or 1)
    share = _SPACE_CHARACTERS / size  # of pieces from all over it
    chosen = (
        each.text
        for number, each in enumerate(training_texts(data))
        if share >= 1 or uniform(seed, "space", number) < share
    )
    return SentenceSpace(passages(chosen, max_characters=_SPACE_CHARACTERS), seed=seed)
