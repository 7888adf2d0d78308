"""From what an evaluation found to what it says: verdict, tables, a picture, and the files of the report."""

from pathlib import Path

from gpt2kit.console import say
from gpt2kit.errors import MissingExtraError
from gpt2kit.evaluation import report as reports
from gpt2kit.evaluation.breakdown import breakdown_page
from gpt2kit.evaluation.findings import Evaluation, Findings
from gpt2kit.evaluation.memory_words import memory_page, memory_tables, memory_verdict
from gpt2kit.evaluation.page import html_page
from gpt2kit.evaluation.picture import draw
from gpt2kit.evaluation.verdict import likelihood_verdict, text_verdict, warnings_on_size
from gpt2kit.files import explained_disk_errors


def publish(found: Findings, stem: Path) -> Evaluation:
    """Judge what was found, and write the report.

    Args:
        found: what was measured; what is too small to trust is added to its warnings, a picture left out to its notes.
        stem: the report's files, without their suffixes.

    Raises:
        DiskError: they cannot be written.
    """
    verdict = _verdict(found)
    found.warnings.extend(warnings_on_size(found.likelihood["model"], found.texts))
    # First, so that what was measured for hours does not hang on a picture or a page.
    reports.write_values(stem, found.to_dict() | {"verdict": verdict})
    picture = _draw(found, stem)
    values = found.to_dict() | {"verdict": verdict}
    plain, marked = (_tables(found, markdown=markdown) for markdown in (False, True))
    memory_plain, memory_marked = (_memory_tables(found, markdown=markdown) for markdown in (False, True))
    markdown = reports.markdown_text(
        values,
        marked,
        likelihood=found.likelihood["model"],
        texts=found.texts,
        sets=found.sets,
        picture=picture,
        breakdown=breakdown_page(
            found.breakdowns,
            found.titles,
            same_tokenizer=found.same_tokenizer,
            over_documents=found.likelihood["model"].is_over_documents,
        ),
        memory=memory_page(memory_marked),
    )
    reports.write_report(stem, values, markdown=markdown, page=html_page(values))
    return Evaluation(
        likelihood=found.likelihood,
        comparison=found.comparison,
        texts=found.texts,
        memory=found.memory,
        verdict=verdict,
        warnings=found.warnings,
        notes=found.notes,
        values=values,
        report=stem.with_suffix(".md"),
        _text=reports.terminal_text(values, plain + memory_plain, stem, has_picture=picture is not None),
    )


def _verdict(found: Findings) -> list[str]:
    other = found.records[1].title if len(found.records) == 2 else ""
    verdict = likelihood_verdict(found.likelihood["model"], found.comparison, other=other)
    epochs = found.records[0].epochs
    if found.texts is not None:
        verdict += text_verdict(found.texts, copy_words=found.settings.copy_words, epochs=epochs)
    return verdict + memory_verdict(found.memory, near_words=found.settings.near_words, epochs=epochs)


def _tables(found: Findings, *, markdown: bool) -> list[str]:
    columns = [(record.name, found.likelihood[record.role]) for record in found.records]
    tables = [
        reports.likelihood_table(columns, found.comparison, same_tokenizer=found.same_tokenizer, markdown=markdown)
    ]
    if found.texts is not None:
        tables.append(reports.texts_table(found.texts, copy_words=found.settings.copy_words, markdown=markdown))
    return tables


def _memory_tables(found: Findings, *, markdown: bool) -> list[str]:
    return memory_tables(
        found.memory,
        found.texts,
        titles=found.titles,
        near_words=found.settings.near_words,
        markdown=markdown,
    )


def _draw(found: Findings, stem: Path) -> Path | None:
    if not found.settings.picture:
        return None
    path = stem.with_suffix(".png")
    try:
        with explained_disk_errors(path):
            draw(path, found.likelihood, found.texts, titles=found.titles)
    except MissingExtraError as error:
        note = f"no picture: {error}"
        found.notes.append(note)
        say(note)
        return None
    return path
