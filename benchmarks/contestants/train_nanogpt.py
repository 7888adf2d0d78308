"""What nanoGPT does, written anew: GPT-2 in one file, fused attention and AdamW, the whole model compiled.

B rows, T tokens in a row, D width, H heads, K width of a head, V vocabulary.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.contestants.steps import StepClock, load_batches
from benchmarks.core.child import Arguments, contestant


class Block(nn.Module):
    """Attention and feed-forward, each behind its norm and added to the stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.attn_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.c_fc, self.mlp_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """One layer."""
        B, T, D = x_BTD.shape
        parts = self.c_attn(self.ln_1(x_BTD)).split(D, dim=2)
        q_BHTK, k_BHTK, v_BHTK = (part.view(B, T, self.heads, D // self.heads).transpose(1, 2) for part in parts)
        y_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=True)
        x_BTD = x_BTD + self.attn_proj(y_BHTK.transpose(1, 2).reshape(B, T, D))
        return x_BTD + self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x_BTD)), approximate="tanh"))


class Model(nn.Module):
    """GPT-2 with its loss."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width = config["n_embd"]
        self.wte, self.wpe = nn.Embedding(config["vocab_size"], width), nn.Embedding(config["n_positions"], width)
        self.h = nn.ModuleList(Block(width, config["n_head"]) for _ in range(config["n_layer"]))
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, config["vocab_size"], bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, input_ids_BT: Tensor, target_ids_BT: Tensor) -> Tensor:
        """Mean nats per target."""
        position_T = torch.arange(input_ids_BT.size(1), device=input_ids_BT.device)
        x_BTD = self.wte(input_ids_BT) + self.wpe(position_T)
        for block in self.h:
            x_BTD = block(x_BTD)
        logits_BTV = self.lm_head(self.ln_f(x_BTD))
        return F.cross_entropy(logits_BTV.view(-1, logits_BTV.size(-1)), target_ids_BT.view(-1))


def read_model(folder: Path) -> Model:
    """The model of a Hugging Face folder, whose matrices are stored the other way round."""
    model = Model(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    names = {"attn.c_attn": "c_attn", "attn.c_proj": "attn_proj", "mlp.c_fc": "c_fc", "mlp.c_proj": "mlp_proj"}
    weights: dict[str, Tensor] = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        name = name.removeprefix("transformer.")
        for theirs, ours in names.items():
            if f".{theirs}." in name:
                name = name.replace(theirs, ours)
                weight = weight.T if weight.dim() == 2 else weight
        weights[name] = weight.contiguous()
    weights["lm_head.weight"] = weights["wte.weight"]
    model.load_state_dict(weights)
    return model


def measure(arguments: Arguments) -> dict[str, Any]:
    """Train so many steps."""
    torch.manual_seed(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    inputs_SBT, targets_SBT = load_batches(arguments)
    model = read_model(Path(arguments["model"])).to(device)
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95), fused=True)
    compiled = torch.compile(model) if arguments["compile"] else model
    clock = StepClock(arguments)
    first_loss = math.nan
    for step in range(clock.num_steps):
        clock.begin()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            loss = compiled(inputs_SBT[step].to(device), targets_SBT[step].to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step == 0:
            first_loss = loss.item()
        clock.tick()
    return clock.report(first_loss)


if __name__ == "__main__":
    contestant(measure)
