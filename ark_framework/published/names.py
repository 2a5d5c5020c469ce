"""State dicts of the published method: from timm 0.5.4 names to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

# Resolution-dependent constants, and the ImageNet classifier that the method never used.
_DROPPED = re.compile(r"(^|\.)(attn_mask|relative_position_index)$|^head\.")
_DOWNSAMPLE = re.compile(r"^layers\.(\d+)\.downsample\.")
_HEAD = re.compile(r"^omni_heads\.(\d+)\.")


def convert(state: Mapping[str, Tensor], tasks: Sequence[str]) -> dict[str, Tensor]:
    """Rename a published Swin state dict.

    In timm 0.5.4 a stage ends with its patch merging; in current timm the next stage begins with
    it.  A projector or head keeps its shape.

    Args:
        state: Flat, without wrapper key; a ``module.`` prefix is taken off.
        tasks: Task names of ``omni_heads.0``, ``omni_heads.1``, …

    Returns:
        Tensors under the names of :class:`ark_framework.model.ArkModel`.
    """
    old = "layers.0.downsample.reduction.weight"
    shifted = any(name.removeprefix("module.") == old for name in state)
    converted: dict[str, Tensor] = {}
    for full, tensor in state.items():
        name = full.removeprefix("module.")
        if _DROPPED.search(name):
            continue
        head = _HEAD.match(name)
        if head:
            converted[f"heads.{tasks[int(head[1])]}.{name[head.end() :]}"] = tensor
        elif name.startswith("projector."):
            converted[name] = tensor
        else:
            if shifted:
                name = _DOWNSAMPLE.sub(lambda m: f"layers.{int(m[1]) + 1}.downsample.", name)
            converted[f"backbone.model.{name}"] = tensor
    return converted
