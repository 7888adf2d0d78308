"""Compiles and starts `one_token.cu`, by NVIDIA's own compiler at run time, which comes with PyTorch's builds for CUDA.

Shapes: D model width, F width of the MLP, L layers, V vocabulary.
"""

import ctypes
import functools
from dataclasses import dataclass
from importlib import resources
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from gpt2kit.console import warn
from gpt2kit.model.kernels import power_of_2

_WARP = 32
_MOST_WARPS = 12  # that multiply; one more fetches
_LEAST_SHARE = 96  # of a cache's columns, for one program
_IN_FLIGHT = 2  # slots of weights that are asked for at a time
_OLDEST = (9, 0)  # compute capability that has copies in the background
_PIECE = 4096  # rows whose folds are computed at a time


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
        return 5 * self.width + self.inner + self.shares * (self.width + 2 * self.heads)

    @functools.cached_property
    def warps(self) -> int:
        """How many multiply, each its part of the inputs, eight for a lane at a time; 0 if these cannot be divided.

        Many, and few lanes without inputs.
        """

        def cost(warps: int) -> float:
            eights = self.width // (8 * warps)
            across = 8 if eights > 4 else power_of_2(eights)
            return -(-eights // across) * across / eights + (_MOST_WARPS - warps) / (2 * _MOST_WARPS)

        possible = [n for n in range(1, _MOST_WARPS + 1) if self.width % (8 * n) == self.inner % (8 * n) == 0]
        return min(possible, key=cost, default=0)

    def definitions(self, shared_bytes: int) -> dict[str, int]:
        """What the kernel is compiled with, where a program has so much shared memory."""
        return {
            "WIDTH": self.width,
            "HEADS": self.heads,
            "INNER": self.inner,
            "PROGRAMS": self.programs,
            "SHARES": self.shares,
            "LEAST_SHARE": _LEAST_SHARE,
            "WARPS": self.warps,
            "SHARED_BYTES": shared_bytes,
            "SLOT_BYTES": max(16 * self.width, 4 * self.inner),  # eight rows; two of the widest matrix
            "IN_FLIGHT": _IN_FLIGHT,
            "IS_BFLOAT16": int(self.is_bfloat16),
        }


class Arguments(ctypes.Structure):
    """`Arguments` of the kernel: addresses of what is named so there, and numbers."""

    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in (
                *("ids", "place", "state", "token_embedding", "position_embedding", "norms"),
                *("attention_in", "attention_out", "mlp_in", "mlp_out", "head", "folds", "head_folds"),
                *("vocabulary_bias", "scales", "keys", "values", "words", "logits", "summaries"),
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
        self._blocks = shape.programs, 1, 1, _WARP * (shape.warps + 1), 1, 1, _shared_bytes(device.index or 0)

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
    if torch.cuda.get_device_capability(device) < _OLDEST or shape.warps == 0:
        return False
    try:
        _function(shape, device.index or 0)
    except ImportError:
        return False
    except RuntimeError as error:
        warn(f"the kernel for single texts cannot be used, which makes them slower: {error}")
        return False
    return True


def folds(rows: Tensor, norm: nn.LayerNorm | None, bias: Tensor) -> Tensor:
    """What a product's outputs need besides the norm's mean and deviation, as the kernel takes it.

    Args:
        rows: the matrix [out, in].
        norm: what its inputs go through before; None gives 0 and the bias.
        bias: [out].

    Returns:
        rows · the norm's weight, and rows · its bias + bias; float32 [out, 2].
    """
    if norm is None:
        return torch.stack([torch.zeros_like(bias, dtype=torch.float32), bias.float()], 1)
    # Not as a product of matrices, which may be allowed to round.
    pieces = [
        torch.stack([(piece.float() * vector.float()).sum(1) for vector in (norm.weight, norm.bias)], 1)
        for piece in torch.split(rows, _PIECE)
    ]
    made = torch.cat(pieces)
    made[:, 1] += bias.float()
    return made


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
