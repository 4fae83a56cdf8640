"""Write the weighted mean of models of one architecture (a model soup, arXiv:2203.05482).

    python bench/soup.py OUT FOLDER=WEIGHT...

Folders as `search train contrastive` writes them. Weights are made to add up to 1; counters and the layout are the last
folder's.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

LAYOUT, STATE = "open_clip_config.json", "open_clip_model.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("parts", nargs="+", metavar="FOLDER=WEIGHT")
    options = parser.parse_args()
    folders, texts = zip(*(part.rsplit("=", 1) for part in options.parts), strict=True)
    whole = sum(map(float, texts))
    states = [
        (load_file(Path(folder, STATE)), float(text) / whole) for folder, text in zip(folders, texts, strict=True)
    ]
    last = states[-1][0]
    mean = {
        name: sum(state[name].double() * weight for state, weight in states).to(one.dtype).contiguous()
        if one.is_floating_point()
        else one
        for name, one in last.items()
    }
    options.out.mkdir(parents=True)
    shutil.copyfile(Path(folders[-1], LAYOUT), options.out / LAYOUT)
    save_file(mean, options.out / STATE, metadata={"format": "pt"})


if __name__ == "__main__":
    main()
