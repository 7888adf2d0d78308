"""llama.cpp by llama-cpp-python, through the C functions, which add nothing of Python's to a token but one call.

The model is written as GGUF by the `gguf` package and quantised by llama.cpp itself.
"""

import ctypes
import json
import os
from pathlib import Path

import llama_cpp
import numpy as np
from llama_cpp import llama_cpp as api

from benchmarks.contestants.generation import END_OF_TEXT, Prompt, main
from benchmarks.core.child import Arguments
from benchmarks.core.places import WORK

_FILE_TYPES = {
    "f32": llama_cpp.LLAMA_FTYPE_ALL_F32,
    "f16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16,
    "q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
}
_MOST_SEQUENCES = 256
_CACHE_TOKENS = 256 * 48  # 32 prompts of 32 + 64 tokens, 256 samples of 16 tokens after 32 shared ones, and room
_BATCH_TOKENS = 2048
_NAMES = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


class LlamaCpp:
    """A model and a context of llama.cpp.

    Args:
        arguments: `weights`: "f32", "f16", "q8_0" or "q4_0".
    """

    def __init__(self, arguments: Arguments) -> None:
        file = converted(Path(arguments["model"]), arguments["weights"], threads=arguments["threads"])
        self.silent = api.llama_log_callback(lambda *_: None)
        api.llama_log_set(self.silent, ctypes.c_void_p(0))
        api.llama_backend_init()
        self.model = api.llama_model_load_from_file(str(file).encode(), api.llama_model_default_params())
        single = arguments["task"] == "cold"
        how = api.llama_context_default_params()
        how.n_ctx = 1024 if single else _CACHE_TOKENS
        how.n_batch = how.n_ubatch = 512 if single else _BATCH_TOKENS
        how.n_seq_max = 1 if single else _MOST_SEQUENCES
        how.n_threads = how.n_threads_batch = arguments["threads"]
        how.kv_unified = True  # prompts that sequences share are kept once
        how.no_perf = True
        self.context = api.llama_init_from_model(self.model, how)
        if not self.context:
            raise RuntimeError("llama.cpp made no context")
        self.memory = api.llama_get_memory(self.context)
        self.batch = api.llama_batch_init(_BATCH_TOKENS, 0, 1)
        self.greedy = api.llama_sampler_init_greedy()

    def write(self, prompts: list[Prompt], num_tokens: int) -> list[list[int]]:
        """Greedy."""
        api.llama_memory_clear(self.memory, True)
        places = []
        for sequence, prompt in enumerate(prompts):
            if self.batch.n_tokens + len(prompt.ids) > _BATCH_TOKENS:
                raise RuntimeError("the prompts do not fit into one batch")
            for position, token in enumerate(prompt.ids):
                self._add(token, position, sequence, last=position == len(prompt.ids) - 1)
            places.append(self.batch.n_tokens - 1)
        return self._go_on([len(prompt.ids) for prompt in prompts], places, num_tokens, [self.greedy] * len(prompts))

    def draw(self, prompt: Prompt, num_samples: int, num_tokens: int) -> list[list[int]]:
        """Samples of one prompt, which is read once."""
        api.llama_memory_clear(self.memory, True)
        for position, token in enumerate(prompt.ids):
            self._add(token, position, 0, last=position == len(prompt.ids) - 1)
        samplers = []
        for sequence in range(num_samples):
            sampler = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
            api.llama_sampler_chain_add(sampler, api.llama_sampler_init_dist(sequence))
            samplers.append(sampler)
        self._decode()
        first = [
            api.llama_sampler_sample(samplers[sequence], self.context, len(prompt.ids) - 1)
            for sequence in range(num_samples)
        ]
        for sequence in range(1, num_samples):
            api.llama_memory_seq_cp(self.memory, 0, sequence, -1, -1)
        texts = [[token] for token in first]
        return self._rest(texts, [len(prompt.ids)] * num_samples, num_tokens, samplers)

    def _go_on(
        self, positions: list[int], places: list[int], num_tokens: int, samplers: list[object]
    ) -> list[list[int]]:
        self._decode()
        texts = [
            [api.llama_sampler_sample(sampler, self.context, place)]
            for sampler, place in zip(samplers, places, strict=True)
        ]
        return self._rest(texts, positions, num_tokens, samplers)

    def _rest(
        self, texts: list[list[int]], positions: list[int], num_tokens: int, samplers: list[object]
    ) -> list[list[int]]:
        for step in range(num_tokens - 1):
            for sequence, text in enumerate(texts):
                self._add(text[-1], positions[sequence] + step, sequence, last=True)
            self._decode()
            for sequence, text in enumerate(texts):
                text.append(api.llama_sampler_sample(samplers[sequence], self.context, sequence))
        return texts

    def _add(self, token: int, position: int, sequence: int, *, last: bool) -> None:
        batch, place = self.batch, self.batch.n_tokens
        batch.token[place] = token
        batch.pos[place] = position
        batch.n_seq_id[place] = 1
        batch.seq_id[place][0] = sequence
        batch.logits[place] = last
        batch.n_tokens = place + 1

    def _decode(self) -> None:
        status = api.llama_decode(self.context, self.batch)
        self.batch.n_tokens = 0
        if status:
            raise RuntimeError(f"llama_decode gave {status}")


def converted(folder: Path, weights: str, *, threads: int) -> Path:
    """The model as GGUF, made when it is first needed."""
    target = WORK / "converted" / f"llama-{weights}.gguf"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{os.getpid()}-{target.name}")
    if weights == "f32":
        write_gguf(folder, beside)
    else:
        how = api.llama_model_quantize_default_params()
        how.ftype, how.nthread = _FILE_TYPES[weights], threads
        source = converted(folder, "f32", threads=threads)
        if api.llama_model_quantize(str(source).encode(), str(beside).encode(), ctypes.byref(how)):
            raise RuntimeError(f"llama.cpp cannot quantise to {weights}")
    beside.rename(target)
    return target


def write_gguf(folder: Path, target: Path) -> None:
    """A Hugging Face folder of GPT-2 as a GGUF file in float32."""
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    writer = gguf.GGUFWriter(target, "gpt2")
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(4 * config["n_embd"])
    writer.add_block_count(config["n_layer"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(sorted(vocabulary, key=lambda token: int(vocabulary[token])))
    kinds = [
        gguf.TokenType.CONTROL if number == END_OF_TEXT else gguf.TokenType.NORMAL for number in range(len(vocabulary))
    ]
    writer.add_token_types(kinds)
    writer.add_token_merges([line for line in merges if line and not line.startswith("#version")])
    writer.add_bos_token_id(END_OF_TEXT)
    writer.add_eos_token_id(END_OF_TEXT)
    for name, weight in load_file(folder / "model.safetensors").items():
        writer.add_tensor(*_tensor(name.removeprefix("transformer."), weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensor(name: str, weight: np.ndarray) -> tuple[str, np.ndarray]:
    """Its name in GGUF, and a matrix of a block as (out, in), where GPT-2's files have (in, out)."""
    outside = {"wte.weight": "token_embd.weight", "wpe.weight": "position_embd.weight"}
    if name in outside:
        return outside[name], weight
    if name.startswith("ln_f."):
        return name.replace("ln_f", "output_norm"), weight
    _, layer, rest = name.split(".", 2)
    part, _, kind = rest.rpartition(".")
    return f"blk.{layer}.{_NAMES[part]}.{kind}", np.ascontiguousarray(weight.T) if weight.ndim == 2 else weight


if __name__ == "__main__":
    main(LlamaCpp)
