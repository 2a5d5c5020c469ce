"""The conformance kit: what a plugin must hold, checked without any data of its own.

In a plugin's tests::

    from ark_framework.testing import conformance

    test_conformance = conformance("ark-mine")

or ``ark plugins check ark-mine`` on the command line.  Every check is a plain function over one
spec that returns when all is well and raises :class:`Failed` with what is wrong and what to do.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ark_framework import registry as plugins
from ark_framework.annotations import AnnotationTable, validate
from ark_framework.errors import ArkError
from ark_framework.packing import ensure
from ark_framework.registry import Registry
from ark_framework.specs import BackboneSpec, DatasetSpec, HeadSpec, LabelSchema, LossSpec

BATCH = 4
WIDTH = 24
SIDE = 64


class Failed(AssertionError):
    """A check that did not hold."""


class Skipped(Exception):
    """A check that does not apply; its text says why."""


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What one check found: ``name`` is ``<kind> <spec>: <check>``."""

    name: str
    ok: bool
    message: str = ""
    skipped: bool = False


Check = Callable[[Registry, Any], None]


def check_plugin(name: str) -> list[CheckResult]:
    """Run every check that applies to a plugin.

    Args:
        name: As after ``--plugins``.

    Raises:
        ConfigError: it is not installed.
        PluginError: it cannot be loaded.
    """
    registry, found = _subjects(name)
    return [_run(check, registry, kind, spec) for kind, spec, check in found]


def conformance(name: str) -> Callable[..., None]:
    """Return a pytest test with one case per check of the plugin; needs pytest."""
    import pytest

    registry, found = _subjects(name)
    names = [_title(kind, spec, check) for kind, spec, check in found]

    @pytest.mark.parametrize(("kind", "spec", "check"), found, ids=names)
    def test(kind: str, spec: Any, check: Check) -> None:
        result = _run(check, registry, kind, spec)
        if result.skipped:
            pytest.skip(result.message)
        assert result.ok, result.message

    return cast("Callable[..., None]", test)


def _subjects(name: str) -> tuple[Registry, list[tuple[str, Any, Check]]]:
    registry = plugins.load([name])
    own = plugins.canonical(name)
    tables: dict[str, Mapping[str, Any]] = {
        "dataset": registry.datasets,
        "head": registry.heads,
        "loss": registry.losses,
        "backbone": registry.backbones,
    }
    found: list[tuple[str, Any, Check]] = []
    for record in registry.plugins:
        if record.name == own:
            found += [("plugin", record, check) for check in CHECKS["plugin"]]
    for kind, table in tables.items():
        for spec in table.values():
            if registry.origin(kind, spec.name).name == own:
                found += [(kind, spec, check) for check in CHECKS[kind]]
    return registry, found


def _title(kind: str, spec: Any, check: Check) -> str:
    return f"{kind} {spec.name}: {check.__name__.replace('_', ' ')}"


def _run(check: Check, registry: Registry, kind: str, spec: Any) -> CheckResult:
    name = _title(kind, spec, check)
    try:
        check(registry, spec)
    except Skipped as reason:
        return CheckResult(name=name, ok=True, skipped=True, message=str(reason))
    except (Failed, ArkError) as error:
        return CheckResult(name=name, ok=False, message=" ".join(str(error).split()))
    except Exception as error:  # a plugin's code may raise anything
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return CheckResult(name=name, ok=False, message=text[:400])
    return CheckResult(name=name, ok=True)


def _must(holds: object, otherwise: str) -> None:
    if not holds:
        raise Failed(otherwise)


# A whole plugin ----------------------------------------------------------------------------------


def hooks_are_pure(registry: Registry, record: plugins.PluginRecord) -> None:
    """Calling a provider hook twice gives the same names in the same order."""
    again = plugins.load([record.name])
    for kind in ("datasets", "heads", "losses", "backbones", "schemas"):
        first, second = list(getattr(registry, kind)), list(getattr(again, kind))
        _must(first == second, f"{kind} were {first} and then {second}; return the same each time")


def importing_it_brings_no_torch(_: Registry, record: plugins.PluginRecord) -> None:
    """Importing the plugin is light: torch is imported inside ``build``."""
    module = record.module.partition(":")[0].strip()
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    _must(done.returncode == 0, f"importing {module} imports torch; import it inside build()")


# Datasets ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Miniature:
    """A dataset's own fixture, read and validated."""

    folder: Path
    options: Any
    schema: LabelSchema
    table: AnnotationTable


