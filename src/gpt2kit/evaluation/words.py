"""Texts as words and as sentences, for the figures that count them."""

import re
import unicodedata

# Signs written on or beside a letter (vowels of Hindi, accents that stand apart) are not in `\w`; "_" is.
MARKS = frozenset(sign for sign in map(chr, range(0x300, 0x1E950)) if unicodedata.category(sign).startswith("M"))
_LETTERS = rf"[^\W_]+(?:[{''.join(sorted(MARKS))}]+[^\W_]*)*"
_WORD = re.compile(rf"{_LETTERS}(?:['’\-]{_LETTERS})*|[^\w\s]")
_BARE = re.compile(rf"{_LETTERS}(?:['’]{_LETTERS})*")
# A sentence ends with . ! ? or … (and closing quotes or brackets) before white space, or with an empty line.
_SENTENCE_END = re.compile(r"(?:[.!?…]+[\"'”’»)\]]*(?=\s))|\n\s*\n")
# A full stop behind these is no end. A single capital letter is an initial.
_ABBREVIATION = re.compile(r"(?:^|[\s(])(?:Mr|Mrs|Ms|Dr|St|Prof|Rev|Capt|Col|Gen|vs|etc|e\.g|i\.e|[A-HJ-Z])\.$")


def split_words(text: str) -> list[str]:
    """Words and punctuation marks, as they are written.

    A word is a run of letters (with the marks on them) and digits with inner apostrophes and hyphens. In scripts
    without spaces between words a run is a whole phrase.
    """
    return _WORD.findall(text)


def normalised(word: str) -> str:
    """The letters (with the marks on them) and digits of a word, in one case; may be empty."""
    return "".join(sign for sign in word.casefold() if sign.isalnum() or sign in MARKS)


def bare_words(text: str) -> list[str]:
    """The words of a text in one case, without punctuation; hyphens, dashes and slashes part words."""
    return [normalised(word) for word in _BARE.findall(text)]


def split_sentences(text: str) -> list[str]:
    """The sentences of a text; the last may be unfinished. Sentences without a single letter or digit are left out."""
    sentences, start = [], 0
    for end in _SENTENCE_END.finditer(text):
        if end.group().strip() == "." and _ABBREVIATION.search(text, start, end.end()):
            continue
        sentences.append(text[start : end.end()])
        start = end.end()
    sentences.append(text[start:])
    return [stripped for sentence in sentences if re.search(r"\w", stripped := sentence.strip())]
