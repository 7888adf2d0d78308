"""What `gpt2kit tasks` is told."""

from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, model_validator

from gpt2kit.config import Settings
from gpt2kit.generation.settings import DEFAULT_MODEL_DIR
from gpt2kit.runtime import Precision


class TaskSettings(Settings):
    """Settings of `gpt2kit tasks`."""

    stage: ClassVar[str] = "tasks"

    model_dir: str = Field(DEFAULT_MODEL_DIR, description="Model to measure: a folder, nano, or a name on the Hub.")
    output_dir: Path = Field(
        Path("results/evaluation_metrics"),
        description="Folder for the report; every run writes new files with the next free number.",
    )
    lambada: tuple[Path, ...] = Field(
        (), description="JSONL file of passages (field text): predict the last word, as lm-eval's lambada_openai does."
    )
    wikitext: tuple[Path, ...] = Field(
        (),
        description="A split of WikiText as published (wiki.test.raw): perplexity by word and by byte, as lm-eval's "
        "wikitext measures it.",
    )
    multiple_choice: tuple[Path, ...] = Field(
        (),
        description="JSONL file of questions: context, choices (a list), answer (the number of the right one, from 0).",
    )
    cloze: tuple[Path, ...] = Field(
        (), description="JSONL file of openings with one right continuation: context, answer."
    )
    harness: tuple[str, ...] = Field(
        (), description="Task of lm-eval, by its name (needs the extra lm-eval); its data may have to be fetched."
    )
    include_path: Path | None = Field(
        None, description="Folder with task files (YAML) for lm-eval, for tasks of your own and data that lie here."
    )
    num_fewshot: int | None = Field(
        None, ge=0, description="With --harness: solved examples before each question. Default: what the task says."
    )
    limit: int | None = Field(
        None, ge=1, description="Measure only so many examples of each task, from the first on, as lm-eval's --limit."
    )
    batch_size: int = Field(16, ge=1, le=4096, description="Texts computed at a time.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    precision: Precision = Field(
        "fp32", description="fp32 for figures to report; bf16 and fp16 are faster on a GPU and change the third digit."
    )
    seed: int = Field(0, description="Seed of the intervals.")

    @model_validator(mode="after")
    def _has_a_task(self) -> Self:
        if not (self.lambada or self.wikitext or self.multiple_choice or self.cloze or self.harness):
            raise ValueError(
                "name a task: --lambada, --wikitext, --multiple_choice or --cloze with a file, or --harness with a "
                "task of lm-eval"
            )
        if self.harness == () and (self.include_path is not None or self.num_fewshot is not None):
            raise ValueError("--include_path and --num_fewshot are for tasks of lm-eval: name one with --harness")
        return self