def _miniature(registry: Registry, spec: DatasetSpec, folder: Path) -> _Miniature:
    options = spec.fixture(folder)
    _must(
        isinstance(options, spec.options),
        f"fixture() returned {type(options).__name__}, not {spec.options.__name__}",
    )
    schema = registry.schema_of(spec, options)
    table = validate(spec.read(options), dataset=spec.name, schema=schema)
    return _Miniature(folder=folder, options=options, schema=schema, table=table)


def read_gives_a_valid_table(registry: Registry, spec: DatasetSpec) -> None:
    """``read`` of the fixture passes the core's validation."""
    with TemporaryDirectory() as folder:
        _miniature(registry, spec, Path(folder))


def read_is_deterministic(registry: Registry, spec: DatasetSpec) -> None:
    """Reading twice gives the same table, and no global random state is used."""
    with TemporaryDirectory() as folder:
        mini = _miniature(registry, spec, Path(folder))
        before = _global_draws()
        frame = validate(spec.read(mini.options), dataset=spec.name, schema=mini.schema).frame
        _must(before == _global_draws(), "read() draws from a global random generator")
        _must(frame.equals(mini.table.frame), "read() gave another table the second time")


def _global_draws() -> str:
    """Return the state of NumPy's and Python's global generators as text."""
    return f"{np.random.get_state(legacy=False)}{random.getstate()}"  # noqa: NPY002 - it is checked


def every_label_is_seen_both_ways(registry: Registry, spec: DatasetSpec) -> None:
    """The fixture holds a 1 and a 0 of each label, so that label order is proven by tests."""
    with TemporaryDirectory() as folder:
        mini = _miniature(registry, spec, Path(folder))
        if mini.schema.kind == "mask":
            raise Skipped("masks have no label columns")
        for label, column in zip(mini.schema.labels, mini.table.targets().T, strict=True):
            for value in (0, 1):
                _must((column == value).any(), f"the fixture has no film with {label!r} = {value}")


def splits_are_usable(registry: Registry, spec: DatasetSpec) -> None:
    """The fixture has train and test films, and no patient in two splits."""
    with TemporaryDirectory() as folder:
        table = _miniature(registry, spec, Path(folder)).table
        for split in ("train", "test"):
            _must(len(table.rows(split)), f"the fixture has no {split} films")
        used = table.frame[table.frame["split"].notna()]
        spread = used.groupby("patient")["split"].nunique()
        both = spread[spread > 1]
        _must(both.empty, f"patient {both.index[0]!r} is in two splits" if len(both) else "")


def films_can_be_packed(registry: Registry, spec: DatasetSpec) -> None:
    """Every film of the fixture decodes, and none is blank."""
    with TemporaryDirectory() as folder:
        mini = _miniature(registry, spec, Path(folder) / "data")
        images = mini.table.frame["image"].tolist()
        store = ensure(
            spec,
            mini.options,
            images,
            folder=Path(folder) / "stores",
            size=32,
            fit="squash",
            workers=1,
        )
        flat = np.asarray(store.images).reshape(len(images), -1)
        blank = np.flatnonzero(flat.min(axis=1) == flat.max(axis=1))
        _must(not len(blank), f"film {images[blank[0]] if len(blank) else ''!r} is blank")


def reading_changes_no_file(registry: Registry, spec: DatasetSpec) -> None:
    """``read`` writes nothing below the root: a user's data are only read."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        options = spec.fixture(folder)
        before = _listing(folder)
        spec.read(options)
        changed = sorted(before ^ _listing(folder))
        _must(not changed, f"read() changed {changed[0][0] if changed else ''!r} below its root")
    del registry


def _listing(folder: Path) -> set[tuple[str, int, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        (path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
        for path in files
    }


def options_refuse_unknown_keys(_: Registry, spec: DatasetSpec) -> None:
    """A misspelt option is an error, not silence."""
    _must(
        spec.options.model_config.get("extra") == "forbid",
        f'{spec.options.__name__} must have model_config = ConfigDict(extra="forbid")',
    )


def defaults_exist(registry: Registry, spec: DatasetSpec) -> None:
    """The dataset's default head and loss can be had and serve its kind."""
    with TemporaryDirectory() as folder:
        schema = _miniature(registry, spec, Path(folder)).schema
    if schema.kind == "mask":
        raise Skipped("masks are not pretrained on")
    registry.head(spec.head, kind=schema.kind)
    if spec.loss:
        registry.loss(spec.loss, kind=schema.kind)


