"""`python -m gpt2kit`, and with it `torchrun -m gpt2kit train ...`."""

import sys

from gpt2kit.cli import main

if __name__ == "__main__":
    sys.exit(main())
