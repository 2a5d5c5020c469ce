"""A file of weights from elsewhere, read without running what it may carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ark_framework import tensors as files
from ark_framework.errors import CheckpointError

# The teacher is the model; a training checkpoint also holds the student.
WRAPPERS = ("teacher", "state_dict", "model")
# DataParallel's prefix, and that of SimMIM's pretraining, whose decoder is of no use here.
PREFIXES = ("module.", "encoder.")
# A NumPy scalar is pickled as a call of this function, of ``dtype`` and of its dtype's class;
# NumPy 2 moved the function.  Nothing else is allowed beside torch's own list.
_SCALAR: Any = np.float64(0).__reduce__()[0]
NUMBERS: list[Any] = [
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (np.dtype, "numpy.dtype"),
    *(type(np.dtype(code)) for code in "?bBhHiIlLqQefd"),
]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What a file holds: tensors without wrapper and prefix, and what lies beside them."""

    tensors: dict[str, Tensor]
    wrapper: str | None
    beside: tuple[str, ...]


def read(path: Path) -> Weights:
    """Read a state dict, flat or wrapped; the teacher's where there are several.

    Raises:
        CheckpointError: absent, damaged, carrying code, or no state dict.
    """
    content = _content(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a state dict")
    wrapper = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
    inner = content if wrapper is None else content[wrapper]
    tensors = {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(str(key) for key in list(content)[:8]) or "nothing"
        raise CheckpointError(f"{path} holds no state dict, flat or under teacher: it has {keys}")
    beside = [str(key) for key in content if key != wrapper] if wrapper else []
    return Weights(tensors=_bare(tensors), wrapper=wrapper, beside=tuple(beside))


def _bare(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if f"{prefix}patch_embed.proj.weight" in tensors:
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return files.load_safetensors(path)
    return files.load(path, also=NUMBERS, what="file of weights")
