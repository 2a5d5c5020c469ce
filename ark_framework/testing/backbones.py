"""Checks of a backbone."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ark_framework.errors import ArkError
from ark_framework.registry import Registry
from ark_framework.specs import BackboneSpec
from ark_framework.testing.verdict import Check, must

SIDE = 64
# No multiple of any stride or patch.
ODD = 90


def backbone_keeps_its_contract(_: Registry, spec: BackboneSpec) -> None:
    """Maps ``(B, C, H, W)`` finest first, pooled ``(B, D)``, ``in_chans``, gradients everywhere."""
    model = small(spec)
    maps = model.forward_maps(views(model, 2, SIDE))
    must(isinstance(maps, list) and len(maps), "forward_maps must return a list of maps")
    sizes = [tuple(each.shape) for each in maps]
    must(all(len(size) == 4 and size[0] == 2 for size in sizes), f"forward_maps gave {sizes}")
    heights = [size[2] for size in sizes]
    must(heights == sorted(heights, reverse=True), f"maps must go from fine to coarse: {heights}")
    pooled = model.pool(maps[-1])
    must(pooled.ndim == 2 and len(pooled) == 2, f"pool gave {tuple(pooled.shape)}, not (B, D)")
    must(pooled.isfinite().all(), "pool gave values that are not finite")
    pooled.square().sum().backward()
    still = [n for n, each in model.named_parameters() if each.requires_grad and each.grad is None]
    must(not still, f"parameter {still[0] if still else ''!r} has no gradient")


def backbone_keeps_its_width(_: Registry, spec: BackboneSpec) -> None:
    """The pooled width ``D`` is one, whatever the number of films: heads are built for it once."""
    model = small(spec).eval()
    with torch.no_grad():
        widths = {pooled(model, views(model, films, SIDE)).shape[1] for films in (1, 3)}
    must(len(widths) == 1, f"pool gives widths {sorted(widths)} for different numbers of films")


def odd_sizes_work_or_are_refused(_: Registry, spec: BackboneSpec) -> None:
    """Films of 90 x 90 pixels give features of the same width, or one line that says why not."""
    model = small(spec).eval()
    with torch.no_grad():
        wide = pooled(model, views(model, 1, SIDE)).shape[1]
        try:
            odd = pooled(model, views(model, 1, ODD))
        except (ArkError, RuntimeError, AssertionError, ValueError) as error:
            must(str(error).strip(), f"films of {ODD} x {ODD} are refused without a word")
            return  # the core turns these into one line that names the size
    must(odd.shape == (1, wide), f"films of {ODD} x {ODD} give {tuple(odd.shape)}, not (1, {wide})")
    must(odd.isfinite().all(), f"films of {ODD} x {ODD} give features that are not finite")


def backbone_rests_in_eval(_: Registry, spec: BackboneSpec) -> None:
    """In eval mode a film's features depend neither on chance nor on the other films."""
    model = small(spec).eval()
    films = views(model, 3, SIDE)
    with torch.no_grad():
        whole, alone = pooled(model, films), pooled(model, films[1:2])
    distance = (whole[1] - alone[0]).norm() / alone.norm().clamp_min(1e-9)
    must(distance < 1e-3, "a film's features change with chance or with the batch that it is in")


def eval_comes_back_after_training(_: Registry, spec: BackboneSpec) -> None:
    """``train()`` and ``eval()`` without a step between leave the features as they were."""
    model = small(spec).eval()
    films = views(model, 2, SIDE)
    with torch.no_grad():
        before = pooled(model, films)
        after = pooled(model.train().eval(), films)
    must(torch.equal(before, after), "its features change by train() and eval() alone")


def backbone_can_be_copied(_: Registry, spec: BackboneSpec) -> None:
    """A copy, as the teacher is one, gives the same features, and so do weights put back."""
    model = small(spec).eval()
    other = small(spec, draw=1).eval()
    other.load_state_dict(model.state_dict())
    films = views(model, 2, SIDE)
    with torch.no_grad():
        first = pooled(model, films)
        for made in (copy.deepcopy(model), other):
            must(torch.equal(first, pooled(made, films)), "a copy gives other features")


def features_tell_films_apart(_: Registry, spec: BackboneSpec) -> None:
    """Two different films have different features."""
    model = small(spec).eval()
    with torch.no_grad():
        one, two = pooled(model, views(model, 2, SIDE))
    must(not torch.allclose(one, two), "two different films have the same features")


# timm's spec is any model; the kit builds a small one that takes the kit's side.
_SMALL: dict[str, dict[str, Any]] = {"timm": {"name": "resnet10t"}}


def small(spec: BackboneSpec, *, draw: int = 0) -> Any:
    """Build a backbone with its default options; ``draw`` gives other weights."""
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(draw)
        model = spec.build(spec.options.model_validate(_SMALL.get(spec.name, {})))
    must(isinstance(model, nn.Module), f"build() gave {type(model).__name__}, no nn.Module")
    must(getattr(model, "in_chans", None) in (1, 3), "in_chans must be 1 or 3")
    return model


def views(model: Any, films: int, side: int) -> Tensor:
    """Return drawn films ``(films, in_chans, side, side)``."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(films, model.in_chans, side, side, generator=generator)


def pooled(model: Any, films: Tensor) -> Tensor:
    """Return the features ``(B, D)``."""
    features: Tensor = model.pool(model.forward_maps(films)[-1])
    return features


CHECKS: tuple[Check, ...] = (
    backbone_keeps_its_contract,
    backbone_keeps_its_width,
    odd_sizes_work_or_are_refused,
    backbone_rests_in_eval,
    eval_comes_back_after_training,
    backbone_can_be_copied,
    features_tell_films_apart,
)
