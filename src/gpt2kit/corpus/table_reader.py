"""Rows of CSV, TSV and Parquet files."""

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import IO, Any

from gpt2kit.corpus.account import Account, BadFileError
from gpt2kit.corpus.fields import Row, choose_fields, longest_field, unknown_fields
from gpt2kit.runtime import require_extra

_SAMPLE_CHARACTERS = 1 << 16
_DELIMITERS = ",;\t|"
_LONGEST_CELL_CHARACTERS = 1 << 28
_LIKE_A_NAME = re.compile(r"[^\W\d][\w .:/-]{0,40}")
_BATCH_ROWS = 256


def csv_rows(
    file: IO[str], *, shown: str, text_field: str | None, account: Account, delimiter: str | None = None
) -> Iterator[Row]:
    """Yield the rows of a CSV or TSV file.

    Args:
        file: opened with `newline=""`.
        shown: its name for messages.
        text_field: the column the user named. A number names a column of a file without a header, whose first row is
            then a row like the others.
        account: where rows are counted that have cells too many.
        delimiter: what stands between cells; found among comma, semicolon, tab and bar if None.

    Raises:
        BadFileError: it is not clear which column holds the text, or whether the first row names the columns.
    """
    sample = _sample(file)
    layout = _layout(sample, delimiter)
    with _long_cells():
        reader = csv.reader(chain(sample, file), **layout, strict=True)
        rows = _numbered(reader, shown, account)
        first = next(rows, None)
        if first is None:
            return
        names = [name.strip().removeprefix("\ufeff") for name in first[1]]
        if text_field is not None and text_field.isdecimal() and text_field not in names:
            names = [str(number) for number in range(1, len(names) + 1)]
            rows = chain([first], rows)
        elif choose_fields(names, text_field) is None:
            _check_header(names, text_field, _sample_rows(sample, layout)[0])
        if len(set(names)) < len(names):
            names = [
                name if names.index(name) == index else f"{name} ({index + 1})" for index, name in enumerate(names)
            ]
        for number, (line, cells) in enumerate(rows, 1):
            if any(cells[len(names) :]):
                account.bad_row(
                    f"{shown}:{line}",
                    f"has {len(cells)} cells where the header names {len(names)}",
                    remedy="put quotes around texts that hold the separator",
                )
            else:
                yield Row(line, f"row {number}", dict(zip(names, cells, strict=False)))


def _numbered(reader: Any, shown: str, account: Account) -> Iterator[tuple[int, list[str]]]:
    """Rows with the lines they begin on; blank lines are no rows. What cannot be read ends the file."""
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            account.bad_row(
                f"{shown}:{line}",
                f"cannot be read from here to the end of the file ({error})",
                remedy='a quote that opens a cell must close it, and quotes in a quoted cell are doubled ("")',
            )
            return
        if cells:
            yield line, cells


def _sample(file: IO[str]) -> list[str]:
    lines = []
    size = 0
    while size < _SAMPLE_CHARACTERS and (line := file.readline(_LONGEST_CELL_CHARACTERS)):
        lines.append(line)
        size += len(line)
    return lines


def _layout(sample: list[str], delimiter: str | None) -> dict[str, Any]:
    """The arguments for `csv.reader` that make the most of the sample."""
    if delimiter == "\t":
        quoted: dict[str, Any] = {"delimiter": "\t"}
        plain: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
        # In many TSV files quotes are characters like others.
        return plain if _evenness(sample, plain) > _evenness(sample, quoted) else quoted
    layouts = [{"delimiter": mark} for mark in _DELIMITERS]
    return max(layouts, key=lambda layout: _evenness(sample, layout))


def _evenness(sample: list[str], layout: dict[str, Any]) -> float:
    """Share of the rows that have as many cells as the first one, if more than one; less if it cannot be read so."""
    rows, is_sound = _sample_rows(sample, layout)
    if not rows or len(rows[0]) < 2:
        return 0.0
    return sum(len(row) == len(rows[0]) for row in rows) / len(rows) * (1 if is_sound else 0.5)


def _sample_rows(sample: list[str], layout: dict[str, Any]) -> tuple[list[list[str]], bool]:
    """The rows of the sample, and whether it can be read with this layout."""
    rows = []
    try:
        with _long_cells():
            for cells in csv.reader(sample, **layout, strict=True):
                if cells:
                    rows.append(cells)
    except csv.Error as error:
        return rows, "unexpected end" in str(error)  # the sample may end inside a quoted cell
    return rows, True


def _check_header(names: list[str], text_field: str | None, sample: list[list[str]]) -> None:
    """Make sure that a first row without a known name is a header, and that its longest column is clear.

    Raises:
        BadFileError: it is not certain.
    """
    if text_field is not None:
        raise unknown_fields(names, text_field)
    is_header = len(names) > 1 and len(set(names)) == len(names) and all(map(_LIKE_A_NAME.fullmatch, names))
    if not is_header:
        raise BadFileError(
            "no header",
            f"the first row does not name a text column: {[name[:30] for name in names[:8]]}; name the column with "
            "--text_field, or give its number (--text_field 1) if the file has no header and the first row is text",
        )
    if longest_field(dict(zip(names, cells, strict=False)) for cells in sample[1:]) is None:
        raise unknown_fields(names, None)


@contextmanager
def _long_cells() -> Iterator[None]:
    """Lift the limit of 131,072 characters a cell; what remains catches a quote that is never closed."""
    before = csv.field_size_limit(_LONGEST_CELL_CHARACTERS)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def parquet_rows(file: IO[bytes], *, text_field: str | None) -> Iterator[Row]:
    """Yield the rows of a Parquet file, reading only the columns that are needed.

    Raises:
        BadFileError: it is cut off or damaged.
        MissingExtraError: pyarrow is not installed.
    """
    pyarrow = require_extra("pyarrow", extra="parquet", purpose="reading Parquet files")
    parquet = require_extra("pyarrow.parquet", extra="parquet", purpose="reading Parquet files")
    try:
        table = parquet.ParquetFile(file)
        number = 0
        for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=_columns(table, text_field)):
            for value in batch.to_pylist():
                number += 1
                yield Row(0, f"row {number}", value)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise BadFileError("damaged Parquet", f"is not sound Parquet ({reason}); copy or download it again") from error


def _columns(table: Any, text_field: str | None) -> list[str]:
    """The columns to read: those that hold the text, or all columns of strings when no name is known."""
    schema = table.schema_arrow
    fields = choose_fields(schema.names, text_field)
    if fields is not None:
        return list(fields.names)
    strings = [name for name in schema.names if "string" in str(schema.field(name).type)]
    if not strings or text_field is not None:
        raise unknown_fields(schema.names, text_field)
    return strings
