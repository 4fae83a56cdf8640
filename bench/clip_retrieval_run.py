"""clip-retrieval's own inference, run with a model of our own; started by against_clip_retrieval.py in its environment.

    python clip_retrieval_run.py PHOTOS OUTPUT ARCHITECTURE WEIGHTS

Its reader, mapper, writer and runner run as they come. Put in place of what its pins keep from being installed here:
the package's __init__, which imports the web server; wandb and sentence_transformers, which this way of running does
not use; and all_clip's load_clip, which opens the given file with open_clip and leaves out the warming up.
"""

from __future__ import annotations

import functools
import os
import sys
from importlib.util import find_spec
from types import ModuleType


def stand_in(name: str, **members: object) -> ModuleType:
    """Register a module that has these members."""
    module = ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module
    return module


@functools.cache
def load_clip(clip_model: str, **_: object) -> tuple[object, object, object]:
    """Return model, preprocessing and tokenizer.   clip_model: ARCHITECTURE/WEIGHTS."""
    from search.encoders.torchvision_ops import ensure_torchvision

    ensure_torchvision()
    import open_clip

    architecture, _, weights = clip_model.partition("/")
    model, _, preprocess = open_clip.create_model_and_transforms(architecture, pretrained=weights)
    return model.eval(), preprocess, open_clip.get_tokenizer(architecture)


# Its logger starts a process that imports this file again, so they must be in place whenever it is imported.
spec = find_spec("clip_retrieval")
assert spec and spec.submodule_search_locations
stand_in("clip_retrieval", __path__=list(spec.submodule_search_locations))
stand_in("wandb")
stand_in("sentence_transformers", SentenceTransformer=None)
stand_in("all_clip", load_clip=load_clip)


if __name__ == "__main__":
    from clip_retrieval.clip_inference.main import main

    photos, output, architecture, weights = sys.argv[1:]
    main(
        photos,
        output,
        enable_text=False,
        batch_size=128,
        num_prepro_workers=os.cpu_count() or 1,
        clip_model=f"{architecture}/{weights}",
    )
