"""What a training run is told."""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from gpt2kit.config import Settings
from gpt2kit.runtime import Precision

OptimizerKind = Literal["adamw", "muon", "adafactor"]
SHAPE_FIELDS = ("n_layer", "n_head", "n_embd")
LORA_FIELDS = ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets")
# Settings that say how a run is carried out or shown, not what it computes: they may differ when it is resumed.
PRESENTATION_FIELDS = frozenset(
    {"dry_run", "tensorboard", "log_every", "keep_checkpoints", "overwrite", "sample_prompts", "sample_tokens"}
)


class TrainSettings(Settings):
    """Settings of `gpt2kit train`."""

    stage: ClassVar[str] = "train"

    data_dir: Path = Field(Path("data/processed"), description="Folder that `gpt2kit prepare` made.")
    model_output_dir: Path = Field(
        Path("models/gpt2_fine_tuned"),
        description="Folder for the trained model; the same command goes on with an unfinished run in it.",
    )
    base: str | None = Field(
        None,
        description="Model to start from: a Hub name (gpt2, gpt2-medium, distilgpt2, ...), nano (the small one in this "
        "package), or a folder. Default: the base the data were prepared for.",
    )
    from_scratch: bool = Field(
        False,
        description="Start from random weights of the shape given by --n_layer, --n_head, --n_embd and --context. "
        "Implied when the data were prepared from scratch.",
    )
    n_layer: int | None = Field(None, ge=1, le=200, description="Blocks of a model from scratch. Default: 4.")
    n_head: int | None = Field(None, ge=1, le=256, description="Attention heads of a model from scratch. Default: 4.")
    n_embd: int | None = Field(None, ge=8, le=16384, description="Width of a model from scratch. Default: 256.")

    context: int | None = Field(
        None,
        ge=2,
        le=65536,
        description="Tokens in a row. Shorter is faster and needs less memory; longer lets the model use more of the "
        "text before. Default: the model's own context, at most 512 on a CPU; 256 from scratch.",
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="Rows in a step, whatever the memory (see micro_batch_size). Fewer make more, noisier steps. "
        "Default: 8, or 4 where the run would have fewer than 500 steps.",
    )
    micro_batch_size: int | None = Field(
        None, ge=1, description="Rows computed at a time; a step adds them up. Default: what fits in the memory."
    )
    epochs: float | None = Field(
        None, gt=0, le=10000, description="Times to go through the data. Default: 3, or 4 from scratch."
    )
    max_steps: int | None = Field(None, ge=1, description="Number of steps, in place of epochs.")
    packing: Literal["document", "run_on"] = Field(
        "document",
        description="document: attention stays inside a document and positions restart in it; "
        "run_on: documents follow each other in a row, as GPT-2 itself was trained.",
    )

    optimizer: OptimizerKind = Field(
        "adamw",
        description="adamw; adafactor: instead of two moments of every weight it keeps means of rows and columns, "
        "which takes next to no memory; muon: Muon for the matrices of the blocks, AdamW for the rest, which learns "
        "more from the same text when a model starts from scratch or from a small base.",
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Peak learning rate; lower it if the loss jumps. Default: 5e-5, with LoRA or muon 3e-4, with "
        "adafactor 4e-4, up to ten times as much for base models smaller than GPT-2; from scratch 1e-3, with muon "
        "5e-3, with adafactor 8e-3.",
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="How the learning rate falls after the warm-up."
    )
    final_learning_rate_ratio: float = Field(
        0.1, ge=0, le=1, description="Share of the peak the learning rate ends at (cosine, linear)."
    )
    warmup_ratio: float = Field(0.05, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    weight_decay: float = Field(
        0.01, ge=0, le=1, description="Decoupled weight decay of matrices (never of biases and norms)."
    )
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="AdamW: memory of the mean of gradients.")
    adam_beta2: float = Field(0.99, ge=0, lt=1, description="AdamW: memory of the mean of squared gradients.")
    gradient_clip: float = Field(1.0, ge=0, description="Largest norm of a step's gradient; 0 switches clipping off.")
    dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Dropout everywhere. Default: the base model's own (0.1 in GPT-2); 0 from scratch.",
    )

    method: Literal["full", "lora"] = Field(
        "full", description="full: train the weights; lora: train a small adapter beside them (less memory)."
    )
    lora_rank: int = Field(8, ge=1, le=1024, description="LoRA: rank of the updates; more can learn more.")
    lora_alpha: float = Field(16.0, gt=0, description="LoRA: the update is scaled by alpha / rank.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="LoRA: dropout on the updates' inputs.")
    lora_targets: tuple[str, ...] = Field(
        ("c_attn", "c_proj", "c_fc"), description="LoRA: layers to adapt, of c_attn, c_proj, c_fc."
    )
    freeze_layers: int = Field(0, ge=0, description="Leave the first so many blocks as they are.")
    freeze_embeddings: bool = Field(False, description="Leave the token and position embeddings as they are.")

    eval_every: int | None = Field(None, ge=1, description="Steps between validations. Default: a tenth of the run.")
    eval_tokens: int | None = Field(
        None,
        ge=1,
        description="Tokens of the fixed validation set. Default: so many that it takes about 1% of the time.",
    )
    patience: int = Field(
        5,
        ge=0,
        description="Stop after so many validations without improvement; 0 never stops early. Before the first "
        "improvement only those that got worse count.",
    )
    sample_prompts: tuple[str, ...] = Field(
        ("",), description="Prompts continued at each validation; an empty one starts a new text."
    )
    sample_tokens: int = Field(60, ge=0, description="Tokens of each such sample; 0 makes none.")
    save_every: int | None = Field(None, ge=1, description="Steps between checkpoints. Default: as eval_every.")
    keep_checkpoints: int = Field(2, ge=2, le=1000, description="Checkpoints to keep; never fewer than two.")
    log_every: int = Field(1, ge=1, description="Steps between lines in metrics.jsonl and TensorBoard.")
    tensorboard: bool = Field(True, description="Write TensorBoard events (needs the extra `tensorboard`).")

    seed: int = Field(0, ge=0, description="Seed of everything random: order, dropout, new weights, samples.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    precision: Precision = Field("auto", description="auto, fp32, bf16 or fp16: what matrices are multiplied in.")
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="torch.compile: auto uses it on a GPU when the run is long enough to repay it."
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, about a third more time."
    )
    allow_pickle: bool = Field(
        False, description="Read a base model that comes only as pytorch_model.bin; do so only if you trust it."
    )
    dry_run: bool = Field(False, description="Show the plan (size, steps, memory, time) and stop.")
    overwrite: bool = Field(
        False,
        description="Start anew although the folder holds an unfinished run; that run is moved aside, not deleted.",
    )

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.base is not None and self.from_scratch:
            raise ValueError("--base and --from_scratch exclude each other")
        if self.epochs is not None and self.max_steps is not None:
            raise ValueError("--epochs and --max_steps exclude each other: give one")
        if self.from_scratch and self.method == "lora":
            raise ValueError("--method lora needs a base model; from scratch, train in full")
        if self.optimizer != "adamw" and self.method == "lora":
            raise ValueError(
                f"--optimizer {self.optimizer} is for whole matrices; an adapter of --method lora is trained by adamw"
            )
        rows, micro = self.batch_size, self.micro_batch_size
        if rows is not None and micro is not None and micro > rows:
            raise ValueError(f"--micro_batch_size {micro} is more than --batch_size {rows}")
        if self.method == "lora" and (self.freeze_layers or self.freeze_embeddings):
            raise ValueError(
                "--method lora freezes the whole base model; --freeze_layers/--freeze_embeddings do nothing"
            )
        return self
