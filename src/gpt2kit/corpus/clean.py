"""Cleaning that changes how a text is written, never what it says; every change is counted.

In this order: line ends become "\\n"; lines of mojibake (UTF-8 that was read as another encoding) are repaired by ftfy,
where its measure of badness says so; the rarer line ends become "\\n" too; terminal codes, control characters and
characters that nobody sees are removed; characters are composed (Unicode NFC).
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
_SEPARATORS = re.compile("[\x0b\u2028\u2029]|\x85")
_TERMINAL_CODE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
_ASCII_CONTROLS = bytes([*range(9), *range(0x0E, 0x20), 0x0C, 0x7F])
# Beside control characters: soft hyphens, zero-width spaces, word joiners, byte order marks inside a text and
# non-characters. Joiners (U+200C, U+200D) and direction marks stay: scripts and emoji need them.
_REMOVED = re.compile("[\x00-\x08\x0c\x0e-\x1f\x7f-\x9f\xad\u200b\u2060\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]")
_INVISIBLE = frozenset("\xad\u200b\u2060\ufeff\ufff9\ufffa\ufffb\ufffe\uffff")
# ftfy's measure reads 7 MB/s, so only lines that can be bad are shown to it: every pattern of it needs a C1 character,
# or two neighbours beyond ASCII of which one is no common Greek or Cyrillic letter, or one of four letters with an
# ASCII character behind it. Asian scripts are beyond the patterns.
_COMMON_LETTERS = "\u0386-\u03ce\u0401\u0410-\u044f\u0451"
_SUSPECT = "\xa0-\u0385\u03cf-\u0400\u0402-\u040f\u0450\u0452-\u058f\u2010-\u27ff\uf8ff\ufb01\ufb02\ufffd"
_MAYBE_MOJIBAKE = re.compile(
    f"[\x80-\x9f]|[{_SUSPECT}][{_SUSPECT}{_COMMON_LETTERS}]|[{_COMMON_LETTERS}][{_SUSPECT}]|[ÃÂŒœ][^A-Za-z]"
)
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
        if text.isascii():
            return text if _is_plain(text) else self._without_controls(text)
        if _MAYBE_MOJIBAKE.search(text):
            text = self._without_mojibake(text)
        if _SEPARATORS.search(text):
            text, number = _SEPARATORS.subn("\n", text)
            self._count(LINE_ENDS, number)
        if _REMOVED.search(text):
            text = self._without_controls(text)
        if not unicodedata.is_normalized("NFC", text):
            self._count(COMPOSED, sum(not unicodedata.is_normalized("NFC", line) for line in text.split("\n")))
            text = unicodedata.normalize("NFC", text)
        return text

    def _without_mojibake(self, text: str) -> str:
        parts = []
        done = 0
        while match := _MAYBE_MOJIBAKE.search(text, done):
            start = text.rfind("\n", done, match.start()) + 1 or done
            end = text.find("\n", match.start())
            end = len(text) if end < 0 else end
            parts += [text[done:start], self._repaired(text[start:end])]
            done = end
        return "".join(parts) + text[done:]

    def _repaired(self, line: str) -> str:
        import ftfy

        if not ftfy.badness.is_bad(line):
            return line
        # Where a byte was lost already, ftfy would put a replacement character for it: such lines stay as they are.
        repaired = ftfy.fix_encoding(line, replace_lossy_sequences=False)
        if repaired != line:
            self._count(MOJIBAKE, 1)
        return repaired

    def _without_controls(self, text: str) -> str:
        if "\x0b" in text:
            self._count(LINE_ENDS, text.count("\x0b"))
            text = text.replace("\x0b", "\n")
        if "\x1b" in text:
            text, number = _TERMINAL_CODE.subn("", text)
            if number:
                self._count(TERMINAL_CODES, number)
        found = Counter(_REMOVED.findall(text))
        if not found:
            return text
        invisible = sum(number for char, number in found.items() if char in _INVISIBLE)
        surrogates = sum(number for char, number in found.items() if "\ud800" <= char <= "\udfff")
        controls = found.total() - invisible - surrogates
        for what, number in ((INVISIBLE, invisible), (SURROGATES, surrogates), (CONTROLS, controls)):
            if number:
                self._count(what, number)
        return _REMOVED.sub("", text)


def _is_plain(text: str) -> bool:
    data = text.encode("ascii")
    return len(data.translate(None, _ASCII_CONTROLS + b"\x0b")) == len(data)


def _block_end(text: str, start: int, limit: int) -> int:
    """Where a block that begins at `start` should end, at `limit` at the latest."""
    if (end := text.rfind("\n", start, limit)) > start:
        return end
    for window in (1 << 12, limit - start):  # the last safe place; usually a near one
        if matches := list(_SAFE_CUT.finditer(text, max(limit - window, start), limit)):
            return matches[-1].end()
    end = limit
    while end > limit - 64 and (unicodedata.category(text[end])[0] == "M" or "\u1100" <= text[end] <= "\u11ff"):
        end -= 1
    return end
