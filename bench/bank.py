"""Write the built-in model's bank of prompts anew: after data/bank/ or the model changed.

python bench/bank.py
"""

from __future__ import annotations

import argparse

from search import banks, load_encoder
from search.resources import data_path


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    encoder = load_encoder("builtin", offline=True)
    for old in data_path("bank").glob("*.npy"):
        old.unlink()
    banks.save(banks.make(encoder), data_path("bank"), encoder.fingerprint)


if __name__ == "__main__":
    main()
