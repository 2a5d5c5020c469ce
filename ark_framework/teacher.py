"""The teacher: a copy of the student, always in eval mode, moved only by EMA."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ark_framework.model import ArkModel


class Teacher:
    """Follows the student.

    Attributes:
        model: The copy; in eval mode, without gradients.
    """

    def __init__(self, student: ArkModel) -> None:
        self.model = copy.deepcopy(student).eval().requires_grad_(requires_grad=False)

    def project(self, views: Tensor) -> Tensor:
        """Return the projections ``(B, P)`` of views, without gradient."""
        with torch.no_grad():
            return self.model.encode(views).projected

    @torch.no_grad()
    def update(self, student: ArkModel, momentum: float, *, held: Tensor | None = None) -> None:
        """Move towards the student: ``teacher = m teacher + (1 - m) student``.

        Parameters and floating buffers are averaged, integer buffers are copied.

        Args:
            student: Whom to follow.
            momentum: The share that stays.
            held: ``()``, on the device: 1 where nothing may move, else 0.
        """
        mine, theirs = _tensors(self.model), _tensors(student)
        floating = [name for name, tensor in mine.items() if tensor.is_floating_point()]
        if held is not None:  # towards itself, for a share of 0 of what is not finite is not 0
            theirs = {name: torch.where(held > 0, mine[name], theirs[name]) for name in mine}
        if floating:
            torch._foreach_lerp_(
                [mine[name] for name in floating],
                [theirs[name] for name in floating],
                1.0 - momentum,
            )
        for name in mine.keys() - set(floating):
            mine[name].copy_(theirs[name])


def _tensors(model: ArkModel) -> dict[str, Tensor]:
    found: dict[str, Tensor] = dict(model.named_parameters())
    found.update(model.named_buffers())
    return found
