"""What the contestants work on, made once under benchmarks/work: models, prepared data, batches, prompts.

    python -m benchmarks.assets model batches prompts     # a contestant's process makes them; see `ensure`

The models have random weights (GPT-2's own initialisation): speed does not depend on what a model has learned. The
vocabulary is the real one. The model that writes has larger projections onto the residual stream, since with GPT-2's
own it would repeat one token for ever, and texts could not show whether contestants compute the same.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.core.child import Arguments, contestant
from benchmarks.core.places import ROOT, WORK
from benchmarks.core.process import run_process
from benchmarks.core.rounds import say

if TYPE_CHECKING:
    from gpt2kit.tokens import Tokenizer

MODEL = WORK / "gpt2-124m"
WRITING_MODEL = WORK / "gpt2-124m-writing"
XL_MODEL = WORK / "gpt2-xl"
TRAIN_DATA = WORK / "train-data"  # no validation split: what validation costs is measured by itself
COSTS_DATA = WORK / "costs-data"
QUALITY_DATA = WORK / "quality-data"
QUALITY_TOKENS = WORK / "quality-tokens.npz"
PROMPTS = WORK / "prompts.json"
SAMPLE_TEXTS = ROOT / "data" / "raw"

PROMPT_TOKENS = 32
LONG_PROMPT_TOKENS = 512
NUM_PROMPTS = 32
REFERENCE_TOKENS = 128
FIRST_TARGETS = "first_targets"  # tokens of gpt2kit's first step, kept beside the losses
_SHAPES = {"gpt2": (12, 12, 768), "gpt2-xl": (48, 25, 1600)}
_VOCABULARY = 50_257
_SEED = 1
_LARGEST_STEP, _SPARED = 32 * 1024, 1500  # tokens; a row and a half less, since the first and the last may be cut short
_WRITING_SCALE = 20.0


def batches_file(*, context: int, rows: int, steps: int) -> Path:
    """Where the batches of that shape are kept."""
    return WORK / f"batches-{rows}x{context}x{steps}.npz"


def texts_folder(mebibytes: int) -> Path:
    """Where so much text is kept."""
    return WORK / f"texts-{mebibytes}"


def expected_losses(*, context: int, rows: int, steps: int) -> dict[str, float]:
    """The untouched model's loss on the first rows: of "gpt2kit"; of the others, over "all" targets or, as the Trainer
    counts, over those within the rows ("shifted").
    """
    file = batches_file(context=context, rows=rows, steps=steps).with_suffix(".json")
    losses: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
    return losses


def ensure(*names: str, **shape: int) -> None:
    """Make what is not there yet, in a process of its own.

    Args:
        names: "model", "writing-model", "xl-model", "batches", "prompts", "costs-data", "texts", "quality".
        shape: context, rows and steps of the batches; mebibytes of the texts.

    Raises:
        SystemExit: it cannot be made; the reason is told.
    """
    log = WORK / "logs" / "assets.log"
    command = [sys.executable, "-m", "benchmarks.assets"]
    outcome = run_process(
        command, arguments={"names": names, "shape": shape}, log=log, threads=os.cpu_count() or 1, timeout_seconds=1800
    )
    if outcome.reason is not None:
        sys.exit(f"cannot make {', '.join(names)}: {outcome.reason} (all of it in {log})")


def corpora() -> Path | None:
    """The folder named by GPT2KIT_CORPORA, with GPT-2's tokenizer and texts."""
    named = os.environ.get("GPT2KIT_CORPORA")
    return Path(named) if named else None


def _make(arguments: Arguments) -> dict[str, object]:
    makers: dict[str, Callable[[], object]] = {
        "model": lambda: random_gpt2(MODEL, shape="gpt2"),
        "writing-model": lambda: random_gpt2(WRITING_MODEL, shape="gpt2", projection_scale=_WRITING_SCALE),
        "xl-model": lambda: random_gpt2(XL_MODEL, shape="gpt2-xl"),
        "batches": lambda: training_batches(**arguments["shape"]),
        "prompts": prompts,
        "quality": quality_data,
        "texts": lambda: texts(**arguments["shape"]),
        "costs-data": lambda: training_data(COSTS_DATA, validation_fraction=0.05),
    }
    for name in arguments["names"]:
        makers[name]()
    return {}


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A place to make something at, moved to `target` when it is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{os.getpid()}-{target.name}")
    try:
        yield beside
        beside.rename(target)
    finally:
        if beside.is_dir():
            shutil.rmtree(beside)
        else:
            beside.unlink(missing_ok=True)


