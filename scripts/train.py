"""Train: `gpt2kit train` by another door.

python scripts/train.py --data_dir data/processed/ --model_output_dir models/gpt2_fine_tuned/
"""

import sys

from gpt2kit.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
