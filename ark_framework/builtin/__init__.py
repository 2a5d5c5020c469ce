"""The built-in heads, losses and backbones: a plugin like any other."""

from __future__ import annotations

from ark_framework import BackboneSpec, HeadSpec, LossSpec, hookimpl
from ark_framework.builtin import backbones, heads, losses


@hookimpl
def ark_heads() -> list[HeadSpec]:
    """Return ``linear`` and ``mlp``."""
    return list(heads.SPECS)


@hookimpl
def ark_losses() -> list[LossSpec]:
    """Return ``bce``, ``cross_entropy``, and the consistency losses ``mse`` and ``cosine``."""
    return list(losses.SPECS)


@hookimpl
def ark_backbones() -> list[BackboneSpec]:
    """Return ``timm`` (any model name) and ``tiny`` for CPU work."""
    return list(backbones.SPECS)
