"""OpenVINO GenAI's LLMPipeline, on a model converted here: traced by OpenVINO's own converter, its cache made a state,
its weights compressed by NNCF.

Its usual exporter (optimum-intel) does not install beside the transformers measured here.

B rows, T new tokens, S tokens with those before, H heads, K width of a head, D width.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import openvino_genai

from benchmarks.contestants.generation import Prompt, main
from benchmarks.core.child import Arguments
from benchmarks.core.places import WORK


class OpenVino:
    """An LLMPipeline.

    Args:
        arguments: `weights`: "fp32", "int8" or "int4". fp32 computes in fp32; the others in what OpenVINO chooses.
    """

    def __init__(self, arguments: Arguments) -> None:
        folder = converted(Path(arguments["model"]), arguments["weights"])
        how: dict[str, Any] = {"INFERENCE_NUM_THREADS": arguments["threads"]}
        if arguments["weights"] == "fp32":
            how |= {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
        if "backend" in arguments:
            how["ATTENTION_BACKEND"] = arguments["backend"]
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False  # else a prompt that was seen before costs nothing
        how["scheduler_config"] = scheduler
        self.pipeline = openvino_genai.LLMPipeline(str(folder), "CPU", **how)

    def write(self, prompts: list[Prompt], num_tokens: int) -> list[list[int]]:
        """Greedy."""
        return self._texts(prompts, num_tokens, do_sample=False)

    def draw(self, prompt: Prompt, num_samples: int, num_tokens: int) -> list[list[int]]:
        """Samples of one prompt."""
        return self._texts([prompt], num_tokens, do_sample=True, temperature=1.0, num_return_sequences=num_samples)

    def _texts(self, prompts: list[Prompt], num_tokens: int, **how: Any) -> list[list[int]]:
        import openvino

        ids_BT = np.asarray([prompt.ids for prompt in prompts], dtype=np.int64)
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids_BT), openvino.Tensor(np.ones_like(ids_BT)))
        config = openvino_genai.GenerationConfig(max_new_tokens=num_tokens, ignore_eos=True, **how)
        return [list(tokens) for tokens in self.pipeline.generate(inputs, config).tokens]


def converted(folder: Path, weights: str) -> Path:
    """The folder that LLMPipeline opens, made when it is first needed."""
    target = WORK / "converted" / f"openvino-{weights}"
    if target.exists():
        return target
    import nncf
    import openvino
    import openvino_tokenizers
    from transformers import AutoTokenizer

    beside = target.with_name(f".{os.getpid()}-{target.name}")
    beside.mkdir(parents=True)
    model = stateful_model(folder)
    if weights != "fp32":
        mode = nncf.CompressWeightsMode.INT8_ASYM if weights == "int8" else nncf.CompressWeightsMode.INT4_SYM
        model = nncf.compress_weights(model, mode=mode)
    openvino.save_model(model, beside / "openvino_model.xml", compress_to_fp16=False)
    pair = openvino_tokenizers.convert_tokenizer(AutoTokenizer.from_pretrained(folder), with_detokenizer=True)
    for part, name in zip(pair, ("openvino_tokenizer", "openvino_detokenizer"), strict=True):
        openvino.save_model(part, beside / f"{name}.xml")
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, beside)
    beside.rename(target)
    return target


def stateful_model(folder: Path) -> Any:
    """GPT-2 with its cache as a state that `beam_idx` reorders, as LLMPipeline expects it."""
    import openvino
    import torch
    from openvino import opset13
    from openvino._offline_transformations import apply_make_stateful_transformation

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    network = _network(folder, config)
    layers, heads, width = config["n_layer"], config["n_head"], config["n_embd"] // config["n_head"]
    past = [torch.zeros(2, heads, 3, width) for _ in range(2 * layers)]
    example = (torch.zeros(2, 4, dtype=torch.long), torch.ones(2, 7, dtype=torch.long), torch.zeros(2, 4).long(), *past)
    model = openvino.convert_model(network, example_input=example)
    names = [f"{layer}.{kind}" for layer in range(layers) for kind in ("key", "value")]
    cache_names = [f"past_key_values.{name}" for name in names]
    for place, name in zip(model.inputs, ["input_ids", "attention_mask", "position_ids", *cache_names], strict=True):
        place.get_tensor().set_names({name})
        shape = [-1, heads, -1, width] if name.startswith("past") else [-1, -1]
        place.get_node().set_partial_shape(openvino.PartialShape(shape))
        place.get_node().set_friendly_name(name)
    for place, name in zip(model.outputs, ["logits", *(f"present.{name}" for name in names)], strict=True):
        place.get_tensor().set_names({name})
    model.validate_nodes_and_infer_types()
    beam_idx = opset13.parameter([-1], dtype=np.int32, name="beam_idx")
    beam_idx.output(0).get_tensor().set_names({"beam_idx"})
    model.add_parameters([beam_idx])
    for place in model.inputs:
        if place.get_any_name().startswith("past"):
            consumers = place.get_target_inputs()
            reordered = opset13.gather(place, beam_idx, opset13.constant(0, dtype=np.int64))
            for consumer in consumers:
                consumer.replace_source_output(reordered.output(0))
    model.validate_nodes_and_infer_types()
    apply_make_stateful_transformation(model, {f"past_key_values.{name}": f"present.{name}" for name in names})
    _begin_empty(model, heads=heads, width=width)
    model.validate_nodes_and_infer_types()
    return model


def _begin_empty(model: Any, *, heads: int, width: int) -> None:
    """Every state begins with as many rows as there are prompts, and no tokens."""
    from openvino import opset13

    ids = next(place for place in model.inputs if "input_ids" in place.get_names())
    zero = opset13.constant(np.asarray([0], dtype=np.int64))
    rows = opset13.gather(opset13.shape_of(ids, output_type="i64"), zero, opset13.constant(0, dtype=np.int64))
    rest = opset13.constant(np.asarray([heads, 0, width], dtype=np.int64))
    empty = opset13.broadcast(opset13.constant(0.0, dtype=np.float32), opset13.concat([rows, rest], 0))
    for operation in model.get_ops():
        if operation.get_type_name() == "ReadValue":
            operation.set_arguments([empty])


def _network(folder: Path, config: dict[str, Any]) -> Any:
    """GPT-2 as a torch module that takes and gives its cache."""
    import torch
    import torch.nn.functional as F
    from torch import Tensor

    from benchmarks.contestants.train_nanogpt import read_model

    class WithCache(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = read_model(folder).eval()

        def forward(
            self, input_ids_BT: Tensor, attention_mask_BS: Tensor, position_ids_BT: Tensor, *past: Tensor
        ) -> tuple[Tensor, ...]:
            B, T = input_ids_BT.shape
            S = attention_mask_BS.shape[1]
            places_S = torch.arange(S)
            visible_B1TS = places_S[None, :] <= places_S[S - T :, None]
            visible_B1TS = visible_B1TS[None, None] & (attention_mask_BS[:, None, None, :] > 0)
            x_BTD = self.model.wte(input_ids_BT) + self.model.wpe(position_ids_BT)
            present: list[Tensor] = []
            block: Any
            for number, block in enumerate(self.model.h):
                parts = block.c_attn(block.ln_1(x_BTD)).split(config["n_embd"], dim=2)
                q_BHTK, k_BHTK, v_BHTK = (part.view(B, T, config["n_head"], -1).transpose(1, 2) for part in parts)
                k_BHSK = torch.cat([past[2 * number], k_BHTK], dim=2)
                v_BHSK = torch.cat([past[2 * number + 1], v_BHTK], dim=2)
                present += [k_BHSK, v_BHSK]
                y_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, attn_mask=visible_B1TS)
                x_BTD = x_BTD + block.attn_proj(y_BHTK.transpose(1, 2).reshape(B, T, -1))
                x_BTD = x_BTD + block.mlp_proj(F.gelu(block.c_fc(block.ln_2(x_BTD)), approximate="tanh"))
            return self.model.lm_head(self.model.ln_f(x_BTD)), *present

    return WithCache().eval()


if __name__ == "__main__":
    main(OpenVino)
