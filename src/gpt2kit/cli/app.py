"""The commands of gpt2kit."""

import difflib
from pathlib import Path

import click

from gpt2kit.cli.stage import Stage, StageCommand, debug_option, examples_text, json_option, report

PROGRAM = "gpt2kit"
_ALLOW_PICKLE = "Read weights that come only as pytorch_model.bin; do so only if you trust them."

STAGES = (
    Stage(
        name="prepare",
        summary="Turn raw text into training data.",
        about="Turn a file or folder of raw text (txt, md, csv, tsv, json, jsonl, parquet; gz and zst of those) into "
        "training data: cleaned documents, a leak-free split, token files and a manifest.",
        settings="gpt2kit.tokens:PrepareSettings",
        entry="gpt2kit.tokens:prepare",
        argument="input",
        examples=(
            "gpt2kit prepare data/raw",
            "gpt2kit prepare poems.csv --text_field poem --data_dir data/poems",
            "gpt2kit prepare data/raw --from_scratch --vocab_size 8192",
        ),
        next_step="gpt2kit train --data_dir {data_dir}",
    ),
    Stage(
        name="train",
        summary="Fine-tune GPT-2 on prepared data.",
        about="Fine-tune GPT-2 (or train a small one from scratch) on prepared data. The same command goes on with a "
        "run that was stopped, exactly where it was.",
        settings="gpt2kit.training.settings:TrainSettings",
        entry="gpt2kit.training:train",
        argument="",
        examples=(
            "gpt2kit train --data_dir data/processed --model_output_dir models/gpt2_fine_tuned",
            "gpt2kit train --dry_run",
            "gpt2kit train --base gpt2-medium --method lora --epochs 2",
            "torchrun --nproc-per-node 2 -m gpt2kit train --batch_size 32",
        ),
        next_step="gpt2kit generate --model_dir {model_output_dir}",
    ),
    Stage(
        name="generate",
        summary="Write text with a model.",
        about="Write text with a fine-tuned model or a base model, to the terminal or into a folder.",
        settings="gpt2kit.generation.settings:GenerateSettings",
        entry="gpt2kit.generation:run",
        argument="prompt",
        examples=(
            'gpt2kit generate "Once upon a time" --model_dir models/gpt2_fine_tuned',
            "gpt2kit generate --nsamples 10 --top_p 0.9 --seed 0 --output_dir results/generated_texts",
        ),
        next_step="",
    ),
    Stage(
        name="chat",
        summary="Talk with a dialogue-tuned model.",
        about="Talk with a model that was fine-tuned on conversations, in the terminal: turn by turn, answers shown "
        "while they are written. /help lists the commands. Through a pipe each line is a turn.",
        settings="gpt2kit.generation.settings:ChatSettings",
        entry="gpt2kit.generation.terminal:run",
        argument="model_dir",
        examples=(
            "gpt2kit chat models/demo_chat",
            r"printf 'Good morning!\nWhat is your name?\n' | gpt2kit chat models/demo_chat --seed 0",
        ),
        next_step="",
    ),
    Stage(
        name="evaluate",
        summary="Measure a model on held-out text, and its generated texts.",
        about="Measure a model: perplexity on held-out text beside its base model, and the diversity, coherence and "
        "originality of the texts it generates.",
        settings="gpt2kit.evaluation.settings:EvaluateSettings",
        entry="gpt2kit.evaluation:evaluate",
        argument="",
        examples=("gpt2kit evaluate --model_dir models/gpt2_fine_tuned --data_dir data/processed",),
        next_step="",
    ),
    Stage(
        name="tasks",
        summary="Measure a model on tasks with known answers: LAMBADA, WikiText, multiple choice, lm-eval's.",
        about="Measure a model on tasks with known answers, from files on this machine: LAMBADA, WikiText, "
        "multiple-choice questions, openings with one right continuation; and on any task of lm-eval. The figures are "
        "those that lm-eval gives for the same model.",
        settings="gpt2kit.evaluation.tasks.settings:TaskSettings",
        entry="gpt2kit.evaluation.tasks:run_tasks",
        argument="",
        examples=(
            "gpt2kit tasks --model_dir gpt2 --lambada lambada_test.jsonl --wikitext wiki.test.raw",
            "gpt2kit tasks --multiple_choice questions.jsonl --limit 200",
            "gpt2kit tasks --harness hellaswag --harness my_task --include_path my_tasks",
        ),
        next_step="",
    ),
    Stage(
        name="compare",
        summary="Compare several models on the same text.",
        about="Compare two models or more on the same held-out text and from the same prompts: differences with "
        "intervals and tests, a ranking that says what is clear and what is not, texts side by side, size and speed.",
        settings="gpt2kit.comparison.settings:CompareSettings",
        entry="gpt2kit.comparison:compare",
        argument="models",
        examples=(
            "gpt2kit compare nano models/gpt2_fine_tuned --data data/processed",
            "gpt2kit compare gpt2 distilgpt2 models/mine models/my_adapter --text book.txt --json",
        ),
        next_step="",
        takes_many=True,
        aliases={"data": "data_dir"},
    ),
    Stage(
        name="review",
        summary="Ask people which of two hidden texts is better.",
        about="Serve a page on which people choose the better of two texts without knowing whose they are, from a "
        "report of compare or files of generate. Judgements are kept in SQLite; --results shows what they say: "
        "strengths (Bradley-Terry), win rates and intervals.",
        settings="gpt2kit.review.settings:ReviewSettings",
        entry="gpt2kit.review:review",
        argument="inputs",
        examples=(
            "gpt2kit review results/comparisons/comparison-001.json",
            "gpt2kit review results/generated_texts/generated_0001.jsonl results/generated_texts/generated_0002.jsonl",
            "gpt2kit review --results",
        ),
        next_step="",
        takes_many=True,
    ),
    Stage(
        name="tune",
        summary="Search for settings of train or generate under a budget.",
        about="Search for settings under a budget of minutes or trials: of a training by its validation loss, or of "
        "the way a model writes by how near its texts are to human ones. The first trial is the defaults; the best "
        "settings are tried again on fresh seeds, to tell gain from luck. The same command goes on with a search that "
        "was stopped or killed, and with a greater budget goes further.",
        settings="gpt2kit.tuning.settings:TuneSettings",
        entry="gpt2kit.tuning:tune",
        argument="",
        examples=(
            "gpt2kit tune --minutes 60",
            "gpt2kit tune --method lora --trials 30 --workers 2 --fixed 'max_steps = 200'",
            "gpt2kit tune --what sampling --model_dir models/gpt2_fine_tuned --trials 40",
            "gpt2kit train --config results/tuning/training/best.toml",
        ),
        next_step="",
    ),
)


