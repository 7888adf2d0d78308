"""The validation loss of saved models, by transformers, the same for both contestants.

The validation tokens run end to end and are cut into rows; each is predicted once, from those before it in its row.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import GPT2LMHeadModel

from benchmarks.core.child import Arguments, contestant

_ROWS = 8


def measure(arguments: Arguments) -> dict[str, Any]:
    """Nats per token of each folder."""
    torch.set_num_threads(arguments["threads"])
    with np.load(arguments["tokens"]) as arrays:
        ids_N = torch.from_numpy(arrays["validation_N"])
        end_of_text = int(arrays["end_of_text"])
    inputs_N = torch.cat([torch.tensor([end_of_text]), ids_N[:-1]])
    context = arguments["context"]
    length = len(ids_N) // context * context
    inputs_RT, targets_RT = inputs_N[:length].view(-1, context), ids_N[:length].view(-1, context)
    return {"losses": [_loss(folder, inputs_RT, targets_RT) for folder in arguments["folders"]]}


@torch.inference_mode()
def _loss(folder: str, inputs_RT: torch.Tensor, targets_RT: torch.Tensor) -> float:
    model = GPT2LMHeadModel.from_pretrained(folder).eval()
    nats = 0.0
    for start in range(0, len(inputs_RT), _ROWS):
        inputs_BT, targets_BT = inputs_RT[start : start + _ROWS], targets_RT[start : start + _ROWS]
        logits_BTV = model(inputs_BT).logits
        nats += float(F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="sum"))
    return nats / targets_RT.numel()


if __name__ == "__main__":
    contestant(measure)
