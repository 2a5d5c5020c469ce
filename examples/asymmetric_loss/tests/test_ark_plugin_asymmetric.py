"""The conformance kit, and the numbers against the paper's formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ark_plugin_asymmetric import asymmetric
from torch.nn.functional import binary_cross_entropy_with_logits

from ark_framework.testing import conformance

test_conformance = conformance("ark-asymmetric")


def formula(
    x: np.ndarray, y: np.ndarray, gamma_pos: float, gamma_neg: float, clip: float
) -> np.ndarray:
    """Equations 4 to 7 as they are printed."""
    p = 1 / (1 + np.exp(-x))
    p_m = np.maximum(p - clip, 0)
    positive = (1 - p) ** gamma_pos * np.log(p)
    negative = p_m**gamma_neg * np.log(1 - p_m)
    return -y * positive - (1 - y) * negative


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    ("gamma_pos", "gamma_neg", "clip"), [(0, 4, 0.05), (1, 4, 0.05), (0, 1, 0.2), (2, 2, 0)]
)
def test_as_the_paper(gamma_pos: float, gamma_neg: float, clip: float, soft: bool) -> None:
    """Every entry is the paper's, for hard and soft targets; the gradient is its derivative."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 4, (64, 5)), rng.random((64, 5))
    y = y if soft else y.round()
    loss = asymmetric(gamma_pos=gamma_pos, gamma_neg=gamma_neg, clip=clip)
    output, target = torch.from_numpy(x).requires_grad_(), torch.from_numpy(y)
    value = loss(output, target)
    np.testing.assert_allclose(
        value.detach().numpy(), formula(x, y, gamma_pos, gamma_neg, clip), rtol=1e-9, atol=1e-12
    )
    value.sum().backward()
    assert output.grad is not None
    step = 1e-6
    above = formula(x + step, y, gamma_pos, gamma_neg, clip)
    below = formula(x - step, y, gamma_pos, gamma_neg, clip)
    np.testing.assert_allclose(
        output.grad.numpy(), (above - below) / (2 * step), rtol=1e-5, atol=1e-8
    )


def test_without_asymmetry_it_is_cross_entropy() -> None:
    """With both gammas and the margin 0 nothing is left but cross-entropy."""
    output = torch.randn(64, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = (output > 0.3).double()
    value = asymmetric(gamma_pos=0, gamma_neg=0, clip=0)(output, target)
    oracle = binary_cross_entropy_with_logits(output, target, reduction="none")
    torch.testing.assert_close(value, oracle)


def test_easy_negatives_are_dropped() -> None:
    """A negative below the margin has no loss and no gradient; one above it has both."""
    output = torch.logit(torch.tensor([[0.01, 0.049, 0.06, 0.5]])).requires_grad_()
    value = asymmetric(clip=0.05)(output, torch.zeros(1, 4))
    value.sum().backward()
    assert output.grad is not None
    assert (value > 0).tolist() == [[False, False, True, True]]
    assert (output.grad > 0).tolist() == [[False, False, True, True]]


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_far_out(clip: float) -> None:
    """Logits of any size give finite values and gradients; what is not annotated gives none."""
    output = torch.tensor([[1e4, -1e4, 1e4], [-1e4, 1e4, -1e4]], requires_grad=True)
    target = torch.tensor([[1.0, 1.0, 0.0], [0.0, torch.nan, torch.nan]])
    value = asymmetric(clip=clip)(output, target)
    value.sum().backward()
    assert output.grad is not None
    assert value.isfinite().all()
    assert output.grad.isfinite().all()
    assert value[0, 2] > 2.4  # the worst negative: -log(clip) times 0.95^4 at least
    assert (value[target.isnan()] == 0).all()
    assert (output.grad[target.isnan()] == 0).all()
