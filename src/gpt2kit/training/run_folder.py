"""The folder of a run: who may write to it, whether it is new, unfinished or finished, and what is in it.

models/mine/                the best weights so far: a plain Hugging Face folder (or an adapter in peft's format)
    training/
        run.json            what made it: settings, data, base, plan, provenance
        metrics.jsonl       one line a step
        tensorboard/        the same for TensorBoard
        checkpoints/        the newest checkpoints, to go on from
        interventions.json  rollbacks, if any
        result.json         written last: the run is finished
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from gpt2kit.console import say
from gpt2kit.errors import UsageError
from gpt2kit.files import explained_disk_errors, read_json, to_json, write_atomically
from gpt2kit.training.settings import PRESENTATION_FIELDS, TrainSettings

_IGNORED = {".gitkeep", ".gitignore"}


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run's files below `root`."""

    root: Path

    @property
    def training(self) -> Path:
        """The folder of what belongs to the training itself."""
        return self.root / "training"

    @property
    def record(self) -> Path:
        """What made the run."""
        return self.training / "run.json"

    @property
    def result(self) -> Path:
        """What came out of it; its presence says that the run is finished."""
        return self.training / "result.json"

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.training / "checkpoints"

    @property
    def interventions(self) -> Path:
        """The list of rollbacks."""
        return self.training / "interventions.json"

    def lock(self) -> FileLock:
        """Take the run for this process, until it ends.

        Raises:
            UsageError: another process is training in this folder.
        """
        with explained_disk_errors(self.root):
            self.training.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.training / "lock", blocking=False)
            try:
                lock.acquire()
            except Timeout:
                raise UsageError(
                    f"--model_output_dir {self.root}: another process is training there; wait for it, or choose "
                    "another folder"
                ) from None
        return lock

    def read_record(self) -> dict[str, Any]:
        """What `write_record` wrote."""
        return read_json(self.record, what="the record of a training run")

    def write_record(self, values: dict[str, Any]) -> None:
        """Write what makes the run, before anything else of it."""
        write_atomically(self.record, to_json(values))


Standing = Literal["new", "unfinished", "finished"]


def identity(settings: TrainSettings, *, data_fingerprint: str, base_fingerprint: str) -> dict[str, Any]:
    """What makes a run that very run: the settings that change its numbers, the data and the base model."""
    values = {
        name: value
        for name, value in settings.to_dict().items()
        if name not in PRESENTATION_FIELDS and name not in ("data_dir", "model_output_dir", "base")
    }
    return values | {"data_dir": data_fingerprint, "base": base_fingerprint}


def claim(folder: RunFolder, wanted: dict[str, Any], *, overwrite: bool) -> Standing:
    """Decide what a folder is to a run, and move an earlier run aside where that is right; nothing is ever deleted.

    Args:
        folder: the output folder.
        wanted: the run's identity.
        overwrite: start anew even over an unfinished run.

    Raises:
        UsageError: the folder holds other things, or an unfinished run with other settings.
    """
    standing, differences = examine(folder, wanted)
    if standing == "new":
        return standing
    if standing == "unfinished" and differences and not overwrite:
        raise UsageError(
            f"--model_output_dir {folder.root} holds an unfinished run with other settings ({'; '.join(differences)}): "
            "repeat its settings to go on with it, choose another folder, or add --overwrite to move it aside"
        )
    if differences or overwrite:
        folder.lock().release()  # who trains there would go on in the folder that takes its place
        moved = move_aside(folder.root)
        say(f"{folder.root} held {'a finished' if standing == 'finished' else 'an unfinished'} run; it is now {moved}")
        return "new"
    return standing


def examine(folder: RunFolder, wanted: dict[str, Any]) -> tuple[Standing, list[str]]:
    """Whether a folder is free, and else how its run differs from the wanted one; changes nothing.

    Raises:
        UsageError: the folder holds other things, or is a file.
    """
    root = folder.root
    if root.exists() and not root.is_dir():
        raise UsageError(f"--model_output_dir {root} is a file; choose a folder")
    if not folder.record.exists():
        # A kill before the record was written leaves an empty `training/` with its lock.
        found = [path for path in _content(root) if path != folder.training]
        found += [path for path in _content(folder.training) if path.name not in ("lock", "run.json.partial")]
        if found:
            raise UsageError(
                f"--model_output_dir {root} holds other things ({found[0].name}"
                f"{', ...' if len(found) > 1 else ''}) and no gpt2kit run; choose an empty or new folder"
            )
        return "new", []
    recorded = folder.read_record().get("identity", {})
    differences = [
        _difference(name, recorded.get(name), wanted.get(name))
        for name in sorted(recorded.keys() | wanted.keys())
        if recorded.get(name) != wanted.get(name)
    ]
    return ("finished" if folder.result.exists() else "unfinished"), differences


def _content(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.name not in _IGNORED] if folder.is_dir() else []


def _difference(name: str, recorded: Any, wanted: Any) -> str:
    if name == "data_dir":
        return "--data_dir holds other data now"
    if name == "base":
        return "the base model is another one now"
    return f"--{name} was {recorded} and is {wanted}"


def move_aside(root: Path) -> Path:
    """Rename a folder to the next free name beside it, e.g. `mine-1`."""
    number = 1
    while (target := root.with_name(f"{root.name}-{number}")).exists():
        number += 1
    with explained_disk_errors(target):
        root.rename(target)
    return target
