"""Which encoding a file is in. Files whose encoding is not certain are refused by name, never read with losses.

In this order: a byte order mark; UTF-16 without one (every other byte is 0); strict UTF-8; and the single-byte code
pages, by the language that their letters make (charset-normalizer) and by whether letters and signs stand where such
letters and signs can stand.
"""

import codecs
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from gpt2kit.corpus.account import BadFileError
from gpt2kit.errors import UsageError

_CHUNK_BYTES = 1 << 20
_HEAD_BYTES = 1 << 16
_SAMPLE_BYTES = 1 << 14  # more makes nothing clearer, and takes a second a file
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MAGIC = {
    b"%PDF-": "a PDF",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"PK\x03\x04": "a zip, Word or EPUB file",
    b"\xd0\xcf\x11\xe0": "an old Word or Excel file",
    b"\x1f\x8b": "gzip data without the ending .gz",
    b"\x28\xb5\x2f\xfd": "zstd data without the ending .zst",
    b"PAR1": "Parquet without the ending .parquet",
    b"\x7fELF": "a program",
    b"SQLite format 3": "a database",
}
_WESTERN: tuple[str, ...] = ("cp1252", "iso8859_15", "mac_roman", "cp850")
_CENTRAL: tuple[str, ...] = ("cp1250", "iso8859_2", "cp852")
_BALTIC: tuple[str, ...] = ("cp1257", "iso8859_13")
_OTHERS = ("cp1254", "cp1251", "koi8_r", "koi8_u", "cp866", "iso8859_5", "mac_cyrillic", "cp1253", "iso8859_7")
_RIGHT_TO_LEFT = ("cp1255", "cp1256")
_CODE_PAGES = _WESTERN + _CENTRAL + _BALTIC + _OTHERS + _RIGHT_TO_LEFT
# Many languages are written the same in several code pages, so the usual ones of the language go first.
_USUAL: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("Hungarian", "Polish", "Czech", "Slovak", "Slovene", "Croatian", "Romanian"), _CENTRAL),
    "Turkish": ("cp1254",),
    **dict.fromkeys(("Lithuanian", "Latvian", "Estonian"), _BALTIC),
    **dict.fromkeys(("English", "German", "French", "Spanish", "Italian", "Portuguese"), _WESTERN),
    **dict.fromkeys(("Dutch", "Swedish", "Norwegian", "Danish", "Finnish", "Indonesian"), _WESTERN),
}
# The right code page reaches 0.4 and above, with hardly a misplaced sign, in texts of two sentences in 12 languages.
_LEAST_COHERENCE = 0.3
_MOST_MISPLACED = 0.02
_COHERENCE_SLACK = 0.1
_CLEAR_LEAD = 0.02
_MOST_CONTROLS = 0.05
_LEAST_ZEROS = 0.04  # in UTF-16 every space and line end has one; a text with stray zero bytes has fewer
_FREE_SIGNS = frozenset("’‘“”„‚–—…•·\u00a0\u00ad®™©°ºª´")
_OPENERS = frozenset("¿¡«„“‘")


@dataclass(frozen=True, slots=True)
class Detection:
    """How to decode a file.

    Attributes:
        encoding: Python's name of the encoding.
        is_guess: found by the look of the text, so that the user should know.
        is_empty: the file has no bytes.
    """

    encoding: str
    is_guess: bool = False
    is_empty: bool = False


def check_encoding(name: str) -> str:
    """Python's name of an encoding the user named.

    Raises:
        UsageError: there is no such encoding of text.
    """
    try:
        codec = codecs.lookup(name)
    except LookupError as error:
        raise UsageError(f"--encoding {name}: no such encoding; examples: utf-8, latin-1, cp1252, utf-16") from error
    if not codec._is_text_encoding:
        raise UsageError(f"--encoding {name}: is not an encoding of text; examples: utf-8, latin-1, cp1252, utf-16")
    return codec.name


