"""Checks of a head."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ark_framework.registry import Registry
from ark_framework.specs import HeadSpec, LabelSchema
from ark_framework.testing.verdict import Check, must, untouched_chance

BATCH, WIDTH, MAP = 4, 24, 5
LABELS = ("first", "second", "third")


def head_gives_logits(_: Registry, spec: HeadSpec) -> None:
    """A head turns features into finite ``(B, labels)`` with gradients everywhere."""
    for head, schema in built(spec):
        out = head(features(spec))
        shape = tuple(out.shape)
        must(shape == (BATCH, 3), f"gave {shape} for {schema.kind}, not ({BATCH}, 3)")
        must(out.isfinite().all(), "gave values that are not finite")
        out.sum().backward()
        still = [name for name, each in head.named_parameters() if each.grad is None]
        must(not still, f"parameter {still[0] if still else ''!r} has no gradient")


def head_takes_any_number_of_labels_and_films(_: Registry, spec: HeadSpec) -> None:
    """One label or fourteen, one film or many: the shape follows."""
    for kind in _kinds(spec):
        for count in (2, 14) if kind == "multiclass" else (1, 14):
            labels = tuple(f"label {number}" for number in range(count))
            schema = LabelSchema(name=f"check-{kind}", kind=kind, labels=labels)  # type: ignore[arg-type]
            with torch.random.fork_rng(devices=[]):
                head = spec.build(WIDTH, schema).eval()
            for films in (1, BATCH):
                shape = tuple(head(features(spec)[:films]).shape)
                must(shape == (films, count), f"gave {shape} for {films} films of {count} labels")


def head_rests_in_eval(_: Registry, spec: HeadSpec) -> None:
    """In eval mode a film's logits depend neither on chance nor on the other films."""
    for head, _schema in built(spec):
        head.eval()
        with torch.no_grad():
            whole, alone = head(features(spec)), head(features(spec)[1:2])
        must(
            torch.allclose(whole[1], alone[0], atol=1e-5),
            "a film's logits change with chance or with the batch that it is in",
        )


def head_can_be_copied(_: Registry, spec: HeadSpec) -> None:
    """A copy, as the teacher is one, gives the same logits, and so do weights put back."""
    for head, schema in built(spec):
        head.eval()
        with torch.random.fork_rng(devices=[]):
            torch.random.manual_seed(1)
            other = spec.build(WIDTH, schema).eval()
        other.load_state_dict(head.state_dict())
        with torch.no_grad():
            first = head(features(spec))
            for made in (copy.deepcopy(head), other):
                must(torch.equal(first, made(features(spec))), "a copy gives other logits")


def head_leaves_chance_alone(_: Registry, spec: HeadSpec) -> None:
    """Building a head may draw its weights, but seeds no generator of NumPy or Python."""
    for kind in _kinds(spec):
        schema = LabelSchema(name=f"check-{kind}", kind=kind, labels=LABELS)  # type: ignore[arg-type]
        with torch.random.fork_rng(devices=[]):
            torch.random.manual_seed(0)
            first = [each.clone() for each in spec.build(WIDTH, schema).parameters()]
            second = [each.clone() for each in spec.build(WIDTH, schema).parameters()]
        random = any(each.std() > 0 for each in first if each.numel() > 1)
        same = all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        must(not (random and same), "build() seeds torch: two heads drawn in turn are the same")
        with torch.random.fork_rng(devices=[]), untouched_chance("build()"):
            state = torch.random.get_rng_state()
            spec.build(WIDTH, schema)
            torch.random.set_rng_state(state)  # its weights are torch's to draw


def built(spec: HeadSpec) -> Iterator[tuple[nn.Module, LabelSchema]]:
    """Yield a head for each classification kind that it serves."""
    for schema in schemas(spec.kinds):
        with torch.random.fork_rng(devices=[]):
            head = spec.build(WIDTH, schema)
        must(isinstance(head, nn.Module), f"build() gave {type(head).__name__}, no nn.Module")
        yield head, schema


def features(spec: HeadSpec) -> Tensor:
    """Return what the head reads, of four films."""
    shape = (BATCH, WIDTH, MAP, MAP) if spec.input == "map" else (BATCH, WIDTH)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def schemas(kinds: Sequence[str]) -> Iterator[LabelSchema]:
    """Yield a schema of three labels for each classification kind."""
    for kind in kinds:
        if kind in ("multilabel", "multiclass"):
            yield LabelSchema(name=f"check-{kind}", kind=kind, labels=LABELS)  # type: ignore[arg-type]


def _kinds(spec: HeadSpec) -> list[str]:
    return [kind for kind in spec.kinds if kind in ("multilabel", "multiclass")]


CHECKS: tuple[Check, ...] = (
    head_gives_logits,
    head_takes_any_number_of_labels_and_films,
    head_rests_in_eval,
    head_can_be_copied,
    head_leaves_chance_alone,
)
