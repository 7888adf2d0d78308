"""Compiles and starts `one_token.cu`, by NVIDIA's own compiler at run time, which comes with PyTorch's builds for CUDA.

Shapes: D model width, F width of the MLP, L layers, V vocabulary.
"""

import ctypes
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from gpt2kit.console import warn

_WARP = 32
_MOST_WARPS = 12  # that multiply: as many as find room for what they keep at hand
_SLOT_BYTES = 36864  # of weights at a time: 24 rows of GPT-2 124M
_LEAST_SHARE = 32  # of a cache's columns, for one program
_OLDEST = (9, 0)  # compute capability that has copies in the background


@dataclass(frozen=True)
class Shape:
    """What the kernel is compiled for.

    Attributes:
        width: D.
        heads: of attention.
        inner: F.
        programs: how many take part.
        is_bfloat16: or float16.
    """

    width: int
    heads: int
    inner: int
    programs: int
    is_bfloat16: bool

    @property
    def shares(self) -> int:
        """Into so many parts at most a head's columns are divided."""
        return max(self.programs // self.heads, 1)

    @property
    def words(self) -> int:
        """Numbers that the programs tell each other in a layer, 8 bytes each."""
        return 5 * self.width + self.inner + self.shares * self.width + -(-self.shares * self.heads // 2) * 2

    @functools.cached_property
    def division(self) -> tuple[int, int, int] | None:
        """Warps that multiply, and in how many parts they divide a product's D inputs, and F; None if none can.

        A lane takes eight inputs at a time, and the parts' sums are added: a good division leaves few lanes idle.
        """

        def cost(division: tuple[int, int, int]) -> float:
            warps, split, inner_split = division
            products = (3 * self.width, self.width, split), (self.width, self.width, split)
            products += (self.inner, self.width, split), (self.width, self.inner, inner_split)
            return sum(
                -(-inputs // parts // (8 * _WARP)) * (-(-(-(-outputs // self.programs)) // (warps // parts)) + 3)
                for outputs, inputs, parts in products
            )

        divisions = [
            (warps, split, inner_split)
            for warps in range(4, _MOST_WARPS + 1)
            for split in range(1, warps + 1)
            for inner_split in range(1, warps + 1)
            if not (warps % split or warps % inner_split or self.width % (8 * split) or self.inner % (8 * inner_split))
        ]
        return min(divisions, key=cost, default=None)


class _Arguments(ctypes.Structure):
    """`Arguments` of the kernel."""

    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in (
                *("ids", "place", "state", "token_embedding", "position_embedding", "norms", "biases"),
                *("attention_in", "attention_out", "mlp_in", "mlp_out", "head", "vocabulary_bias", "scales"),
                *("keys", "values", "words", "logits", "summaries"),
            )
        ),
        ("num_layers", ctypes.c_int),
        ("vocabulary", ctypes.c_int),
        ("epsilon", ctypes.c_float),
        ("cache_layer", ctypes.c_long),
        ("cache_head", ctypes.c_long),
        ("cache_column", ctypes.c_long),
    )


class TokenKernel:
    """The kernel with what it works on.

    Args:
        shape: what it is compiled for; `can_run` has to allow it.
        device: the GPU.
        tensors: by their names in `Arguments`; the kernel's own memory is made here.
        numbers: likewise.
    """

    def __init__(
        self, shape: Shape, device: torch.device, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]
    ) -> None:
        self._shape, self._device = shape, device
        self._function = _function(shape, device.index or 0)
        own = {
            "words": torch.zeros(int(numbers["num_layers"]) * shape.words, dtype=torch.int64, device=device),
            "state": torch.tensor([1, 0], dtype=torch.int32, device=device),
        }
        self._tensors = {**tensors, **own}  # what the kernel was given an address of
        addresses = {name: tensor.data_ptr() for name, tensor in self._tensors.items()}
        self._arguments = _Arguments(**addresses, **numbers)
        self._places = (ctypes.c_void_p * 1)(ctypes.addressof(self._arguments))

    def start(self) -> None:
        """Read the token, on the stream that is in use."""
        driver = _bindings("driver")
        assert self._shape.division is not None
        threads = _WARP * (self._shape.division[0] + 1)
        stream = torch.cuda.current_stream(self._device).cuda_stream
        shared_bytes = _shared_bytes(self._device.index or 0)
        grid = self._shape.programs, 1, 1
        places = ctypes.addressof(self._places)
        _checked(driver.cuLaunchCooperativeKernel(self._function, *grid, threads, 1, 1, shared_bytes, stream, places))


def can_run(shape: Shape, device: torch.device) -> bool:
    """Whether the kernel can be compiled for this, and started: on a GPU of 2022 or later, by PyTorch 2.10 or later."""
    if torch.cuda.get_device_capability(device) < _OLDEST or shape.division is None:
        return False
    try:
        _function(shape, device.index or 0)
    except ImportError:
        return False
    except RuntimeError as error:
        warn(f"the kernel for single texts cannot be used, which makes them slower: {error}")
        return False
    return True


def _bindings(name: str) -> ModuleType:
    """A module of `cuda.bindings`."""
    import importlib

    return importlib.import_module(f"cuda.bindings.{name}")


def _checked(result: tuple[Any, ...]) -> Any:
    """What a call gave, behind its status."""
    status, *values = result
    if int(status) != 0:
        raise RuntimeError(status.name)
    return values[0] if len(values) == 1 else None


@functools.cache
def _shared_bytes(index: int) -> int:
    driver = _bindings("driver")
    most = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
    return int(_checked(driver.cuDeviceGetAttribute(most, index)))


@functools.cache
def _function(shape: Shape, index: int) -> Any:
    """The compiled kernel.

    Raises:
        ImportError: PyTorch came without what compiles it.
        RuntimeError: it cannot be compiled.
    """
    driver, nvrtc = _bindings("driver"), _bindings("nvrtc")
    given = {
        "WIDTH": shape.width,
        "HEADS": shape.heads,
        "INNER": shape.inner,
        "PROGRAMS": shape.programs,
        "SHARES": shape.shares,
        "IS_BFLOAT16": int(shape.is_bfloat16),
        "LEAST_SHARE": _LEAST_SHARE,
        **dict(zip(("WARPS", "SPLIT", "INNER_SPLIT"), shape.division or (), strict=True)),
        "SHARED_BYTES": _shared_bytes(index),
        "SLOT_BYTES": _SLOT_BYTES,
    }
    major, minor = torch.cuda.get_device_capability(index)
    options = [f"--gpu-architecture=sm_{major}{minor}", "--std=c++17", *(f"-D{name}={n}" for name, n in given.items())]
    source = resources.files(__package__).joinpath("one_token.cu").read_bytes()
    program = _checked(nvrtc.nvrtcCreateProgram(source, b"one_token.cu", 0, [], []))
    _checked(nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options]))
    binary = bytes(_checked(nvrtc.nvrtcGetCUBINSize(program)))
    _checked(nvrtc.nvrtcGetCUBIN(program, binary))
    with torch.cuda.device(index):
        torch.cuda.current_stream().synchronize()  # begins PyTorch's context, which the kernel belongs to
        function = _checked(driver.cuModuleGetFunction(_checked(driver.cuModuleLoadData(binary)), b"read_token"))
    limit = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    _checked(driver.cuFuncSetAttribute(function, limit, _shared_bytes(index)))
    return function
