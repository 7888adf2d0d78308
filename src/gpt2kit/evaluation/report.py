"""The report of an evaluation: numbered files that never replace one another."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt2kit.console import text_table
from gpt2kit.evaluation.comparison import Comparison
from gpt2kit.evaluation.likelihood import Likelihood
from gpt2kit.evaluation.statistics import Figure, Interval, number_text
from gpt2kit.evaluation.texts import Metric, TextReport, TextSet, metrics
from gpt2kit.files import to_json, write_atomically

STEM = "evaluation"
_MATCHES_SHOWN = 5
_SAMPLES_SHOWN = 3
_LONGEST_QUOTE_CHARACTERS = 400


def write_values(stem: Path, values: dict[str, Any]) -> None:
    """Write the JSON.

    Raises:
        DiskError: the disk is full.
    """
    write_atomically(stem.with_suffix(".json"), to_json(values))


def write_report(stem: Path, values: dict[str, Any], *, markdown: str, page: str) -> None:
    """Write the JSON, then the page for a browser, then the Markdown.

    Raises:
        DiskError: the disk is full.
    """
    write_values(stem, values)
    write_atomically(stem.with_suffix(".html"), page)
    write_atomically(stem.with_suffix(".md"), markdown)


def likelihood_table(
    columns: Sequence[tuple[str, Likelihood]],
    comparison: Comparison | None,
    *,
    same_tokenizer: bool,
    markdown: bool = False,
) -> str:
    """Perplexity and bits per byte, a column a model."""
    rows = [
        ["bits per byte", *(_with_interval(each.bits_per_byte, each.bits_per_byte_interval, 4) for _, each in columns)],
    ]
    if same_tokenizer:
        rows += [
            ["perplexity", *(_with_interval(each.perplexity, each.perplexity_interval, 3) for _, each in columns)],
            ["perplexity without end-of-text", *(number_text(each.text_perplexity, digits=3) for _, each in columns)],
        ]
    rows.append(["tokens predicted", *(f"{each.num_tokens:,}" for _, each in columns)])
    if comparison is not None:
        empty = [""] * (len(columns) - 1)
        saved = Metric("", "", digits=4).show(comparison.bits_per_byte_saved)
        rows.append(["bits per byte saved", saved, *empty])
        if comparison.perplexity_drop is not None:
            rows.append(["perplexity lower by", _percent(comparison.perplexity_drop), *empty])
        if comparison.p_value is not None:
            title = f"p-value of the difference, over {comparison.num_units:,} documents"
            rows.append([title, f"{comparison.p_value:.2g}", *empty])
    headers = ["held-out text", *(title for title, _ in columns)]
    return text_table(rows, headers, markdown=markdown, right_align=range(1, len(headers)))


def texts_table(report: TextReport, *, copy_words: int, markdown: bool = False) -> str:
    """The figures of texts, a column a set, and what human text without connection comes to where that has a figure."""
    sets = list(report.sets.values())
    with_floor = bool(report.floors)
    rows = []
    for metric in metrics(copy_words):
        cells = [metric.show(each.figures.get(metric.name)) for each in sets]
        if all(cell == "-" for cell in cells) or (metric.name == "copied_13" and copy_words == 13):
            continue
        floor = metric.show(report.floors[metric.name]) if metric.name in report.floors else ""
        rows.append([metric.title, *cells, *([floor] * with_floor)])
    headers = ["generated texts", *(each.title for each in sets), *(["human, shuffled"] * with_floor)]
    return text_table(rows, headers, markdown=markdown, right_align=range(1, len(headers)))


def terminal_text(values: dict[str, Any], tables: Sequence[str], stem: Path, *, has_picture: bool) -> str:
    """What a person sees at the end of a run."""
    protocol = values["likelihood"]["protocol"]["text"]
    files = [str(stem.with_suffix(suffix)) for suffix in (".html", ".md", ".json")]
    if has_picture:
        files.append(str(stem.with_suffix(".png")))
    blocks = [*tables, f"Protocol: {protocol}.", "\n".join(values["verdict"])]
    blocks += ["\n".join(f"warning: {line}" for line in values["warnings"])] if values["warnings"] else []
    blocks += ["\n".join(f"note: {line}" for line in values["notes"])] if values["notes"] else []
    return "\n\n".join([*blocks, f"Report: {', '.join(files)}"])


def markdown_text(
    values: dict[str, Any],
    tables: Sequence[str],
    *,
    likelihood: Likelihood,
    texts: TextReport | None,
    sets: dict[str, TextSet],
    picture: Path | None,
    breakdown: str = "",
    memory: str = "",
) -> str:
    """The report as a page: verdict first, then tables, copies, samples, and how it was made."""
    model, data = values["models"]["model"], values["data"]
    parts = [
        f"# Evaluation of {model['name']}",
        _bullets(values["verdict"]),
        _bullets([f"**Warning:** {line}" for line in values["warnings"]]),
        f"![the figures]({picture.name})" if picture is not None else "",
        "## Held-out text",
        tables[0],
        f"Measured on {data['origin']} ({data['num_documents']:,} of {data['num_documents_in_all']:,} documents). "
        f"Protocol: {values['likelihood']['protocol']['text']}. In brackets: {likelihood.intervals_text}.",
        breakdown,
    ]
    if texts is not None:
        parts += [
            "## Texts",
            tables[1],
            f"Written from {values['prompts']['text']}. "
            f"Figures that hang on how much text there is (distinct, self-BLEU, rep, Zipf, words said once) are made "
            f"of {texts.compared_texts} texts of each, cut to the same lengths: {texts.compared_words:,} words. "
            "What each figure is: docs/evaluation.md.",
            *_copied_passages(texts),
            *_samples(sets),
        ]
    parts.append(memory)
    versions = ", ".join(f"{name} {version}" for name, version in values["provenance"]["versions"].items() if version)
    parts += [
        "## How this was made",
        _bullets(values["notes"]),
        f"Command: `{' '.join(values['provenance']['command'])}`  \nMade: {values['provenance']['created']} with "
        f"{versions}  \nModel: {model['folder']}, sha256 {model['sha256']}  \nData: {data['fingerprint']}",
        "```json\n" + to_json(values["settings"]).strip() + "\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _copied_passages(texts: TextReport) -> list[str]:
    model = texts.sets.get("model")
    if model is None or not model.matches:
        return []
    rows = [
        [match.num_words, _cell(", ".join(part for part in (match.source, match.place) if part)), _quote(match.text)]
        for match in model.matches[:_MATCHES_SHOWN]
    ]
    table = text_table(rows, ["words", "also in the training text", "passage"], markdown=True, right_align=[0])
    return ["## Longest copied passages", table]


def _samples(sets: dict[str, TextSet]) -> list[str]:
    if "model" not in sets:
        return []
    parts = ["## Samples"]
    for number, prompt in enumerate(sets["model"].prompts[:_SAMPLES_SHOWN]):
        parts.append(f"**{_quote(prompt) or 'From the beginning'}**")
        for each in sets.values():
            if number < len(each.texts) and each.prompts[number] == prompt:
                parts.append(f"*{each.title}:* {_quote(each.texts[number])}")
    return parts


def _quote(text: str) -> str:
    """A passage on one line, cut where it is long."""
    line = " ".join(text.split())
    if len(line) > _LONGEST_QUOTE_CHARACTERS:
        line = line[:_LONGEST_QUOTE_CHARACTERS].rstrip() + " …"
    return _cell(line)


def _cell(text: str) -> str:
    """Text that Markdown shows as it is, in a table too."""
    for character in "\\`*_{}[]<>#|~":
        text = text.replace(character, f"\\{character}")
    return text


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _with_interval(value: float, interval: Interval | None, digits: int) -> str:
    return Metric("", "", digits=digits).show(Figure(value, interval))


def _percent(figure: Figure) -> str:
    text = f"{number_text(100 * figure.value, digits=2)}%"
    if figure.interval is not None:
        low, high = (number_text(100 * bound, digits=2) for bound in figure.interval)
        text += f" ({low} to {high})"
    return text
