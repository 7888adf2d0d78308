"""Compiles and starts `one_token.cu`, by NVIDIA's own compiler at run time, which comes with PyTorch's builds for CUDA.

Shapes: D model width, F width of the MLP, L layers, V vocabulary.
"""

import ctypes
import functools
import math
from dataclasses import dataclass
from importlib import resources
from types import ModuleType
from typing import Any

import torch

from gpt2kit.console import warn

_WARP = 32
_MOST_WARPS = 12  # that multiply; one more fetches
LEAST_SHARE = 32  # of a cache's columns, for one program
_SLOT_BYTES = 36864  # of weights at a time: 24 rows of GPT-2 124M
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

        def cost(division: tuple[int, int, int]) -> int:
            warps, split, inner_split = division
            products = [
                (3 * self.width, self.width, split),
                (self.width, self.width, split),
                (self.inner, self.width, split),
                (self.width, self.inner, inner_split),
            ]
            return sum(
                # Turns of the lanes, times rows and what is done once for all of them.
                math.ceil(inputs / (parts * 8 * _WARP)) * (math.ceil(outputs / self.programs * parts / warps) + 3)
                for outputs, inputs, parts in products
            )

        divisions = [
            (warps, split, inner_split)
            for warps in range(1, _MOST_WARPS + 1)
            for split in range(1, warps + 1)
            for inner_split in range(1, warps + 1)
            if not (warps % split or warps % inner_split or self.width % (8 * split) or self.inner % (8 * inner_split))
        ]
        return min(divisions, key=cost, default=None)

    def definitions(self, shared_bytes: int) -> dict[str, int]:
        """What the kernel is compiled with, where a program has so much shared memory and there is a `division`."""
        assert self.division is not None
        warps, split, inner_split = self.division
        return {
            "WIDTH": self.width,
            "HEADS": self.heads,
            "INNER": self.inner,
            "PROGRAMS": self.programs,
            "SHARES": self.shares,
            "LEAST_SHARE": LEAST_SHARE,
            "WARPS": warps,
            "SPLIT": split,
            "INNER_SPLIT": inner_split,
            "SHARED_BYTES": shared_bytes,
            "SLOT_BYTES": _SLOT_BYTES,
            "IS_BFLOAT16": int(self.is_bfloat16),
        }


class Arguments(ctypes.Structure):
    """`Arguments` of the kernel: addresses of what is named so there, and numbers."""

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
        ("cache_layer", ctypes.c_longlong),
        ("cache_head", ctypes.c_longlong),
        ("cache_column", ctypes.c_longlong),
    )


class TokenKernel:
    """The kernel, ready to be started.

    Args:
        shape: what it is compiled for; `can_run` has to allow it.
        arguments: what it is given; whoever made them keeps what they point to.
        device: the GPU.
    """

    def __init__(self, shape: Shape, arguments: Arguments, device: torch.device) -> None:
        self._function = _function(shape, device.index or 0)
        self._arguments, self._device = arguments, device
        self._places = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
        assert shape.division is not None
        threads = _WARP * (shape.division[0] + 1)
        self._blocks = shape.programs, 1, 1, threads, 1, 1, _shared_bytes(device.index or 0)

    def start(self) -> None:
        """Read the token, on the stream that is in use."""
        stream = torch.cuda.current_stream(self._device).cuda_stream
        places = ctypes.addressof(self._places)
        _checked(_bindings("driver").cuLaunchCooperativeKernel(self._function, *self._blocks, stream, places))


def kernel_source() -> bytes:
    """The kernel in CUDA."""
    return resources.files(__package__).joinpath("one_token.cu").read_bytes()


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
    major, minor = torch.cuda.get_device_capability(index)
    options = [f"--gpu-architecture=sm_{major}{minor}", "--std=c++17", "--device-as-default-execution-space"]
    options += [f"-D{name}={number}" for name, number in shape.definitions(_shared_bytes(index)).items()]
    program = _checked(nvrtc.nvrtcCreateProgram(kernel_source(), b"one_token.cu", 0, [], []))
    _checked(nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options]))
    binary = bytes(_checked(nvrtc.nvrtcGetCUBINSize(program)))
    _checked(nvrtc.nvrtcGetCUBIN(program, binary))
    with torch.cuda.device(index):
        torch.cuda.current_stream().synchronize()  # begins PyTorch's context, which the kernel belongs to
        function = _checked(driver.cuModuleGetFunction(_checked(driver.cuModuleLoadData(binary)), b"read_token"))
    limit = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    _checked(driver.cuFuncSetAttribute(function, limit, _shared_bytes(index)))
    return function
