"""Files of tensors: read without running what they may carry, and only as large as they are.

Whatever is wrong with one is a :class:`CheckpointError` of one line that names the file.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ark_framework.arrays import refuse_compressed
from ark_framework.errors import CheckpointError

# How a file that torch.save wrote begins: a zip archive, or a pickle as before torch 1.6.
BEGINNINGS = (b"PK\x03\x04", b"\x80")


def load(path: Path, *, also: Sequence[Any] = (), what: str = "checkpoint") -> Any:
    """Read what ``torch.save`` wrote, onto the CPU.

    Args:
        path: The file.
        also: Functions and types that may stand in it beside torch's own list.
        what: What the file is called where there is none.

    Raises:
        CheckpointError: absent, damaged, larger than its file, or carrying code.
    """
    _must_be(path, what)
    try:
        with path.open("rb") as file:
            if not file.read(4).startswith(BEGINNINGS):
                raise ValueError("torch did not write it, or it is empty")
        if zipfile.is_zipfile(path):
            refuse_compressed(path)
        with torch.serialization.safe_globals([*also]):
            content = torch.load(path, map_location="cpu", weights_only=True)
        for tensor in _tensors(content):
            _must_be_whole(tensor)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        why = f"it asks for {asked[1]}" if asked else "its pickle is not plain"
        raise CheckpointError(
            f"{path} holds more than tensors and numbers and is not loaded, since it may carry "
            f"code: {why}"
        ) from error
    except Exception as error:  # a damaged file raises many kinds
        raise CheckpointError(f"{path} cannot be read: {_why(error)}") from error
    return content


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors and nothing else.

    Raises:
        CheckpointError: absent or damaged.
    """
    _must_be(path, "file of weights")
    try:
        found: dict[str, Tensor] = safetensors.torch.load_file(path)
    except Exception as error:  # a damaged file raises many kinds
        raise CheckpointError(f"{path} cannot be read: {_why(error)}") from error
    return found


def must_fit(own: Mapping[str, Tensor], found: Any, path: Path) -> None:
    """Refuse what is not, name by name, what a model has.

    Args:
        own: The model's tensors.
        found: The file's, or whatever stands in their place.
        path: The file, for errors.

    Raises:
        CheckpointError: naming the first tensor that is missing, unknown, of another shape or
            kind, or holds a number that is not finite.
    """
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{path} holds a {type(found).__name__}, where tensors are wanted")
    for name in (*own, *found):
        if wrong := _misfit(name, own.get(name), found.get(name)):
            raise CheckpointError(f"{path} does not fit the model it describes: {wrong}")


def _misfit(name: str, own: Tensor | None, found: Any) -> str | None:
    if own is None:
        return f"{name!r} is no tensor of it"
    if not isinstance(found, Tensor):
        return f"{name!r} is missing" if found is None else f"{name!r} is no tensor"
    if own.shape != found.shape:
        return f"{name!r} is {tuple(found.shape)}, not {tuple(own.shape)}"
    if own.is_floating_point() != found.is_floating_point():
        return f"{name!r} is {found.dtype}, not {own.dtype}"
    if not bool(torch.isfinite(found).all()):
        return f"{name!r} holds numbers that are not finite"
    return None


def _must_be(path: Path, what: str) -> None:
    if not path.exists():
        raise CheckpointError(f"no {what} at {path}")
    if not path.is_file():  # a pipe would never end
        raise CheckpointError(f"{path} cannot be read: it is no file")


def _tensors(content: Any) -> Iterator[Tensor]:
    """Yield the tensors of nested plain data, which may hold itself."""
    left, seen = [content], set()
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, Mapping):
            left += each.values()
        elif isinstance(each, list | tuple | set):
            left += each


def _must_be_whole(tensor: Tensor) -> None:
    """Refuse a tensor of more numbers than its file holds, as a stride of zero makes it."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise ValueError("it holds a tensor that is not dense")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"a tensor of {tuple(tensor.shape)} is larger than the file")


def _why(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
