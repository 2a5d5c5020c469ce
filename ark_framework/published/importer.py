"""From a published file to a model of ours, and a report of what became of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from ark_framework.blueprint import Blueprint, Preprocessing, Projector
from ark_framework.errors import CheckpointError
from ark_framework.model import ArkModel
from ark_framework.published import file, heads, swin
from ark_framework.published.names import convert

_HEAD = re.compile(r"omni_heads\.(\d+)\.weight")
_SIMMIM = re.compile(r"decoder\.|mask_token$")
# What a film is resized to before its middle is cut: 256 for 224, and 896 for Ark+'s 768.
RESIZED = {224: 256, 768: 896}


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A model from elsewhere, how to build it again, and what became of the file's tensors."""

    model: ArkModel
    blueprint: Blueprint
    backbone: swin.Swin
    wrapper: str | None
    mapped: int
    ignored: tuple[str, ...]

    def report(self) -> list[str]:
        """Return what was mapped, named and ignored, in lines for people."""
        shape, plan = self.backbone, self.blueprint
        side = f"{shape.side} pixels" + ("" if shape.sized else " (assumed: the file does not say)")
        lines = [
            f"weights under {self.wrapper!r}" if self.wrapper else "weights: a flat state dict",
            f"backbone: Swin, width {shape.width}, depths {'-'.join(map(str, shape.depths))}, "
            f"window {shape.window}, side {side}",
            f"projector: {plan.projector}"
            + (f", {plan.features} features" if plan.projector != "none" else ""),
            f"mapped: {self.mapped} tensors",
        ]
        for index, task in enumerate(plan.tasks):
            names = ", ".join(task.labels) if task.named else "names not known"
            lines.append(f"head {index}: {task.name} ({len(task.labels)}): {names}")
        return [*lines, f"ignored: {', '.join(self.ignored) or 'nothing'}"]


def import_file(path: Path, *, names: str | None = None, side: int | None = None) -> Imported:
    """Recognize a published file and build its model.

    Args:
        path: Flat or wrapped; see :mod:`ark_framework.published.file`.
        names: The heads' names; see :func:`ark_framework.published.heads.name_heads`.
        side: Of the films in pixels, where the file does not say it.

    Raises:
        CheckpointError: it cannot be read, carries code, or is no Swin of a published kind.
        ConfigError: ``names`` do not fit the file.
    """
    weights = file.read(path)
    tensors = {name: each for name, each in weights.tensors.items() if not _SIMMIM.search(name)}
    try:
        backbone = swin.recognize(tensors, path, side=side)
        blueprint = _blueprint(backbone, *_projector(tensors), sizes=_sizes(tensors, path))
        given = heads.name_heads([len(task.labels) for task in blueprint.tasks], names)
        converted = convert(tensors, [task.name for task in given])
    except (ValueError, TypeError, IndexError, ArithmeticError) as error:
        why = " ".join(str(error).split())
        raise CheckpointError(f"{path} is no Swin Transformer of a known kind: {why}") from error
    blueprint = replace(blueprint, tasks=given)
    model = blueprint.filled(converted, path=path)
    return Imported(
        model=model,
        blueprint=blueprint,
        backbone=backbone,
        wrapper=weights.wrapper,
        mapped=len(converted),
        ignored=_ignored(weights),
    )


def _blueprint(
    backbone: swin.Swin, projector: Projector, features: int, *, sizes: Sequence[int]
) -> Blueprint:
    return Blueprint(
        backbone="timm",
        options=backbone.options(),
        projector=projector,
        features=features,
        tasks=heads.name_heads(sizes),
        preprocessing=Preprocessing(
            size=backbone.side,
            resize=RESIZED.get(backbone.side, round(backbone.side * 8 / 7)),
            fit="squash",
            normalize="imagenet",
        ),
    )


def _projector(tensors: Mapping[str, Tensor]) -> tuple[Projector, int]:
    for kind, name in (("linear", "projector.weight"), ("mlp", "projector.0.weight")):
        if name in tensors:
            return ("linear" if kind == "linear" else "mlp"), tensors[name].shape[0]
    return "none", 1


def _sizes(tensors: Mapping[str, Tensor], path: Path) -> list[int]:
    found = {
        int(match[1]): tensor.shape[0]
        for name, tensor in tensors.items()
        if (match := _HEAD.fullmatch(name))
    }
    if sorted(found) != list(range(len(found))):
        raise CheckpointError(f"{path} has heads {sorted(found)}, of which some are missing")
    return [found[index] for index in range(len(found))]


def _ignored(weights: file.Weights) -> tuple[str, ...]:
    counts: dict[str, int] = {}
    for name in weights.tensors:
        for what, pattern in (
            ("attn_mask", r"attn_mask$"),
            ("relative_position_index", r"relative_position_index$"),
            ("ImageNet classifier", r"^head\."),
            ("SimMIM decoder", _SIMMIM.pattern),
        ):
            if re.search(pattern, name):
                counts[what] = counts.get(what, 0) + 1
    tensors = [f"{count} {what}" for what, count in counts.items()]
    return (*tensors, *(f"{key!r}" for key in weights.beside))
