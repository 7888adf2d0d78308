"""The programs of tools/ as modules."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).resolve().parent.parent.parent / "tools"


def load_tool(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def check_docs() -> ModuleType:
    return load_tool("check_docs")


@pytest.fixture(scope="session")
def cli_reference() -> ModuleType:
    return load_tool("make_cli_reference")


@pytest.fixture(scope="session")
def coverage() -> ModuleType:
    return load_tool("measure_coverage")
