"""Layer-wise learning rates: the nearer to the film, the slower."""

from __future__ import annotations

from typing import Any

import torch
from timm.models import group_parameters
from torch import nn

from ark_framework.config import OptimConfig
from ark_framework.model import FilmEncoder
from ark_framework.pretrain import make_optimizer


def layers(backbone: nn.Module) -> dict[str, int]:
    """Return each parameter's layer by its name in ``backbone``; 0 is nearest to the film.

    A timm model, or one wrapped as ``backbone.model``, says its layers itself (``group_matcher``).
    Of another, each direct child that has parameters is a layer, in the order of their
    definition, and so is each entry of a ``ModuleList``; what belongs to no child is in layer 0.
    """
    kinds: list[tuple[str, Any]] = [("model.", getattr(backbone, "model", None)), ("", backbone)]
    for prefix, inner in kinds:
        if hasattr(inner, "group_matcher"):
            matcher = inner.group_matcher(coarse=False)
            found = group_parameters(inner, matcher, reverse=True)
            last = max(found.values())
            own = {f"{prefix}{name}": layer for name, layer in found.items()}
            return {name: own.get(name, last) for name, _ in backbone.named_parameters()}
    return _by_child(backbone)


def rates(model: FilmEncoder, decay: float) -> dict[str, float]:
    """Return the factor on the learning rate of each parameter of ``model``, by name.

    What comes after the backbone learns at the full rate; the backbone's last layer at ``decay``
    times it, the one before at ``decay ** 2``, and so on (Bao et al. 2022, BEiT).
    """
    depth = layers(model.backbone)
    top = max(depth.values(), default=0) + 1
    prefix = "backbone."
    return {
        name: decay ** (top - depth[name.removeprefix(prefix)]) if name.startswith(prefix) else 1.0
        for name, _ in model.named_parameters()
    }


def layered_optimizer(
    model: FilmEncoder, config: OptimConfig, decay: float
) -> torch.optim.Optimizer:
    """Build the optimizer of what is trainable; each group's ``lr_scale`` is its rate's factor."""
    optimizer = make_optimizer(model, config)
    factors = rates(model, decay)
    factor = {each: factors[name] for name, each in model.named_parameters()}
    optimizer.param_groups = [
        {**group, "params": chosen, "lr_scale": scale}
        for group in optimizer.param_groups
        for scale in sorted(set(factors.values()))
        if (chosen := [each for each in group["params"] if factor[each] == scale])
    ]
    return optimizer


def _by_child(backbone: nn.Module) -> dict[str, int]:
    children: list[tuple[str, nn.Module]] = []
    for name, child in backbone.named_children():
        entries = child.named_children() if isinstance(child, nn.ModuleList) else ()
        children += [(f"{name}.{key}.", entry) for key, entry in entries] or [(f"{name}.", child)]
    learning = [prefix for prefix, child in children if any(True for _ in child.parameters())]
    return {
        name: next((i for i, prefix in enumerate(learning) if name.startswith(prefix)), 0)
        for name, _ in backbone.named_parameters()
    }
