"""Contrastive search (Su et al. 2022, "A Contrastive Framework for Neural Text Generation", section 4).

Of the k most probable next tokens v, take the one with the greatest

    (1 - α) p(v) - α max_j cos(h_v, h_j)

where h_v is the hidden state the token would have, and h_j are those of the tokens before. It is done for one prompt at
a time, so that a text cannot depend on other prompts.

Shapes: K candidates, S tokens before, D model width, V vocabulary.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2kit.generation.decoding import Penalties, next_logits
from gpt2kit.generation.reader import num_columns
from gpt2kit.generation.writing import Writing
from gpt2kit.model import GPT2, KVCache


@torch.inference_mode()
def contrastive_search(
    model: GPT2, writing: Writing, *, top_k: int, alpha: float, penalties: Penalties, keep: float
) -> Iterator[tuple[Writing, str]]:
    """Write a text.

    Args:
        model: the network, in eval mode.
        writing: the text, not begun.
        top_k: number of candidates.
        alpha: weight of not resembling what stands before.
        penalties: what is done to the scores that candidates are taken from.
        keep: share of the context that stays when it is full; states of what has left it count no longer.

    Yields:
        The text with its new characters, for each token.
    """
    prompt_ids = writing.job.prompt_ids
    window = _Window(model, prompt_ids, num_candidates=top_k, max_new_tokens=writing.max_new_tokens, keep=keep)
    while writing.finish_reason is None:
        logits_1V = next_logits(model, window.last_1D)
        scores_1V = penalties.apply(logits_1V, [prompt_ids], [writing.ids])
        probability_K, ids_K = scores_1V.softmax(dim=1)[0].topk(min(top_k, scores_1V.size(1)))
        possible_K = probability_K > 0
        ids_K, probability_K = ids_K[possible_K], probability_K[possible_K]
        hidden_KD = window.try_out(ids_K)
        likeness_K = (F.normalize(hidden_KD.float(), dim=1) @ window.directions_SD.T).amax(dim=1)
        best = int(((1 - alpha) * probability_K - alpha * likeness_K).argmax())
        identifier = int(ids_K[best])
        logprob = float(logits_1V[0, identifier] - logits_1V.logsumexp(dim=1)[0])
        yield writing, writing.push(identifier, logprob)
        window.take(best, identifier, hidden_KD)


class _Window:
    """What the model has read: a cache with one row for each candidate, and the directions of the states so far."""

    def __init__(
        self, model: GPT2, ids: tuple[int, ...], *, num_candidates: int, max_new_tokens: int, keep: float
    ) -> None:
        n_positions = model.config.n_positions
        self._model = model
        self._num_candidates = num_candidates
        self._columns = min(num_columns(model.config, longest=len(ids), max_new_tokens=max_new_tokens), n_positions)
        self._num_kept = min(max(int(n_positions * keep), 1), max(n_positions - 1, 1))
        self._ids = list(ids)
        self._read()

    def _read(self) -> None:
        device = self._model.device
        self._cache = KVCache(
            self._model.config,
            batch_size=1,
            max_length=self._columns,
            device=device,
            dtype=self._model.transformer.wte.weight.dtype,
        )
        hidden_SD = self._model(torch.tensor([self._ids], device=device), cache=self._cache)[0]
        self.directions_SD = F.normalize(hidden_SD.float(), dim=1)
        self.last_1D: Tensor = hidden_SD[-1:]

    def try_out(self, ids_K: Tensor) -> Tensor:
        """The hidden state [K, D] of each candidate behind the tokens so far."""
        if len(self._ids) == self._model.config.n_positions:
            self._ids = self._ids[-self._num_kept :]
            self._read()
        # The rows of the cache are alike up to here: repeat one of them for each candidate.
        self._cache.select(torch.zeros_like(ids_K))
        hidden_K1D: Tensor = self._model(ids_K[:, None], cache=self._cache)
        return hidden_K1D[:, 0]

    def take(self, place: int, identifier: int, hidden_KD: Tensor) -> None:
        """Go on behind one of the candidates."""
        self._cache.select(torch.tensor([place], device=hidden_KD.device))
        self._ids.append(identifier)
        self.last_1D = hidden_KD[place : place + 1]
        self.directions_SD = torch.cat([self.directions_SD, F.normalize(self.last_1D.float(), dim=1)])
