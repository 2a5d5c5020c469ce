"""Checks of a loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ark_framework.registry import Registry
from ark_framework.specs import LabelSchema, LossSpec
from ark_framework.testing.heads import BATCH, LABELS, WIDTH, schemas
from ark_framework.testing.verdict import Check, Skipped, must, untouched_chance

SIDE = 6  # of masks


def loss_is_unreduced(_: Registry, spec: LossSpec) -> None:
    """A loss gives ``(B, labels)`` or ``(B,)``, finite; the core reduces it."""
    for loss, out, target in cases(spec):
        value = loss(out, target)
        shape = tuple(value.shape)
        must(
            shape in ((BATCH,), tuple(out.shape[:2])),
            f"gave {shape}; return the loss of each entry, unreduced",
        )
        must(value.isfinite().all(), "gave values that are not finite")


def loss_ignores_what_is_not_annotated(_: Registry, spec: LossSpec) -> None:
    """Where the target is NaN both the loss and its gradient are exactly zero."""
    _not_for_consistency(spec)
    for loss, out, target in cases(spec):
        unknown = target.isnan()
        value = loss(out, target)
        must(value[3].abs().sum() == 0, "a film without annotations has a loss")
        if value.ndim == 2:
            entries = unknown.flatten(2).all(dim=2) if unknown.ndim == 4 else unknown
            must((value[entries] == 0).all(), "an entry that is not annotated has a loss")
        value.sum().backward()
        gradient = out.grad
        must(
            gradient is not None and gradient.isfinite().all(),
            "the gradient is not finite where an entry is not annotated",
        )
        dead = unknown if value.ndim == 2 else unknown.all(dim=1)
        must(
            gradient is not None and (gradient[dead] == 0).all(),
            "an entry that is not annotated has a gradient",
        )


def loss_survives_an_empty_batch(_: Registry, spec: LossSpec) -> None:
    """With nothing annotated the loss is zero and still has a graph."""
    _not_for_consistency(spec)
    for loss, out, target in cases(spec):
        value = loss(out, torch.full_like(target, torch.nan)).sum()
        must(value.requires_grad, "is cut from the graph when nothing is annotated")
        value.backward()
        must(value == 0, "is not zero when nothing is annotated")


def loss_depends_on_its_target(_: Registry, spec: LossSpec) -> None:
    """The loss falls when the output moves towards the target."""
    for loss, out, target in cases(spec):
        good, bad = _towards(spec, out, target)
        lower, higher = loss(good, target).sum(), loss(bad, target).sum()
        must(bool(lower < higher), f"is {lower:.3g} for right outputs and {higher:.3g} for wrong")


def loss_is_the_same_in_parts(_: Registry, spec: LossSpec) -> None:
    """A film's loss does not depend on the other films, so parts of a batch add up to it."""
    for loss, out, target in cases(spec):
        whole = loss(out, target)
        parts = torch.cat([loss(out[row : row + 1], target[row : row + 1]) for row in range(BATCH)])
        must(
            torch.allclose(whole, parts, atol=1e-6),
            "a film's loss changes with the batch that it is in; several processes would differ",
        )


def loss_stays_finite_for_certain_outputs(_: Registry, spec: LossSpec) -> None:
    """Outputs of ±10,000 give a finite loss and a finite gradient."""
    for loss, out, target in cases(spec):
        extreme = (out.detach().sign() * 1e4).requires_grad_()
        value = loss(extreme, target)
        must(value.isfinite().all(), "is not finite for outputs of 10,000")
        value.sum().backward()
        gradient = extreme.grad
        must(
            gradient is not None and gradient.isfinite().all(),
            "has a gradient that is not finite for outputs of 10,000",
        )


def loss_leaves_chance_and_its_target_alone(_: Registry, spec: LossSpec) -> None:
    """A loss draws from no global generator and writes neither to its output nor its target."""
    for loss, out, target in cases(spec):
        before = out.detach().clone(), target.clone()
        with untouched_chance("the loss"):
            loss(out, target)
        must(torch.equal(out, before[0]), "changes its output in place")
        kept = target.nan_to_num(9.0).equal(before[1].nan_to_num(9.0))
        must(kept, "changes its target in place")


def cases(spec: LossSpec) -> Iterator[tuple[Any, Tensor, Tensor]]:
    """Yield a loss, outputs that want a gradient, and targets, for each kind that it serves."""
    generator = torch.Generator().manual_seed(0)
    for schema in schemas(spec.kinds):
        out = torch.randn(BATCH, 3, generator=generator)
        yield spec.build(schema), out.requires_grad_(), _target(schema)
    if "mask" in spec.kinds:
        schema = LabelSchema(name="check-mask", kind="mask", labels=LABELS)
        out = torch.randn(BATCH, 3, SIDE, SIDE, generator=generator)
        yield spec.build(schema), out.requires_grad_(), _masks()
    if "consistency" in spec.kinds:
        out = torch.randn(BATCH, WIDTH, generator=generator)
        target = torch.randn(BATCH, WIDTH, generator=generator)
        yield spec.build(None), out.requires_grad_(), target


def _target(schema: LabelSchema) -> Tensor:
    """Return targets ``(4, 3)`` whose last row is not annotated at all."""
    target = torch.eye(3)[torch.tensor([0, 1, 2, 0])]
    if schema.kind == "multilabel":
        target[1, 2] = torch.nan
    target[3] = torch.nan
    return target


def _masks() -> Tensor:
    """Return masks ``(4, 3, S, S)``: overlapping, empty, one not drawn, a film with none."""
    target = torch.zeros(BATCH, 3, SIDE, SIDE)
    target[:, 0, :4], target[:, 1, :, 2:] = 1.0, 1.0
    target[1, 2] = torch.nan
    target[3] = torch.nan
    return target


def _towards(spec: LossSpec, out: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if "consistency" in spec.kinds and target.shape[1] == WIDTH:
        return target.clone(), -target
    sign = target.nan_to_num() * 2 - 1
    return (sign * 4).reshape(out.shape), (-sign * 4).reshape(out.shape)


def _not_for_consistency(spec: LossSpec) -> None:
    if spec.kinds == ("consistency",):
        raise Skipped("a consistency loss has no targets")


CHECKS: tuple[Check, ...] = (
    loss_is_unreduced,
    loss_ignores_what_is_not_annotated,
    loss_survives_an_empty_batch,
    loss_depends_on_its_target,
    loss_is_the_same_in_parts,
    loss_stays_finite_for_certain_outputs,
    loss_leaves_chance_and_its_target_alone,
)
