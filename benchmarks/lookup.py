"""What guessing from the text itself gains and costs: nano writes with and without it, in turn, in one process.

    make bench-lookup                     # a minute or two
    make bench-lookup BENCH="--rounds 3"

What it measures and how is told in docs/benchmarks.md.
"""

import argparse
import json
import statistics
import time
from typing import Any

import gpt2kit
from benchmarks.core.machine import origin
from benchmarks.core.page import replace_between_markers, table
from benchmarks.core.places import PAGE, RESULTS, ROOT
from benchmarks.core.rounds import say

NAME = "lookup"
TOKENS = 256
_MODEL = ROOT / "src" / "gpt2kit" / "nano"
_NAMES = ("width", "height", "depth", "color", "name")
_PROSE = (
    "The old man had lived alone in the house by the river since his brother went to sea, and nobody in the village",
    "When the rain had stopped at last, she opened the window and looked down into the garden, where",
)
_TASKS: dict[str, tuple[tuple[str, ...], float]] = {
    "code, greedy": (
        ("".join(f"def get_{n}(self):\n    return self.{n}\n\n" for n in _NAMES),),
        0.0,
    ),
    "list, greedy": (("".join(f"item {n}: the price is {10 * n} dollars\n" for n in range(1, 25)),), 0.0),
    "prose, greedy": (_PROSE, 0.0),
    "prose, temperature 1": (_PROSE, 1.0),
}


def main() -> None:
    """Measure, show the table, and with five rounds or more write the results and the page."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=7, help="times each text is written in both ways (7)")
    made.add_argument("--weights", default="fp32", choices=["fp32", "int8", "int4"], help="of the native engine")
    arguments = made.parse_args()
    model = gpt2kit.load(_MODEL, engine="native", weights=arguments.weights)
    tasks = {name: _measure(model, name, arguments) for name in _TASKS}
    header = ["task", "tokens/s with", "without", "times (smallest and largest)"]
    rows = [
        [
            name,
            f"{one['with']:.0f}",
            f"{one['without']:.0f}",
            f"{one['times']:.2f} ({one['least']:.2f}–{one['most']:.2f})",
        ]
        for name, one in tasks.items()
    ]
    print(f"\n{table(header, rows)}")
    if arguments.rounds >= 5 and arguments.weights == "fp32":
        RESULTS.mkdir(exist_ok=True)
        settings = {"rounds": arguments.rounds, "tokens": TOKENS, "weights": arguments.weights}
        results = origin(settings, ("gpt2kit", "numpy")) | {"tasks": tasks}
        (RESULTS / f"{NAME}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        page = replace_between_markers(PAGE.read_text(encoding="utf-8"), NAME, table(header, rows))
        PAGE.write_text(page, encoding="utf-8")


def _measure(model: gpt2kit.LanguageModel, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians over the rounds, and the seconds of each; an unmeasured round before them warms up, and every second one
    goes the other way round.
    """
    prompts, temperature = _TASKS[name]
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for number in range(arguments.rounds + 1):
        texts = {}
        for lookup in (True, False) if number % 2 else (False, True):
            settings = gpt2kit.GenerateSettings(
                max_new_tokens=TOKENS,
                min_new_tokens=TOKENS,
                temperature=temperature,
                top_p=1.0,
                seed=1,
                lookup=lookup,
                engine="native",
                weights=arguments.weights,
            )
            started = time.perf_counter()
            found = [gpt2kit.generate(model, [prompt], settings)[0].ids for prompt in prompts]
            if number > 0:
                seconds[lookup].append(time.perf_counter() - started)
            texts[lookup] = found
        if texts[True] != texts[False]:
            raise RuntimeError(f"{name}: guesses have changed the text")
    times = [without / with_it for with_it, without in zip(seconds[True], seconds[False], strict=True)]
    say(f"{name}: {statistics.median(times):.2f} times")
    tokens = TOKENS * len(prompts)
    return {
        "with": tokens / statistics.median(seconds[True]),
        "without": tokens / statistics.median(seconds[False]),
        "times": statistics.median(times),
        "least": min(times),
        "most": max(times),
        "seconds_with": seconds[True],
        "seconds_without": seconds[False],
    }


if __name__ == "__main__":
    main()
