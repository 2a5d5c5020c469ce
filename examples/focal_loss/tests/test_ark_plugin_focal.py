"""The conformance kit, and the numbers against torchvision and against a slow formula."""

from __future__ import annotations

import math

import pytest
import torch
from ark_plugin_focal import focal
from torchvision.ops import sigmoid_focal_loss

from ark_framework.testing import conformance

test_conformance = conformance("ark-focal")


def logits(*, soft: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(64, 5, generator=generator, dtype=torch.float64) * 4
    target = torch.rand(64, 5, generator=generator, dtype=torch.float64)
    return output, target if soft else target.round()


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("alpha", [None, 0.25, 0.9])
def test_hard_targets_as_torchvision(gamma: float, alpha: float | None) -> None:
    """For targets 0 and 1, values and gradients are those of torchvision."""
    output, target = logits()
    mine, theirs = output.clone().requires_grad_(), output.clone().requires_grad_()
    value = focal(gamma=gamma, alpha=alpha)(mine, target)
    oracle = sigmoid_focal_loss(theirs, target, alpha=-1 if alpha is None else alpha, gamma=gamma)
    torch.testing.assert_close(value, oracle)
    value.sum().backward()
    oracle.sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad)


def test_soft_targets_by_hand() -> None:
    """For any target: alpha(y) |p - y|^gamma times the cross-entropy, one entry at a time."""
    output, target = logits(soft=True)
    value = focal(gamma=2.0, alpha=0.3)(output, target)
    entries = zip(*(each.flatten().tolist() for each in (value, output, target)), strict=True)
    for found, x, y in entries:
        p = 1 / (1 + math.exp(-x))
        entropy = -(y * math.log(p) + (1 - y) * math.log(1 - p))
        weight = 0.3 * y + 0.7 * (1 - y)
        assert found == pytest.approx(weight * abs(p - y) ** 2 * entropy, rel=1e-9)


def test_soft_targets_are_the_minimum() -> None:
    """The loss is least where the probability is the target; torchvision's is not."""
    grid = torch.linspace(-4, 4, 8001, dtype=torch.float64)[:, None]
    target = torch.full_like(grid, 0.7)
    best = grid[focal()(grid, target).argmin()].sigmoid()
    assert float(best) == pytest.approx(0.7, abs=1e-3)
    other = grid[sigmoid_focal_loss(grid, target, alpha=-1).argmin()].sigmoid()
    assert abs(float(other) - 0.7) > 0.02


def test_gradient_is_the_derivative() -> None:
    """The weight is differentiated too, not taken for a constant."""
    output, target = logits(soft=True)
    loss = focal(alpha=0.25)
    output, target = output[:8].requires_grad_(), target[:8]
    assert torch.autograd.gradcheck(lambda x: loss(x, target), output)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_out(dtype: torch.dtype) -> None:
    """Logits of any size give finite values and gradients; what is not annotated gives none."""
    output = torch.tensor([[1e4, -1e4, 90.0], [-90.0, 1e4, -1e4]], dtype=dtype)
    target = torch.tensor([[1.0, 1.0, 0.0], [1.0, torch.nan, torch.nan]], dtype=dtype)
    output.requires_grad_()
    value = focal()(output, target)
    value.sum().backward()
    assert output.grad is not None
    assert value.isfinite().all()
    assert output.grad.isfinite().all()
    assert (value[target.isnan()] == 0).all()
    assert (output.grad[target.isnan()] == 0).all()
    assert value[0].tolist() == pytest.approx([0.0, 1e4, 90.0])
