"""The three notebooks run top to bottom on a small setting."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NAMES = ("01_data_preparation", "02_model_training", "03_text_generation")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with some of the sample text, where the notebooks may write."""
    folder = tmp_path_factory.mktemp("notebooks")
    raw = folder / "data" / "raw"
    raw.mkdir(parents=True)
    for tale in sorted((ROOT / "data" / "raw").rglob("*.txt"))[:24]:
        shutil.copy(tale, raw)
    return folder


@pytest.mark.socket
@pytest.mark.usefixtures("socket_enabled")  # the kernel is another process, spoken to on the local host
@pytest.mark.filterwarnings("ignore")  # of the notebook machinery itself
@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_runs(name: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT2KIT_NOTEBOOK_ROOT", str(workplace))
    monkeypatch.setenv("GPT2KIT_NOTEBOOK_STUDIES", str(ROOT / "docs" / "experiments"))
    monkeypatch.setenv("GPT2KIT_NOTEBOOK_STEPS", "6")
    monkeypatch.setenv("GPT2KIT_NOTEBOOK_LENGTH", "12")
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3")
    client.execute()
    pictures = [output for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert any("image/png" in output["data"] for output in pictures)


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_is_kept_without_outputs(name: str) -> None:
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
