"""How the next token is chosen, as plain values that every engine follows."""

from dataclasses import dataclass

from gpt2kit.native.engine import DrawingRules


@dataclass(frozen=True, kw_only=True)
class PenaltyRules:
    """What is done to the scores before a token is chosen from them; the defaults do nothing.

    Attributes:
        forbidden: ids that are never chosen.
        end_of_text: the id that ends a text.
        min_new_tokens: before so many, end-of-text is not chosen.
        repetition, frequency, presence, no_repeat_ngram_size: as in `sampling`.
    """

    end_of_text: int
    forbidden: tuple[int, ...] = ()
    min_new_tokens: int = 0
    repetition: float = 1.0
    frequency: float = 0.0
    presence: float = 0.0
    no_repeat_ngram_size: int = 0

    def forbidden_after(self, num_tokens: int) -> tuple[int, ...]:
        """The ids that are not chosen in a text that has so many tokens, whatever they are."""
        return (*self.forbidden, self.end_of_text) if num_tokens < self.min_new_tokens else self.forbidden

    @property
    def look_back(self) -> bool:
        """Whether anything is done to the scores that depends on a text's tokens."""
        return bool(self.repetition != 1.0 or self.frequency or self.presence or self.no_repeat_ngram_size)


@dataclass(frozen=True)
class CutoffRules(DrawingRules):
    """Temperature and cut-offs, those that the kernel knows and typical sampling; the defaults change nothing."""

    temperature: float = 1.0
    typical_p: float = 1.0
