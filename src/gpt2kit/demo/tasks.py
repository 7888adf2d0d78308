"""What the demo can show: each task with its sample text, its prompts, and how long it trains."""

from dataclasses import dataclass
from pathlib import Path

from gpt2kit.training.settings import OptimizerKind


@dataclass(frozen=True)
class Task:
    """Something to fine-tune nano for; all paths are below the project's folder.

    Attributes:
        about: what is written, for headings.
        held_out: what the model is measured on, in words.
        raw: the sample text.
        data_dir: where the prepared text goes.
        model_dir: where the model goes.
        results: where texts, measurements and the picture go.
        prompts: what texts are asked for.
        epochs: times through the sample text; a minute or two on two cores.
        optimizer: of the training. Muon for what is far from the prose that nano knows (docs/lab-log.md).
        max_new_tokens: of each text, at most.
        try_next: commands to go on with.
        nsamples: texts for each prompt.
        keeps_lines: whether line ends of a text mean something, as in verse.
        chat: whether prompts are turns of a conversation.
    """

    about: str
    held_out: str
    raw: Path
    data_dir: Path
    model_dir: Path
    results: Path
    prompts: tuple[str, ...]
    epochs: float
    max_new_tokens: int
    try_next: tuple[str, ...]
    optimizer: OptimizerKind = "adamw"
    nsamples: int = 1
    keeps_lines: bool = False
    chat: bool = False


TASKS = {
    "story": Task(
        about="fairy tales",
        held_out="tales",
        raw=Path("data/raw"),
        data_dir=Path("data/processed"),
        model_dir=Path("models/gpt2_fine_tuned"),
        results=Path("results"),
        prompts=("Once upon a time there was a little girl who lived in the forest",),
        nsamples=4,
        epochs=2,
        max_new_tokens=180,
        try_next=(
            'gpt2kit generate --prompt "The princess opened the door" --nsamples 3',
            "gpt2kit inspect models/gpt2_fine_tuned --prompt 'Once upon a'",
            "gpt2kit demo --task chat",
        ),
    ),
    "poem": Task(
        about="poems",
        held_out="poems",
        raw=Path("data/samples/poem"),
        data_dir=Path("results/demo_poem/data"),
        model_dir=Path("models/demo_poem"),
        results=Path("results/demo_poem"),
        prompts=("The Sea\n\n", "The Moon\n\n", "The Old Man of the Sea\n\n"),
        nsamples=2,
        epochs=3,
        max_new_tokens=120,
        keeps_lines=True,
        try_next=("gpt2kit generate --model_dir models/demo_poem --prompt $'The Little Bird\\n\\n'",),
    ),
    "chat": Task(
        about="conversation",
        held_out="conversations",
        raw=Path("data/samples/chat"),
        data_dir=Path("results/demo_chat/data"),
        model_dir=Path("models/demo_chat"),
        results=Path("results/demo_chat"),
        prompts=(
            "Good morning!",
            "What is the name of your cat?",
            "Can you recommend an adventure book?",
            "When are you open?",
            "I feel a little sad today.",
        ),
        epochs=2,
        optimizer="muon",
        max_new_tokens=80,
        chat=True,
        try_next=("gpt2kit chat models/demo_chat",),
    ),
    "product": Task(
        about="product descriptions",
        held_out="descriptions",
        raw=Path("data/samples/product"),
        data_dir=Path("results/demo_product/data"),
        model_dir=Path("models/demo_product"),
        results=Path("results/demo_product"),
        prompts=(
            "Product: Garden bench\nFeatures: solid oak, curved back, seats three\nDescription:\n",
            "Product: Woollen blanket\nFeatures: soft lambswool, blue checks, fringed edges\nDescription:\n",
            "Product: Honey jar\nFeatures: thick glass, wooden dipper, tight lid\nDescription:\n",
        ),
        epochs=4,
        max_new_tokens=100,
        keeps_lines=True,
        try_next=("gpt2kit generate --model_dir models/demo_product --prompts_file my_products.txt --nsamples 3",),
    ),
}
