"""The built-in losses, unreduced: the core divides by the annotated entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ark_framework import LabelSchema, LossSpec

if TYPE_CHECKING:
    from torch import Tensor

TensorLoss = Callable[["Tensor", "Tensor"], "Tensor"]


def _bce(_: LabelSchema | None) -> TensorLoss:
    from torch.nn import functional

    def bce(output: Tensor, target: Tensor) -> Tensor:
        blank = target.isnan()
        loss = functional.binary_cross_entropy_with_logits(
            output, target.masked_fill(blank, 0.0), reduction="none"
        )
        return loss.masked_fill(blank, 0.0)

    return bce


def _cross_entropy(_: LabelSchema | None) -> TensorLoss:
    from torch.nn import functional

    def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
        blank = target.isnan().any(dim=1)
        filled = target.masked_fill(blank[:, None], 0.0)
        return functional.cross_entropy(output, filled, reduction="none").masked_fill(blank, 0.0)

    return cross_entropy


def _mse(_: LabelSchema | None) -> TensorLoss:
    def mse(student: Tensor, teacher: Tensor) -> Tensor:
        return (student - teacher).square().mean(dim=1)

    return mse


def _cosine(_: LabelSchema | None) -> TensorLoss:
    from torch.nn import functional

    def cosine(student: Tensor, teacher: Tensor) -> Tensor:
        return 1.0 - functional.cosine_similarity(student, teacher, dim=1)

    return cosine


SPECS = [
    LossSpec(name="bce", kinds=("multilabel", "multiclass"), build=_bce),
    LossSpec(name="cross_entropy", kinds=("multiclass",), build=_cross_entropy),
    LossSpec(name="mse", kinds=("consistency",), build=_mse),
    LossSpec(name="cosine", kinds=("consistency",), build=_cosine),
]
