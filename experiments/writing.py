"""Texts by one sampling setting, and the figures of all of them side by side. Started by `experiments.sampling`."""

import sys
from pathlib import Path
from typing import Any

from experiments.texts import Text, blocks, make
from gpt2kit.evaluation.coherence import SentenceSpace, passages
from gpt2kit.evaluation.heldout import HeldOut, Opening, openings, read_text_file, training_texts
from gpt2kit.evaluation.samples import human_texts
from gpt2kit.evaluation.texts import TextSet, measure_texts
from gpt2kit.files import read_json, to_json, write_atomically
from gpt2kit.generation import GenerateSettings, generate, load
from gpt2kit.tokens import PreparedData
from gpt2kit.tokens.chat import Segment

PROMPT_WORDS = 24
COPY_WORDS = 8
KEPT_FIGURES = (
    "distinct_1", "distinct_2", "self_bleu", "rep_4", "words_in_loops", "coherence", "unseen_words",
)  # fmt: skip
SHOWN_TEXTS = 2
HUMAN = "human"


def main() -> None:
    """Do what the files named on the command line order."""
    for file in sys.argv[1:]:
        order = read_json(Path(file), what="an order of the studies")
        data, test_file = make(Text(**order["text"]), Path(order["texts"]))
        places = _places(test_file, order)
        done = _measure(order, data, places) if "sets" in order else _write(order, places)
        record = Path(order["record"])
        record.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(record, to_json(done))


def _places(test_file: Path, order: dict[str, Any]) -> dict[int, list[Opening]]:
    """Places of the test text to go on from, others for every seed, each seed's from all over the book.

    None reaches over the end of a block of the test text, behind which the book does not go on.
    """
    whole = read_text_file(test_file)
    (piece,) = whole.opening_pieces
    parts = blocks("".join(segment.text for segment in whole.documents[0]))
    held_out = HeldOut([[Segment(part)] for part in parts], [piece] * len(parts), whole.origin, len(parts))
    seeds = order["seeds"]
    found = openings(
        held_out,
        number=order["num_prompts"] * len(seeds),
        prompt_words=PROMPT_WORDS,
        continuation_words=order["tokens"],
    )
    return {seed: found[number :: len(seeds)] for number, seed in enumerate(seeds)}


def _write(order: dict[str, Any], places: dict[int, list[Opening]]) -> dict[str, Any]:
    """All texts of a setting, by the seed; and how likely the model found what it chose."""
    model = load(order["model"], device="cpu")
    texts: dict[str, list[str]] = {}
    surprise: dict[str, float] = {}
    for seed, prompts in places.items():
        # None of them may end early, or texts would be cut to the shortest before they are compared.
        how = GenerateSettings(
            max_new_tokens=order["tokens"],
            min_new_tokens=order["tokens"],
            seed=seed,
            stream=False,
            logprobs=True,
            **order["setting"],
        )
        samples = generate(model, [opening.prompt for opening in prompts], how)
        texts[str(seed)] = [sample.text for sample in samples]
        nats = -sum(sample.logprob for sample in samples if sample.logprob is not None)
        surprise[str(seed)] = nats / sum(len(sample.ids) for sample in samples)
    return {"setting": order["setting"], "texts": texts, "nats_per_token": surprise}


def _measure(order: dict[str, Any], data: PreparedData, places: dict[int, list[Opening]]) -> dict[str, Any]:
    """The figures of every setting beside human text in the same places, by the seed; a seed's texts are cut alike."""
    tokenizer = load(order["model"], device="cpu").tokenizer
    written = {name: read_json(Path(path), what="texts of a setting")["texts"] for name, path in order["sets"].items()}
    space = SentenceSpace(passages((each.text for each in training_texts(data)), max_characters=4_000_000), seed=0)
    figures: dict[str, dict[str, dict[str, float]]] = {}
    words: list[int] = []
    floors: list[float] = []
    for seed, prompts in places.items():
        asked = [opening.prompt for opening in prompts]
        sets = {HUMAN: human_texts(prompts, tokenizer, max_tokens=order["tokens"])}
        sets |= {name: TextSet(name, texts[str(seed)], asked) for name, texts in written.items()}
        report = measure_texts(sets, training=lambda: training_texts(data), space=space, copy_words=COPY_WORDS, seed=0)
        for name, each in report.sets.items():
            kept = {figure: each.figures[figure].value for figure in KEPT_FIGURES if figure in each.figures}
            figures.setdefault(name, {})[str(seed)] = kept
        words.append(report.compared_words)
        if report.shuffled_coherence is not None:
            floors.append(report.shuffled_coherence.value)
    first = next(iter(places.values()))[:SHOWN_TEXTS]
    return {
        "figures": figures,
        "compared_words": words,
        "shuffled_coherence": floors,
        "prompts": [opening.prompt for opening in first],
        "human": human_texts(first, tokenizer, max_tokens=order["tokens"]).texts,
    }


if __name__ == "__main__":
    main()
