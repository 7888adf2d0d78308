"""What a comparison is told."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from gpt2kit.config import Settings
from gpt2kit.evaluation.settings import EvaluateSettings
from gpt2kit.generation.settings import GenerateSettings
from gpt2kit.runtime import Precision

# Texts are written as `gpt2kit generate` writes them, unless asked otherwise.
_WRITING = {name: GenerateSettings.model_fields[name].default for name in ("temperature", "top_k", "top_p")}
_TAKEN_OVER = ("sample_tokens", "temperature", "top_k", "top_p", "seed", "device", "precision")


class CompareSettings(Settings):
    """Settings of `gpt2kit compare`."""

    stage: ClassVar[str] = "compare"

    models: tuple[str, ...] = Field(
        description="Models to compare, two or more: folders (whole models or LoRA adapters), nano, or names on the "
        "Hub.",
    )
    data_dir: Path = Field(
        Path("data/processed"),
        description="Folder that `gpt2kit prepare` made: all models are measured on its held-out text, and copies of "
        "its training text are looked for.",
    )
    output_dir: Path = Field(
        Path("results/comparisons"),
        description="Folder for the report; every run writes new files with the next free number.",
    )
    split: Literal["auto", "test", "validation"] = Field(
        "auto", description="Held-out part to measure on; auto is test if there is any, else validation."
    )
    text: Path | None = Field(None, description="UTF-8 text file to measure on instead of the prepared held-out text.")
    context: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="Tokens a prediction may look back on, at most. Default: the smallest context of the models.",
    )
    stride: int | None = Field(
        None,
        ge=1,
        description="Tokens a window moves on by; smaller gives every token more context and takes longer. "
        "Default: the context, so windows do not overlap.",
    )
    max_tokens: int = Field(
        1_000_000,
        ge=1,
        description="Held-out tokens to measure, about; of more text, documents are drawn by the seed.",
    )
    num_samples: int = Field(
        32,
        ge=0,
        le=100_000,
        description="Texts that each model writes from the same beginnings of held-out texts; 0 leaves texts out.",
    )
    sample_tokens: int = Field(200, ge=1, le=100_000, description="Tokens of each of these texts, at most.")
    prompt_words: int = Field(24, ge=1, le=1000, description="Words of a held-out text that a prompt consists of.")
    temperature: float = Field(
        _WRITING["temperature"], ge=0, le=100, description="Temperature the texts are written with; 0 is greedy."
    )
    top_k: int = Field(_WRITING["top_k"], ge=0, description="Keep the k most probable tokens; 0 keeps all.")
    top_p: float = Field(_WRITING["top_p"], gt=0, le=1, description="Keep the most probable tokens of this total.")
    end_of_text_first: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Put end-of-text in front of every prompt, for all models alike. auto: on if gpt2kit trained any "
        "of them, for its texts began so, else off.",
    )
    copy_words: int = Field(
        8, ge=5, le=1000, description="Words in a row that count as copied from the training text; 13 is usual too."
    )
    batch_size: int = Field(8, ge=1, le=4096, description="Full windows of held-out text computed at a time.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    precision: Precision = Field(
        "fp32", description="fp32 for figures to report; bf16 and fp16 are faster on a GPU and change the third digit."
    )
    seed: int = Field(0, description="Seed of the texts, the draws, the intervals and the tests.")
    picture: bool = Field(True, description="Draw the figures into a PNG beside the report (needs the extra plots).")

    @field_validator("models")
    @classmethod
    def _several(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) < 2 or not all(name.strip() for name in value):
            raise ValueError("should name two models or more, such as `gpt2kit compare nano models/gpt2_fine_tuned`")
        return value

    def writing(self) -> EvaluateSettings:
        """How texts are written, as an evaluation is told it."""
        return EvaluateSettings(**{name: getattr(self, name) for name in _TAKEN_OVER})
