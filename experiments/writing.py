"""Texts by one sampling setting, and the figures of all of them side by side. Started by `experiments.sampling`."""

import sys
from pathlib import Path
from typing import Any

from experiments.texts import Text, make
from gpt2kit.evaluation.coherence import SentenceSpace, passages
from gpt2kit.evaluation.heldout import Opening, openings, read_text_file, training_texts
from gpt2kit.evaluation.samples import human_texts
from gpt2kit.evaluation.texts import TextSet, measure_texts
from gpt2kit.files import read_json, to_json, write_atomically
from gpt2kit.generation import GenerateSettings, generate, load
from gpt2kit.tokens import PreparedData

PROMPT_WORDS = 24
COPY_WORDS = 8
KEPT_FIGURES = (
    "distinct_1", "distinct_2", "self_bleu", "rep_4", "words_in_loops", "coherence", "unseen_words",
)  # fmt: skip
SHOWN_TEXTS = 2


def main() -> None:
    """Do what the files named on the command line order."""
    for file in sys.argv[1:]:
        order = read_json(Path(file), what="an order of the studies")
        data, test_file = make(Text(**order["text"]), Path(order["texts"]))
        prompts = openings(
            read_text_file(test_file),
            number=order["num_prompts"],
            prompt_words=PROMPT_WORDS,
            continuation_words=order["tokens"],
        )
        done = _measure(order, data, prompts) if "sets" in order else _write(order, prompts)
        record = Path(order["record"])
        record.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(record, to_json(done))


def _write(order: dict[str, Any], prompts: list[Opening]) -> dict[str, Any]:
    """All texts of a setting, by the seed; and how likely the model found what it chose."""
    model = load(order["model"], device="cpu")
    texts: dict[str, list[str]] = {}
    surprise: dict[str, float] = {}
    for seed in order["seeds"]:
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


def _measure(order: dict[str, Any], data: PreparedData, prompts: list[Opening]) -> dict[str, Any]:
    """The figures of every setting and seed beside human text, all cut to the same lengths."""
    asked = [opening.prompt for opening in prompts]
    human = human_texts(prompts, load(order["model"], device="cpu").tokenizer, max_tokens=order["tokens"])
    sets = {"human": human}
    for name, path in order["sets"].items():
        for seed, texts in read_json(Path(path), what="texts of a setting")["texts"].items():
            sets[f"{name}|{seed}"] = TextSet(name, texts, asked)
    space = SentenceSpace(passages((each.text for each in training_texts(data)), max_characters=4_000_000), seed=0)
    report = measure_texts(sets, training=lambda: training_texts(data), space=space, copy_words=COPY_WORDS, seed=0)
    figures = {
        name: {figure: each.figures[figure].value for figure in KEPT_FIGURES if figure in each.figures}
        for name, each in report.sets.items()
    }
    floor = report.shuffled_coherence
    return {
        "figures": figures,
        "compared_words": report.compared_words,
        "compared_texts": report.compared_texts,
        "shuffled_coherence": None if floor is None else floor.value,
        "prompts": asked[:SHOWN_TEXTS],
        "human": human.texts[:SHOWN_TEXTS],
    }


if __name__ == "__main__":
    main()
