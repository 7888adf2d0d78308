"""How a model reads a prompt: where its heads look, and what it would say after each layer.

Everything is recomputed step by step from the model's own layers, in the open, because the fused kernels the model
runs on never show their attention weights. The logit lens (nostalgebraist 2020) applies the final norm and the head to
the output of every block, as if it were the last.

Shapes: L layers, H heads, T tokens of the prompt, S = T tokens looked at, K width of a head, D width, V vocabulary.
"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gpt2kit.console import text_table
from gpt2kit.errors import ModelError, UsageError
from gpt2kit.model.gpt2 import GPT2, Attention, AttentionMask, Block

if TYPE_CHECKING:
    from gpt2kit.tokens import Tokenizer

Floats = npt.NDArray[np.float32]

MOST_TOKENS = 256
_SHOWN_TARGETS = 3


@dataclass(frozen=True)
class Candidate:
    """A possible next token.

    Attributes:
        token: its text, spaces and line ends made visible.
        id: its id.
        probability: 0 to 1.
    """

    token: str
    id: int
    probability: float


@dataclass(frozen=True)
class LayerGuess:
    """What the model would say at the end of the prompt if a block were its last (logit lens).

    Attributes:
        layer: 0 for the embeddings, then the number of blocks passed, to n_layer for the model itself.
        candidates: the most probable next tokens.
        entropy_nats: how undecided it is: 0 for one certain token, ln V for all alike.
        rank_of_answer: the place, from 1, of the token that the whole model finds most probable.
    """

    layer: int
    candidates: tuple[Candidate, ...]
    entropy_nats: float
    rank_of_answer: int


@dataclass(frozen=True)
class ReadToken:
    """A token of the prompt and how well the model expected it.

    Attributes:
        token: its text, spaces and line ends made visible.
        id: its id.
        probability: what the model gave it after the tokens before; None for the first.
        rank: its place, from 1, among all tokens by probability; None for the first.
    """

    token: str
    id: int
    probability: float | None
    rank: int | None


@dataclass(frozen=True)
class HeadSummary:
    """Where a head looks, as shares of its attention, averaged over the tokens from the second on.

    Attributes:
        layer: its block, counted from 1.
        head: counted from 1.
        on_first: share on the first token (many heads rest there when they have nothing to do).
        on_previous: share on the token just before.
        on_itself: share on the token itself.
        distance_tokens: mean distance to what it looks at.
        last_row: attention of the last token to each token, which sums to 1.
    """

    layer: int
    head: int
    on_first: float
    on_previous: float
    on_itself: float
    distance_tokens: float
    last_row: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class PromptReading:
    """How a model reads a prompt.

    Attributes:
        prompt: the text.
        tokens: its tokens.
        next_tokens: the most probable tokens after it.
        layers: the logit lens at its last token, from the embeddings to the whole model.
        heads: where each head looks.
        attention_LHTS: attention weights; row t of each head sums to 1 and is 0 after t.
        lens_probability_LT: for each layer (0 is the embeddings) and token, the probability of the best next token.
        lens_tokens: for each layer and token, the text of that best next token.
    """

    prompt: str
    tokens: tuple[ReadToken, ...]
    next_tokens: tuple[Candidate, ...]
    layers: tuple[LayerGuess, ...]
    heads: tuple[HeadSummary, ...]
    attention_LHTS: Floats
    lens_probability_LT: Floats
    lens_tokens: tuple[tuple[str, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """The reading as JSON values; the whole attention patterns stay in `attention_LHTS`."""
        return {
            "prompt": self.prompt,
            "tokens": [asdict(token) for token in self.tokens],
            "next_tokens": [asdict(candidate) for candidate in self.next_tokens],
            "layers": [asdict(layer) for layer in self.layers],
            "heads": [asdict(head) for head in self.heads],
        }

    def to_text(self) -> str:
        """The reading as tables for the terminal."""
        return "\n\n".join((self._tokens_text(), self._next_text(), self._layers_text(), self._heads_text()))

    def _tokens_text(self) -> str:
        rows = [(number, token.token, token.id, *_expectation(token)) for number, token in enumerate(self.tokens, 1)]
        table = text_table(rows, ("", "token", "id", "expected with", "as guess no."), right_align=(0, 2, 3, 4))
        return f"The prompt, as the model reads it (· is a space, ↵ a line end)\n\n{table}"

    def _next_text(self) -> str:
        rows = [(candidate.token, candidate.id, _percent(candidate.probability)) for candidate in self.next_tokens]
        return "What comes next\n\n" + text_table(rows, ("token", "id", "probability"), right_align=(1, 2))

    def _layers_text(self) -> str:
        rows = [
            (
                "embeddings" if layer.layer == 0 else f"block {layer.layer}",
                "  ".join(f"{candidate.token} {_percent(candidate.probability)}" for candidate in layer.candidates[:3]),
                f"{layer.rank_of_answer:,}",
                f"{layer.entropy_nats:.2f}",
            )
            for layer in self.layers
        ]
        table = text_table(rows, ("after", "best guesses", "rank of the answer", "entropy, nats"), right_align=(2, 3))
        return f"Layer by layer: what it would say if it stopped there (logit lens)\n\n{table}"

    def _heads_text(self) -> str:
        rows = []
        for layer in range(1, len(self.layers)):
            heads = [head for head in self.heads if head.layer == layer]
            last_S = np.mean([head.last_row for head in heads], axis=0)
            best = sorted(range(len(last_S)), key=lambda place: -last_S[place])[:_SHOWN_TARGETS]
            rows.append(
                (
                    f"block {layer}",
                    *(_mean_and_best(heads, name) for name in ("on_first", "on_previous", "on_itself")),
                    f"{np.mean([head.distance_tokens for head in heads]):.1f}",
                    "  ".join(f"{self.tokens[place].token} {last_S[place]:.0%}" for place in best),
                )
            )
        headers = (
            "attention of",
            "to the first",
            "to the one before",
            "to itself",
            "mean distance",
            "the last token looks at",
        )
        table = text_table(rows, headers, right_align=(4,))
        return (
            "Where the heads look: the mean share of all heads, and the head with the greatest (counted from 1)\n\n"
            + table
        )


def _expectation(token: ReadToken) -> tuple[str, str]:
    if token.probability is None or token.rank is None:
        return "", ""
    return _percent(token.probability), f"{token.rank:,}"


def _percent(share: float) -> str:
    return f"{share:.2%}" if share >= 0.0001 else "< 0.01%"


def _mean_and_best(heads: list[HeadSummary], name: str) -> str:
    shares = [getattr(head, name) for head in heads]
    best = int(np.argmax(shares))
    return f"{np.mean(shares):.0%} (head {heads[best].head}: {shares[best]:.0%})"


@torch.no_grad()
def read_prompt(model: GPT2, tokenizer: "Tokenizer", *, prompt: str, top: int) -> PromptReading:
    """Read a prompt with a model in eval mode.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        prompt: the text; an empty one is read as a single end-of-text.
        top: how many candidates to list.

    Raises:
        UsageError: the prompt is longer than the context or `MOST_TOKENS`.
        ModelError: the tokenizer has more entries than the model.
    """
    ids = tokenizer.encode(prompt) or [tokenizer.end_of_text]
    most = min(MOST_TOKENS, model.config.n_positions)
    if len(ids) > most:
        raise UsageError(
            f"the prompt has {len(ids):,} tokens, and at most {most} can be inspected with this model: shorten it"
        )
    if max(ids) >= model.config.vocab_size:
        raise ModelError(
            f"the tokenizer gives id {max(ids)}, and the model's vocabulary has {model.config.vocab_size} entries: "
            "they do not belong together"
        )
    ids_T = torch.tensor(ids, device=model.device)
    streams, attentions = read_blocks(model, ids_T)
    log_p_NTV = (model.logits(model.transformer.ln_f(x_TD)).log_softmax(dim=-1) for x_TD in streams)
    best_p, best_tokens, last_V = [], [], []
    for log_p_TV in log_p_NTV:  # one layer's [T, V] at a time
        p_T, best_T = log_p_TV.max(dim=-1)
        best_p.append(p_T.exp())
        best_tokens.append(tuple(visible(tokenizer.decode([token])) for token in best_T.tolist()))
        last_V.append(log_p_TV[-1].clone())
    answer = int(last_V[-1].argmax())
    layers = tuple(
        LayerGuess(
            layer=layer,
            candidates=_best(log_p_V, tokenizer, top=top),
            entropy_nats=float(-(log_p_V.exp() * log_p_V).sum()),
            rank_of_answer=_rank(log_p_V, answer),
        )
        for layer, log_p_V in enumerate(last_V)
    )
    attention_LHTS = torch.stack(attentions).cpu().numpy()
    return PromptReading(
        prompt=prompt,
        tokens=_read_tokens(ids, log_p_TV, tokenizer),
        next_tokens=layers[-1].candidates,
        layers=layers,
        heads=_summarise_heads(attention_LHTS),
        attention_LHTS=attention_LHTS,
        lens_probability_LT=torch.stack(best_p).cpu().numpy(),
        lens_tokens=tuple(best_tokens),
    )


@torch.no_grad()
def read_blocks(model: GPT2, ids_T: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The residual stream before the first block and after each, and the attention weights of each block.

    Args:
        model: a model in eval mode.
        ids_T: token ids of one text.

    Returns:
        L + 1 tensors [T, D], and L tensors [H, T, S].
    """
    positions_T = torch.arange(ids_T.numel(), device=ids_T.device)
    x_BTD = (model.transformer.wte(ids_T) + model.transformer.wpe(positions_T))[None]
    streams, attentions = [x_BTD[0]], []
    for block in model.transformer.h:
        assert isinstance(block, Block)
        attentions.append(attention_weights(block.attn, block.ln_1(x_BTD))[0])
        x_BTD = block(x_BTD, AttentionMask(is_causal=True))
        streams.append(x_BTD[0])
    return streams, attentions


