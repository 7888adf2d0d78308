"""Cleaning that changes how a text is written, never what it says; every change is counted.

In this order: line ends become "\\n"; terminal codes and ASCII control characters are removed; lines of mojibake
(UTF-8 that was read as another encoding) are repaired by ftfy, where its measure of badness says so; Unicode's line
ends become "\\n"; other control characters and characters that nobody sees are removed; characters are composed (NFC).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator

LINE_ENDS = "line ends made the same"
MOJIBAKE = "lines of mojibake repaired"
TERMINAL_CODES = "terminal codes removed"
CONTROLS = "control characters removed"
INVISIBLE = "invisible characters removed"
SURROGATES = "halves of characters removed"
COMPOSED = "lines brought to Unicode NFC"

_BLOCK_CHARACTERS = 1 << 20
_TERMINAL_CODE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
_ASCII_CONTROLS = bytes([*range(9), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F])
_SEPARATORS = re.compile("[\x0b\x85\u2028\u2029]")
# Beside control characters: soft hyphens, zero-width spaces, word joiners, byte order marks inside a text and
# non-characters. Joiners (U+200C, U+200D) and direction marks stay: scripts and emoji need them.
_INVISIBLE = "\xad\u200b\u2060\ufeff\ufff9-\ufffb\ufffe\uffff"
_REMOVED = re.compile(f"[\x00-\x08\x0c\x0e-\x1f\x7f-\x84\x86-\x9f{_INVISIBLE}\ud800-\udfff]")
_ODD_BEYOND_ASCII = re.compile(f"[\x80-\x9f\u2028\u2029{_INVISIBLE}\ud800-\udfff]")
_HIGH_RUN = re.compile("[^\x00-\x7f]+")
# ftfy's measure reads 7 MB/s, so only lines that can be bad are shown to it. Nearly all that it looks for stands in a
# run of characters beyond ASCII, and a language has few such runs, so each is looked at once, in the surroundings that
# the measure knows. Its patterns need a C1 character or two neighbours of these scripts, of which one is no common
# Greek or Cyrillic letter; or one of four letters with no letter behind it.
_COMMON_LETTERS = "\u0386-\u03ce\u0401\u0410-\u044f\u0451"
_SUSPECT = "\xa0-\u0385\u03cf-\u0400\u0402-\u040f\u0450\u0452-\u058f\u2010-\u27ff\uf8ff\ufb01\ufb02\ufffd"
_SUSPECT_NEIGHBOURS = re.compile(f"[{_SUSPECT}][{_SUSPECT}{_COMMON_LETTERS}]|[{_COMMON_LETTERS}][{_SUSPECT}]")
_BEFORE_LETTERS = "a{0}a\n {0}a"
_BEFORE_OTHERS = "\n{0}.a\na{0} \n {0} \na {0}  "
_SUSPECT_LETTERS = "ÃÂŒœ"
_SUSPECT_LETTER = re.compile(f"[{_SUSPECT_LETTERS}][^A-Za-z]")
_RUNS_REMEMBERED = 1 << 17
# A place that no rule looks across: ASCII on both sides, the second a space.
_SAFE_CUT = re.compile("[!-\x7f](?=[ \t\n])")


class Cleaner:
    """Cleans texts and counts what it changes.

    Attributes:
        changes: characters or lines changed, by what was done to them.
        documents: documents changed, by what was done to them.
    """

    def __init__(self) -> None:
        self.changes: Counter[str] = Counter()
        self.documents: Counter[str] = Counter()
        self._seen: set[str] = set()
        self._harmless: set[str] = set()

    def start_document(self) -> None:
        """Count what follows as changes of another document."""
        self._seen.clear()

    def clean(self, text: str) -> str:
        """A text, cleaned."""
        if len(text) > _BLOCK_CHARACTERS:
            return "".join(self.stream([text]))
        return self._block(self._line_ends(text))

    def stream(self, chunks: Iterable[str], *, block_characters: int = _BLOCK_CHARACTERS) -> Iterator[str]:
        """The same for a text that comes in chunks, in blocks that do not depend on how it was cut into them.

        Args:
            chunks: the text.
            block_characters: characters that are cleaned at a time. Blocks end where no rule looks across, at the end
                of a line if there is one.

        Returns:
            The cleaned text in parts; some may be empty.
        """
        buffer = ""
        held = ""
        for chunk in chunks:
            chunk = held + chunk
            held = "\r" if chunk.endswith("\r") else ""  # a "\n" may follow in the next chunk
            buffer += self._line_ends(chunk[: len(chunk) - len(held)])
            start = 0
            while len(buffer) - start > block_characters:
                end = _block_end(buffer, start, start + block_characters)
                yield self._block(buffer[start:end])
                start = end
            buffer = buffer[start:]
        yield self._block(buffer + self._line_ends(held))

    def _count(self, what: str, number: int) -> None:
        self.changes[what] += number
        if what not in self._seen:
            self._seen.add(what)
            self.documents[what] += 1

    def _line_ends(self, text: str) -> str:
        if "\r" not in text:
            return text
        self._count(LINE_ENDS, text.count("\r"))
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def _block(self, text: str) -> str:
        is_ascii = text.isascii()
        data = text.encode("utf-8", errors="surrogatepass")
        if len(data.translate(None, _ASCII_CONTROLS)) < len(data):
            text = self._without_ascii_controls(text)
        if is_ascii:
            return text
        lines = text.split("\n")
        for index, line in enumerate(lines):
            if not line.isascii():
                lines[index] = self._line(line)
        return "\n".join(lines)

    def _line(self, line: str) -> str:
        suspects = set(_HIGH_RUN.findall(line)) - self._harmless
        if suspects:
            suspects = {run for run in suspects if not self._is_harmless(run)}
        is_odd = False
        if suspects or (any(map(line.__contains__, _SUSPECT_LETTERS)) and _SUSPECT_LETTER.search(line)):
            line = self._repaired(line)
            is_odd = _ODD_BEYOND_ASCII.search(line) is not None
        if is_odd:
            line, number = _SEPARATORS.subn("\n", line)
            if number:
                self._count(LINE_ENDS, number)
            line = self._without_odd(line)
        if not unicodedata.is_normalized("NFC", line):
            self._count(COMPOSED, 1)
            line = unicodedata.normalize("NFC", line)
        return line

    def _is_harmless(self, run: str) -> bool:
        """Whether a run of characters beyond ASCII is neither odd nor a part of mojibake, wherever it stands."""
        if _ODD_BEYOND_ASCII.search(run):
            return False
        if _SUSPECT_NEIGHBOURS.search(run):
            from ftfy.badness import is_bad

            seen = _BEFORE_LETTERS + ("" if run[-1] in _SUSPECT_LETTERS else _BEFORE_OTHERS)
            if is_bad(seen.format(run)):
                return False
        if len(self._harmless) >= _RUNS_REMEMBERED:
            self._harmless.clear()
        self._harmless.add(run)
        return True

    def _repaired(self, line: str) -> str:
        import ftfy

        if not ftfy.badness.is_bad(line):
            return line
        # Where a byte was lost already, ftfy would put a replacement character for it: such lines stay as they are.
        repaired = ftfy.fix_encoding(line, replace_lossy_sequences=False)
        if repaired != line:
            self._count(MOJIBAKE, 1)
        return repaired

    def _without_ascii_controls(self, text: str) -> str:
        for what, pattern, instead in (
            (LINE_ENDS, "\x0b", "\n"),
            (TERMINAL_CODES, _TERMINAL_CODE, ""),
            (CONTROLS, "[\x00-\x08\x0c\x0e-\x1f\x7f]", ""),
        ):
            text, number = re.subn(pattern, instead, text)
            if number:
                self._count(what, number)
        return text

    def _without_odd(self, line: str) -> str:
        found = Counter(_REMOVED.findall(line))
        for char, number in found.items():
            is_half = "\ud800" <= char <= "\udfff"
            self._count(SURROGATES if is_half else CONTROLS if char < "\xa0" else INVISIBLE, number)
        return _REMOVED.sub("", line) if found else line


def _block_end(text: str, start: int, limit: int) -> int:
    """Where a block that begins at `start` should end, at `limit` at the latest."""
    if (end := text.rfind("\n", start, limit)) > start:
        return end
    for window in (1 << 12, limit - start):  # the last safe place; usually a near one
        if matches := list(_SAFE_CUT.finditer(text, max(limit - window, start), limit)):
            return matches[-1].end()
    for end in range(limit, max(limit - 64, start), -1):
        if not _joins_to_what_is_before(text[end]):
            return end
    return limit


def _joins_to_what_is_before(char: str) -> bool:
    """Whether a character may be composed with the one before it: accents, vowel signs, later parts of Hangul."""
    return unicodedata.category(char)[0] == "M" or "\u1160" <= char <= "\u11ff"
