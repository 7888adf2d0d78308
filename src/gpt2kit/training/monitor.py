"""What a run writes about itself: one line of JSON a step, and the same in TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from gpt2kit.console import say, warn
from gpt2kit.errors import MissingExtraError
from gpt2kit.files import explained_disk_errors, json_line, read_json_lines, write_json_lines
from gpt2kit.model.loss import perplexity
from gpt2kit.runtime import require_extra

METRICS = "metrics.jsonl"
_TAGS = {
    "loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "gradient_norm": "train/gradient_norm",
    "tokens_per_second": "speed/tokens_per_second",
    "memory_bytes": "speed/memory_bytes",
    "validation_loss": "validation/loss",
}


class Monitor:
    """Writes `metrics.jsonl` and TensorBoard events.

    Args:
        folder: the run's `training/` folder.
        step: the step the run goes on from, -1 to begin anew; records of later steps, left by a kill, are dropped.
        tensorboard: write TensorBoard events too; a missing package is said once.
    """

    def __init__(self, folder: Path, *, step: int, tensorboard: bool) -> None:
        self.path = folder / METRICS
        self._file = self._open_up_to(step)
        self._writer = _tensorboard_writer(folder / "tensorboard", step) if tensorboard else None

    def rewind(self, step: int) -> None:
        """Drop the records after `step`, after a rollback."""
        self._file.close()
        self._file = self._open_up_to(step)

    def _open_up_to(self, step: int) -> TextIO:
        with explained_disk_errors(self.path):
            write_json_lines(self.path, [record for record in read_json_lines(self.path) if record["step"] <= step])
            return self.path.open("a", encoding="utf-8")

    def _write(self, record: dict[str, Any]) -> None:
        with explained_disk_errors(self.path):
            self._file.write(json_line(record))
            self._file.flush()

    def record(self, step: int, kind: str, **values: float | str) -> None:
        """Write one record: `kind` is "train", "validation" or "event"."""
        self._write({"step": step, "kind": kind, **values})
        if self._writer is None:
            return
        with explained_disk_errors(self.path):
            _draw(self._writer, step, values)

    def sample(self, step: int, prompt: str, text: str) -> None:
        """Write a text sampled from a fixed prompt."""
        self._write({"step": step, "kind": "sample", "prompt": prompt, "text": text})
        if self._writer is not None:
            # Markdown would join the lines of verse and dialogue.
            words = (prompt + text).replace("\n", "  \n")
            with explained_disk_errors(self.path):
                self._writer.add_text(f"sample/{prompt or 'from the beginning'}", words, step)

    def close(self) -> None:
        """Flush and close the files.

        Raises:
            DiskError: the disk is full.
        """
        with explained_disk_errors(self.path):
            self._file.close()
            if self._writer is not None:
                self._writer.close()


def _draw(writer: Any, step: int, values: Mapping[str, float | str]) -> None:
    """Write a record to TensorBoard."""
    for name, value in values.items():
        if name in _TAGS:
            writer.add_scalar(_TAGS[name], value, step)
    for name in ("loss", "validation_loss"):
        if isinstance(values.get(name), float):
            tag = "train/perplexity" if name == "loss" else "validation/perplexity"
            writer.add_scalar(tag, perplexity(float(values[name])), step)
    if "reason" in values:
        writer.add_text("events", str(values["reason"]), step)


def _tensorboard_writer(folder: Path, step: int) -> Any:
    try:
        require_extra("tensorboard", extra="tensorboard", purpose="TensorBoard")
    except MissingExtraError as error:
        warn(f"{error}; metrics go to {METRICS} only (--no_tensorboard hides this)")
        return None
    from torch.utils.tensorboard import SummaryWriter

    say(f"curves: tensorboard --logdir {folder}")
    return SummaryWriter(str(folder), purge_step=step + 1)
