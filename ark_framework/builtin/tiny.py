"""A small convolution with layer norm, for CPU work.

Chosen by measurement: within a minute on two cores it learns what a Swin of the same cost does not.
Two things made the difference: a norm over the channels of each position (not over the whole map),
and a film standardized before the first convolution, so that its exposure need not be learned.
"""

from __future__ import annotations

import torch
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional


class TinyConv(nn.Module):
    """Stages of plain 3x3 convolutions; stage ``i`` halves the map and widens it.

    ``forward_maps(x)``: ``(B, in_chans, S, S)`` to maps at strides 4, 8, 16, …; ``pool(map)``:
    ``(B, D)``, the mean beside the maximum, since a small finding is lost in a mean.
    """

    def __init__(self, *, width: int = 32, depths: tuple[int, ...] = (1, 1, 1), in_chans: int = 1):
        super().__init__()
        self.in_chans = in_chans
        self.stem = nn.Sequential(
            nn.InstanceNorm2d(in_chans),
            nn.Conv2d(in_chans, width // 2, 3, stride=2, padding=1),
            LayerNorm2d(width // 2),
            nn.GELU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
            LayerNorm2d(width),
        )
        stages, wide = [], width
        for index, depth in enumerate(depths):
            layers: list[nn.Module] = []
            if index:
                layers += [nn.Conv2d(wide, 2 * wide, 2, stride=2), LayerNorm2d(2 * wide)]
                wide *= 2
            layers += [Block(wide) for _ in range(depth)]
            stages.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(stages)
        self.norm = nn.LayerNorm(2 * wide)

    def forward_maps(self, x: Tensor) -> list[Tensor]:
        """Return the maps of every stage, finest first."""
        x, maps = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def pool(self, last: Tensor) -> Tensor:
        """Return mean and maximum over positions, normalized, ``(B, 2 C)``."""
        pooled: Tensor = self.norm(torch.cat([last.mean((2, 3)), last.amax((2, 3))], dim=1))
        return pooled


class Block(nn.Module):
    """A residual pair of 3x3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.norm = LayerNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with what the pair adds."""
        out: Tensor = x + self.second(functional.gelu(self.norm(self.first(x))))
        return out
