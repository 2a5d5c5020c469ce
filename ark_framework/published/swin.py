"""A Swin's architecture, read from the shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

from torch import Tensor

from ark_framework.errors import CheckpointError

TABLE = "layers.{}.blocks.0.attn.relative_position_bias_table"
NEEDED = ("patch_embed.proj.weight", TABLE.format(0), "layers.0.blocks.0.mlp.fc1.weight")
_BLOCK = re.compile(r"layers\.(\d+)\.blocks\.(\d+)\.norm1\.weight")
_MASK = re.compile(r"layers\.(\d+)\.blocks\.\d+\.attn_mask")
# timm's name for a card to show; every argument is given beside it, so any other would do.
NAMES: dict[tuple[int, tuple[int, ...]], str] = {
    (96, (2, 2, 6, 2)): "swin_tiny_patch4_window7_224",
    (96, (2, 2, 18, 2)): "swin_small_patch4_window7_224",
    (192, (2, 2, 18, 2)): "swin_large_patch4_window7_224",
}


@dataclass(frozen=True, kw_only=True)
class Swin:
    """What timm needs to build it; ``sized``: its side is known and not assumed."""

    side: int
    sized: bool
    patch: int
    channels: int
    width: int
    depths: tuple[int, ...]
    attention_heads: tuple[int, ...]
    window: int
    mlp_ratio: float
    qkv_bias: bool

    def options(self) -> dict[str, Any]:
        """Return the options of the ``timm`` backbone."""
        return {
            "name": NAMES.get((self.width, self.depths), "swin_base_patch4_window7_224"),
            "in_chans": self.channels,
            "kwargs": {
                "img_size": self.side,
                "patch_size": self.patch,
                "embed_dim": self.width,
                "depths": list(self.depths),
                "num_heads": list(self.attention_heads),
                "window_size": self.window,
                "mlp_ratio": self.mlp_ratio,
                "qkv_bias": self.qkv_bias,
            },
        }


def recognize(tensors: Mapping[str, Tensor], path: Path, *, side: int | None = None) -> Swin:
    """Read the architecture; ``side`` of the films in pixels, over what the file says.

    Raises:
        CheckpointError: it is no Swin of the published kind.
    """
    lacking = [name for name in NEEDED if name not in tensors]
    if lacking:
        raise CheckpointError(
            f"{path} is no Swin Transformer: it lacks {lacking[0]}; it has "
            f"{', '.join(list(tensors)[:3])}, …"
        )
    patch = tensors["patch_embed.proj.weight"]
    depths = _depths(tensors, path)
    tables = [tensors[TABLE.format(stage)] for stage in range(len(depths))]
    windows = [(isqrt(len(table)) + 1) // 2 for table in tables]
    found = _side(tensors, windows, patch=patch.shape[-1])
    width = patch.shape[0]
    return Swin(
        # Else the side at which the last stage holds one window, as in 224/7 and 384/12.
        side=side or found or max(windows) * patch.shape[-1] * 2 ** (len(depths) - 1),
        sized=bool(side or found),
        patch=patch.shape[-1],
        channels=patch.shape[1],
        width=width,
        depths=depths,
        attention_heads=tuple(table.shape[1] for table in tables),
        window=max(windows),
        mlp_ratio=tensors["layers.0.blocks.0.mlp.fc1.weight"].shape[0] / width,
        qkv_bias="layers.0.blocks.0.attn.qkv.bias" in tensors,
    )


def _depths(tensors: Mapping[str, Tensor], path: Path) -> tuple[int, ...]:
    blocks = [
        (int(match[1]), int(match[2])) for name in tensors if (match := _BLOCK.fullmatch(name))
    ]
    stages = sorted({stage for stage, _ in blocks})
    whole = all(TABLE.format(stage) in tensors for stage in stages)
    if not whole or stages != list(range(len(stages))):
        raise CheckpointError(f"{path} is a Swin Transformer of which parts are missing")
    return tuple(sum(1 for stage, _ in blocks if stage == wanted) for wanted in stages)


def _side(tensors: Mapping[str, Tensor], windows: list[int], *, patch: int) -> int | None:
    """Return the side of the films: from a mask, one row per window of the grid it was made for."""
    for name, mask in tensors.items():
        if match := _MASK.fullmatch(name):
            return isqrt(mask.shape[0]) * isqrt(mask.shape[1]) * patch * int(2 ** int(match[1]))
    for stage, window in enumerate(windows):
        if window < max(windows):  # a grid smaller than the window is one window
            return window * patch * int(2**stage)
    return None
