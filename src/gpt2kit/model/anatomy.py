"""The anatomy of a model: what it consists of, what it costs, and how it reads a prompt.

Symbols: V vocabulary, C context, D width, L layers, F width of an MLP, P parameters, R rank of an adapter.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpt2kit.console import text_table
from gpt2kit.hub import resolve_base
from gpt2kit.model.adapters import (
    ADAPTER_WEIGHTS,
    base_folder,
    is_adapter,
    read_adapter_settings,
    read_lora_weights,
    tokenizer_folder,
)
from gpt2kit.model.folder import load_model
from gpt2kit.model.gpt2 import GPT2, GPT2Config
from gpt2kit.model.reading import PromptReading, read_prompt

# A weight, its gradient and AdamW's two moments, in fp32.
_TRAINED_BYTES = 16
_TYPICAL_LORA_RANK = 8


@dataclass(frozen=True)
class Part:
    """One kind of layer and the parameters it holds, over all layers.

    Attributes:
        name: e.g. "attention".
        formula: the number of parameters in the symbols of this module.
        parameters: the number of parameters.
    """

    name: str
    formula: str
    parameters: int


@dataclass(frozen=True)
class AdapterSummary:
    """The adapter of an inspected adapter folder.

    Attributes:
        base: its base model, as the adapter names it.
        rank: R.
        alpha: the update is scaled by alpha / rank.
        parameters: the adapter's own parameters, which are the ones that were trained.
    """

    base: str
    rank: int
    alpha: float
    parameters: int


@dataclass(frozen=True)
class Costs:
    """What a model needs, from the formulas of `measure_costs`. Bytes, and floating-point operations (FLOPs).

    Attributes:
        weights_fp32_bytes: the weights, 4P.
        weights_bf16_bytes: the weights in two bytes each, 2P.
        full_training_bytes: weights, gradients and AdamW's two moments in fp32, 16P; activations come on top.
        lora_training_bytes: the same for LoRA of rank 8 on every layer of every block, 4P + 16 P_lora.
        lora_parameters: P_lora = L·R·(8D + 2F).
        cache_bytes_per_token: keys and values of one token in fp32, 2·L·D·4; half of it in bf16.
        cache_bytes_full_context: the same for C tokens.
        flops_per_token: forward pass of one token, without attention to others: 2·(L·(4D² + 2DF) + V·D).
        attention_flops_per_seen_token: what each token in view adds to that: 4·L·D.
        flops_per_token_full_context: the first plus C times the second, for the last token of a full context.
        training_flops_per_token: forward and backward, 3 times forward, with C/2 tokens in view on average.
    """

    weights_fp32_bytes: int
    weights_bf16_bytes: int
    full_training_bytes: int
    lora_training_bytes: int
    lora_parameters: int
    cache_bytes_per_token: int
    cache_bytes_full_context: int
    flops_per_token: int
    attention_flops_per_seen_token: int
    flops_per_token_full_context: int
    training_flops_per_token: int


@dataclass(frozen=True)
class ModelReport:
    """What `inspect` found.

    Attributes:
        source: the model, as it was named.
        config: its shape.
        parts: its parameters by kind of layer.
        costs: memory and FLOPs.
        adapter: its adapter, if the folder is an adapter's.
        prompt: how it reads a prompt, if one was given.
    """

    source: str
    config: GPT2Config
    parts: tuple[Part, ...]
    costs: Costs
    adapter: AdapterSummary | None
    prompt: PromptReading | None

    @property
    def parameters(self) -> int:
        """P, the number of parameters; a tied head counts once."""
        return sum(part.parameters for part in self.parts)

    def to_text(self) -> str:
        """The report as tables for the terminal."""
        sections = [self.headline(), self._parts_text(), self._costs_text()]
        if self.prompt is not None:
            sections.append(self.prompt.to_text())
        return "\n\n".join(sections)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "source": self.source,
            "config": asdict(self.config),
            "parameters": self.parameters,
            "parts": [asdict(part) for part in self.parts],
            "costs": asdict(self.costs),
            "adapter": None if self.adapter is None else asdict(self.adapter),
            "prompt": None if self.prompt is None else self.prompt.to_dict(),
        }

    def draw(self, path: Path) -> None:
        """Draw the report into a PNG, SVG or PDF file: the parameters by part, and the reading of the prompt.

        Raises:
            UsageError: another kind of file.
            MissingExtraError: matplotlib (the extra `plots`) is not installed.
            DiskError: the file cannot be written.
        """
        from gpt2kit.model.drawing import draw_report

        draw_report(self, Path(path))

    def headline(self) -> str:
        """The model in one line."""
        config = self.config
        line = (
            f"{self.source}: GPT-2 of {short_number(self.parameters)} parameters: {config.n_layer} layers of "
            f"{config.n_head} heads, width {config.n_embd:,}, context {config.n_positions:,} tokens, "
            f"vocabulary {config.vocab_size:,}"
        )
        if self.adapter is not None:
            line += (
                f"\nan adapter on {self.adapter.base}: LoRA of rank {self.adapter.rank}, alpha {self.adapter.alpha:g}, "
                f"{self.adapter.parameters:,} trained parameters "
                f"({self.adapter.parameters / self.parameters:.2%} of the base model's, merged below)"
            )
        return line

    def _parts_text(self) -> str:
        rows = [
            (part.name, part.formula, f"{part.parameters:,}", f"{part.parameters / self.parameters:.1%}")
            for part in self.parts
        ]
        rows.append(("all together (P)", "", f"{self.parameters:,}", "100.0%"))
        config = self.config
        symbols = (
            f"V vocabulary {config.vocab_size:,}, C context {config.n_positions:,}, D width {config.n_embd:,}, "
            f"L layers {config.n_layer}, F width of an MLP {config.inner_width:,}"
        )
        table = text_table(rows, ("part", "formula", "parameters", "share"), right_align=(2, 3))
        return f"{table}\n{symbols}"

    def _costs_text(self) -> str:
        costs, context = self.costs, f"{self.config.n_positions:,}"
        rows = [
            ("weights in fp32", "4P", _bytes(costs.weights_fp32_bytes)),
            ("weights in bf16", "2P", _bytes(costs.weights_bf16_bytes)),
            ("training all, before activations", "16P", _bytes(costs.full_training_bytes)),
            (
                f"training LoRA of rank {_TYPICAL_LORA_RANK}, likewise",
                "4P + 16·L·R·(8D + 2F)",
                _bytes(costs.lora_training_bytes),
            ),
            ("keys and values of a token, fp32", "2·L·D·4", _bytes(costs.cache_bytes_per_token)),
            (f"the same for {context} tokens", "C·2·L·D·4", _bytes(costs.cache_bytes_full_context)),
            ("FLOPs of a token", "2·(L·(4D² + 2DF) + V·D)", short_number(costs.flops_per_token)),
            ("for each token in view, more", "4·L·D", short_number(costs.attention_flops_per_seen_token)),
            (f"FLOPs of token no. {context}", "sum of both", short_number(costs.flops_per_token_full_context)),
            ("FLOPs of a token in training", "3·(forward, C/2 in view)", short_number(costs.training_flops_per_token)),
        ]
        return text_table(rows, ("what it needs", "formula", "amount"), right_align=(2,))


def inspect(model: str | Path, *, prompt: str | None = None, top: int = 5, allow_pickle: bool = False) -> ModelReport:
    """Explain a model: its parts and their parameters, memory and FLOPs, and how it reads a prompt.

    Args:
        model: a model's folder, an adapter's folder, or a name on the Hub.
        prompt: a text to read; an empty one is read as a single end-of-text.
        top: how many candidates for the next token to list.
        allow_pickle: read `pytorch_model.bin` when there are no safetensors.

    Raises:
        UsageError: there is no such model, or the prompt is too long for it or for a picture.
        ModelError: its files are damaged, or it has no tokenizer to read the prompt with.

    Example:
        >>> report = inspect("models/gpt2_fine_tuned", prompt="Once upon a time")
        >>> print(report.to_text())
        >>> report.draw("anatomy.png")
    """
    folder = resolve_base(model)
    network = load_model(folder, allow_pickle=allow_pickle)
    reading = None
    if prompt is not None:
        from gpt2kit.tokens import Tokenizer

        reading = read_prompt(network, Tokenizer.from_folder(tokenizer_folder(folder)), prompt=prompt, top=top)
    return ModelReport(
        source=str(model),
        config=network.config,
        parts=count_parts(network),
        costs=measure_costs(network.config, parameters=sum(p.numel() for p in network.parameters())),
        adapter=_summarise_adapter(folder) if is_adapter(folder) else None,
        prompt=reading,
    )


def _summarise_adapter(folder: Path) -> AdapterSummary:
    settings = read_adapter_settings(folder)
    weights = read_lora_weights(folder / ADAPTER_WEIGHTS)
    return AdapterSummary(
        base=str(base_folder(folder)) if Path(settings.base).exists() else settings.base,
        rank=settings.rank,
        alpha=settings.alpha,
        parameters=sum(tensor.numel() for tensor in weights.values()),
    )


def count_parts(model: GPT2) -> tuple[Part, ...]:
    """The parameters of a model by kind of layer, counted in the model itself."""
    kinds = {
        "token embedding": ("V·D", ("transformer.wte.",)),
        "position embedding": ("C·D", ("transformer.wpe.",)),
        "attention": ("L·(4D² + 4D)", (".attn.",)),
        "MLP": ("L·(2DF + F + D)", (".mlp.",)),
        "layer norms": ("(2L + 1)·2D", (".ln_",)),
        "head": ("0, tied to the token embedding" if model.config.tie_word_embeddings else "V·D", ("lm_head.",)),
    }
    counts = dict.fromkeys(kinds, 0)
    for name, parameter in model.named_parameters():  # names a tied head once, as the embedding
        (kind,) = (kind for kind, (_, marks) in kinds.items() if any(mark in name for mark in marks))
        counts[kind] += parameter.numel()
    return tuple(Part(name=kind, formula=formula, parameters=counts[kind]) for kind, (formula, _) in kinds.items())


def measure_costs(config: GPT2Config, *, parameters: int) -> Costs:
    """Memory and FLOPs of a model by formula; biases, norms and activation functions are left out of the FLOPs.

    A multiplication and an addition are two FLOPs, so a product with a matrix of n weights takes 2n a token (Kaplan et
    al. 2020, table 1; theirs for attention, 2·n_layer·n_ctx·d_attn, leaves out the sum over the values, and is
    doubled here). The backward pass takes twice the forward pass.
    """
    D, F, L, V, C = config.n_embd, config.inner_width, config.n_layer, config.vocab_size, config.n_positions
    lora_parameters = L * _TYPICAL_LORA_RANK * (8 * D + 2 * F)
    cache_bytes = 2 * L * D * 4
    flops = 2 * (L * (4 * D * D + 2 * D * F) + V * D)
    attention_flops = 4 * L * D
    return Costs(
        weights_fp32_bytes=4 * parameters,
        weights_bf16_bytes=2 * parameters,
        full_training_bytes=_TRAINED_BYTES * parameters,
        lora_training_bytes=4 * parameters + _TRAINED_BYTES * lora_parameters,
        lora_parameters=lora_parameters,
        cache_bytes_per_token=cache_bytes,
        cache_bytes_full_context=C * cache_bytes,
        flops_per_token=flops,
        attention_flops_per_seen_token=attention_flops,
        flops_per_token_full_context=flops + C * attention_flops,
        training_flops_per_token=3 * (flops + C * attention_flops // 2),
    )


def short_number(number: float) -> str:
    """A number to three figures with K, M, G or T behind it."""
    return _scaled(number, ("", "K", "M", "G", "T", "P"))


def _bytes(number: int) -> str:
    return _scaled(number, (" B", " kB", " MB", " GB", " TB", " PB"))


def _scaled(number: float, units: tuple[str, ...]) -> str:
    step = 0
    while number >= 999.5 and step + 1 < len(units):
        number /= 1000
        step += 1
    return f"{number:.3g}{units[step]}"
