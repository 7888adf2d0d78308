"""The compiled kernel, through ctypes, and whether it is there.

The package's build compiles it where there is a C compiler. Without it everything works, on PyTorch.
"""

import ctypes
import functools
import os
from ctypes import POINTER, Structure, c_double, c_float, c_int, c_int32, c_int64, c_long, c_uint, c_uint64, c_void_p
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Literal

Weights = Literal["fp32", "int8", "int4"]
FORMATS: dict[Weights, int] = {"fp32": 0, "int8": 1, "int4": 2}
ISAS = ("portable", "avx2", "avx512")
PANEL = 16  # outputs that stand side by side in packed weights
GROUPS: dict[Weights, int] = {"fp32": 1, "int8": 64, "int4": 32}  # inputs that share a scale
CHUNK = 32  # rows of a matrix whose sums are added up together
BLOCK = 1 << 16  # floats that a thread lays columns in
ISA_VARIABLE = "GPT2KIT_NATIVE_ISA"


class Linear(Structure):
    """`struct linear` of kernel.h."""

    _fields_ = (
        ("inputs", c_int64),
        ("outputs", c_int64),
        ("format", c_int64),
        ("weights", c_void_p),
        ("scales", c_void_p),
        ("bias", c_void_p),
    )


class Layer(Structure):
    """`struct layer` of kernel.h."""

    _fields_ = (
        ("ln_1_weight", c_void_p),
        ("ln_1_bias", c_void_p),
        ("ln_2_weight", c_void_p),
        ("ln_2_bias", c_void_p),
        ("attention", Linear),
        ("projection", Linear),
        ("expand", Linear),
        ("contract", Linear),
        ("scale", c_double),
    )


class Model(Structure):
    """`struct model` of kernel.h."""

    _fields_ = (
        ("n_embd", c_int64),
        ("n_layer", c_int64),
        ("n_head", c_int64),
        ("n_inner", c_int64),
        ("n_positions", c_int64),
        ("narrow", c_int64),
        ("epsilon", c_double),
        ("positions", c_void_p),
        ("ln_f_weight", c_void_p),
        ("ln_f_bias", c_void_p),
        ("embedding", Linear),
        ("head", Linear),
        ("rounded_head", Linear),
        ("layers", POINTER(Layer)),
    )


class Row(Structure):
    """`struct row` of kernel.h."""

    _fields_ = (
        ("keys", c_void_p),
        ("values", c_void_p),
        ("capacity", c_int64),
        ("past", c_int64),
        ("count", c_int64),
        ("scored", c_int64),
        ("shared_keys", c_void_p),
        ("shared_values", c_void_p),
        ("shared", c_int64),
        ("shared_capacity", c_int64),
    )


class Drawing(Structure):
    """`struct drawing` of kernel.h."""

    _fields_ = (("temperature", c_double), ("top_p", c_double), ("min_p", c_double), ("top_k", c_int64))


class Pick(Structure):
    """`struct pick` of kernel.h."""

    _fields_ = (("forbidden", POINTER(c_int32)), ("num_forbidden", c_int64), ("key", c_uint64), ("id", c_int64))


class Choice(Structure):
    """`struct choice` of kernel.h."""

    _fields_ = (
        ("logits", c_void_p),
        ("scores", c_void_p),
        ("forbidden", POINTER(c_int32)),
        ("kept", POINTER(c_float)),
        ("num_forbidden", c_int64),
        ("key", c_uint64),
        ("id", c_int64),
        ("log_probability", c_double),
    )


class AttentionCall(Structure):
    """`struct attention` of kernel.h."""

    _fields_ = (
        ("qkv", c_void_p),
        ("out", c_void_p),
        ("log_sums", c_void_p),
        ("grad_out", c_void_p),
        ("grad_qkv", c_void_p),
        ("first", c_void_p),
        ("scratch", c_void_p),
        ("stride_scratch", c_int64),
        ("rows", c_int64),
        ("heads", c_int64),
        ("length", c_int64),
        ("width", c_int64),
        ("scale", c_double),
        ("dropout", c_double),
        ("seed", c_uint64),
        ("next", c_long),
        ("next_thread", c_long),
    )


