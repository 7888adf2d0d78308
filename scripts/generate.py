"""Generate: `gpt2kit generate` by another door.

python scripts/generate.py --model_dir models/gpt2_fine_tuned/ --output_dir results/generated_texts/
"""

import sys

from gpt2kit.cli import main

if __name__ == "__main__":
    sys.exit(main(["generate", *sys.argv[1:]]))