def detect_encoding(file: IO[bytes], encoding: str | None = None) -> Detection:
    """Find the encoding of a file, reading all of it.

    Args:
        file: the file, at its beginning.
        encoding: what the user says. It is taken for files that have no byte order mark and are not UTF-8 with
            letters beyond ASCII (such bytes are UTF-8 in all likelihood, and one folder may hold both).

    Returns:
        The encoding; the whole file can be decoded with it.

    Raises:
        BadFileError: it is binary, or damaged, or the encoding is not certain.
    """
    head = file.read(_HEAD_BYTES)
    if not head:
        return Detection("utf-8", is_empty=True)
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            raise BadFileError("not text", f"is no text (it looks like {name})")
    for mark, marked in _MARKS:
        if head.startswith(mark):
            return _checked(marked, _chunks(head, file))
    if encoding is None:
        if b"\0" in head and (wide := _utf16_without_mark(head)) is not None:
            return _checked(wide, _chunks(head, file))
        _refuse_binary(head)
    scan = _scan_utf8(_chunks(head, file))
    if scan.first_bad is None and (scan.has_high or encoding is None):
        return Detection("utf-8")
    if encoding is None:
        return Detection(_code_page(scan), is_guess=True)
    file.seek(0)
    return _checked(encoding, _chunks(file.read(_HEAD_BYTES), file))


def _checked(encoding: str, chunks: Iterator[bytes]) -> Detection:
    """Decode everything once, so that reading cannot fail half-way."""
    decoder = codecs.getincrementaldecoder(encoding)(errors="strict")
    offset = 0
    pending = 0
    try:
        for chunk in chunks:
            pending = len(decoder.getstate()[0])
            decoder.decode(chunk)
            offset += len(chunk)
        pending = len(decoder.getstate()[0])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise BadFileError(
            f"damaged, or not {encoding}",
            f"is not {encoding}: cannot decode the byte at offset {max(offset - pending, 0) + error.start} "
            f"({error.reason}); repair the file, or name its encoding, e.g. --encoding latin-1",
        ) from error
    return Detection(encoding)


@dataclass(slots=True)
class _Utf8Scan:
    """What a file looks like, read as UTF-8.

    Attributes:
        first_bad: offset of the first byte that is not UTF-8.
        line: the line it is on.
        has_high: there are bytes beyond ASCII.
        sample: the first lines with such bytes.
    """

    first_bad: int | None = None
    line: int = 1
    has_high: bool = False
    sample: bytes = b""


def _scan_utf8(chunks: Iterator[bytes]) -> _Utf8Scan:
    scan = _Utf8Scan()
    decoder = codecs.getincrementaldecoder("utf-8")(errors="strict")
    offset = 0
    for chunk in chunks:
        high = not chunk.isascii()
        scan.has_high |= high
        if high and len(scan.sample) < _SAMPLE_BYTES:
            lines = [line for line in chunk.splitlines(keepends=True) if not line.isascii()]
            scan.sample = (scan.sample + b"".join(lines))[:_SAMPLE_BYTES]
        if scan.first_bad is None:
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                scan.first_bad = offset - pending + error.start
                scan.line += chunk.count(b"\n", 0, max(error.start - pending, 0))
            else:
                scan.line += chunk.count(b"\n")
        offset += len(chunk)
    if scan.first_bad is None and (pending := len(decoder.getstate()[0])):
        scan.first_bad = offset - pending
    return scan


def _code_page(scan: _Utf8Scan) -> str:
    """The single-byte code page of a file that is not UTF-8.

    Raises:
        BadFileError: it is damaged UTF-8, or the code page is not certain.
    """
    where = f"at offset {scan.first_bad} (line {scan.line})"
    as_utf8 = scan.sample.decode("utf-8", errors="replace")
    num_bad = as_utf8.count("\ufffd")
    num_good = sum(not char.isascii() for char in as_utf8) - num_bad
    if num_good >= max(num_bad, 1):
        raise BadFileError(
            "damaged UTF-8",
            f"is UTF-8 with damaged bytes, the first {where}; repair the file, or read every byte as a character "
            "of its own with --encoding latin-1",
        )
    if (found := _likely_code_page(scan.sample)) is None:
        raise BadFileError(
            "unknown encoding",
            f"is not UTF-8 (the byte {where}), and no other encoding is certain; name it, e.g. --encoding latin-1, "
            "or repair the file",
        )
    return found