def masks_fit_their_films(registry: Registry, spec: DatasetSpec) -> None:
    """``read_mask`` gives bool ``(K, H, W)``, one structure per label."""
    with TemporaryDirectory() as folder:
        mini = _miniature(registry, spec, Path(folder))
        if mini.schema.kind != "mask" or spec.read_mask is None:
            raise Skipped("not a mask dataset")
        row = next(mini.table.frame.head(1).itertuples(index=False))
        mask = spec.read_mask(row, mini.options)
        kind = f"{getattr(mask, 'dtype', type(mask).__name__)} {getattr(mask, 'shape', '')}"
        good = getattr(mask, "dtype", None) == np.dtype(bool) and mask.ndim == 3
        _must(good and len(mask) == len(mini.schema.labels), f"read_mask gave {kind}")


def the_card_is_filled_in(_: Registry, spec: DatasetSpec) -> None:
    """Users learn from the card where a dataset comes from and on what terms."""
    for name in ("title", "home", "licence", "citation"):
        _must(str(getattr(spec.card, name)).strip(), f"card.{name} is empty")


# Heads, losses, backbones ------------------------------------------------------------------------


def _schemas(kinds: Sequence[str]) -> Iterator[LabelSchema]:
    for kind in kinds:
        if kind in ("multilabel", "multiclass"):
            labels = ("first", "second", "third")
            yield LabelSchema(name=f"check-{kind}", kind=kind, labels=labels)  # type: ignore[arg-type]


def _target(schema: LabelSchema) -> Tensor:
    """Return targets ``(4, 3)`` whose last row is not annotated at all."""
    target = torch.eye(3)[torch.tensor([0, 1, 2, 0])]
    if schema.kind == "multilabel":
        target[1, 2] = torch.nan
    target[3] = torch.nan
    return target


def head_gives_logits(_: Registry, spec: HeadSpec) -> None:
    """A head turns features into finite ``(B, labels)`` with gradients everywhere."""
    shape = (BATCH, WIDTH, 5, 5) if spec.input == "map" else (BATCH, WIDTH)
    for schema in _schemas(spec.kinds):
        with torch.random.fork_rng(devices=[]):
            head = spec.build(WIDTH, schema)
            _must(isinstance(head, nn.Module), f"build() gave {type(head).__name__}, no nn.Module")
            out = head(torch.randn(shape))
        _must(
            tuple(out.shape) == (BATCH, 3),
            f"gave {tuple(out.shape)} for {schema.kind}, not ({BATCH}, 3)",
        )
        _must(out.isfinite().all(), "gave values that are not finite")
        out.sum().backward()
        still = [name for name, each in head.named_parameters() if each.grad is None]
        _must(not still, f"parameter {still[0] if still else ''!r} has no gradient")


def loss_is_unreduced(_: Registry, spec: LossSpec) -> None:
    """A loss gives ``(B, labels)`` or ``(B,)``, finite; the core reduces it."""
    for loss, out, target in _losses(spec):
        value = loss(out, target)
        shape = tuple(value.shape)
        _must(
            shape in ((BATCH,), tuple(out.shape)),
            f"gave {shape}; return the loss of each entry, unreduced",
        )
        _must(value.isfinite().all(), "gave values that are not finite")


def loss_ignores_what_is_not_annotated(_: Registry, spec: LossSpec) -> None:
    """Where the target is NaN both the loss and its gradient are exactly zero."""
    _not_for_consistency(spec)
    for loss, out, target in _losses(spec):
        unknown = target.isnan()
        value = loss(out, target)
        _must(value[3].abs().sum() == 0, "a film without annotations has a loss")
        if value.ndim == 2:
            _must((value[unknown] == 0).all(), "an entry that is not annotated has a loss")
        value.sum().backward()
        gradient = out.grad
        _must(
            gradient is not None and gradient.isfinite().all(),
            "the gradient is not finite where an entry is not annotated",
        )
        dead = unknown if value.ndim == 2 else unknown.all(dim=1)
        _must(
            gradient is not None and (gradient[dead] == 0).all(),
            "an entry that is not annotated has a gradient",
        )


def loss_survives_an_empty_batch(_: Registry, spec: LossSpec) -> None:
    """With nothing annotated the loss is zero and still has a graph."""
    _not_for_consistency(spec)
    for loss, out, target in _losses(spec):
        value = loss(out, torch.full_like(target, torch.nan)).sum()
        _must(value.requires_grad, "is cut from the graph when nothing is annotated")
        value.backward()
        _must(value == 0, "is not zero when nothing is annotated")