def random_gpt2(folder: Path, *, shape: str, projection_scale: float = 1.0) -> None:
    """A model folder of GPT-2's shape with random weights, as transformers and all converters read it."""
    if folder.exists():
        return
    import torch

    from gpt2kit.model.folder import save_model
    from gpt2kit.model.gpt2 import GPT2, GPT2Config

    layers, heads, width = _SHAPES[shape]
    say(f"making {folder.name}: random weights")
    model = GPT2(GPT2Config(vocab_size=_VOCABULARY, n_positions=1024, n_layer=layers, n_head=heads, n_embd=width))
    model.initialise(torch.Generator().manual_seed(_SEED))
    with torch.no_grad():
        block: Any
        for block in model.transformer.h:
            block.attn.c_proj.weight.mul_(projection_scale)
            block.mlp.c_proj.weight.mul_(projection_scale)
    with _whole(folder) as beside:
        beside.mkdir()
        save_model(model, beside)
        _tokenizer().save(beside)


def _tokenizer() -> "Tokenizer":
    """GPT-2's tokenizer, from the corpora or from the copy that `gpt2kit fetch gpt2` made."""
    from gpt2kit.hub import resolve_base
    from gpt2kit.tokens.tokenizer import Tokenizer

    home = corpora()
    return Tokenizer.from_folder(home / "tokenizer" if home is not None else resolve_base("gpt2"))


def training_data(folder: Path, *, validation_fraction: float) -> Path:
    """Text prepared by gpt2kit for the random model; as much as fills whole steps, but for a few hundred tokens.

    gpt2kit deals an epoch's rows evenly, and would else have steps with a row of padding.
    """
    import gpt2kit
    from gpt2kit.tokens import TokenStore

    random_gpt2(MODEL, shape="gpt2")
    if folder.exists():
        return folder
    source = WORK / "train-texts"
    if source.exists():
        shutil.rmtree(source)
    home = corpora()
    shutil.copytree(SAMPLE_TEXTS if home is None else home / "finetune", source, copy_function=shutil.copyfile)
    for path in source.rglob("*"):
        if path.suffix != ".txt" and path.is_file():
            path.unlink()
    settings = gpt2kit.PrepareSettings(
        input=source, data_dir=folder, base=str(MODEL), validation_fraction=validation_fraction
    )
    gpt2kit.prepare(settings)
    excess = TokenStore.open(folder / "tokens" / "train").num_tokens % _LARGEST_STEP + _SPARED
    last = max(source.rglob("*.txt"))
    ids = _tokenizer().encode(last.read_text(encoding="utf-8"))
    if excess < len(ids):
        last.write_text(_tokenizer().decode(ids[:-excess]), encoding="utf-8")
        gpt2kit.prepare(settings)
    return folder


def training_batches(*, context: int, rows: int, steps: int) -> None:
    """The rows of the first steps, and the loss that the untouched model has on the first of them.

    gpt2kit deals its own rows, of which one or two are not full; the others get those of its steps, from the second on,
    that are full.
    """
    target = batches_file(context=context, rows=rows, steps=steps)
    if target.exists() and FIRST_TARGETS in expected_losses(context=context, rows=rows, steps=steps):
        return
    import numpy as np
    import torch

    import gpt2kit
    from gpt2kit.model import load_model
    from gpt2kit.training.plan import make_batches

    data = gpt2kit.PreparedData.open(training_data(TRAIN_DATA, validation_fraction=0))
    settings = gpt2kit.TrainSettings(packing="run_on")
    dealt = make_batches(settings, data, context=context, batch_size=rows)
    own, *others = [dealt.batch(step) for step in range(dealt.steps_in_epoch())]
    batches = [batch for batch in others if batch.num_targets == context * rows][:steps]
    if len(batches) < steps:
        raise RuntimeError(f"the text does not fill {steps} batches of {rows} x {context} tokens")
    model = load_model(MODEL, device=torch.device("cpu"), dtype=torch.float32).eval()
    own_nats_BT, nats_BT = (
        model.token_losses(torch.from_numpy(batch.input_ids_BT), torch.from_numpy(batch.target_ids_BT)).double()
        for batch in (own, batches[0])
    )
    with _whole(target) as beside, beside.open("wb") as file:
        np.savez(
            file,
            inputs_SBT=np.stack([batch.input_ids_BT for batch in batches]),
            targets_SBT=np.stack([batch.target_ids_BT for batch in batches]),
        )
    losses = {
        "gpt2kit": float(own_nats_BT.sum()) / own.num_targets,
        "all": float(nats_BT.mean()),
        # transformers predicts the inputs from themselves, so that each row has a target less; its Trainer divides by
        # the number of inputs all the same.
        "shifted": float(nats_BT[:, :-1].sum()) / nats_BT.numel(),
        FIRST_TARGETS: own.num_targets,
    }
    target.with_suffix(".json").write_text(json.dumps(losses), encoding="utf-8")