def attention_weights(attention: Attention, x_BTD: Tensor) -> Tensor:
    """softmax(q kᵀ · scale + causal mask), [B, T, D] -> [B, H, T, S] (Vaswani et al. 2017, equation 1)."""
    q_BHTK, k_BHSK, _ = attention.queries_keys_values(x_BTD)
    scores_BHTS = (q_BHTK @ k_BHSK.transpose(-1, -2)).float() * attention.scale
    later_TS = torch.ones(x_BTD.size(1), x_BTD.size(1), dtype=torch.bool, device=x_BTD.device).triu(diagonal=1)
    return scores_BHTS.masked_fill(later_TS, float("-inf")).softmax(dim=-1)


def _best(log_p_V: Tensor, tokenizer: "Tokenizer", *, top: int) -> tuple[Candidate, ...]:
    values, ids = log_p_V.topk(min(top, log_p_V.numel()))
    return tuple(
        Candidate(token=visible(tokenizer.decode([token])), id=token, probability=float(np.exp(value)))
        for value, token in zip(values.tolist(), ids.tolist(), strict=True)
    )


def _rank(log_p_V: Tensor, token: int) -> int:
    return int((log_p_V > log_p_V[token]).sum()) + 1


def _read_tokens(ids: list[int], log_p_TV: Tensor, tokenizer: "Tokenizer") -> tuple[ReadToken, ...]:
    tokens = []
    for place, token in enumerate(ids):
        before = None if place == 0 else log_p_TV[place - 1]
        tokens.append(
            ReadToken(
                token=visible(tokenizer.decode([token])),
                id=token,
                probability=None if before is None else float(before[token].exp()),
                rank=None if before is None else _rank(before, token),
            )
        )
    return tuple(tokens)


def _summarise_heads(attention_LHTS: Floats) -> tuple[HeadSummary, ...]:
    L, H, T, _ = attention_LHTS.shape
    # The first token has only itself to look at and says nothing about a head.
    queries = np.arange(1, T) if T > 1 else np.arange(T)
    distance_TS = np.abs(np.arange(T)[:, None] - np.arange(T)[None, :])
    summaries = []
    for layer in range(L):
        for head in range(H):
            weights_TS = attention_LHTS[layer, head]
            summaries.append(
                HeadSummary(
                    layer=layer + 1,
                    head=head + 1,
                    on_first=float(weights_TS[queries, 0].mean()),
                    on_previous=float(weights_TS[queries, np.maximum(queries - 1, 0)].mean()),
                    on_itself=float(weights_TS[queries, queries].mean()),
                    distance_tokens=float((weights_TS * distance_TS)[queries].sum(axis=1).mean()),
                    last_row=tuple(float(share) for share in weights_TS[-1]),
                )
            )
    return tuple(summaries)


def visible(token: str) -> str:
    """A token's text with its spaces and line ends visible."""
    shown = token.replace(" ", "·").replace("\n", "↵").replace("\t", "→")
    return "".join(character if character.isprintable() else "�" for character in shown)
