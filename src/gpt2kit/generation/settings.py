"""What a generation is told."""

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from gpt2kit.config import Settings
from gpt2kit.runtime import Precision

Method = Literal["greedy", "sampling", "beam", "contrastive"]
Engine = Literal["auto", "torch", "native"]
WeightsSetting = Literal["auto", "fp32", "int8", "int4"]
NATIVE_METHODS: tuple[Method, ...] = ("greedy", "sampling")  # of the native engine
DEFAULT_MODEL_DIR = "models/gpt2_fine_tuned"
_COLDEST = 1e-30  # a temperature below that is none: in float32 scores over it are infinite
# Values that ask for nothing, so that nothing is amiss when they have no effect.
_OFF: dict[str, tuple[float, ...]] = {
    "temperature": (0, 1),
    "top_k": (0,),
    "top_p": (1,),
    "min_p": (0,),
    "typical_p": (1,),
    "length_penalty": (),
    "early_stopping": (False,),
}


class GenerateSettings(Settings):
    """Settings of `gpt2kit generate`."""

    stage: ClassVar[str] = "generate"

    model_dir: str = Field(
        DEFAULT_MODEL_DIR,
        description="Model to write with: a folder (a whole model or a LoRA adapter), nano, or a name on the Hub "
        "(gpt2).",
    )
    output_dir: Path = Field(
        Path("results/generated_texts"),
        description="Folder for the texts; every run adds a .txt and a .jsonl with the next free number.",
    )
    prompt: tuple[str, ...] = Field(
        (),
        description="Text to continue; - reads one from stdin (with a backslash before it, it is a text). Without any, "
        "what is piped in is continued; else texts begin from end-of-text.",
    )
    prefix: tuple[str, ...] = Field((), description="Another name of --prompt.")
    prompts_file: Path | None = Field(
        None,
        description="File of prompts: .txt (one a line), .jsonl (field prompt), .csv or .tsv (column prompt); "
        "- reads lines from stdin.",
    )
    chat: bool = Field(
        False, description="Take the prompt as a user's turn of a chat, and stop at the end of the model's turn."
    )
    system: str | None = Field(None, description="With --chat: what the model is told before the user's turn.")

    max_new_tokens: int = Field(200, ge=1, le=1_000_000, description="Tokens to write, at most; a word is about 1.3.")
    length: int | None = Field(None, ge=1, le=1_000_000, description="Another name of --max_new_tokens.")
    min_new_tokens: int = Field(
        0, ge=0, le=1_000_000, description="Tokens before which end-of-text is not chosen; raise it if texts end early."
    )
    nsamples: int = Field(1, ge=1, le=1_000_000, description="Texts for each prompt (in each file).")
    nfiles: int = Field(1, ge=1, le=10_000, description="Pairs of files to write, each with nsamples texts a prompt.")
    stop: tuple[str, ...] = Field((), description="Stop at this string and leave it out; \\n is a line end.")
    truncate: str | None = Field(None, description="Another name of --stop, for one string.")
    include_prefix: bool = Field(True, description="Show the prompt in front of its text, on the terminal and in .txt.")

    temperature: float = Field(
        0.8, ge=0, le=100, description="Below 1 the likely becomes likelier, above 1 all evens out; 0 is greedy."
    )
    top_k: int = Field(0, ge=0, description="Draw from the k most probable tokens only; 0 from all.")
    top_p: float = Field(
        0.9, gt=0, le=1, description="Draw from the most probable tokens that hold this much probability; 1 from all."
    )
    min_p: float = Field(
        0.0, ge=0, le=1, description="Draw only from tokens at least this share as probable as the likeliest; 0 is off."
    )
    typical_p: float = Field(
        1.0, gt=0, le=1, description="Draw from the tokens of most typical surprise that hold this much; 1 is off."
    )
    repetition_penalty: float = Field(
        1.0, ge=0.01, le=100, description="Make tokens of prompt and text less likely; 1 is off, 1.1 to 1.3 usual."
    )
    frequency_penalty: float = Field(
        0.0, ge=-10, le=10, description="Nats taken from a token for each time the text holds it; 0 is off."
    )
    presence_penalty: float = Field(
        0.0, ge=-10, le=10, description="Nats taken from a token that the text holds already; 0 is off."
    )
    no_repeat_ngram_size: int = Field(
        0, ge=0, le=10_000, description="Never write this many tokens in a row a second time; 0 is off."
    )
    num_beams: int = Field(1, ge=1, le=1000, description="Beam search over this many beams; 1 is off.")
    length_penalty: float = Field(
        1.0,
        ge=-50,
        le=50,
        description="Beams are ranked by log-probability / tokens^this; above 0 favours long ones.",
    )
    early_stopping: bool = Field(
        False, description="End beam search when num_beams texts have ended, even if better ones may come."
    )
    penalty_alpha: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Contrastive search among the top_k tokens: weight of not resembling the text before; 0.6 with "
        "--top_k 4 is usual, 0 is off.",
    )
    seed: int | None = Field(
        None, description="Seed of the draws; the same one gives the same texts. Default: a new one, kept in the files."
    )

    end_of_text_first: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Put end-of-text in front of the prompt, as where a text begins. auto: on for models that gpt2kit "
        "trained, for their texts began so, and off for others.",
    )
    window_keep: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Share of the context that is kept when it is full and the text goes on. Less is faster, more "
        "remembers more.",
    )
    batch_size: int | None = Field(
        None, ge=1, le=65536, description="Texts written at a time. Default: what fits in the memory."
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    precision: Precision = Field(
        "auto",
        description="What to compute in: fp32, bf16, fp16. In fp32 no text depends on what else is in its batch.",
    )
    engine: Engine = Field(
        "auto",
        description="What computes: torch, or native (greedy search and sampling on a CPU, faster and without "
        "PyTorch). auto: native where it can be.",
    )
    weights: WeightsSetting = Field(
        "auto",
        description="Weights of the native engine: fp32 is exact; int8 and int4 are rounded, faster and smaller. "
        "auto: fp32.",
    )
    lookup: bool = Field(
        True,
        description="On the native engine: guess tokens from what prompt and text hold already, and read several at "
        "once where they are right. The text is the same; off only to measure.",
    )
    logprobs: bool = Field(
        False,
        description="Add to every text in the .jsonl the sum of its tokens' log-probabilities (nats). One text in fp32 "
        "takes a quarter longer.",
    )
    stream: bool | None = Field(
        None, description="Show the text while it is written. Default: for a single text, on a terminal."
    )

    @field_validator("stop", "prompt", "prefix", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "" in value:
            raise ValueError("a stop string should not be empty")
        return value

    @field_validator("truncate")
    @classmethod
    def _truncate_not_empty(cls, value: str | None) -> str | None:
        if value == "":
            raise ValueError("should not be empty")
        return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.length is not None and "max_new_tokens" in self.model_fields_set:
            raise ValueError(f"--length {self.length} and --max_new_tokens {self.max_new_tokens}: give one of the two")
        if self.num_beams > 1 and self.penalty_alpha > 0:
            raise ValueError("--num_beams and --penalty_alpha: beam search and contrastive search exclude each other")
        if self.penalty_alpha > 0 and self.top_k < 2:
            raise ValueError(f"--penalty_alpha {self.penalty_alpha} needs --top_k of at least 2 (4 is usual)")
        if self.num_beams > 1 and self.nsamples * self.nfiles > self.num_beams:
            raise ValueError(
                f"--nsamples {self.nsamples * self.nfiles}: beam search with --num_beams {self.num_beams} gives no "
                "more texts than beams"
            )
        if self.min_new_tokens > self.token_limit:
            raise ValueError(f"--min_new_tokens {self.min_new_tokens} is more than --max_new_tokens {self.token_limit}")
        if self.system is not None and not self.chat:
            raise ValueError("--system needs --chat")
        return self

    @property
    def token_limit(self) -> int:
        """Tokens to write, at most, under whichever of its names it was given."""
        return self.max_new_tokens if self.length is None else self.length

    @property
    def prompts(self) -> tuple[str, ...]:
        """The texts to continue, under whichever of their names they were given."""
        return (*self.prompt, *self.prefix)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The strings to stop at, under whichever of their names they were given."""
        return self.stop if self.truncate is None else (*self.stop, self.truncate)

    @property
    def method(self) -> Method:
        """How the next token is chosen."""
        if self.num_beams > 1:
            return "beam"
        if self.penalty_alpha > 0:
            return "contrastive"
        return "greedy" if self.temperature < _COLDEST or self.top_k == 1 else "sampling"

    def without_effect(self) -> list[str]:
        """The settings that were given, and change nothing with this method."""
        unused = set() if self.method == "sampling" else {"temperature", "top_p", "min_p", "typical_p"}
        if self.method != "beam":
            unused |= {"length_penalty", "early_stopping"}
        if self.method == "beam" or (self.method == "greedy" and self.temperature < _COLDEST):
            unused |= {"top_k"}
        given = {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}
        return [name for name, value in given.items() if name in unused and value not in _OFF[name]]


class ChatSettings(Settings):
    """Settings of `gpt2kit chat`."""

    stage: ClassVar[str] = "chat"

    model_dir: str = Field(
        DEFAULT_MODEL_DIR,
        description="Model to talk with, fine-tuned on conversations: a folder, or a name on the Hub.",
    )
    system: str | None = Field(None, description="What the model is told before the first turn.")
    max_new_tokens: int = Field(
        100, ge=1, le=1_000_000, description="Tokens of an answer, at most; half the model's context if that is less."
    )
    temperature: float = Field(
        0.7, ge=0, le=100, description="Below 1 the likely becomes likelier, above 1 all evens out; 0 is greedy."
    )
    top_k: int = Field(0, ge=0, description="Draw from the k most probable tokens only; 0 from all.")
    top_p: float = Field(
        0.9, gt=0, le=1, description="Draw from the most probable tokens that together have this probability."
    )
    repetition_penalty: float = Field(
        1.0, ge=0.01, le=100, description="Above 1 makes tokens that are in the conversation already less likely."
    )
    seed: int | None = Field(
        None, ge=0, description="Seed of the answers; the same seed and turns give the same answers. Default: drawn."
    )
    save: Path | None = Field(
        None, description="JSONL file to write the conversation to when it ends; a file that is there is not replaced."
    )
    stream: bool = Field(True, description="Show answers while they are written; off writes all of them at the end.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    precision: Precision = Field("auto", description="auto, fp32, bf16 or fp16.")
    engine: Engine = Field("auto", description="torch, or native (faster on a CPU); auto: native where it can be.")
    weights: WeightsSetting = Field(
        "auto", description="Weights of the native engine: fp32 is exact; int8 and int4 are rounded. auto: fp32."
    )

    @field_validator("save")
    @classmethod
    def _is_a_chat_file(cls, value: Path | None) -> Path | None:
        return None if value is None else chat_file(value)

    def of_an_answer(self, *, max_new_tokens: int) -> GenerateSettings:
        """How an answer is written, of `max_new_tokens` at most."""
        return GenerateSettings(
            chat=True,
            max_new_tokens=max_new_tokens,
            stop=("\nAssistant:",),  # beside the user's line, where `chat` stops
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            repetition_penalty=self.repetition_penalty,
        )

    def without_effect(self) -> list[str]:
        """The settings that were given, and change nothing with the others."""
        answer = self.of_an_answer(max_new_tokens=self.max_new_tokens)
        return [name for name in answer.without_effect() if name in self.model_fields_set]


def chat_file(path: Path) -> Path:
    """The file of a chat by the name that a user gave: with `.jsonl` where it has no ending.

    Raises:
        ValueError: it has another ending, by which `gpt2kit prepare` would not take it for chats, or is a home folder.
    """
    if not path.name or (path.name.startswith("~") and len(path.parts) == 1):
        raise ValueError(f"{path} is a folder: name a file")
    try:
        path = path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path}: whose home folder that is cannot be found") from error
    if path.suffix == "":
        path = path.with_name(path.name + ".jsonl")
    if path.suffix != ".jsonl":
        raise ValueError(f"a chat is kept as .jsonl, not as {path.suffix}: name such a file")
    return path
