"""Checks from end to end: twenty steps lower the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ark_framework.corpus import training_targets
from ark_framework.registry import Registry, parse_options
from ark_framework.specs import BackboneSpec, DatasetSpec, HeadSpec, LossSpec
from ark_framework.testing import backbones, heads, losses
from ark_framework.testing.datasets import Miniature, miniature
from ark_framework.testing.verdict import Skipped, must

STEPS = 20
FILMS = 32
SIDE = 32


def twenty_steps_lower_the_loss(registry: Registry, spec: DatasetSpec) -> None:
    """The fixture's training films, the default head and loss and a small encoder: it learns."""
    with miniature(registry, spec) as mini:
        if mini.schema.kind == "mask":
            raise Skipped("masks are not pretrained on")
        films, targets = _batch(spec, mini)
    schema = mini.schema
    name = spec.loss or {"multilabel": "bce", "multiclass": "cross_entropy"}[schema.kind]
    loss = registry.loss(name, kind=schema.kind).build(schema)
    head_spec = registry.head(spec.head, kind=schema.kind)
    tiny = registry.backbone("tiny")
    values = {"width": 8}
    with _drawn():
        encoder: Any = tiny.build(parse_options(tiny, values, where="tiny"))
        last = encoder.forward_maps(films[:1])[-1]
        width = last.shape[1] if head_spec.input == "map" else encoder.pool(last).shape[1]
        head: Any = head_spec.build(width, schema)

    def forward() -> Tensor:
        maps = encoder.forward_maps(films)[-1]
        out: Tensor = head(maps if head_spec.input == "map" else encoder.pool(maps))
        return _mean(loss(out, targets), targets)

    _must_fall([*encoder.parameters(), *head.parameters()], forward)


def a_head_learns_in_twenty_steps(_: Registry, spec: HeadSpec) -> None:
    """A head fits three labels of four films' features."""
    for head, _schema in heads.built(spec):
        _must_fall(head.parameters(), partial(_fit, head, heads.features(spec)))


def a_loss_falls_in_twenty_steps(_: Registry, spec: LossSpec) -> None:
    """Following a loss's gradient lowers it."""
    for loss, out, target in losses.cases(spec):
        free = nn.Parameter(out.detach().clone())
        _must_fall([free], partial(_value, loss, free, target))


def a_backbone_learns_in_twenty_steps(_: Registry, spec: BackboneSpec) -> None:
    """A backbone with a linear head fits one label of eight drawn films."""
    model = backbones.small(spec).train()
    films = backbones.views(model, 8, backbones.SIDE)
    target = torch.tensor([0.0, 1.0] * 4)[:, None]
    with _drawn():
        head = nn.Linear(backbones.pooled(model, films).shape[1], 1)
    bce = nn.BCEWithLogitsLoss()
    parameters = [each for each in model.parameters() if each.requires_grad]
    _must_fall(
        [*parameters, *head.parameters()], lambda: bce(head(backbones.pooled(model, films)), target)
    )


def _batch(spec: DatasetSpec, mini: Miniature) -> tuple[Tensor, Tensor]:
    store = mini.packed(spec, SIDE)
    rows = mini.table.rows("train")[:FILMS]
    places = store.rows(mini.table.frame["image"].iloc[rows].tolist())
    films = torch.from_numpy(np.asarray(store.images[places])).float().div(255)
    films = films.mean(dim=1, keepdim=True)  # the small encoder sees grey
    raw = mini.table.targets()[rows]
    return films, torch.from_numpy(training_targets(raw, mini.schema, np.full(raw.shape, 0.5)))


def _fit(head: nn.Module, inputs: Tensor) -> Tensor:
    target = torch.eye(3)[torch.tensor([0, 1, 2, 0])]
    return nn.functional.binary_cross_entropy_with_logits(head(inputs), target)


def _value(loss: Any, out: Tensor, target: Tensor) -> Tensor:
    return _mean(loss(out, target), target)


def _mean(value: Tensor, target: Tensor) -> Tensor:
    known = (~target.isnan()).sum().clamp_min(1) if value.ndim == 2 else len(value)
    mean: Tensor = value.sum() / known
    return mean


def _must_fall(parameters: Iterable[nn.Parameter], forward: Callable[[], Tensor]) -> None:
    optimizer = torch.optim.AdamW(list(parameters), lr=0.003, weight_decay=0.0)
    course = []
    with _drawn():
        for _ in range(STEPS):
            loss = forward()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            course.append(float(loss.detach()))
    first, last = course[0], float(np.mean(course[-3:]))
    must(last < first, f"the loss went from {first:.4g} to {last:.4g} in {STEPS} steps")


@contextmanager
def _drawn() -> Iterator[None]:
    """Draw weights and drop-outs from a seed of the kit's own, and leave the caller's alone."""
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(0)
        yield
