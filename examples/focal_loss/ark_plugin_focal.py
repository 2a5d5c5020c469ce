"""The focal loss: an entry counts less the better it is predicted.

Lin, Goyal, Girshick, He and Dollár, "Focal Loss for Dense Object Detection", ICCV 2017
(arXiv:1708.02002), equations 4 and 5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ark_framework import LossSpec, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


def focal(*, gamma: float = 2.0, alpha: float | None = None) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a loss ``(logits, targets) -> (B, C)``.

    Args:
        gamma: How fast an entry's weight falls as it is learned: 0 is cross-entropy, else at
            least 1, since below it the gradient has no bound.
        alpha: Weight of a positive, ``1 - alpha`` being that of a negative; none when ``None``.
    """
    from torch.nn import functional

    def loss(output: Tensor, target: Tensor) -> Tensor:
        blank = target.isnan()
        target = target.masked_fill(blank, 0.0)
        entropy = functional.binary_cross_entropy_with_logits(output, target, reduction="none")
        # The paper's 1 - p_t for targets 0 and 1; for soft ones a weight whose zero is p = target.
        value = (output.sigmoid() - target).abs() ** gamma * entropy
        if alpha is not None:
            value = value * (alpha * target + (1.0 - alpha) * (1.0 - target))
        return value.masked_fill(blank, 0.0)

    return loss


@hookimpl
def ark_losses() -> list[LossSpec]:
    """Return the loss without a balance of the classes, and with the paper's."""
    return [
        LossSpec(name="focal", kinds=("multilabel", "multiclass"), build=lambda _: focal()),
        LossSpec(
            name="focal-alpha",
            kinds=("multilabel", "multiclass"),
            build=lambda _: focal(alpha=0.25),
        ),
    ]
