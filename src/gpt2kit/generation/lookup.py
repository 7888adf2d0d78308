"""Guessing the next tokens from what the text and its prompt hold already, to read several at once.

Where the last few tokens have stood before, what followed them then is a fair guess at what follows now: in code,
tables, quotations, answers from a long prompt, and texts that repeat themselves. The guesses are read together with the
token before them, which costs little more than that token alone, because the weights pass through memory once. Each
token is then chosen as always, from the scores behind the tokens before it and with its own key; guesses only save
readings as long as they are what is chosen. So the text is the same, bit for bit.

Source: Saxena 2023, "Prompt Lookup Decoding"; Yang et al. 2023, "Inference with Reference".
"""

from collections.abc import Iterable

_SIZES = (4, 3)  # tokens that have to agree, tried in this order
_FEWEST, _MOST = 2, 8  # guesses at a time
_FIRST_PAUSE, _LONGEST_PAUSE = 16, 256  # tokens without guesses after wrong ones


class Lookup:
    """The tokens of a text with its prompt, and what followed each few of them when they stood there last.

    How many are guessed follows from how the last guesses went: more after right ones, and none for a while, longer
    each time, after wrong ones, so that a text that does not repeat itself pays little for trying.

    Args:
        tokens: of the prompt.
    """

    def __init__(self, tokens: Iterable[int]) -> None:
        self._tokens: list[int] = []
        self._places: dict[tuple[int, ...], int] = {}  # behind the last occurrence of each few tokens
        self._num_guesses = _FEWEST
        self._pause = _FIRST_PAUSE
        self._resting = 0
        for token in tokens:
            self.push(token)

    def push(self, token: int) -> None:
        """Add a token of the text."""
        end = len(self._tokens)
        for size in _SIZES:
            if end >= size:
                self._places[tuple(self._tokens[end - size :])] = end
        self._tokens.append(token)

    def guess(self, most: int) -> list[int]:
        """The tokens that may come next, up to `most`; often none."""
        if self._resting > 0:
            self._resting -= 1
            return []
        count = min(most, self._num_guesses)
        if count <= 0:
            return []
        for size in _SIZES:
            place = self._places.get(tuple(self._tokens[-size:]))
            if place is not None:
                period = len(self._tokens) - place  # behind the last token, what repeats itself goes round
                return [self._tokens[place + step % period] for step in range(count)]
        return []

    def learn(self, *, num_guessed: int, num_right: int) -> None:
        """Take in how many of some guesses were right."""
        if num_guessed == 0:
            return
        if num_right == num_guessed:
            self._num_guesses = min(2 * self._num_guesses, _MOST)
            self._pause = _FIRST_PAUSE
        elif 2 * num_right < num_guessed:
            self._num_guesses = _FEWEST
            self._resting = self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        else:
            self._num_guesses = max(num_right + 1, _FEWEST)