# `gpt2kit tokenizer train`: a stage whose command stands in a group.
_TOKENIZER = Stage(
    name="tokenizer",
    summary="Train a byte-level BPE tokenizer on raw text.",
    about="Train a byte-level BPE tokenizer on a file or folder of raw text, for a model that starts from scratch: a "
    "small model should not spend most of its parameters on GPT-2's 50,257 entries. `gpt2kit prepare --base` takes the "
    "folder.",
    settings="gpt2kit.tokens:TokenizerSettings",
    entry="gpt2kit.tokens:learn_tokenizer",
    argument="input",
    examples=(
        "gpt2kit tokenizer train data/raw --vocab_size 8192 --output_dir models/tokenizer",
        "gpt2kit prepare data/raw --base models/tokenizer && gpt2kit train --from_scratch",
    ),
    next_step="gpt2kit prepare --input {input} --base {output_dir}",
)


class _App(click.Group):
    """The group of commands: in the order of the work, `-` and `_` alike, near names suggested."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            near = difflib.get_close_matches(args[0], list(self.commands), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"no such command {args[0]}{hint}", ctx)
        return super().resolve_command(ctx, args)


def make_app() -> click.Group:
    """The command line, ready to be run."""
    app = _App(
        PROGRAM,
        help="Turn a folder of text into your own GPT-2: prepare, fine-tune, generate, evaluate.",
        epilog=examples_text(
            (
                "gpt2kit demo",
                "gpt2kit prepare data/raw && gpt2kit train && gpt2kit generate --prompt 'Once upon a time'",
                "gpt2kit COMMAND --help",
            )
        ),
        params=[_version_option(), debug_option()],
        invoke_without_command=True,
        callback=_show_help,
        # --data_dir and --data-dir are the same option
        context_settings={"token_normalize_func": lambda name: name.replace("-", "_"), "max_content_width": 100},
    )
    for stage in STAGES:
        app.add_command(StageCommand(stage))
    tokenizer = _App(
        "tokenizer",
        help="Make tokenizers.",
        short_help="Train a tokenizer of your own.",
        epilog=examples_text(_TOKENIZER.examples),
        invoke_without_command=True,
        callback=_show_help,
    )
    tokenizer.add_command(StageCommand(_TOKENIZER), "train")
    for command in (tokenizer, _canaries, _fetch, _inspect, _merge, _doctor, _demo):
        app.add_command(command)
    return app


@click.pass_context
def _show_help(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _version_option() -> click.Option:
    def show(ctx: click.Context, _: click.Parameter, given: bool) -> None:
        if given:
            from gpt2kit.runtime import VERSION

            click.echo(f"{PROGRAM} {VERSION}")
            ctx.exit()

    return click.Option(
        ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=show, help="Show the version."
    )


@click.command(
    "canaries",
    short_help="Plant random numbers into raw text, to see later whether a model kept them.",
    epilog=examples_text(
        (
            "gpt2kit canaries data/raw --record data/canaries.json",
            "gpt2kit evaluate --canaries data/canaries.json",
        )
    ),
)
@click.argument("input_dir", metavar="INPUT", type=click.Path(path_type=Path))
@click.option(
    "--record",
    default=Path("data/canaries.json"),
    show_default=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="JSON file to keep for the measurement; it holds the numbers.",
)
@click.option(
    "--repetitions",
    multiple=True,
    default=(1, 4, 16, 64),
    show_default=True,
    type=int,
    help="How often a canary is planted. Repeat it for several canaries.",
)
@click.option(
    "--controls", default=10, show_default=True, type=click.IntRange(0, 1000), help="Canaries that are not planted."
)
@click.option("--digits", default=9, show_default=True, type=int, help="Digits of each number, 4 to 15.")
@click.option(
    "--template",
    default="The number of the lock is {}.",
    show_default=True,
    help="The sentence, with {} where the number stands.",
)
@click.option("--seed", default=0, show_default=True, type=int, help="Seed of the numbers.")
def _canaries(
    input_dir: Path,
    record: Path,
    repetitions: tuple[int, ...],
    controls: int,
    digits: int,
    template: str,
    seed: int,
    as_json: bool,
) -> int:
    """Plant sentences with random numbers into INPUT, a folder of raw text, as canaries.jsonl.

    After preparing and training on the text, `gpt2kit evaluate --canaries FILE` measures how far the model prefers each
    number to those it never saw (Carlini et al. 2019, "The Secret Sharer"). Meant for a trial run: take canaries.jsonl
    out again before training a model to keep.
    """
    from gpt2kit.evaluation.canaries import plant_canaries

    made = plant_canaries(
        input_dir,
        record,
        repetitions=repetitions,
        num_controls=controls,
        digits=digits,
        template=template,
        seed=seed,
    )
    report(made, as_json=as_json)
    return 0


@click.command(
    "fetch",
    short_help="Bring a model from the Hugging Face Hub.",
    epilog=examples_text(("gpt2kit fetch gpt2", "gpt2kit fetch distilgpt2 --output_dir models/distilgpt2")),
)
@click.argument("name")
@click.option("--revision", help="A commit of the model. Default: the pinned one of a known model, else the newest.")
@click.option(
    "--output_dir", type=click.Path(path_type=Path), metavar="PATH", help="Folder to write. Default: the shared cache."
)
def _fetch(name: str, revision: str | None, output_dir: Path | None) -> int:
    """Bring the model NAME (gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, or owner/model) from the Hub.

    The known names mean one pinned revision each. Only data is fetched (safetensors, json, txt), never pickles or
    code; a download that broke off goes on where it stopped.
    """
    from gpt2kit.console import output
    from gpt2kit.hub import fetch

    output(str(fetch(name, revision=revision, output_dir=output_dir)))
    return 0


@click.command(
    "inspect",
    short_help="Explain a model: sizes, memory, attention, layer by layer.",
    epilog=examples_text(
        ("gpt2kit inspect gpt2", 'gpt2kit inspect models/gpt2_fine_tuned --prompt "The king" --picture king.png')
    ),
)
@click.argument("model")
@click.option("--prompt", help="Show attention and next-token probabilities for this text, layer by layer.")
@click.option("--top", default=5, show_default=True, type=click.IntRange(1), help="Candidates for the next token.")
@click.option(
    "--picture", type=click.Path(path_type=Path), metavar="FILE", help="Draw it into this PNG, SVG or PDF file."
)
@click.option("--allow_pickle", is_flag=True, help=_ALLOW_PICKLE)
def _inspect(model: str, prompt: str | None, top: int, picture: Path | None, allow_pickle: bool, as_json: bool) -> int:
    """Explain MODEL, a folder or a name on the Hub: its parts and their parameters, memory and FLOPs per token."""
    from gpt2kit.console import say
    from gpt2kit.model import inspect

    anatomy = inspect(model, prompt=prompt, top=top, allow_pickle=allow_pickle)
    report(anatomy, as_json=as_json)
    if picture is not None:
        anatomy.draw(picture)
        say(f"picture: {picture}")
    return 0


@click.command(
    "merge",
    short_help="Merge a LoRA adapter into its base model.",
    epilog=examples_text(("gpt2kit merge models/my_adapter --output_dir models/my_model",)),
)
@click.argument("adapter", type=click.Path(path_type=Path))
@click.option(
    "--output_dir", required=True, type=click.Path(path_type=Path), metavar="PATH", help="Folder for the whole model."
)
@click.option("--allow_pickle", is_flag=True, help=_ALLOW_PICKLE)
def _merge(adapter: Path, output_dir: Path, allow_pickle: bool) -> int:
    """Merge ADAPTER, a LoRA adapter's folder, into its base model and write the whole model as a new folder."""
    from gpt2kit.console import output
    from gpt2kit.model import merge_adapter

    output(str(merge_adapter(adapter, output_dir, allow_pickle=allow_pickle)))
    return 0


