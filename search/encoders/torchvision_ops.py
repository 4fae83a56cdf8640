"""Make torchvision importable beside a torch it was not built for.

open_clip imports torchvision for its training transforms. The torchvision of the Python package index is
built for CUDA; beside a CPU-only torch its compiled part can't be loaded, the operators nms and qnms are
never declared, and `import torchvision` stops with "operator torchvision::nms does not exist". Nothing here
calls the two: declaring their schemas, as the compiled part would, is enough for the import to go through.
"""

from __future__ import annotations

import sys
from threading import Lock

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_lock = Lock()
_declared: list[torch.library.Library] = []  # a Library takes its operators with it when it is collected


def ensure_torchvision() -> None:
    """Import torchvision, declaring its missing operators if that is what stops it; idempotent.

    torchvision is tried first: where its compiled part loads, a second declaration would be an error.
    """
    with _lock:
        if "torchvision" in sys.modules:
            return
        try:
            import torchvision
        except RuntimeError:
            _declare()
            import torchvision  # noqa: F401


def _declare() -> None:
    if _declared or hasattr(torch.ops.torchvision, "nms"):
        return
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(library)