class RowsCall(Structure):
    """`struct rows` of kernel.h."""

    _fields_ = (
        ("operation", c_int64),
        ("num_rows", c_int64),
        ("width", c_int64),
        ("stride", c_int64),
        ("input", c_void_p),
        ("x", c_void_p),
        ("y", c_void_p),
        ("gain", c_void_p),
        ("bias", c_void_p),
        ("statistics", c_void_p),
        ("sums", c_void_p),
        ("targets", c_void_p),
        ("epsilon", c_double),
        ("dropout", c_double),
        ("seed", c_uint64),
        ("next", c_long),
    )


class ProductCall(Structure):
    """`struct large_product` of kernel.h."""

    _fields_ = (
        ("rows", c_int64),
        ("columns", c_int64),
        ("depth", c_int64),
        ("a", c_void_p),
        ("b", c_void_p),
        ("bias", c_void_p),
        ("c", c_void_p),
        ("a_row", c_int64),
        ("a_column", c_int64),
        ("b_row", c_int64),
        ("b_column", c_int64),
        ("c_row", c_int64),
        ("adds", c_int64),
        ("scale", c_double),
        ("rows_laid", c_void_p),
        ("columns_laid", c_void_p),
        ("threads", c_int64),
        ("first_row", c_int64),
        ("num_rows", c_int64),
        ("start", c_int64),
        ("part", c_int64),
        ("next", c_long),
        ("next_thread", c_long),
    )


def library_path() -> Path | None:
    """The compiled kernel's file; None when the package was installed without one."""
    # One that is tied to a version of Python was left by an older gpt2kit.
    suffixes = [suffix for suffix in EXTENSION_SUFFIXES if "cpython" not in suffix]
    paths = (Path(__file__).with_name(f"_kernel{suffix}") for suffix in suffixes)
    return next(filter(Path.is_file, paths), None)


@functools.cache
def load_library() -> ctypes.CDLL | None:
    """The compiled kernel; None when there is none, or it is another machine's."""
    path = library_path()
    if path is None:
        return None
    try:
        library = ctypes.CDLL(str(path))
    except OSError:
        return None
    library.gk_pool_new.restype = c_void_p
    library.gk_pool_new.argtypes = (c_int,)
    library.gk_pool_free.restype = None
    library.gk_pool_free.argtypes = (c_void_p,)
    library.gk_pack.restype = None
    library.gk_pack.argtypes = (c_void_p, POINTER(Linear), c_void_p, c_int64, c_int64)
    library.gk_best_isa.restype = c_int
    library.gk_best_isa.argtypes = ()
    library.gk_forward.restype = c_int
    library.gk_forward.argtypes = (
        c_void_p,
        POINTER(Model),
        c_int,
        POINTER(Row),
        c_int64,
        POINTER(c_int32),
        c_void_p,
        c_int64,
        POINTER(Pick),
        POINTER(Drawing),
        c_int,
    )
    library.gk_attention_scratch.restype = c_int64
    library.gk_attention_scratch.argtypes = (c_int64, c_int64)
    library.gk_attend.restype = None
    library.gk_attend.argtypes = (c_void_p, c_uint, c_int, c_void_p)
    library.gk_rows.restype = None
    library.gk_rows.argtypes = (c_void_p, c_uint, c_int, c_void_p)
    library.gk_product_room.restype = c_int64
    library.gk_product_room.argtypes = (c_int64, c_int64)
    library.gk_multiply.restype = None
    library.gk_multiply.argtypes = (c_void_p, c_uint, c_int, POINTER(ProductCall))
    library.gk_choose.restype = None
    library.gk_choose.argtypes = (c_void_p, c_int, POINTER(Choice), c_int64, c_int64, POINTER(Drawing))
    return library


def best_isa(library: ctypes.CDLL) -> int:
    """The instruction set to use: the processor's best, or the lesser one that GPT2KIT_NATIVE_ISA names."""
    best: int = library.gk_best_isa()
    wanted = os.environ.get(ISA_VARIABLE, "")
    return min(ISAS.index(wanted), best) if wanted in ISAS else best