@click.command(
    "doctor",
    short_help="Tell what this machine can do and what to expect of it.",
    epilog=examples_text(("gpt2kit doctor", "gpt2kit doctor --json")),
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
def _doctor(device: str, as_json: bool) -> int:
    """Measure this machine in a few seconds: cores, memory, matrix rate, read speed, disk, optional parts.

    From the measurements: the largest GPT-2 that can be fine-tuned here, in full and by LoRA, and how fast.
    """
    from gpt2kit.doctor import examine

    report(examine(device=device), as_json=as_json)
    return 0


@click.command(
    "demo",
    short_help="Walk the whole road with sample text, in minutes.",
    epilog=examples_text(("gpt2kit demo", "gpt2kit demo --task chat && gpt2kit chat models/demo_chat")),
)
@click.option(
    "--task",
    default="story",
    show_default=True,
    metavar="story|poem|chat|product",
    help="What to fine-tune the small model for: tales, verse, conversation, or product descriptions.",
)
def _demo(task: str, as_json: bool) -> int:
    """Prepare sample text, fine-tune the small GPT-2 of this package on it, generate, and evaluate.

    Offline, in under five minutes on two cores.
    """
    from gpt2kit.demo import run

    report(run(task=task), as_json=as_json)
    return 0


for _command in (_canaries, _inspect, _doctor, _demo):
    _command.params.append(json_option())
for _command in (_canaries, _fetch, _inspect, _merge, _doctor, _demo):
    _command.params.append(debug_option())
