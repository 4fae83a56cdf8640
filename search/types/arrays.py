"""The shapes that arrays have on their way between the rooms."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Ids: TypeAlias = npt.NDArray[np.int64]
"""(N,) photo ids."""
Vectors: TypeAlias = npt.NDArray[np.float32]
"""(N, D) unit rows."""
Vector: TypeAlias = npt.NDArray[np.floating[Any]]
"""(D,), of any length but none."""
Halves: TypeAlias = npt.NDArray[np.float16]
"""(N, D) rows as they are kept: unit only to float16's precision."""
Pixels: TypeAlias = npt.NDArray[np.uint8]
"""(H, W, 3) RGB; batches are (N, H, W, 3)."""
