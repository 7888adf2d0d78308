"""The tables and pages of a comparison: what a terminal and a Markdown file show."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt2kit.comparison.measure import Measured
from gpt2kit.comparison.pairs import Pair
from gpt2kit.console import text_table
from gpt2kit.evaluation.report import texts_table
from gpt2kit.evaluation.statistics import with_interval
from gpt2kit.evaluation.texts import TextReport, TextSet
from gpt2kit.files import to_json

_SAMPLES_SHOWN = 8
_GB, _MB = 1e9, 1e6


class Tables:
    """The tables of a comparison, as rows.

    Args:
        measured: the models, in the order they were given.
        pairs: every two of them.
        texts: the figures of their texts.
        copy_words: words in a row that count as copied.
    """

    def __init__(
        self, measured: Sequence[Measured], pairs: Sequence[Pair], texts: TextReport | None, *, copy_words: int
    ) -> None:
        self.measured = sorted(measured, key=lambda each: each.reading.likelihood.bits_per_byte)
        self.pairs = pairs
        self.texts = texts
        self.copy_words = copy_words

    @property
    def titles(self) -> list[str]:
        """The models, the best first."""
        return [each.record.name for each in self.measured]

    def likelihood(self) -> tuple[list[str], list[list[str]]]:
        """Headers and rows of what the models made of the held-out text, a row a model."""
        letters = self._letters()
        rows = []
        for each in self.measured:
            found = each.reading.likelihood
            letter = letters.get(each.reading.tokenizer, "")
            shown = with_interval(found.perplexity, found.perplexity_interval, digits=2)
            has_peer = sum(other.reading.tokenizer == each.reading.tokenizer for other in self.measured) > 1
            rows.append(
                [
                    each.record.name,
                    with_interval(found.bits_per_byte, found.bits_per_byte_interval, digits=4),
                    f"{shown} {letter}".strip() if has_peer else "-",
                    f"{found.num_tokens:,}",
                ]
            )
        return ["held-out text", "bits per byte", "perplexity", "tokens predicted"], rows

    def differences(self) -> tuple[list[str], list[list[str]]]:
        """Headers and rows of all pairs, those that are told apart best first."""
        ordered = sorted(self.pairs, key=lambda pair: (pair.corrected_p, -abs(pair.saved)))
        return ["better", "worse", "bits per byte saved", "documents", "p", "p, corrected", "clear"], [
            pair_cells(pair) for pair in ordered
        ]

    def matrix(self) -> tuple[list[str], list[list[str]]]:
        """Headers and rows of the matrix: bits per byte that the row's model saves against the column's."""
        rows = [
            [title, *("" if title == other else self._saved(title, other) for other in self.titles)]
            for title in self.titles
        ]
        return ["saves against", *self.titles], rows

    def pair_of(self, first: str, second: str) -> tuple[Pair, int]:
        """The pair of two models, and 1, or -1 if it was measured the other way round."""
        for pair in self.pairs:
            if (pair.first, pair.second) == (first, second):
                return pair, 1
            if (pair.first, pair.second) == (second, first):
                return pair, -1
        raise KeyError((first, second))

    def costs(self) -> tuple[list[str], list[list[str]]]:
        """Headers and rows of size, memory and speed."""
        rows = [
            [
                each.record.name,
                f"{each.cost.num_parameters:,}",
                f"{each.cost.weight_bytes / _MB:,.1f} MB",
                f"{each.cost.peak_memory_bytes / _GB:.2f} GB",
                f"{each.cost.read_tokens_per_second:,.0f}",
                "-" if each.cost.written_tokens_per_second is None else f"{each.cost.written_tokens_per_second:,.0f}",
            ]
            for each in self.measured
        ]
        return ["cost", "parameters", "weights", "peak memory", "tokens/s read", "tokens/s written"], rows

    def render(self, table: tuple[list[str], list[list[str]]], *, markdown: bool) -> str:
        """A table as text."""
        headers, rows = table
        return text_table(rows, headers, markdown=markdown, right_align=range(1, len(headers)))

    def of_texts(self, *, markdown: bool) -> str:
        """The figures of the texts, a column a model."""
        return "" if self.texts is None else texts_table(self.texts, copy_words=self.copy_words, markdown=markdown)

    def _letters(self) -> dict[str, str]:
        """A letter for each tokenizer, where there are several."""
        different = list(dict.fromkeys(each.reading.tokenizer for each in self.measured))
        if len(different) == 1:
            return {}
        return {fingerprint: f"[{chr(ord('a') + place % 26)}]" for place, fingerprint in enumerate(different)}

    def _saved(self, title: str, other: str) -> str:
        pair, sign = self.pair_of(title, other)
        return signed(sign * pair.saved) + ("" if pair.is_clear else " ?")


def pair_cells(pair: Pair) -> list[str]:
    """A row of the table of pairs, with the better model first; of two that are alike, neither is the better one."""
    better, worse, sign = (pair.first, pair.second, 1) if pair.saved >= 0 else (pair.second, pair.first, -1)
    interval = pair.difference.bits_per_byte_saved.interval
    turned = None if interval is None else (interval if sign == 1 else (-interval[1], -interval[0]))
    return [
        better if pair.saved else f"{better} (alike)",
        worse if pair.saved else f"{worse} (alike)",
        with_interval(abs(pair.saved), turned, digits=4),
        f"{pair.difference.num_units:,}",
        p_text(pair.p_value),
        p_text(pair.corrected_p),
        "yes" if pair.is_clear else "no",
    ]


def signed(bits: float) -> str:
    """A difference with its sign; 0 has none."""
    return f"{bits:+.4f}" if round(bits, 4) else "0.0000"


def p_text(p_value: float) -> str:
    """A p-value with the digits it deserves."""
    return f"{p_value:.4f}" if p_value >= 0.001 else f"{p_value:.0e}"


def terminal_text(values: dict[str, Any], tables: Tables, stem: Path, has_picture: bool) -> str:
    """What a person sees at the end of a run."""
    suffixes = [".md", ".html", ".json", *([".png"] * has_picture)]
    blocks = [
        tables.render(tables.likelihood(), markdown=False),
        tables.render(tables.differences(), markdown=False),
        tables.of_texts(markdown=False),
        tables.render(tables.costs(), markdown=False),
        f"Protocol: {values['protocol']['text']}.",
        "\n".join(values["verdict"]),
        "\n".join(f"warning: {line}" for line in values["warnings"]),
        "\n".join(f"note: {line}" for line in values["notes"]),
        f"Report: {', '.join(str(stem.with_suffix(suffix)) for suffix in suffixes)}",
    ]
    return "\n\n".join(block for block in blocks if block)


def markdown_text(
    values: dict[str, Any], tables: Tables, sets: dict[str, TextSet], stem: Path, has_picture: bool
) -> str:
    """The report as a page: the ranking first, then tables, texts side by side, and how it was made."""
    data, protocol = values["data"], values["protocol"]["text"]
    likelihood = tables.measured[0].reading.likelihood
    versions = ", ".join(f"{name} {version}" for name, version in values["provenance"]["versions"].items() if version)
    models = "  \n".join(f"{each['name']}: {each['folder']}, sha256 {each['sha256']}" for each in values["models"])
    parts = [
        "# Comparison of " + ", ".join(escaped(each["name"]) for each in values["models"]),
        _bullets([escaped(line) for line in values["verdict"]]),
        _bullets([f"**Warning:** {escaped(line)}" for line in values["warnings"]]),
        f"![the figures]({stem.name}.png)" if has_picture else "",
        "## Held-out text",
        tables.render(tables.likelihood(), markdown=True),
        f"Measured on {data['origin']} ({data['num_documents']:,} of {data['num_documents_in_all']:,} documents). "
        f"Protocol: {protocol}. In brackets: {likelihood.intervals_text}.",
        "## Differences",
        tables.render(tables.differences(), markdown=True),
        "Both models read the same documents, so the difference is taken document by document, and so are interval and "
        "test. p: share of random signs of these differences that give as much (two-sided); corrected by Holm for the "
        "number of pairs. Clear: corrected p at most 5%, and 0 outside the interval.",
        tables.render(tables.matrix(), markdown=True),
        "Bits per byte that the model of the row saves against that of the column; `?` where it is not clear.",
    ]
    if tables.texts is not None:
        parts += [
            "## Texts",
            tables.of_texts(markdown=True),
            f"Same prompts, same seed; {values['prompts']['text']}. "
            f"Figures on n-grams are made of {tables.texts.compared_texts} texts of each, cut "
            f"to the same lengths: {tables.texts.compared_words:,} words.",
            *_side_by_side(sets),
        ]
    parts += [
        "## Size, memory, speed",
        tables.render(tables.costs(), markdown=True),
        "Peak memory is that of the whole process while the model was open (on a GPU: of its tensors). Speeds are "
        "those of this run, in batches.",
        "## How this was made",
        _bullets([escaped(line) for line in values["notes"]]),
        f"Command: `{' '.join(values['provenance']['command'])}`  \nMade: {values['provenance']['created']} with "
        f"{versions}  \n{models}  \nData: {data['fingerprint']}",
        "```json\n" + to_json(values["settings"]).strip() + "\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _side_by_side(sets: dict[str, TextSet]) -> list[str]:
    parts = ["## Texts from the same prompts"]
    prompts = next(iter(sets.values())).prompts
    for number, prompt in enumerate(prompts[:_SAMPLES_SHOWN]):
        parts.append(f"### {number + 1}. {escaped(' '.join(prompt.split())) or 'From the beginning'}")
        rows = [[escaped(name), _cell(each.texts[number])] for name, each in sets.items()]
        parts.append(text_table(rows, ["", "goes on"], markdown=True))
    if len(prompts) > _SAMPLES_SHOWN:
        parts.append(
            f"{len(prompts) - _SAMPLES_SHOWN} more prompts are in the HTML page and under `samples` in the JSON."
        )
    return parts


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, in a table too."""
    for character in "\\`*_{}[]<>#|~":
        text = text.replace(character, f"\\{character}")
    return text


def _cell(text: str) -> str:
    """A text in a table's cell; its lines stay lines."""
    return "<br>".join(escaped(line.strip()) for line in text.strip().splitlines())


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
