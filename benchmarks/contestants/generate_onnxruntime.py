"""ONNX Runtime, on a graph made for it: written with `onnx` from the model folder, with the operators that its own
generation library uses (GroupQueryAttention over a cache that is written in place).

There is no exporter for GPT-2 that works without a hub on these versions; a graph by hand is the fastest kind.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

from benchmarks.contestants.generation import Prompt, main
from benchmarks.core.child import Arguments
from benchmarks.core.places import WORK

_DOMAIN = "com.microsoft"
_BLOCK_SIZE = 32


class OnnxRuntime:
    """A session with its cache bound in place.

    Args:
        arguments: `weights`: "fp32", "int8" (dynamic quantisation) or "int4" (weights only, blocks of 32).
    """

    def __init__(self, arguments: Arguments) -> None:
        folder = Path(arguments["model"])
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.layers, self.heads = config["n_layer"], config["n_head"]
        self.head_width = config["n_embd"] // self.heads
        how = onnxruntime.SessionOptions()
        how.intra_op_num_threads, how.inter_op_num_threads = arguments["threads"], 1
        file = converted(folder, config, arguments["weights"])
        self.session = onnxruntime.InferenceSession(str(file), how, providers=["CPUExecutionProvider"])
        self.generator = np.random.default_rng(1)

    def write(self, prompts: list[Prompt], num_tokens: int) -> list[list[int]]:
        """Greedy."""
        return self._texts([prompt.ids for prompt in prompts], num_tokens, copies=1, by_chance=False)

    def draw(self, prompt: Prompt, num_samples: int, num_tokens: int) -> list[list[int]]:
        """Samples of one prompt, which is read once."""
        return self._texts([prompt.ids], num_tokens, copies=num_samples, by_chance=True)

    def _texts(self, prompts: list[list[int]], num_tokens: int, *, copies: int, by_chance: bool) -> list[list[int]]:
        length = len(prompts[0]) + num_tokens
        cache = self._fresh_cache(len(prompts), length)
        logits_BV = self._run(np.asarray(prompts, dtype=np.int64), 0, cache)
        if copies > 1:
            logits_BV = logits_BV.repeat(copies, axis=0)
            cache = [_value(one.numpy().repeat(copies, axis=0)) for one in cache]
        ids_B = self._chosen(logits_BV, by_chance=by_chance)
        texts = [ids_B]
        for step in range(num_tokens - 1):
            logits_BV = self._run(ids_B[:, None], len(prompts[0]) + step, cache)
            ids_B = self._chosen(logits_BV, by_chance=by_chance)
            texts.append(ids_B)
        found: list[list[int]] = np.stack(texts, axis=1).tolist()
        return found

    def _chosen(self, logits_BV: Any, *, by_chance: bool) -> Any:
        """The most probable token, or one drawn by adding Gumbel noise."""
        if by_chance:
            logits_BV = logits_BV + self.generator.gumbel(size=logits_BV.shape).astype(np.float32)
        return logits_BV.argmax(axis=1)

    def _fresh_cache(self, rows: int, length: int) -> list[Any]:
        shape = (rows, self.heads, length, self.head_width)
        return [_value(np.zeros(shape, dtype=np.float32)) for _ in range(2 * self.layers)]

    def _run(self, ids_BT: Any, start: int, cache: list[Any]) -> Any:
        """Logits of the last token; the cache is filled in place."""
        rows, new = ids_BT.shape
        positions_BT = np.broadcast_to(np.arange(start, start + new), ids_BT.shape)
        binding = self.session.io_binding()
        inputs = {
            "input_ids": ids_BT,
            "position_ids": np.ascontiguousarray(positions_BT),
            "last_places": np.full(rows, start + new - 1, dtype=np.int32),
            "total_length": np.asarray(start + new, dtype=np.int32),
        }
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        binding.bind_output("logits")  # first, as it is asked for below
        for number, value in enumerate(cache):
            layer, kind = divmod(number, 2)
            binding.bind_ortvalue_input(f"past.{layer}.{'kv'[kind]}", value)
            binding.bind_ortvalue_output(f"present.{layer}.{'kv'[kind]}", value)
        self.session.run_with_iobinding(binding)
        return binding.get_outputs()[0].numpy()


def _value(array: Any) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


def converted(folder: Path, config: dict[str, Any], weights: str) -> Path:
    """The graph on the disk, made when it is first needed."""
    target = WORK / "converted" / f"onnxruntime-{weights}.onnx"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{os.getpid()}-{target.name}")
    model = graph(load_file(folder / "model.safetensors"), config, tied_head=weights == "fp32")
    if weights == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            model,
            beside,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul"],
            extra_options={"DefaultTensorType": TensorProto.FLOAT},  # it does not know GroupQueryAttention's result
        )
    elif weights == "int4":
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        quantizer = MatMulNBitsQuantizer(model, block_size=_BLOCK_SIZE, is_symmetric=True, accuracy_level=4)
        quantizer.process()
        onnx.save(quantizer.model.model, beside)
    else:
        onnx.save(model, beside)
    beside.rename(target)
    return target


def graph(weights: dict[str, Any], config: dict[str, Any], *, tied_head: bool) -> onnx.ModelProto:
    """GPT-2 with a cache as an ONNX graph that gives the last token's logits.

    Args:
        weights: by their names in the model folder.
        config: the folder's config.json.
        tied_head: use the token table as the head; else a copy the other way round, which can be quantised.
    """
    weights = {name.removeprefix("transformer."): weight for name, weight in weights.items()}
    layers, heads, width = config["n_layer"], config["n_head"], config["n_embd"]
    nodes: list[Any] = []
    constants = dict(weights)

    def add(kind: str, inputs: list[str], *, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        names = [f"{kind}_{len(nodes)}_{number}" for number in range(outputs)]
        nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def norm(x: str, name: str) -> Any:
        return add(
            "LayerNormalization",
            [x, f"{name}.weight", f"{name}.bias"],
            axis=-1,
            epsilon=config["layer_norm_epsilon"],
        )

    def linear(x: str, name: str) -> Any:
        return add("Add", [add("MatMul", [x, f"{name}.weight"]), f"{name}.bias"])

    x = add("Add", [add("Gather", ["wte.weight", "input_ids"]), add("Gather", ["wpe.weight", "position_ids"])])
    presents: list[str] = []
    for layer in range(layers):
        queries, keys, values = add(
            "Split", [linear(norm(x, f"h.{layer}.ln_1"), f"h.{layer}.attn.c_attn")], outputs=3, axis=-1, num_outputs=3
        )
        present = [f"present.{layer}.k", f"present.{layer}.v"]
        inputs = [queries, keys, values, f"past.{layer}.k", f"past.{layer}.v", "last_places", "total_length"]
        nodes.append(
            helper.make_node(
                "GroupQueryAttention",
                inputs,
                [f"attended_{layer}", *present],
                domain=_DOMAIN,
                num_heads=heads,
                kv_num_heads=heads,
            )
        )
        presents += present
        x = add("Add", [x, linear(f"attended_{layer}", f"h.{layer}.attn.c_proj")])
        inner = add("Gelu", [linear(norm(x, f"h.{layer}.ln_2"), f"h.{layer}.mlp.c_fc")], approximate="tanh")
        x = add("Add", [x, linear(inner, f"h.{layer}.mlp.c_proj")])
    constants["last"] = np.asarray(-1, dtype=np.int64)
    last = norm(add("Gather", [x, "last"], axis=1), "ln_f")
    if tied_head:
        nodes.append(helper.make_node("Gemm", [last, "wte.weight"], ["logits"], transB=1))
    else:
        constants["head"] = np.ascontiguousarray(weights["wte.weight"].T)
        nodes.append(helper.make_node("MatMul", [last, "head"], ["logits"]))
    cache_shape = ["B", heads, "S", width // heads]
    made = helper.make_graph(
        nodes,
        "gpt2",
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["B", "T"]),
            helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["B", "T"]),
            helper.make_tensor_value_info("last_places", TensorProto.INT32, ["B"]),
            helper.make_tensor_value_info("total_length", TensorProto.INT32, []),
            *(
                helper.make_tensor_value_info(name.replace("present", "past"), TensorProto.FLOAT, cache_shape)
                for name in presents
            ),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", config["vocab_size"]]),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, cache_shape) for name in presents),
        ],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    versions = [helper.make_opsetid("", 20), helper.make_opsetid(_DOMAIN, 1)]
    return helper.make_model(made, opset_imports=versions, ir_version=10)


if __name__ == "__main__":
    main(OnnxRuntime)
