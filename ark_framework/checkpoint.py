"""Save, and resume exactly: tensors and JSON-able data, loaded with ``weights_only``."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ark_framework.errors import CheckpointError, MachineError
from ark_framework.model import ArkModel
from ark_framework.pretrain import State

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What became of a checkpoint's tensors in another model."""

    kept: tuple[str, ...]
    added: tuple[str, ...]
    dropped: tuple[str, ...]


def save(path: Path, state: State, meta: Mapping[str, Any]) -> None:
    """Write a checkpoint beside ``path``, make it durable, then put it in place.

    Raises:
        MachineError: the disk refuses; an earlier checkpoint at ``path`` is untouched.
    """
    content = {
        "format": FORMAT,
        "student": _plain(state.student.state_dict()),
        "teacher": _plain(state.teacher.model.state_dict()),
        "optimizer": _plain(state.optimizer.state_dict()),
        "position": {"visit": state.visit, "visit_step": state.visit_step, "step": state.step},
        "meta": dict(meta),
    }
    beside = path.with_name(f".{path.name}.part")
    try:
        with beside.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except (OSError, RuntimeError) as error:
        beside.unlink(missing_ok=True)
        raise MachineError(
            f"cannot write checkpoint {path}: {str(error).splitlines()[0]}; "
            "free some space and resume"
        ) from error


def _plain(content: Any) -> Any:
    """Return content with tensors in torch's usual memory format, whatever the run's is."""
    if isinstance(content, torch.Tensor):
        return content.contiguous()
    if not isinstance(content, dict):
        return content
    made = copy(content)  # a state dict carries its modules' versions as an attribute
    made.update({name: _plain(value) for name, value in content.items()})
    return made


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint's content onto the CPU.

    Raises:
        CheckpointError: absent, truncated, not ours, of a later format, or carrying code.
    """
    if path.is_dir():
        path = path / "checkpoints" / "last.pt"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint at {path}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and is not loaded: it may carry code"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict) or "position" not in content:
        raise CheckpointError(f"{path} is not a checkpoint of this program")
    if content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {content.get('format')!r}; this version reads format {FORMAT}"
        )
    return content


def restore(state: State, content: Mapping[str, Any], *, path: Path) -> None:
    """Put a checkpoint's content into a state built for the same run.

    Raises:
        CheckpointError: its tensors do not fit the model.
    """
    try:
        state.student.load_state_dict(content["student"])
        state.teacher.model.load_state_dict(content["teacher"])
        state.optimizer.load_state_dict(content["optimizer"])
        _lay_out(state.optimizer)
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} does not fit this run's model: {' '.join(str(error).split())[:200]}"
        ) from error
    position = content["position"]
    state.visit, state.visit_step = position["visit"], position["visit_step"]
    state.step = position["step"]


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give momenta the memory format of their parameters: fused kernels go by memory, in order."""
    for parameter, momenta in optimizer.state.items():
        for name, value in momenta.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                momenta[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def transfer(
    model: ArkModel,
    weights: Mapping[str, torch.Tensor],
    *,
    path: Path,
    labels: Mapping[str, Sequence[str]],
    theirs: Mapping[str, Sequence[str]],
) -> Transfer:
    """Start a model from another run's weights; heads are matched by task name and labels.

    Args:
        model: The new student.
        weights: The other run's teacher.
        path: Where they come from, for errors.
        labels: The new run's labels by task; a head whose labels changed, or changed places, is
            begun anew, since its outputs would go by wrong names.
        theirs: The other run's.

    Raises:
        CheckpointError: the backbone or projector does not fit.
    """
    own = model.state_dict()
    fits = {name for name in own if name in weights and own[name].shape == weights[name].shape}
    body = [name for name in own if not name.startswith("heads.") and name not in fits]
    if body:
        raise CheckpointError(
            f"{path} does not fit this model: {body[0]} differs; use the same "
            "model.backbone, model.options and model.projector"
        )
    heads = {name.split(".")[1] for name in own if name.startswith("heads.")}
    kept = {
        head
        for head in heads
        if list(labels[head]) == list(theirs.get(head, ()))
        and all(n in fits for n in own if n.startswith(f"heads.{head}."))
    }
    loaded = {
        name: weights[name]
        for name in fits
        if not name.startswith("heads.") or name.split(".")[1] in kept
    }
    model.load_state_dict(loaded, strict=False)
    return Transfer(
        kept=tuple(sorted(kept)),
        added=tuple(sorted(heads - kept)),
        dropped=tuple(sorted(set(theirs) - kept)),
    )
