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


# Milletari et al. 2016 (V-Net); smooth 1, as the published segmentation had it, keeps an empty
# mask from asking for the impossible.  Each film counts as much as another, where the published
# loss took a whole batch as one film.
SMOOTH = 1.0


def _dice(_: LabelSchema | None) -> TensorLoss:
    def dice(output: Tensor, target: Tensor) -> Tensor:
        blank = target.isnan().flatten(2).any(dim=2)
        truth = target.nan_to_num().flatten(2)
        found = output.sigmoid().flatten(2)
        shared, whole = (found * truth).sum(dim=2), (found + truth).sum(dim=2)
        return (1.0 - (2.0 * shared + SMOOTH) / (whole + SMOOTH)).masked_fill(blank, 0.0)

    return dice


def _bce_dice(schema: LabelSchema | None) -> TensorLoss:
    bce, dice = _bce(schema), _dice(schema)

    def both(output: Tensor, target: Tensor) -> Tensor:
        return dice(output, target) + bce(output, target).flatten(2).mean(dim=2)

    return both


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
    LossSpec(name="dice", kinds=("mask",), build=_dice),
    LossSpec(name="bce-dice", kinds=("mask",), build=_bce_dice),
]
