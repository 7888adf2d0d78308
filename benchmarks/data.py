"""Preparing text: gpt2kit and its peers, in turn, each in a process of its own.

    make bench-data                     # all, five rounds; needs GPT2KIT_CORPORA or --texts
    make bench-data BENCH="--quick"     # a trial on a tenth of the text

What it measures and how is told in docs/benchmarks.md.
"""

import argparse

from benchmarks import assets, pages
from benchmarks.core.program import choose, keep, options, parser, run_benchmark
from benchmarks.core.rounds import Contestant

NAME = "data"
MEBIBYTES, QUICK_MEBIBYTES = 50, 5


def _tokenizer(name: str, tokenizer: str, peer: str = "", *packages: str) -> Contestant:
    arguments = {"tokenizer": tokenizer}
    return Contestant(name, "data_tokenizers", arguments, peer, ("tokenizers", *packages), ours=tokenizer == "gpt2kit")


CONTESTANTS = [
    Contestant("gpt2kit prepare", "data_gpt2kit", ours=True),
    Contestant("datatrove", "data_datatrove", peer="datatrove", packages=("datatrove",)),
    _tokenizer("gpt2kit's tokenizer", "gpt2kit"),
    _tokenizer("tokenizers", "tokenizers"),
    _tokenizer("tiktoken", "tiktoken", "tokenizers", "tiktoken"),
    _tokenizer("gigatoken", "gigatoken", "tokenizers", "gigatoken"),
]


def main() -> None:
    """Run the benchmark and write its tables."""
    made: argparse.ArgumentParser = parser(__doc__)
    made.add_argument(
        "--mebibytes", type=int, default=None, help=f"text to prepare ({MEBIBYTES}; quick: {QUICK_MEBIBYTES})"
    )
    arguments = made.parse_args()
    chosen, contestants = options(arguments), choose(CONTESTANTS, arguments)
    size = arguments.mebibytes or (QUICK_MEBIBYTES if chosen.quick else MEBIBYTES)
    assets.ensure("model")
    assets.ensure("texts", mebibytes=size)
    common = {"model": str(assets.MODEL), "texts": str(assets.texts_folder(size))}
    results = run_benchmark(NAME, contestants, chosen, common=common, settings={"mebibytes": size})
    keep(NAME, results, trial=chosen.is_trial)
    pages.show(NAME, results, write=not chosen.is_trial)


if __name__ == "__main__":
    main()