def loss_depends_on_its_target(_: Registry, spec: LossSpec) -> None:
    """The loss falls when the output moves towards the target."""
    for loss, out, target in _losses(spec):
        good, bad = _towards(spec, out, target)
        lower, higher = loss(good, target).sum(), loss(bad, target).sum()
        _must(bool(lower < higher), f"is {lower:.3g} for right outputs and {higher:.3g} for wrong")


def _losses(spec: LossSpec) -> Iterator[tuple[Any, Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for schema in _schemas(spec.kinds):
        out = torch.randn(BATCH, 3, generator=generator)
        yield spec.build(schema), out.requires_grad_(), _target(schema)
    if "consistency" in spec.kinds:
        out = torch.randn(BATCH, WIDTH, generator=generator)
        yield (
            spec.build(None),
            out.requires_grad_(),
            torch.randn(BATCH, WIDTH, generator=generator),
        )


def _towards(spec: LossSpec, out: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if "consistency" in spec.kinds and target.shape[1] == WIDTH:
        return target.clone(), -target
    sign = target.nan_to_num() * 2 - 1
    return (sign * 4).reshape(out.shape), (-sign * 4).reshape(out.shape)


def _not_for_consistency(spec: LossSpec) -> None:
    if spec.kinds == ("consistency",):
        raise Skipped("a consistency loss has no targets")


def backbone_keeps_its_contract(_: Registry, spec: BackboneSpec) -> None:
    """Maps ``(B, C, H, W)`` finest first, pooled ``(B, D)``, ``in_chans``, gradients everywhere."""
    with torch.random.fork_rng(devices=[]):
        model, side = _small(spec)
        views = torch.randn(2, model.in_chans, side, side)
    maps = model.forward_maps(views)
    _must(isinstance(maps, list) and len(maps), "forward_maps must return a list of maps")
    sizes = [tuple(each.shape) for each in maps]
    _must(all(len(size) == 4 and size[0] == 2 for size in sizes), f"forward_maps gave {sizes}")
    heights = [size[2] for size in sizes]
    _must(heights == sorted(heights, reverse=True), f"maps must go from fine to coarse: {heights}")
    pooled = model.pool(maps[-1])
    _must(pooled.ndim == 2 and len(pooled) == 2, f"pool gave {tuple(pooled.shape)}, not (B, D)")
    pooled.square().sum().backward()
    still = [n for n, each in model.named_parameters() if each.requires_grad and each.grad is None]
    _must(not still, f"parameter {still[0] if still else ''!r} has no gradient")


def backbone_rests_in_eval(_: Registry, spec: BackboneSpec) -> None:
    """In eval mode a film's features depend neither on chance nor on the other films."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model, side = _small(spec)
        model.eval()
        views = torch.randn(3, model.in_chans, side, side)
        whole = model.pool(model.forward_maps(views)[-1])
        alone = model.pool(model.forward_maps(views[1:2])[-1])
    distance = (whole[1] - alone[0]).norm() / alone.norm().clamp_min(1e-9)
    _must(distance < 1e-3, "a film's features change with the batch that it is in")


# timm's spec is any model; the kit builds a small one that takes the kit's side.
_SMALL: dict[str, tuple[dict[str, Any], int]] = {"timm": ({"name": "resnet10t"}, SIDE)}


def _small(spec: BackboneSpec) -> tuple[Any, int]:
    values, side = _SMALL.get(spec.name, ({}, SIDE))
    model = spec.build(spec.options.model_validate(values))
    _must(isinstance(model, nn.Module), f"build() gave {type(model).__name__}, no nn.Module")
    _must(getattr(model, "in_chans", None) in (1, 3), "in_chans must be 1 or 3")
    return model, side


CHECKS: dict[str, tuple[Check, ...]] = {
    "plugin": (hooks_are_pure, importing_it_brings_no_torch),
    "dataset": (
        read_gives_a_valid_table,
        read_is_deterministic,
        reading_changes_no_file,
        every_label_is_seen_both_ways,
        splits_are_usable,
        films_can_be_packed,
        masks_fit_their_films,
        defaults_exist,
        options_refuse_unknown_keys,
        the_card_is_filled_in,
    ),
    "head": (head_gives_logits,),
    "loss": (
        loss_is_unreduced,
        loss_ignores_what_is_not_annotated,
        loss_survives_an_empty_batch,
        loss_depends_on_its_target,
    ),
    "backbone": (backbone_keeps_its_contract, backbone_rests_in_eval),
}

__all__ = ["CHECKS", "CheckResult", "Failed", "Skipped", "check_plugin", "conformance"]