def prompts() -> None:
    """Beginnings of exactly so many tokens, as text and as ids, that every tokenizer reads alike."""
    if PROMPTS.exists():
        return
    tokenizer = _tokenizer()
    text = "\n\n".join(path.read_text(encoding="utf-8") for path in sorted(SAMPLE_TEXTS.rglob("*.txt")))
    ids = tokenizer.encode(text)

    def beginnings(length: int, count: int) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        for start in range(0, len(ids) - length, length):
            piece = ids[start : start + length]
            words = tokenizer.decode(piece)
            if tokenizer.encode(words) == piece and words.strip() == words:
                found.append({"text": words, "ids": piece})
            if len(found) == count:
                return found
        raise RuntimeError(f"{SAMPLE_TEXTS}: no {count} pieces of {length} tokens")

    short, long = beginnings(PROMPT_TOKENS, NUM_PROMPTS), beginnings(LONG_PROMPT_TOKENS, 1)[0]
    first = short[0]["ids"]
    assert isinstance(first, list)
    values = {"short": short, "long": long, "continuation": _reference(first)}
    with _whole(PROMPTS) as beside:
        beside.write_text(json.dumps(values), encoding="utf-8")


def quality_data() -> None:
    """Tiny Shakespeare prepared for nano by gpt2kit, and its tokens as plain arrays for the others."""
    if QUALITY_TOKENS.exists():
        return
    import numpy as np

    import gpt2kit
    from gpt2kit.tokens import TokenStore

    home = corpora()
    if home is None:
        raise RuntimeError("set GPT2KIT_CORPORA to a folder with finetune/tinyshakespeare.txt")
    source = home / "finetune" / "tinyshakespeare.txt"
    data = gpt2kit.prepare(gpt2kit.PrepareSettings(input=source, data_dir=QUALITY_DATA, base="nano"))
    ids = {
        split: TokenStore.open(QUALITY_DATA / "tokens" / split).ids_N.astype(np.int64)
        for split in ("train", "validation")
    }
    with _whole(QUALITY_TOKENS) as beside, beside.open("wb") as file:
        np.savez(
            file,
            end_of_text=data.tokenizer.end_of_text,
            train_N=ids["train"],
            validation_N=ids["validation"],
        )


def texts(*, mebibytes: int) -> None:
    """Whole books, one after the other, until there are so many bytes; none is repeated, since repeats are dropped."""
    from benchmarks.contestants.texts import make_texts

    folder = texts_folder(mebibytes)
    if folder.exists():
        return
    home = corpora()
    if home is None:
        raise RuntimeError("set GPT2KIT_CORPORA to a folder with prose_train-*.jsonl.zst")
    books: list[str] = []
    missing = mebibytes << 20
    for book in _books(home):
        size = len(book.encode())
        books.append(book if size <= missing else book.encode()[:missing].decode(errors="ignore"))
        missing -= size
        if missing <= 0:
            break
    with _whole(folder) as beside:
        make_texts(books, beside)


def _books(home: Path) -> Iterator[str]:
    import io

    import zstandard

    for path in sorted(home.glob("prose_train-*.jsonl.zst")):
        with path.open("rb") as file:
            for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8"):
                yield str(json.loads(line)["text"])


def _reference(ids: list[int]) -> list[int]:
    """What the model writes greedily, each token from the whole text before it: no cache, no batch, nothing clever."""
    import torch

    from gpt2kit.model import load_model

    random_gpt2(WRITING_MODEL, shape="gpt2", projection_scale=_WRITING_SCALE)
    model = load_model(WRITING_MODEL, device=torch.device("cpu"), dtype=torch.float32).eval()
    found: list[int] = []
    with torch.no_grad():
        for _ in range(REFERENCE_TOKENS):
            hidden_1TD = model(torch.tensor([ids + found]))
            found.append(int(model.logits(hidden_1TD[:, -1]).argmax()))
    return found


if __name__ == "__main__":
    contestant(_make)
