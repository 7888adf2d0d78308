"""The report as a page for a browser: well-formed, safe, complete, and right about copies and surprise."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit import EvaluateSettings, evaluate
from gpt2kit.evaluation.curve import read_curve
from gpt2kit.evaluation.page import html_page
from gpt2kit.evaluation.page.charts import curve_words
from gpt2kit.evaluation.page.figures import part_groups
from gpt2kit.evaluation.page.memory import longest_copies
from gpt2kit.evaluation.page.passages import mark_copies, mark_surprise, printable
from gpt2kit.evaluation.page.plots import dot_row, ticks
from gpt2kit.evaluation.page.tables import tables_of
from gpt2kit.evaluation.statistics import Figure
from gpt2kit.evaluation.surprise import surprise_of
from gpt2kit.evaluation.texts import Metric
from gpt2kit.generation import load
from gpt2kit.model import load_model

VOID = {"meta", "br", "input"}


class Node(HTMLParser):
    """A parser that refuses what is not well-formed, and keeps each element with its attributes and its text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[dict] = []
        self.elements: list[dict] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice in {tag}"
        element = {"tag": tag, "attrs": dict(attrs), "text": "", "up": self.open[-1] if self.open else None}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> without a beginning"
        assert self.open[-1]["tag"] == tag, f"</{tag}> closes <{self.open[-1]['tag']}>"
        self.open.pop()

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def find(self, tag: str, cls: str = "", within: dict | None = None) -> list[dict]:
        """Elements by their tag and one of their classes."""
        return [
            each
            for each in self.elements
            if each["tag"] == tag
            and (not cls or cls in (each["attrs"].get("class") or "").split())
            and (within is None or self.is_below(each, within))
        ]

    @staticmethod
    def is_below(element: dict, other: dict) -> bool:
        above = element["up"]
        while above is not None and above is not other:
            above = above["up"]
        return above is not None


@pytest.fixture(scope="module")
def page(reported) -> Node:
    return Node(reported[0].page.read_text(encoding="utf-8"))


