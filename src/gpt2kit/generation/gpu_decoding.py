"""Greedy search and sampling on an NVIDIA GPU, in bf16 or fp16, without waiting for each token.

A token is chosen where its scores are, and read again there: reading and choosing are one CUDA graph, started anew for
each token, and what was chosen is looked at here while the GPU is busy with the next. So the end of a text is noticed a
token late, and that token thrown away. The choices are those of `decoding`, from scores rounded as there.

Shapes: B rows, D model width, V vocabulary.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gpt2kit.errors import ModelError
from gpt2kit.generation.decoding import SCORES_BROKEN
from gpt2kit.generation.reader import Reader
from gpt2kit.generation.rules import CutoffRules, PenaltyRules
from gpt2kit.generation.writing import Writing
from gpt2kit.model import GPT2, kernels
from gpt2kit.model.cache import Places
from gpt2kit.model.graph import OnTheWay, record
from gpt2kit.model.one_token import TokenReader, can_read
from gpt2kit.runtime import derive_seed

# The rows that go on are laid together when this share has ended: the graph has to be recorded again.
_SHARE_ENDED = 0.5
_FEWEST_STEPS = 4  # that repay recording
Told = npt.NDArray[np.float64]


def can_decode(
    model: GPT2, writings: Sequence[Writing], *, penalties: PenaltyRules, cutoffs: CutoffRules | None
) -> bool:
    """Whether these texts can be written so: in half precision, within the context, by rules that the kernel knows."""
    weight, longest = model.transformer.wte.weight, max(len(writing.job.prompt_ids) for writing in writings)
    return (
        kernels.available(weight)
        and weight.dtype != torch.float32
        and longest + max(writing.max_new_tokens for writing in writings) <= model.config.n_positions
        and not penalties.look_back
        and (cutoffs is None or cutoffs.typical_p >= 1)
    )


def decode(
    model: GPT2,
    writings: Sequence[Writing],
    *,
    penalties: PenaltyRules,
    cutoffs: CutoffRules | None,
) -> Iterator[tuple[Writing, str]]:
    """Write texts that `can_decode` allows.

    Args:
        model: the network, in eval mode.
        writings: the texts, not begun.
        penalties: what is done to the scores.
        cutoffs: how to draw; None for greedy search.

    Yields:
        A single text with its new characters, for each token; several texts each when it is finished.
    """
    rows = list(writings)
    max_new_tokens = max(writing.max_new_tokens for writing in rows)
    with torch.inference_mode():
        reader = Reader(model, [writing.job.prompt_ids for writing in rows], max_new_tokens=max_new_tokens)
        loop = _Loop(model, reader, rows, penalties=penalties, cutoffs=cutoffs)
    # Where a text may end at a string, or is shown as it grows, its characters are needed at once.
    at_once = len(rows) == 1 or rows[0].has_stops
    while True:
        for told_2B in loop.told():
            yield from _take(rows, told_2B, at_once=at_once)
            num_ended = sum(writing.finish_reason is not None for writing in rows)
            if num_ended >= _SHARE_ENDED * len(rows):
                loop.stop()
        going_on = [row for row, writing in enumerate(rows) if writing.finish_reason is None]
        if not going_on:
            return
        rows = [rows[row] for row in going_on]
        with torch.inference_mode():
            loop = loop.with_rows(going_on, rows)


def _take(rows: Sequence[Writing], told_2B: Told, *, at_once: bool) -> Iterator[tuple[Writing, str]]:
    """Give the texts that go on their tokens."""
    if not np.isfinite(told_2B[1]).all():
        raise ModelError(SCORES_BROKEN)
    ids, logprobs = told_2B[0].astype(np.int64).tolist(), told_2B[1].tolist()
    for writing, identifier, logprob in zip(rows, ids, logprobs, strict=True):
        if writing.finish_reason is not None:
            continue
        if at_once:
            yield writing, writing.push(identifier, logprob)
        elif writing.keep(identifier, logprob):
            yield writing, writing.push_kept()


class _Loop:
    """Rows of a cache whose tokens are chosen and read on the GPU, in step.

    Args:
        model: the network.
        reader: has read the prompts, and each row's tokens so far.
        rows: the texts of the cache's rows.
        penalties: what is done to the scores.
        cutoffs: how to draw; None for greedy search.
        hidden_BD: the rows' last hidden states; the reader's when not given.
        num_read: tokens that were chosen and read behind the prompts.
    """

    def __init__(
        self,
        model: GPT2,
        reader: Reader,
        rows: Sequence[Writing],
        *,
        penalties: PenaltyRules,
        cutoffs: CutoffRules | None,
        hidden_BD: Tensor | None = None,
        num_read: int = 0,
    ) -> None:
        self._model, self._reader, self._rows = model, reader, rows
        self._penalties, self._cutoffs = penalties, cutoffs
        self._num_steps = max(writing.max_new_tokens for writing in rows)
        self._num_read = num_read
        self._is_stopped = False
        device, cache = model.device, reader.cache
        self._hidden_BD = (reader.hidden_BD if hidden_BD is None else hidden_BD).clone()
        self._ids_B = torch.zeros(len(rows), dtype=torch.int64, device=device)
        self._keys_B = torch.zeros_like(self._ids_B)
        self._told_2B = torch.zeros(2, len(rows), dtype=torch.float64, device=device)
        lengths = [len(writing.job.prompt_ids) + num_read for writing in rows]
        self._positions_B = torch.tensor(lengths, device=device)
        self._first_B = torch.tensor([cache.length - length for length in lengths], device=device)
        self._column_1 = torch.tensor([cache.length], device=device)
        self._bias_V = torch.zeros(model.config.vocab_size, device=device)
        self._bias_V[list(penalties.forbidden_after(num_read))] = -torch.inf
        self._token_reader: TokenReader | None = None
        self._has_scores = False  # in the token reader, of the hidden states
        # A row that is left of several may stand behind columns that are not its own, which the kernel does not know.
        if lengths == [cache.length] and self._num_steps > _FEWEST_STEPS and can_read(model):
            self._token_reader = TokenReader(
                model, cache, ids_1=self._ids_B, column_1=self._column_1, bias_V=self._bias_V
            )
        # What is forbidden has to be the same for all tokens: the best one is looked for before the next step begins.
        until = penalties.min_new_tokens
        self._takes_best = cutoffs is None and not num_read < until < self._num_steps

    def told(self) -> Iterator[Told]:
        """What was chosen in each step, ids and log-probabilities [2, B], until all are done or it is stopped."""
        waiting: OnTheWay | None = None
        graph: torch.cuda.CUDAGraph | None = None
        first = self._num_read
        while self._num_read < self._num_steps and not self._is_stopped:
            with torch.inference_mode():
                self._tell_keys()
                if graph is not None:
                    graph.replay()
                elif self._num_read == self._num_steps - 1:
                    self._choose()
                else:
                    self._step()
                    if self._num_read == first + 1 and self._num_steps - first > _FEWEST_STEPS:
                        graph = record(self._step)
                told = OnTheWay(self._told_2B)
            self._num_read += 1
            self._reader.cache.length += 1
            if waiting is not None:
                yield waiting.read().numpy()
            waiting = told
        if waiting is not None:
            yield waiting.read().numpy()

    def stop(self) -> None:
        """Start no more steps; the one that the GPU is at is told yet."""
        self._is_stopped = True

    def with_rows(self, kept: Sequence[int], rows: Sequence[Writing]) -> "_Loop":
        """Some of the rows, which go on."""
        self._reader.cache.select(torch.tensor(kept, device=self._model.device))
        return _Loop(
            self._model,
            self._reader,
            rows,
            penalties=self._penalties,
            cutoffs=self._cutoffs,
            hidden_BD=self._hidden_BD[list(kept)],
            num_read=self._num_read,
        )

    def _tell_keys(self) -> None:
        """What this step's draws are a function of; and whether a text may end by now."""
        if self._cutoffs is not None:
            keys = [derive_seed(writing.job.key, self._num_read) for writing in self._rows]
            self._keys_B.copy_(torch.tensor(keys, dtype=torch.int64).pin_memory(), non_blocking=True)
        if self._num_read == self._penalties.min_new_tokens:
            self._bias_V[self._penalties.end_of_text] = 0.0

    def _step(self) -> None:
        """Choose, and read what was chosen."""
        self._choose()
        if self._token_reader is not None:
            self._token_reader.read()
            self._has_scores = True
            return
        cache = self._reader.cache
        with cache.places_on_gpu(Places(self._first_B, self._column_1)):
            hidden_B1D = self._model(self._ids_B[:, None], position_ids_BT=self._positions_B[:, None], cache=cache)
        self._hidden_BD.copy_(hidden_B1D[:, 0])
        self._positions_B += 1
        self._column_1 += 1

    def _choose(self) -> None:
        token_reader = self._token_reader
        if token_reader is not None and self._has_scores and self._takes_best:
            token_reader.choose_best(self._told_2B)
            return
        cutoffs = self._cutoffs
        if token_reader is not None and self._has_scores:
            logits_BV = token_reader.logits_1V
        else:
            logits_BV = self._model.lm_head(self._hidden_BD)
        kernels.choose_tokens(
            logits_BV,
            self._bias_V,
            self._keys_B,
            self._ids_B,
            self._told_2B,
            temperature=0.0 if cutoffs is None else cutoffs.temperature,
            top_k=0 if cutoffs is None else cutoffs.top_k,
            top_p=1.0 if cutoffs is None else cutoffs.top_p,
            min_p=0.0 if cutoffs is None else cutoffs.min_p,
        )
        if token_reader is not None:
            token_reader.chosen()
