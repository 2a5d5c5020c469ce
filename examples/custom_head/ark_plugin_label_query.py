"""A head that looks: each label has a query that attends over the encoder's last feature map.

After Liu et al., "Query2Label", 2021 (arXiv:2107.10834), with one layer of attention.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ark_framework import HeadSpec, LabelSchema, hookimpl

if TYPE_CHECKING:
    from torch import Tensor, nn


def build(width: int, schema: LabelSchema) -> nn.Module:
    """Return a module from maps ``(B, D, H, W)`` to logits ``(B, C)``."""
    import torch
    from torch import nn

    class LabelQuery(nn.Module):
        """One learned query, and one linear classifier, per label."""

        def __init__(self) -> None:
            super().__init__()
            labels = len(schema.labels)
            self.norm = nn.LayerNorm(width)
            self.queries = nn.Parameter(0.02 * torch.randn(labels, width))
            # As many heads as divide the width, at most eight.
            self.attention = nn.MultiheadAttention(width, math.gcd(width, 8), batch_first=True)
            self.weight = nn.Parameter(torch.randn(labels, width) / math.sqrt(width))
            self.bias = nn.Parameter(torch.zeros(labels))

        def forward(self, last: Tensor) -> Tensor:
            """Return the logits ``(B, C)`` of maps ``(B, D, H, W)``."""
            places = self.norm(last.flatten(2).transpose(1, 2))  # B HW D
            queries = self.queries.expand(len(last), -1, -1)  # B C D
            found, _ = self.attention(queries, places, places, need_weights=False)  # B C D
            logits: Tensor = (found * self.weight).sum(2) + self.bias
            return logits

    return LabelQuery()


@hookimpl
def ark_heads() -> list[HeadSpec]:
    """Return the head; ``input="map"`` asks for the map in place of the projection."""
    return [
        HeadSpec(name="label-query", kinds=("multilabel", "multiclass"), build=build, input="map")
    ]
