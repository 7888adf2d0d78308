"""A search by `gpt2kit tune`, and what it found. Started by `experiments.tuning`."""

import sys
from pathlib import Path

from experiments.texts import Text, make
from gpt2kit.files import read_json, to_json, write_atomically
from gpt2kit.tuning import TuneSettings, tune

KEPT = ("statement", "best", "defaults", "gain", "importance", "counts", "seconds")
OF_A_TRIAL = ("number", "state", "value", "values", "seconds")


def main() -> None:
    """Do what the files named on the command line order. A search that was cut off goes on."""
    for file in sys.argv[1:]:
        order = read_json(Path(file), what="an order of the studies")
        data, _ = make(Text(**order["text"]), Path(order["texts"]))
        settings = TuneSettings(data_dir=data.folder, output_dir=Path(order["folder"]), **order["settings"])
        found = tune(settings)
        if found.status == "interrupted":
            raise SystemExit("interrupted; the same command goes on")
        record = Path(order["record"])
        record.parent.mkdir(parents=True, exist_ok=True)
        trials = [{name: trial[name] for name in OF_A_TRIAL} for trial in found.values["trials"]]
        write_atomically(record, to_json({name: found.values[name] for name in KEPT} | {"trials": trials}))


if __name__ == "__main__":
    main()
