"""MAUVE: how far the texts of a model and human ones are told apart, in the hidden states of a model that read both.

The score is the reference library's (`mauve-text`, extra `mauve`): Pillutla et al. 2021, *MAUVE: Measuring the Gap
Between Neural Text and Human Text Using Divergence Frontiers*. Only the features are ours, so that any GPT-2 folder can
give them and no network is needed. The score depends on the model that reads, on how many texts there are and on how
long they are: it says nothing alone, and is compared within one report only.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpt2kit.evaluation.jackknife import t_quantile
from gpt2kit.evaluation.models import find_model
from gpt2kit.evaluation.statistics import CONFIDENCE, Figure, Floats
from gpt2kit.generation import LanguageModel, load
from gpt2kit.runtime import Precision, derive_seed, require_extra

FEWEST_MAUVE_TEXTS = 500
NUM_CLUSTERINGS = 5
NUM_HALVES = 20
_CLUSTERINGS_OF_A_HALF = 3  # one alone adds so much of its own that intervals hold the mean in 99% of cases
FEWEST_TEXTS = 20  # two clusters
_BATCH_TOKENS = 8192


def require_mauve() -> Any:
    """The reference library.

    Raises:
        MissingExtraError: it is not installed.
    """
    return require_extra("mauve", extra="mauve", purpose="MAUVE")


class MauveReader:
    """A model that reads texts for MAUVE; it is loaded when the first are there, and stays.

    Args:
        name: a folder, nano, or a name on the Hub.
        device: where it computes.
        precision: of its matrix products.

    Raises:
        MissingExtraError: the reference library is not installed.
        UsageError: there is no such model.
        ModelError: its files are damaged.
        NetworkError: it would have to be fetched and cannot be.
    """

    def __init__(self, name: str, *, device: str = "auto", precision: Precision = "auto") -> None:
        require_mauve()
        self.record = find_model(name, role="reader")
        self._device, self._precision = device, precision
        self._model: LanguageModel | None = None

    def __call__(self, texts: Sequence[str]) -> Floats:
        """See `hidden_states`."""
        if self._model is None:
            self._model = load(self.record.folder, device=self._device, precision=self._precision, engine="torch")
        return hidden_states(self._model, texts)


def hidden_states(model: LanguageModel, texts: Sequence[str]) -> Floats:
    """The last hidden state at each text's last token, as in the paper; longer texts are cut to the model's context.

    Args:
        model: the model that reads.
        texts: none of them empty.

    Returns:
        [texts, width].
    """
    import torch

    network = model.model.eval()
    encoded = [ids[: model.config.n_positions] for ids in model.tokenizer.encode_batch(list(texts))]
    found_ND = np.zeros((len(texts), model.config.n_embd))
    with torch.inference_mode():
        for numbers in _batches([len(ids) for ids in encoded]):
            lengths = [len(encoded[number]) for number in numbers]
            # Padding stands behind the text, where no token of it looks.
            ids_BT = torch.zeros((len(numbers), max(lengths)), dtype=torch.long)
            for row, number in enumerate(numbers):
                ids_BT[row, : lengths[row]] = torch.tensor(encoded[number])
            hidden_BTD = network(ids_BT.to(network.device))
            last_BD = hidden_BTD[torch.arange(len(numbers)), torch.tensor(lengths) - 1]
            found_ND[numbers] = last_BD.float().cpu().numpy()
    return found_ND


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Texts of like length together, as many as make 8,192 tokens with their padding."""
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[number] > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def mauve_score(texts_ND: Floats, human_ND: Floats, *, seed: int, num_clusterings: int = 1) -> float:
    """MAUVE of two sets of features, 0 to 1: the mean over clusterings that start from different seeds.

    As published: k-means with a tenth as many clusters as texts, the divergence curve of the two histograms with the
    scaling factor 5, and the area below it.

    Raises:
        MissingExtraError: the library is not installed.
    """
    compute = require_mauve().compute_mauve
    scores = []
    with _silent_stderr():
        for number in range(num_clusterings):
            found = compute(
                p_features=texts_ND,
                q_features=human_ND,
                mauve_scaling_factor=5,
                num_buckets="auto",
                seed=derive_seed(seed, "mauve", number) % 2**31,
                verbose=False,
            )
            scores.append(float(found.mauve))
    return float(np.mean(scores))


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Nothing on the error stream: faiss warns there, from C++, of each clustering of fewer than 39 points a cluster.

    MAUVE has ten texts a cluster by its definition, so that it would warn always.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def mauve_figures(features: Mapping[str, Floats], *, seed: int) -> dict[str, dict[str, Figure]]:
    """MAUVE of each set against the human one, and on halves, where human text can be measured against itself.

    Args:
        features: of each set, a row for each place; "human" is what the others are measured against.
        seed: of the clusterings and the halves.

    Returns:
        For each set but "human", "mauve": all its texts, the mean of five clusterings. For every set, "mauve_halves":
        the mean over 20 random halves of the places, a half of its texts against the human texts of the other half;
        for "human" that is the most a model can be expected to reach. The figures of a set are left out when there are
        fewer than twenty places.

        The interval of "mauve" is `value ± t · s`, s being the deviation among 20 half-samples of all places (drawn
        without replacement: a bootstrap would hold texts twice, which cluster together), each the mean of three
        clusterings. Half of n places drawn from these n vary about as much as n places drawn from all there are.
        "mauve_halves" have none: they all come from the same texts.

    Raises:
        MissingExtraError: the library is not installed.
    """
    human_ND = features["human"]
    found: dict[str, dict[str, Figure]] = {}
    for name, own_ND in features.items():
        N = min(len(own_ND), len(human_ND))
        if N < FEWEST_TEXTS:
            continue
        draw = np.random.Generator(np.random.PCG64(derive_seed(seed, "mauve halves")))
        orders = [draw.permutation(N) for _ in range(NUM_HALVES)]
        across = [
            mauve_score(own_ND[order[: N // 2]], human_ND[order[N // 2 : N // 2 * 2]], seed=seed) for order in orders
        ]
        found[name] = {"mauve_halves": Figure(float(np.mean(across)))}
        if name != "human":
            within = [
                mauve_score(own_ND[half], human_ND[half], seed=seed, num_clusterings=_CLUSTERINGS_OF_A_HALF)
                for half in (order[: N // 2] for order in orders)
            ]
            value = mauve_score(own_ND[:N], human_ND[:N], seed=seed, num_clusterings=NUM_CLUSTERINGS)
            found[name]["mauve"] = _around(value, within)
    return found


def _around(value: float, halves: Sequence[float]) -> Figure:
    half = t_quantile((1 + CONFIDENCE) / 2, degrees=len(halves) - 1) * float(np.std(halves, ddof=1))
    return Figure(value, (max(value - half, 0.0), min(value + half, 1.0))) if half > 0 else Figure(value)
