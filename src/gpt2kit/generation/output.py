"""The files of a run: one to read (.txt) and one with everything (.jsonl), never in the place of another run's.

The first line of the .jsonl is a header: what made the texts, and all that is needed to make them again. Every other
line is a sample. Samples are added as they are finished, so that an interrupted run keeps those it has; at the end the
file is put in order.
"""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from gpt2kit.errors import UsageError
from gpt2kit.files import encodable, explained_disk_errors, json_line, sha256_file, write_atomically, write_json_lines
from gpt2kit.generation.prompts import as_given
from gpt2kit.generation.sample import Sample
from gpt2kit.generation.settings import GenerateSettings
from gpt2kit.model.places import file_hashes, is_adapter

HEADER_KIND = "gpt2kit generation"
_NAME = re.compile(r"generated_(\d+)")
_RULE = "=" * 20
_LONGEST_COMMAND = 1000


class OutputFiles:
    """A pair of files of a run, claimed with the next free number.

    Attributes:
        text: the file to read.
        lines: the file with everything.
    """

    def __init__(self, lines: Path, header: Mapping[str, Any], *, include_prefix: bool) -> None:
        self.lines = lines
        self.text = lines.with_suffix(".txt")
        self.samples: list[Sample] = []
        self._header = dict(header)
        self._include_prefix = include_prefix

    @classmethod
    def claim(cls, folder: Path, header: Mapping[str, Any], *, include_prefix: bool) -> Self:
        """Take the next free number in `folder`, which is made if needed.

        Creating the .jsonl is what claims the number, so that two runs at the same time never get the same.

        Raises:
            UsageError: `folder` is a file.
            DiskError: it is not writable, or the disk is full.
        """
        with explained_disk_errors(folder):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise UsageError(f"--output_dir {folder}: is a file, or lies in one; name a folder") from error
            number = max((_number(path) for path in folder.iterdir()), default=0) + 1
            while True:
                files = cls(folder / f"generated_{number:04}.jsonl", header, include_prefix=include_prefix)
                try:
                    if files.text.exists():
                        raise FileExistsError
                    with files.lines.open("x", encoding="utf-8") as file:
                        file.write(json_line(files._header))
                except FileExistsError:
                    number += 1
                except OSError:
                    files.lines.unlink(missing_ok=True)
                    raise
                else:
                    return files

    def add(self, sample: Sample) -> None:
        """Keep a finished sample."""
        with explained_disk_errors(self.lines), self.lines.open("a", encoding="utf-8") as file:
            file.write(json_line(sample.to_dict()))
        self.samples.append(sample)

    def finish(self) -> None:
        """Put the samples in order and write the file to read; without any samples, give the number back."""
        if not self.samples:
            self.lines.unlink(missing_ok=True)
            return
        self.samples.sort(key=lambda sample: (sample.prompt_index, sample.sample_index))
        write_json_lines(self.lines, [self._header, *(sample.to_dict() for sample in self.samples)])
        write_atomically(self.text, self._to_read())

    def _to_read(self) -> str:
        again = self._header["again"]
        if "\n" in again or len(again) > _LONGEST_COMMAND:
            again = f"the command is in the first line of {self.lines.name}"
        made_by = [f"# {again}", ""]
        texts = [
            f"{_RULE} prompt {sample.prompt_index + 1}, sample {sample.sample_index + 1} ({sample.finish_reason}, "
            f"{len(sample.ids)} tokens) {_RULE}\n{shown(sample, include_prefix=self._include_prefix)}\n"
            for sample in self.samples
        ]
        return encodable("\n".join([*made_by, *texts]))


def shown(sample: Sample, *, include_prefix: bool) -> str:
    """A sample as a person reads it."""
    return (sample.prompt if include_prefix else "") + sample.text


def model_record(folder: Path, *, known: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A model folder with the SHA-256 of what its texts depend on: weights, configuration and tokenizer.

    Args:
        folder: the model's.
        known: hashes of some of its files that need not be computed again.
    """
    named = file_hashes(folder, known=known)
    record: dict[str, Any] = {"folder": str(folder), "sha256": named}
    if is_adapter(folder):
        from gpt2kit.model.adapters import base_folder, tokenizer_folder  # imports torch

        tokenizer = tokenizer_folder(folder) / "tokenizer.json"
        if tokenizer.is_file() and tokenizer.name not in named:
            named["tokenizer.json"] = sha256_file(tokenizer)
        record["base"] = model_record(base_folder(folder))
    return record


def command_line(settings: GenerateSettings) -> str:
    """The command that writes the same texts; settings that have their default are left out."""
    words = ["gpt2kit", "generate"]
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if name == "prompt":
            value = tuple(map(as_given, value))
        if value == field.get_default(call_default_factory=True):
            continue
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no_{name}")
        else:
            words += [f"--{name}={item}" for item in (value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)


def _number(path: Path) -> int:
    match = _NAME.match(path.name)
    return int(match.group(1)) if match else 0
