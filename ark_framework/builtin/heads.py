"""The built-in task heads; both act on the projected vector, as published."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ark_framework import HeadSpec, LabelSchema

if TYPE_CHECKING:
    from torch import nn


def _linear(in_features: int, schema: LabelSchema) -> nn.Module:
    from torch import nn

    return nn.Linear(in_features, len(schema.labels))


def _mlp(in_features: int, schema: LabelSchema) -> nn.Module:
    from torch import nn

    return nn.Sequential(
        nn.Linear(in_features, in_features),
        nn.GELU(),
        nn.Linear(in_features, len(schema.labels)),
    )


SPECS = [
    HeadSpec(name="linear", kinds=("multilabel", "multiclass"), build=_linear),
    HeadSpec(name="mlp", kinds=("multilabel", "multiclass"), build=_mlp),
]
