"""Beam search, for one prompt at a time, so that its texts cannot depend on other prompts.

Ranks and endings are those of `transformers`: of the 2n best continuations of n beams, those among the first n that end
become candidates, ranked by log-probability / number of tokens ^ length penalty, and the first n that do not end go on.

Shapes: B beams, V vocabulary, C candidates (2 B).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2kit.generation.decoding import Penalties, next_logits
from gpt2kit.generation.reader import Reader
from gpt2kit.generation.writing import Ending, Job, Writing
from gpt2kit.model import GPT2
from gpt2kit.tokens import Tokenizer

_NONE = -1e9  # the score of a beam that is not there


@dataclass(frozen=True)
class Hypothesis:
    """A candidate text.

    Attributes:
        ids: its tokens.
        token_logprobs: their log-probabilities in the model's own distribution, in nats.
        score: what it is ranked by.
    """

    ids: list[int]
    token_logprobs: list[float]
    score: float


@dataclass(frozen=True, kw_only=True)
class BeamSearch:
    """How beams are ranked and when the search ends.

    Attributes:
        num_beams: beams that go on.
        length_penalty: exponent of the number of tokens that a log-probability is divided by.
        early_stopping: end as soon as `num_beams` candidates have ended.
    """

    num_beams: int
    length_penalty: float = 1.0
    early_stopping: bool = False

    def score(self, logprob: float, num_tokens: int) -> float:
        """What a text is ranked by."""
        return float(logprob / num_tokens**self.length_penalty)

    def can_improve(self, best_running: float, num_tokens: int, ended: list[Hypothesis]) -> bool:
        """Whether a beam that goes on could still end up among the candidates."""
        if len(ended) < self.num_beams:
            return True
        if self.early_stopping:
            return False
        return self.score(best_running, num_tokens) > min(hypothesis.score for hypothesis in ended)


@torch.inference_mode()
def beam_search(
    model: GPT2,
    jobs: Sequence[Job],
    search: BeamSearch,
    *,
    tokenizer: Tokenizer,
    ending: Ending,
    penalties: Penalties,
    keep: float,
) -> list[Writing]:
    """The best texts behind a prompt, best first.

    Args:
        model: the network, in eval mode.
        jobs: the texts to be written behind one prompt, at most `num_beams`.
        search: how to search.
        tokenizer: the model's.
        ending: when a text ends.
        penalties: what is done to the log-probabilities that beams are ranked by.
        keep: share of the context that stays when it is full.
    """
    job = jobs[0]
    reader = Reader(model, [job.prompt_ids] * search.num_beams, max_new_tokens=ending.max_new_tokens, keep=keep)
    running = [Hypothesis([], [], 0.0 if beam == 0 else _NONE) for beam in range(search.num_beams)]
    ended: list[Hypothesis] = []
    for num_tokens in range(1, ending.max_new_tokens + 1):
        candidates = _continuations(model, reader, job, running, penalties=penalties)
        going_on: list[tuple[int, Hypothesis]] = []
        for rank, (beam, candidate) in enumerate(candidates):
            ends = (
                candidate.ids[-1] == penalties.end_of_text
                or num_tokens == ending.max_new_tokens
                or ending.has_come(tokenizer.decode(candidate.ids))
            )
            if not ends:
                going_on.append((beam, candidate))
            elif rank < search.num_beams and candidate.score > _NONE / 2:
                score = search.score(candidate.score, num_tokens)
                ended.append(Hypothesis(candidate.ids, candidate.token_logprobs, score))
        ended = sorted(ended, key=lambda hypothesis: -hypothesis.score)[: search.num_beams]
        going_on = going_on[: search.num_beams]
        if not going_on or not search.can_improve(going_on[0][1].score, num_tokens, ended):
            break
        # Fewer may be left than there are beams, when everything else ended.
        beams, running = [beam for beam, _ in going_on], [hypothesis for _, hypothesis in going_on]
        reader.select(beams)
        reader.step([hypothesis.ids[-1] for hypothesis in running])
    # There are fewer than asked for only where fewer continuations are possible at all.
    return [_written(hypothesis, job, tokenizer, ending) for hypothesis, job in zip(ended, jobs, strict=False)]


def _continuations(
    model: GPT2, reader: Reader, job: Job, running: list[Hypothesis], *, penalties: Penalties
) -> list[tuple[int, Hypothesis]]:
    """The best continuations by one token, best first, each with the beam it continues; twice as many as beams."""
    logprobs_BV = next_logits(model, reader.hidden_BD).log_softmax(dim=1)
    ranked_BV = penalties.apply(
        logprobs_BV, [job.prompt_ids] * len(running), [hypothesis.ids for hypothesis in running]
    )
    totals_B1 = torch.tensor([[hypothesis.score] for hypothesis in running], device=model.device)
    V = ranked_BV.size(1)
    totals_BV: Tensor = totals_B1 + ranked_BV
    scores_C, places_C = totals_BV.flatten().topk(min(2 * len(running), totals_BV.numel()))
    own_C = logprobs_BV.flatten()[places_C]
    found = []
    for score, place, logprob in zip(scores_C.tolist(), places_C.tolist(), own_C.tolist(), strict=True):
        beam, identifier = divmod(place, V)
        if score > -float("inf"):
            before = running[beam]
            ids, token_logprobs = [*before.ids, identifier], [*before.token_logprobs, logprob]
            found.append((beam, Hypothesis(ids, token_logprobs, score)))
    return found


def _written(hypothesis: Hypothesis, job: Job, tokenizer: Tokenizer, ending: Ending) -> Writing:
    writing = Writing(job, tokenizer, ending)
    writing.score = hypothesis.score
    for identifier, logprob in zip(hypothesis.ids, hypothesis.token_logprobs, strict=True):
        writing.push(identifier, logprob)
    return writing
