"""Tests of what runs on an NVIDIA GPU.

Without one they are skipped; the kernels themselves can be tested by Triton's interpreter, where Triton is installed:

    pip install triton
    TRITON_INTERPRET=1 pytest tests/gpu
"""

import importlib.util
import os

import pytest
import torch


@pytest.fixture(scope="session")
def gpu() -> torch.device:
    """The GPU."""
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU here")
    return torch.device("cuda")


@pytest.fixture(scope="session")
def kernel_device() -> torch.device:
    """Where the kernels can run: the GPU, or main memory under Triton's interpreter."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if os.environ.get("TRITON_INTERPRET") != "1" or importlib.util.find_spec("triton") is None:
        pytest.skip("neither an NVIDIA GPU here nor Triton's interpreter")
    return torch.device("cpu")