def _likely_code_page(sample: bytes) -> str | None:
    from charset_normalizer import from_bytes

    candidates = [name for name in _CODE_PAGES if _share_misplaced(sample, name) <= _MOST_MISPLACED]
    matches = [match for match in from_bytes(sample, cp_isolation=list(_CODE_PAGES)) if match.coherence > 0]
    coherence: dict[str, float] = {}
    language: dict[str, str] = {}
    for match in matches:
        for name in (match.encoding, *match.could_be_from_charset):
            coherence[name] = max(coherence.get(name, 0), match.coherence)
            language.setdefault(name, match.language)
    ranked = sorted((name for name in candidates if name in coherence), key=lambda name: -coherence[name])
    if not ranked or coherence[ranked[0]] < _LEAST_COHERENCE:
        return None
    best = coherence[ranked[0]]
    usual = _USUAL.get(language[ranked[0]], ())
    near = [name for name in usual if name in ranked and coherence[name] >= best - _COHERENCE_SLACK]
    chosen = near[0] if near else ranked[0]
    # Western code pages are by far the most common, so they need no lead over the others; the others need one. Those
    # of the same language have been told apart by misplaced signs.
    rivals = [name for name in ranked if coherence[name] >= best - _CLEAR_LEAD and name not in usual]
    is_clear = chosen in _WESTERN or all(sample.decode(name) == sample.decode(chosen) for name in rivals)
    return chosen if is_clear else None


def _share_misplaced(sample: bytes, encoding: str) -> float:
    """Share of the characters beyond ASCII that stand where they cannot stand in words and sentences."""
    try:
        text = sample.decode(encoding)
    except UnicodeDecodeError:
        return 1.0
    padded = f" {text} "
    misplaced = total = 0
    for before, char, after in zip(padded, padded[1:], padded[2:], strict=False):
        if not char.isascii():
            total += 1
            misplaced += _is_misplaced(before, char, after)
    return misplaced / max(total, 1)


def _is_misplaced(before: str, char: str, after: str) -> bool:
    category = unicodedata.category(char)
    if category[0] == "L":
        others = [other for other in (before, after) if other.isalpha()]
        if char in "ÿŸ" or any(_script(other) != _script(char) for other in others):
            return True
        return category == "Lu" and before.islower()
    if category[0] == "M":
        return not (before.isalpha() or unicodedata.category(before)[0] == "M")
    if char in _OPENERS and char not in "“‘":
        return before.isalpha()
    if char in _FREE_SIGNS:
        return False
    return category == "Cc" or before.isalpha() or after.isalpha()


def _script(char: str) -> str:
    return unicodedata.name(char, "?").partition(" ")[0]


def _utf16_without_mark(head: bytes) -> str | None:
    """The byte order, when the bytes make plausible UTF-16 text; None when they do not."""
    if head.count(0) < len(head) * _LEAST_ZEROS:
        return None
    even = head[: len(head) // 2 * 2]
    best, most_spaces = None, 0
    for encoding in ("utf-16-le", "utf-16-be"):
        try:
            text = codecs.getincrementaldecoder(encoding)(errors="strict").decode(even)
        except UnicodeDecodeError:
            continue
        strange = sum(
            unicodedata.category(char) in ("Cc", "Cn", "Co", "Cs") and char not in "\t\n\r\f" for char in text
        )
        spaces = text.count(" ") + text.count("\n") + text.count("\u3000") + text.count("\u3002")
        if strange <= len(text) * 0.005 and spaces > most_spaces:
            best, most_spaces = encoding, spaces
    return best


def _refuse_binary(head: bytes) -> None:
    controls = len(head) - len(head.translate(None, bytes([*range(9), *range(14, 27), *range(28, 32), 127])))
    if controls > len(head) * _MOST_CONTROLS:
        raise BadFileError(
            "not text", f"is no text: {controls / len(head):.0%} of its first bytes are control characters"
        )


def _chunks(head: bytes, file: IO[bytes]) -> Iterator[bytes]:
    while head:
        yield head
        head = file.read(_CHUNK_BYTES)
