"""Bad steps: their loss, or a gradient, is not finite, so that nothing may move at them.

Seen where they happen, on the device, and held there: nobody waits for it.  The optimizer obeys
:attr:`BadSteps.held` as its ``found_inf``; a teacher that follows at each step stays; and what a
forward pass moves by itself, such as batch norm's statistics, is put back.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class BadSteps:
    """Counts bad steps over a run, skips some, and lets nothing move after one more.

    Args:
        student: Whose steps they are; what its forward pass moves is found here.
        allowed: How many are skipped.

    Attributes:
        count: How many there were, ``()``.
        bad: Whether the last step was one, ``()``, 0 or 1.
        held: Whether nothing moved at the last step, ``()``, 0 or 1: it was bad, or more than
            ``allowed`` have been.
    """

    def __init__(self, student: nn.Module, *, allowed: int = 0) -> None:
        device = next(student.parameters()).device
        self.allowed = allowed
        self.count = torch.zeros((), device=device)
        self.bad = torch.zeros((), device=device)
        self.held = torch.zeros((), device=device)
        kept = student.state_dict().keys()
        buffers = [each for name, each in student.named_buffers() if name in kept]
        kinds = dict.fromkeys(each.dtype for each in buffers)
        self._moving = [[each for each in buffers if each.dtype == kind] for kind in kinds]
        self._before: list[Tensor] = []

    def begin(self) -> None:
        """Remember what the forward pass of a step may move."""
        self._before = [_flat(group) for group in self._moving]

    def judge(self, loss: Tensor, norm: Tensor) -> None:
        """Say whether a step is bad, by its loss and its gradients' norm; if held, put all back."""
        self.bad = loss.isfinite().logical_and(norm.isfinite()).logical_not().to(self.count.dtype)
        self.count += self.bad
        self.held = torch.maximum(self.bad, (self.count > self.allowed).to(self.bad.dtype))
        for group, before in zip(self._moving, self._before, strict=True):
            told = torch.where(self.held > 0, before, _flat(group))
            parts = torch.split(told, [each.numel() for each in group])
            torch._foreach_copy_(
                group, [part.view_as(each) for part, each in zip(parts, group, strict=True)]
            )


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([each.reshape(-1) for each in tensors])
