"""The built-in losses against torch's reduced ones, and their silence where nobody annotated."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from ark_framework import LabelSchema
from ark_framework.builtin import losses
from ark_framework.pretrain import Losses
from ark_framework.views import part

BY_NAME = {spec.name: spec for spec in losses.SPECS}
SCHEMA = LabelSchema(name="s", kind="multiclass", labels=("a", "b", "c"))
NAN = float("nan")


@pytest.mark.parametrize("name", ["bce", "cross_entropy"])
def test_mean_over_annotated_equals_torch(name: str) -> None:
    """With missing entries, sum over annotated is torch's mean over the rest, gradient too."""
    logits = torch.randn(6, 3, requires_grad=True)
    target = functional.one_hot(torch.tensor([0, 1, 2, 0, 1, 2]), 3).float()
    target[1] = NAN
    keep = torch.tensor([0, 2, 3, 4, 5])
    mean = Losses(tasks={"t": BY_NAME[name].build(SCHEMA)}, consistency=None)  # type: ignore[arg-type]
    loss = mean.of_part(logits, part("t", target))
    (gradient,) = torch.autograd.grad(loss, logits)
    other = logits.detach().clone().requires_grad_()
    if name == "bce":
        expected = functional.binary_cross_entropy_with_logits(other[keep], target[keep])
    else:
        expected = functional.cross_entropy(other[keep], target[keep].argmax(1))
    (oracle,) = torch.autograd.grad(expected, other)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, oracle)


@pytest.mark.parametrize("name", ["bce", "cross_entropy"])
def test_nothing_annotated_is_zero_and_attached(name: str) -> None:
    """A batch without labels gives a zero loss with a zero gradient, not NaN."""
    logits = torch.randn(4, 3, requires_grad=True)
    mean = Losses(tasks={"t": BY_NAME[name].build(SCHEMA)}, consistency=None)  # type: ignore[arg-type]
    loss = mean.of_part(logits, part("t", torch.full((4, 3), NAN)))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", ["bce", "cross_entropy"])
def test_micro_batches_add_up(name: str) -> None:
    """Parts that know the global counts sum to the loss of the whole batch."""
    logits = torch.randn(8, 3)
    target = functional.one_hot(torch.arange(8) % 3, 3).float()
    target[5:7] = NAN
    loss = BY_NAME[name].build(SCHEMA)
    whole = part("t", target)
    denominator = whole.annotated if name == "bce" else whole.annotated_rows
    pieces = sum(loss(logits[i : i + 3], target[i : i + 3]).sum() for i in range(0, 8, 3))
    mean = Losses(tasks={"t": loss}, consistency=None)  # type: ignore[arg-type]
    torch.testing.assert_close(pieces / denominator, mean.of_part(logits, whole))


def test_class_weights_equal_pos_weight() -> None:
    """For bce, a class weight is torch's ``pos_weight``."""
    logits, target = torch.randn(5, 3), (torch.rand(5, 3) > 0.5).float()
    weights = torch.tensor([1.0, 4.0, 0.5])
    mean = Losses(
        tasks={"t": BY_NAME["bce"].build(SCHEMA)},
        consistency=None,  # type: ignore[arg-type]
        class_weights={"t": weights},
    )
    expected = functional.binary_cross_entropy_with_logits(logits, target, pos_weight=weights)
    torch.testing.assert_close(mean.of_part(logits, part("t", target)), expected)


def test_consistency_losses() -> None:
    """``mse`` is the mean square over features; ``cosine`` is 0 for parallel vectors, 2 against."""
    student, teacher = torch.randn(4, 16), torch.randn(4, 16)
    mse = BY_NAME["mse"].build(None)(student, teacher)
    torch.testing.assert_close(mse.mean(), functional.mse_loss(student, teacher))
    cosine = BY_NAME["cosine"].build(None)
    torch.testing.assert_close(cosine(student, 3 * student), torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(cosine(student, -student), torch.full((4,), 2.0))
