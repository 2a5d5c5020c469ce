"""Save, and resume exactly: tensors and JSON-able data, loaded with ``weights_only``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ark_framework import tensors
from ark_framework.errors import CheckpointError, MachineError
from ark_framework.model import ArkModel
from ark_framework.pretrain import State
from ark_framework.wording import explain

FORMAT = 1
# What an optimizer keeps of a parameter: anything else would reach its kernels unseen.
KEPT = {
    torch.optim.SGD: {"momentum_buffer"},
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
}


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class Position(_Part):
    """Where a run stands; see :class:`ark_framework.pretrain.State`.

    ``bad_steps`` of the steps were skipped; earlier versions skipped none, and do not say so.
    """

    visit: int = Field(ge=0)
    visit_step: int = Field(ge=0)
    step: int = Field(ge=0)
    bad_steps: int = Field(default=0, ge=0)


class Task(_Part):
    """A task as its run knew it."""

    name: str
    labels: list[str]


class Meta(_Part):
    """What a session keeps beside the tensors."""

    metrics_offset: int = Field(ge=0)
    best: dict[str, dict[str, float]]
    best_mean: float
    config: dict[str, Any]
    tasks: list[Task]


class _Content(_Part):
    student: dict[str, Any]
    teacher: dict[str, Any]
    optimizer: dict[str, Any]
    position: Position
    meta: dict[str, Any]


Checked = TypeVar("Checked", bound=BaseModel)


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
        "position": {
            "visit": state.visit,
            "visit_step": state.visit_step,
            "step": state.step,
            "bad_steps": int(state.bad.count.item()),
        },
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
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise MachineError(
            f"cannot write checkpoint {path}: {_reason(error)}; mend that and go on with --resume"
        ) from error


def _reason(error: OSError | RuntimeError) -> str:
    # What torch says of a refusal is of its own source; the disk's is what it came from.
    told: BaseException | None = error
    while told is not None and not isinstance(told, OSError):
        told = told.__context__
    return (told and told.strerror) or str(error).splitlines()[0]


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
    content = tensors.load(path)
    if not isinstance(content, dict) or "position" not in content:
        raise CheckpointError(f"{path} is not a checkpoint of this program")
    if content.get("format") != FORMAT:
        told = str(content.get("format"))[:40]
        raise CheckpointError(f"{path} has format {told}; this version reads format {FORMAT}")
    _checked(_Content, content, path)
    return content


def meta(content: Mapping[str, Any], *, path: Path) -> Meta:
    """Return what a session kept beside a checkpoint's tensors.

    Raises:
        CheckpointError: some of it is missing or of another type.
    """
    return _checked(Meta, content["meta"], path)


def instead(path: Path) -> str:
    """Say what to do about a last checkpoint that cannot be read."""
    others = [each for each in path.parent.glob("*.pt") if each != path]
    for each in sorted(others, key=lambda each: each.stat().st_mtime, reverse=True):
        with suppress(CheckpointError):
            step = load(each)["position"]["step"]
            return f"to go on from step {step}: cp {each} {path}"
    return "no other is kept beside it: delete it, and the run begins again at step 0"


def _checked(kind: type[Checked], values: Any, path: Path) -> Checked:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise CheckpointError(explain(error, kind, where=f"{path} is damaged")) from error


def restore(state: State, content: Mapping[str, Any], *, path: Path) -> None:
    """Put a checkpoint's content into a state built for the same run.

    Raises:
        CheckpointError: its tensors do not fit the model.
    """
    for model, name in ((state.student, "student"), (state.teacher.model, "teacher")):
        tensors.must_fit(model.state_dict(), content[name], path)
        model.load_state_dict(content[name])
    restore_optimizer(state.optimizer, content["optimizer"], path)
    _lay_out(state.optimizer)
    position = content["position"]
    state.visit, state.visit_step = position["visit"], position["visit_step"]
    state.step = position["step"]
    state.bad.count.fill_(position.get("bad_steps", 0))


def restore_optimizer(optimizer: torch.optim.Optimizer, content: Any, path: Path) -> None:
    """Take over what an optimizer kept of each parameter; its settings are the run's.

    Raises:
        CheckpointError: it is of other parameters, or another optimizer's.
    """
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    kept = content.get("state") if isinstance(content, Mapping) else None
    if not isinstance(kept, Mapping) or not kept.keys() <= set(range(len(parameters))):
        raise CheckpointError(f"{path} does not fit this run's optimizer: other parameters")
    for number, values in kept.items():
        shape = parameters[number].shape
        if not isinstance(values, Mapping) or values.keys() not in (set(), KEPT[type(optimizer)]):
            raise CheckpointError(f"{path} does not fit this run's optimizer: other numbers kept")
        own = {name: torch.zeros(() if name == "step" else shape) for name in values}
        tensors.must_fit(own, values, path)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": dict(kept), "param_groups": groups})


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
    fits = {
        name
        for name in own
        if isinstance(weights.get(name), torch.Tensor) and own[name].shape == weights[name].shape
    }
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
    tensors.must_fit({name: own[name] for name in loaded}, loaded, path)
    model.load_state_dict(loaded, strict=False)
    return Transfer(
        kept=tuple(sorted(kept)),
        added=tuple(sorted(heads - kept)),
        dropped=tuple(sorted(set(theirs) - kept)),
    )
