"""Cutting a long text into sections: always directly before white space, at the end of a paragraph if possible.

GPT-2's word pattern never joins what stands before white space to what follows, so the tokens of the sections, put
together, are the tokens of the whole.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator

_LONGEST = 4  # times the wanted length, for text without any white space
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*(?=\s)")
_SPACE = re.compile(r"\s")
# Between a sign and a letter behind it, as in text without spaces; an apostrophe may belong to the letters.
_SIGN_BEFORE_LETTER = re.compile(r"[^\s\w'](?=[^\W_])")


def cut_sections(parts: Iterable[str], section_chars: int) -> Iterator[str]:
    """Cut a text that comes in parts.

    Args:
        parts: the text. How it is cut into parts makes no difference to the sections.
        section_chars: characters aimed at for a section: most have half of it to all of it.

    Returns:
        The sections in order; put together they are the text. An empty text has none.
    """
    longest = _LONGEST * section_chars + 1
    buffer = ""
    start = 0
    for part in parts:
        buffer = buffer[start:] + part
        start = 0
        while len(buffer) - start >= longest:
            end = _section_end(buffer, start, section_chars)
            yield buffer[start:end]
            start = end
    while start < len(buffer):
        rest = len(buffer) - start
        end = _section_end(buffer, start, section_chars) if rest > section_chars * 5 // 4 else len(buffer)
        yield buffer[start:end]
        start = end


def _section_end(text: str, start: int, section_chars: int) -> int:
    """Where a section ends; depends on the next `_LONGEST * section_chars` characters only."""
    wanted, least = start + section_chars, start + section_chars // 2
    for end in (text.rfind("\n\n", least, wanted), text.rfind("\n", least, wanted)):
        if end >= 0 and (cut := _before_space(text, end, start)) is not None:
            return cut
    for match in reversed(list(_SENTENCE_END.finditer(text, least, wanted))):
        return match.end()
    for match in reversed(list(_SPACE.finditer(text, least, wanted))):
        if (cut := _before_space(text, match.start(), start)) is not None:
            return cut
    limit = min(start + _LONGEST * section_chars, len(text))
    for match in _SPACE.finditer(text, wanted, limit):
        if (cut := _before_space(text, match.start(), start)) is not None:
            return cut
    for match in reversed(list(_SIGN_BEFORE_LETTER.finditer(text, least, wanted))):
        return match.end()
    return _between_characters(text, wanted, start)


def _before_space(text: str, end: int, start: int) -> int | None:
    """The beginning of the white space around `end`; None when there is nothing else before it in the section."""
    while end > start and text[end - 1].isspace():
        end -= 1
    return end if end > start else None


def _between_characters(text: str, end: int, start: int) -> int:
    """A place near `end` that does not part a letter from its accents."""
    for cut in range(end, max(end - 32, start), -1):
        if unicodedata.category(text[cut])[0] != "M" and text[cut] != "\u200d" and text[cut - 1] != "\u200d":
            return cut
    return end