def test_the_page_asks_nothing_of_the_network(reported, page):
    text = reported[0].page.read_text(encoding="utf-8")
    assert not page.find("script") + page.find("link") + page.find("img") + page.find("iframe")
    ids = {each["attrs"]["id"] for each in page.elements if "id" in each["attrs"]}
    for each in page.elements:
        assert not any(name.startswith("on") or name in ("src", "style", "action") for name in each["attrs"])
        if "href" in each["attrs"]:
            assert each["attrs"]["href"][0] == "#"
            assert each["attrs"]["href"][1:] in ids
    style = page.find("style")[0]["text"]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(each for each in page.find("meta") if each["attrs"].get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy["attrs"]["content"].startswith(f"default-src 'none'; style-src 'sha256-{digest}'")
    assert text.startswith("<!doctype html>")
    assert len(page.find("h1")) == 1


def test_texts_of_strangers_are_shown_and_do_nothing(reported, page):
    samples = reported[1]["samples"]
    shown = page.find("article", "sample")
    assert len(shown) == len(samples)
    for article, sample in zip(shown, samples, strict=True):
        for view in ("copies", "surprise"):
            body = page.find("p", view, article)[0]
            if not page.find("sup", within=body):  # the numbers of footnotes
                assert body["text"] == printable(sample["text"])
        assert page.find("p", "prompt", article)[0]["text"] == (sample["prompt"] or "From the beginning")
    assert "49" not in page.find("p", "copies", shown[0])[0]["text"]  # no template of a template
    assert "\x00" not in reported[0].page.read_text(encoding="utf-8")
    assert "\u2400" in shown[0]["text"]


def test_planted_copies_are_marked_where_they_stand(reported, page):
    planted = reported[1]
    article = page.find("article", "sample")[1]
    exact = page.find("mark", "exact", article)
    joined = "".join(each["text"] for each in exact)
    assert planted["copied"] in joined
    assert any(planted["source"] in each["attrs"]["title"] for each in exact)
    near = page.find("mark", "near", article)
    assert "purple" in "".join(each["text"] for each in near)
    assert any("1 word changed" in each["attrs"]["title"] for each in near)
    notes = page.find("ol", "notes", article)[0]["text"]
    assert "14 words, word for word in" in notes
    assert planted["source"] in notes
    values = reported[0].to_dict()
    assert any(row["text"] == planted["copied"] for row in values["texts"]["sets"]["model"]["matches"])
    memory = next(each for each in page.find("section") if each["attrs"].get("id") == "memory")
    assert planted["copied"] in memory["text"]


def test_surprise_is_that_of_a_plain_computation(reported):
    values = json.loads(reported[0].report.with_suffix(".json").read_text())
    folder = Path(values["models"]["model"]["folder"])
    model, tokenizer = load_model(folder), load(folder, device="cpu", engine="torch").tokenizer
    samples = values["samples"]["model"]
    for prompt, text, surprise in zip(samples["prompts"], samples["texts"], samples["surprise"], strict=True):
        before, ids = tokenizer.encode(prompt), tokenizer.encode(text)
        assert len(surprise["nats"]) == len(surprise["token_ends"]) == len(ids)
        assert surprise["token_ends"][-1] == len(text)
        stream = [tokenizer.end_of_text, *before, *ids][: model.config.n_positions + 1]
        with torch.inference_mode():
            logits_TV = model.logits(model(torch.tensor([stream[:-1]])))[0]
        expected = -logits_TV.double().log_softmax(-1)[range(len(stream) - 1), stream[1:]][len(before) :]
        assert surprise["nats"][: len(expected)] == pytest.approx(expected.tolist(), abs=2e-3)
    assert len(samples["surprise"][2]["nats"]) > model.config.n_positions  # its end was read in a second window


def test_surprise_of_a_character_of_many_tokens(reported):
    found, planted = reported
    text = planted["samples"][1]["text"]
    (surprise,) = surprise_of(
        load(found.to_dict()["models"]["model"]["folder"], device="cpu", engine="torch"),
        [""],
        [text],
        batch_size=2,
        what="reading",
    )
    tokens = mark_surprise(text, surprise.ends, surprise.nats)
    assert "".join(token.text for token in tokens) == text
    rocket = next(token for token in tokens if token.text.endswith("\U0001f680"))
    place = text.index("\U0001f680") + 1
    own = [nats for end, nats in zip(surprise.ends, surprise.nats, strict=True) if place - 1 <= end <= place]
    # The first of these completes the character before.
    assert rocket.title.startswith(f"{sum(own[1:]):.2f} nats")


def test_all_that_was_measured_is_on_the_page(reported, page):
    found = reported[0]
    text = page.find("body")[0]["text"]
    for line in (*found.verdict, *found.notes, *(warning[1:] for warning in found.warnings)):
        assert line[1:] in text
    for metric in found.to_dict()["texts"]["metrics"]:
        if metric["name"] in found.texts.sets["model"].figures:
            assert metric["title"] in text
    for part in ("Extraction", "Membership", "best: 4.250 at step 5", "<not> finite", "copy_words", "sha256"):
        assert part in text
    assert str(found.page) in found.to_text().splitlines()[-1].split(",")[0]
    charts = [each for each in page.find("svg") if each["attrs"].get("role") == "img"]
    assert charts
    assert all(page.find("title", within=each) for each in charts)


def test_texts_of_a_file_are_not_said_to_be_the_models(reported, page):
    article = page.find("article", "sample")[1]
    assert page.find("section", "model", article)[0]["text"].strip().startswith("samples.jsonl")
    shown = {each["text"] for each in page.find("dt")}
    assert "copy_words" in shown
    assert not shown & {"temperature", "num_samples", "top_p", "sample_tokens"}
    values = json.loads(reported[0].report.with_suffix(".json").read_text())
    values["settings"]["samples"] = None
    own = Node(html_page(values))
    assert own.find("section", "model", own.find("article", "sample")[1])[0]["text"].strip().startswith("model")
    assert "temperature" in {each["text"] for each in own.find("dt")}


def test_figures_that_the_page_does_not_know_by_name(reported):
    values = json.loads(reported[0].report.with_suffix(".json").read_text())
    values["texts"]["metrics"].append({"name": "newest", "title": "newest <figure>", "is_share": False, "digits": 2})
    values["texts"]["sets"]["model"]["figures"]["newest"] = {"value": 0.123, "interval": [0.1, 0.2]}
    values["likelihood"]["model"]["by_position"] = [{"from": 0, "to": 15, "nats": {"value": 4.5, "interval": None}}]
    values["likelihood"]["by_rarity"] = {"model": {"rare": 7.25, "common": 2.5}, "other": {"rare": 8.0, "common": 3.5}}
    values["weather"] = {"sky_colour": "blue & grey"}
    page = Node(html_page(values))
    text = page.find("body")[0]["text"]
    for part in ("newest <figure>", "0.12", "y position", "4.500", "y rarity", "7.25", "sky colour", "blue & grey"):
        assert part in text


def test_parts_of_held_out_text_share_a_logarithmic_scale(reported):
    values = json.loads(reported[0].report.with_suffix(".json").read_text())
    parts = [
        {"title": title, "num_tokens": 5, "num_units": 2, "nats": 9.0, "perplexity": {"value": value, "interval": None}}
        for title, value in (("1 to 15", 100.0), ("16 to 31", 10.0), ("<b>", 1.0))
    ]
    values["breakdown"] = {"model": {"documents": [{"name": "a.txt", "perplexity": 31.5}], "place": parts}}
    values["texts"]["floors"] = {"distinct_2": {"value": 0.111, "interval": None}}
    (group,) = part_groups(values)
    assert group.title == "Perplexity by place in the document, in tokens"
    assert [row.marks[0].x for row in group.rows] == [96.0, 50.0, 4.0]
    page = Node(html_page(values))
    text = page.find("body")[0]["text"]
    for part in ("16 to 31", "<b>", "a.txt", "31.5", "human text without connection: 0.111"):
        assert part in text


def parts_of(*sizes: int, value: float = 10.0) -> list[dict]:
    """Parts of held-out text, of so many tokens each."""
    perplexity = {"value": value, "interval": None}
    return [
        {"title": f"part {place}", "num_tokens": size, "num_units": 1, "nats": 1.0, "perplexity": perplexity}
        for place, size in enumerate(sizes)
    ]


def test_parts_are_shown_where_there_is_something_to_compare(reported):
    values = json.loads(reported[0].report.with_suffix(".json").read_text())
    values["likelihood"]["comparison"] = None
    same = parts_of(1, 2)
    values["breakdown"] = {"model": {"context": same, "place": same, "source": parts_of(3)}}
    (group,) = part_groups(values)  # place is context, and one source is all of the text
    assert group.title == "Perplexity by tokens to look back on"
    assert [row.hint for row in group.rows] == ["1 token", "2 tokens"]


def test_of_many_parts_the_largest_are_shown(reported):
    values = json.loads(reported[0].report.with_suffix(".json").read_text())
    values["breakdown"] = {"model": {"source": parts_of(*range(1, 31))}}
    (group,) = part_groups(values)
    assert [row.title for row in group.rows] == [f"part {place}" for place in range(6, 30)]
    assert group.num_left_out == 6


def test_parts_of_other_tokens_are_not_set_side_by_side(reported):
    values = json.loads(reported[0].report.with_suffix(".json").read_text())
    own, others = parts_of(1, 2), parts_of(1, 2, value=99.0)
    values["models"] = {"model": values["models"]["model"], "other": values["models"]["model"]}
    values["breakdown"] = {"model": {"source": own}, "other": {"source": others}}
    values["likelihood"]["comparison"] = {"perplexity_drop": None}
    (group,) = part_groups(values)
    assert [[mark.role for mark in row.marks] for row in group.rows] == [["model"], ["model"]]
    values["likelihood"]["comparison"] = None
    (group,) = part_groups(values)
    assert [[mark.role for mark in row.marks] for row in group.rows] == [["model", "other"]] * 2


def test_what_the_texts_began_with_has_no_table_of_its_own(reported):
    values = json.loads(reported[0].report.with_suffix(".json").read_text())
    assert values["prompts"]["text"] in html_page(values)
    for prompts in (values["prompts"], None):
        page = Node(html_page({**values, "prompts": prompts}))
        assert "prompts" not in [each["text"].lower() for each in page.find("h3") + page.find("th")]


def test_a_perplexity_of_hundreds_of_digits_has_a_place_and_a_power_of_ten(reported):
    values = json.loads(reported[0].report.with_suffix(".json").read_text())
    values["likelihood"]["model"] |= {"perplexity": 1.25e307, "perplexity_interval": [2.0, 1.5e308]}
    page = Node(html_page(values))
    assert "1.25e+307" in page.find("body")[0]["text"]
    assert not re.search(r"(\d{3},){4}", page.find("body")[0]["text"])
    assert dot_row(Metric("", ""), {"model": Figure(1e308)}).marks[0].text == "1e+308"


def test_the_least_there_can_be(model_folder, tmp_path):
    folder = model_folder()
    text = tmp_path / "book.txt"
    text.write_text("The fox saw the wolf. " * 40, encoding="utf-8")
    found = evaluate(
        EvaluateSettings(
            model_dir=str(folder), text=text, data_dir=tmp_path / "no", num_samples=0, picture=False,
            output_dir=tmp_path / "out", device="cpu",
        )
    )  # fmt: skip
    page = Node(found.page.read_text(encoding="utf-8"))
    assert not page.find("article")
    assert "perplexity of held-out text" in page.find("body")[0]["text"]


def test_the_curve_of_many_steps_is_made_of_means(tmp_path):
    assert read_curve(tmp_path) is None
    (tmp_path / "training").mkdir()
    records = [{"step": step, "kind": "train", "loss": float(step)} for step in range(1, 501)]
    records.insert(250, {"step": 250, "kind": "train", "loss": float("nan")})
    records.insert(260, {"step": 260, "kind": "train", "loss": None})  # what is not finite, as it is written now
    (tmp_path / "training" / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    curve = read_curve(tmp_path)
    assert curve.steps_per_point == 3
    assert curve.train[0] == (2.0, 2.0)
    assert curve.train[-1] == (499.5, 499.5)
    assert all(step == loss for step, loss in curve.train)


def test_the_training_loss_in_words_is_no_single_batch():
    losses = [3.4 - step / 100 + (0.4 if step in (0, 99) else 0.0) for step in range(100)]
    curve = {"train": list(enumerate(losses)), "validation": [], "events": [], "steps_per_point": 1}
    assert "went from 3.395 to 2.495 (means of the first and the last tenth)." in curve_words(curve)
    assert curve_words(curve | {"train": curve["train"][:19]}) == ""
    assert "tenth; each point is the mean of 5 steps)" in curve_words(curve | {"steps_per_point": 5})


def test_a_passage_within_another_is_no_row_of_its_own(reported):
    values = json.loads(reported[0].report.with_suffix(".json").read_text())

    def passage(start: int, end: int, *, text_index: int = 0) -> dict:
        where = {"text_index": text_index, "start": start, "end": end, "source": "a.txt", "place": ""}
        return where | {"num_words": (end - start) // 5, "text": "words", "edits": 2}

    values["memorisation"]["near_copies"]["model"]["longest"] = [passage(0, 100)]
    values["texts"]["sets"]["model"]["matches"] = [
        passage(0, 40), passage(60, 100), passage(90, 140), passage(0, 30, text_index=1)
    ]  # fmt: skip
    kinds = [(row[0], row[1]) for row in longest_copies(values).rows]
    assert kinds == [
        ("20", "2 changed"), ("10", "word for word"), ("6", "word for word, too short to count")
    ]  # fmt: skip


def test_two_footnotes_at_one_place_are_two_numbers(reported):
    values = json.loads(reported[0].report.with_suffix(".json").read_text())
    samples = values["samples"]["model"]
    span = {"kind": "exact", "end": 20, "num_words": 9, "edits": 0, "source": "a", "place": "", "training_text": ""}
    samples["texts"][1] = "and then they went home again to the king"
    samples["copies"][1] = [span | {"start": 0}, span | {"start": 4}]
    samples["texts"][0], samples["copies"][0], samples["surprise"][0] = "", [], {"nats": [], "token_ends": []}
    page = Node(html_page(values))
    articles = page.find("article", "sample")
    assert [each["text"] for each in page.find("sup", within=page.find("p", "copies", articles[1])[0])] == ["1, 2"]
    empty = page.find("section", "model", articles[0])[0]
    assert "An empty text." in empty["text"]
    assert not page.find("p", "body", empty)


def test_the_p_value_is_on_the_page(reported, page):
    p_value = reported[0].comparison.p_value
    assert f"p-value of the difference: {p_value:.2g}" in page.find("body")[0]["text"]


def test_tables_name_and_write_numbers_for_readers():
    [table] = tables_of([{"num_tokens": 10657, "num_bytes": 6761.0, "nats": 2.25}], "", names={})
    assert (table.headers, table.rows) == (["tokens", "bytes", "nats"], [["10,657", "6,761", "2.25"]])


def test_the_ends_of_a_scale_are_what_they_read():
    row = dot_row(Metric("m", "m", digits=0), {"model": Figure(6.0), "human": Figure(7.0)})
    (left, low), (right, high) = row.ends
    for mark, value in zip(row.marks, (6.0, 7.0), strict=True):
        assert mark.x == pytest.approx(left + (right - left) * (value - int(low)) / (int(high) - int(low)), abs=0.01)
    percent = dot_row(Metric("m", "m", is_share=True), {"model": Figure(0.0712)})
    assert [label for _, label in percent.ends] == ["0.0%", "7.2%"]


def test_dots_lie_where_their_figures_are():
    row = dot_row(
        Metric("m", "m", is_share=True), {"model": Figure(0.25, (0.0, 0.5)), "human": Figure(0.5, (0.25, 0.5))}
    )
    assert [mark.x for mark in row.marks] == [50.0, 96.0]
    assert (row.marks[0].low, row.marks[0].high) == (4.0, 96.0)
    assert row.band == (50.0, 96.0)
    assert row.ends == [(4.0, "0.0%"), (96.0, "50.0%")]
    small = dot_row(Metric("m", "m", is_share=True), {"model": Figure(0.001)})
    assert small.marks[0].x < 10  # hardly anything looks like it
    alike = dot_row(Metric("m", "m"), {"model": Figure(1.0), "human": Figure(1.001)})
    assert abs(alike.marks[0].x - alike.marks[1].x) < 1
    worse = dot_row(Metric("m", "m"), {"model": Figure(-1.0)}, with_zero=True)
    assert (worse.marks[0].x, worse.zero) == (4.0, 96.0)
    assert dot_row(Metric("m", "m"), {"model": Figure(0.0)}).marks[0].x == 50
    assert dot_row(Metric("m", "m"), {"model": Figure(float("inf"))}).marks == []


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_hold_what_is_drawn(low, span):
    marks = ticks(low, low + span)
    assert marks[0] <= low + 1e-6 * span + 1e-9
    assert marks[-1] >= low + span - 1e-6 * span - 1e-9
    assert 2 <= len(marks) <= 9


@given(st.text(max_size=60), st.data())
def test_pieces_joined_are_the_text(text, data):
    spans = []
    for _ in range(data.draw(st.integers(0, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, len(text)))
        kind = data.draw(st.sampled_from(["exact", "near"]))
        spans.append(
            {"kind": kind, "start": start, "end": end, "num_words": data.draw(st.integers(5, 60)), "edits": 1}
            | {"source": "a.txt", "place": "", "training_text": "b"}
        )
    pieces, notes = mark_copies(text, spans, shortest=8)
    assert "".join(piece.text for piece in pieces) == printable(text)
    assert len(printable(text)) == len(text)
    assert [note.number for note in notes] == list(range(1, len(notes) + 1))
    covered = {place for span in spans for place in range(span["start"], span["end"])}
    assert sum(len(piece.text) for piece in pieces if piece.kind) == len(covered)
    ended = [note.number for piece in pieces for note in piece.ending]
    assert len(ended) == len(set(ended))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=5), below, max_size=4),
        max_leaves=12,
    )
)
def test_any_json_makes_tables_of_even_rows(value):
    for table in tables_of({"a": value}, "", names={"model": "mine"}):
        assert all(len(row) == len(table.headers) for row in table.rows)
        assert all(isinstance(cell, str) for row in table.rows for cell in row)


def test_letters_stand_out_from_their_ground():
    style = (Path(html_page.__code__.co_filename).parent / "templates" / "report.css").read_text()
    blocks = re.findall(r":root \{(.*?)\n\s*\}", style, re.DOTALL)
    assert len(blocks) == 3  # light, dark, print
    for block in blocks:
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", block))
        grounds = [name for name in colours if re.fullmatch(r"(exact|near)-\d|s\d|paper|raised|warning-paper", name)]
        assert len(grounds) >= 16
        pairs = [("ink", name) for name in grounds] + [("quiet", "paper"), ("accent", "paper"), ("paper", "ink")]
        pairs += [("alarm", "alarm-paper"), ("warning", "warning-paper")]
        for front, back in pairs:
            assert contrast(colours[front], colours[back]) >= 4.5, (front, back)
        for front in ("model", "other", "human"):
            assert contrast(colours[front], colours["paper"]) >= 3, front
            assert contrast(colours[front], colours["band"]) >= 3, front


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio of two colours."""
    lights = sorted(luminance(each) for each in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * each for each in colour[1:])
    shares = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
