"""What an evaluation is told."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from gpt2kit.config import Settings
from gpt2kit.generation.settings import DEFAULT_MODEL_DIR, GenerateSettings
from gpt2kit.runtime import Precision

# Texts are measured as `gpt2kit generate` writes them, unless asked otherwise.
_WRITING = {name: GenerateSettings.model_fields[name].default for name in ("temperature", "top_k", "top_p")}
_OF_GENERATING = ("sample_tokens", *_WRITING, "end_of_text_first")


class EvaluateSettings(Settings):
    """Settings of `gpt2kit evaluate`."""

    stage: ClassVar[str] = "evaluate"

    model_dir: str = Field(DEFAULT_MODEL_DIR, description="Model to measure: a folder, nano, or a name on the Hub.")
    data_dir: Path = Field(
        Path("data/processed"),
        description="Folder that `gpt2kit prepare` made: its held-out text is measured on, and its training text is "
        "what memorisation is looked for in.",
    )
    output_dir: Path = Field(
        Path("results/evaluation_metrics"),
        description="Folder for the report; every run writes new files with the next free number.",
    )
    compare_with: str | None = Field(
        None,
        description="Model to put beside it: a folder, a name on the Hub, or `none`. "
        "Default: the base model it was fine-tuned from.",
    )
    split: Literal["auto", "test", "validation"] = Field(
        "auto", description="Held-out part to measure on; auto is test if there is any, else validation."
    )
    text: Path | None = Field(None, description="UTF-8 text file to measure on instead of the prepared held-out text.")
    context: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="Tokens a prediction may look back on, at most. Default: all the model can (the smaller of two "
        "models compared).",
    )
    stride: int | None = Field(
        None,
        ge=1,
        description="Tokens a window moves on by. Smaller gives every token more context, usually a lower perplexity, "
        "and takes longer: stride 1 is the exact figure. Default: the context, so windows do not overlap.",
    )
    full_last_window: bool = Field(
        False,
        description="Let the last window of a text reach back for a full context, as lm-eval's rolling figure does.",
    )
    max_tokens: int = Field(
        1_000_000,
        ge=1,
        description="Held-out tokens to measure, about; of more text, documents are drawn by the seed.",
    )
    samples: Path | None = Field(
        None, description="JSONL file of `gpt2kit generate` to measure instead of generating texts for it."
    )
    num_samples: int = Field(
        32,
        ge=0,
        le=100_000,
        description="Texts to generate from the beginnings of held-out texts; 0 leaves out all figures on texts. More "
        "give narrower intervals.",
    )
    sample_tokens: int = Field(
        200, ge=1, le=100_000, description="Tokens of each generated text, at most. Loops show only in long ones."
    )
    prompt_words: int = Field(24, ge=1, le=1000, description="Words of a held-out text that a prompt consists of.")
    temperature: float = Field(
        _WRITING["temperature"],
        ge=0,
        le=100,
        description="Temperature the texts are generated with; 0 is greedy, 1 shows the model as it is.",
    )
    top_k: int = Field(
        _WRITING["top_k"], ge=0, description="Keep the k most probable tokens when generating; 0 keeps all."
    )
    top_p: float = Field(
        _WRITING["top_p"], gt=0, le=1, description="Keep the most probable tokens of this total when generating."
    )
    end_of_text_first: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Put end-of-text in front of every prompt, for all models alike. auto: on if gpt2kit trained any "
        "of them, for its texts began so, else off.",
    )
    copy_words: int = Field(
        8, ge=5, le=1000, description="Words in a row that count as copied from the training text; 13 is usual too."
    )
    mauve: bool = Field(
        False,
        description="Measure MAUVE, how far the texts and human ones are told apart by a model that reads both (needs "
        "the extra mauve). Raise --num_samples to some hundred: of few texts it says little.",
    )
    mauve_model: str = Field(
        "nano",
        description="Model that reads the texts for --mauve: a folder, nano, or a name on the Hub. Published figures "
        "were made with gpt2-large.",
    )
    grammar: bool = Field(
        False,
        description="Count grammar errors in English texts (needs the extra grammar); a second or more for every "
        "5,000 words.",
    )
    near_words: int = Field(
        16,
        ge=12,
        le=1000,
        description="Words of the shortest passage that counts as a near copy: at least 0.8 of its words agree with "
        "the training text.",
    )
    extraction: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Stretches of the training text, and as many held-out ones, whose first tokens are given to the "
        "model to see whether it goes on word for word; 0 leaves it out. 200 is a start, 1,000 gives narrow intervals.",
    )
    extraction_prompt_tokens: tuple[int, ...] = Field(
        (50,),
        description="How many of the stretch's first tokens are given. Several lengths show how much context the model "
        "needs to remember.",
    )
    extraction_tokens: int = Field(
        50, ge=1, le=65536, description="Tokens that it has to go on with, all of them right."
    )
    extraction_from: Literal["anywhere", "beginning"] = Field(
        "anywhere",
        description="Where such a stretch lies: anywhere in a document, or at the beginning of one, which suits "
        "collections of short texts.",
    )
    membership: bool = Field(
        False,
        description="Measure training text too: how much better it is predicted than held-out text, and whether one "
        "could tell by that what the model was trained on.",
    )
    canaries: Path | None = Field(
        None, description="File that `gpt2kit canaries` recorded: measure how far the model knows the planted numbers."
    )
    batch_size: int = Field(8, ge=1, le=4096, description="Full windows of held-out text computed at a time.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    precision: Precision = Field(
        "fp32", description="fp32 for figures to report; bf16 and fp16 are faster on a GPU and change the third digit."
    )
    seed: int = Field(0, description="Seed of the texts, the draws and the intervals.")
    picture: bool = Field(True, description="Draw the figures into a PNG beside the report (needs the extra plots).")

    def without_effect(self) -> list[str]:
        """The settings that were given, and change nothing, because the texts are there or none are measured."""
        if self.samples is not None:
            unused: tuple[str, ...] = ("num_samples", *_OF_GENERATING)
        else:
            unused = () if self.num_samples else (*_OF_GENERATING, "prompt_words")
        return [name for name in unused if name in self.model_fields_set]

    @field_validator("compare_with", "model_dir", "mauve_model")
    @classmethod
    def _named(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("should name a model")
        return value

    @field_validator("extraction_prompt_tokens")
    @classmethod
    def _prompt_lengths(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or min(value) < 1:
            raise ValueError("should be one or more numbers from 1 on")
        return value
