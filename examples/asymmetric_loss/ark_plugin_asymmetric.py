"""The asymmetric loss: negatives lose weight faster than positives, and easy ones all of it.

Ridnik, Ben-Baruch, Zamir, Noy, Friedman, Protter and Zelnik-Manor, "Asymmetric Loss For
Multi-Label Classification", ICCV 2021 (arXiv:2009.14119), equations 4 to 7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ark_framework import LossSpec, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

TINY = 1e-8  # keeps the logarithm finite where clip is 0


def asymmetric(
    *, gamma_pos: float = 0.0, gamma_neg: float = 4.0, clip: float = 0.05
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a loss ``(logits, targets) -> (B, C)``; the defaults are the paper's.

    Args:
        gamma_pos: Focusing of positives: 0, or at least 1.
        gamma_neg: Focusing of negatives: 0, or at least 1.
        clip: The paper's margin m: a negative with a probability below it has no loss.
    """
    from torch.nn import functional

    def loss(output: Tensor, target: Tensor) -> Tensor:
        blank = target.isnan()
        target = target.masked_fill(blank, 0.0)
        absent = (-output).sigmoid()
        positive = absent**gamma_pos * functional.logsigmoid(output)
        shifted = (output.sigmoid() - clip).clamp(min=0.0)
        negative = shifted**gamma_neg * (absent + clip).clamp(TINY, 1.0).log()
        value = -(target * positive + (1.0 - target) * negative)
        return value.masked_fill(blank, 0.0)

    return loss


@hookimpl
def ark_losses() -> list[LossSpec]:
    """Return the loss with the paper's numbers."""
    return [
        LossSpec(name="asymmetric", kinds=("multilabel",), build=lambda _: asymmetric()),
    ]
