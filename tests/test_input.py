"""The path of a batch and the settings for speed: other ways to the same bytes and weights."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ark_framework import checkpoint, model, views
from ark_framework import config as configuration
from ark_framework.ahead import ahead
from ark_framework.badsteps import BadSteps
from ark_framework.batches import StoreBatches
from ark_framework.config import RuntimeConfig, ViewsConfig
from ark_framework.errors import ConfigError, Interrupted, MachineError
from ark_framework.films import Mapped, fit
from ark_framework.plan import Visit
from ark_framework.preparation import Prepared, build_student, make_losses, prepare
from ark_framework.pretrain import State, make_optimizer, pretrain
from ark_framework.runtime import Runtime, open_runtime
from ark_framework.teacher import Teacher
from ark_framework.views import Views, draw, make_views

Small = Callable[..., dict[str, Any]]
CPU = Runtime(device=torch.device("cpu"), precision="fp32")


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("ark-ahead")]


def prepared_of(small: Small, *, model: dict[str, Any] | None = None, **changes: Any) -> Prepared:
    config = small(**changes)
    config["model"] |= model or {}
    config["views"]["size"] = 32 if model else 24  # timm's halve them five times
    return prepare(configuration.parse(config))


def batches_of(prepared: Prepared, *, depth: int | None = None) -> StoreBatches:
    return StoreBatches(
        prepared.plan,
        prepared.corpora,
        rows=prepared.rows,
        config=prepared.config,
        runtime=CPU,
        depth=depth,
    )


def state_of(prepared: Prepared) -> State:
    student = build_student(prepared).train()
    return State(
        student=student,
        teacher=Teacher(student),
        optimizer=make_optimizer(student, prepared.config.optim),
        bad=BadSteps(student),
    )


class Watch:
    """Stops the loop after some steps; until then it keeps what a step has cost."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.seen: list[Tensor] = []

    def stepped(self, state: State, visit: Visit) -> None:
        self.seen.append(state.pending[-1].values.clone())
        if len(self.seen) == self.steps:
            raise Interrupted("enough")

    def visited(self, state: State, visit: Visit) -> None:
        pass

    def cycled(self, state: State, cycle: int) -> None:
        pass


def run(prepared: Prepared, state: State, steps: int, *, depth: int = 0) -> Tensor:
    """Take some steps; return their losses ``(steps, 3)``."""
    watch = Watch(steps)
    with pytest.raises(Interrupted):
        pretrain(
            prepared.plan,
            state,
            batches_of(prepared, depth=depth),
            losses=make_losses(prepared, CPU.device),
            runtime=CPU,
            watcher=watch,
        )
    return torch.stack(watch.seen)


# Reading ahead --------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0, 1, 2, 50])
def test_made_ahead_is_in_order(depth: int) -> None:
    """Every item once, in order, by one thread that is never more than ``depth`` ahead."""
    asked, makers = [], set()

    def items() -> Iterator[int]:
        for item in range(20):
            asked.append(item)
            yield item

    def make(item: int) -> int:
        makers.add(threading.current_thread().name)
        return item * item

    for taken, made in enumerate(ahead(make, items(), depth=depth)):
        assert made == taken * taken
        assert len(asked) == min(taken + depth + 1, 20)
    assert taken == 19
    assert len(makers) == 1
    assert (threading.current_thread().name in makers) == (depth == 0)
    assert not threads()


@pytest.mark.parametrize("depth", [0, 2])
def test_an_error_ahead_reaches_the_loop(depth: int) -> None:
    """It is raised where its item is due, and nothing is left running."""

    def make(item: int) -> float:
        return 1 / (3 - item)

    seen: list[float] = []
    with pytest.raises(ZeroDivisionError):
        seen.extend(ahead(make, range(9), depth=depth))
    assert seen == [1 / 3, 1 / 2, 1.0]
    assert not threads()


def test_a_loop_left_early_leaves_no_thread(small: Small) -> None:
    """Stopped in the middle of a visit, with the error still in hand, nobody reads on."""
    prepared = prepared_of(small)
    before = batches_of(prepared, depth=2)(prepared.plan.visits[0], 0)
    with closing(before):
        next(before)
        assert threads()
    with pytest.raises(Interrupted) as kept:
        pretrain(
            prepared.plan,
            state_of(prepared),
            batches_of(prepared, depth=2),
            losses=make_losses(prepared, CPU.device),
            runtime=CPU,
            watcher=Watch(2),
        )
    assert kept.traceback
    assert not threads()


# Where films come from ------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["cyclic", "concurrent"])
@pytest.mark.parametrize(("depth", "resident"), [(2, False), (0, True), (2, True)])
def test_every_way_gives_the_same_bytes(
    small: Small, strategy: str, depth: int, resident: bool
) -> None:
    """Read ahead or not, from the memory map or from the device: the same batches."""

    def made(depth: int, resident: bool | None) -> list[Views]:
        prepared = prepared_of(
            small,
            strategy=strategy,
            batch_size=18,
            store={"resident": resident},
            tasks=[
                {"dataset": "phantom-north"},
                {"dataset": "phantom-north", "name": "again", "max_rows": 20},
                {"dataset": "phantom-south"},
            ],
        )
        batches = batches_of(prepared, depth=depth)
        return [each for visit in prepared.plan.visits[:3] for each in batches(visit, 0)]

    plain, other = made(0, None), made(depth, resident)
    assert len(plain) == len(other) > 3
    for mine, theirs in zip(plain, other, strict=True):
        assert mine.student.equal(theirs.student)
        assert mine.teacher.equal(theirs.teacher)
        for one, two in zip(mine.parts, theirs.parts, strict=True):
            assert (one.task, one.films, one.annotated) == (two.task, two.films, two.annotated)
            assert one.target.equal(two.target) or one.target.isnan().equal(two.target.isnan())


def test_films_are_read_to_their_places(small: Small) -> None:
    """Films lie in the order asked for, whatever the order on disk, and none is left over."""
    prepared = prepared_of(small)
    source = Mapped(prepared.corpora, CPU.device, reuse=True)
    rng = np.random.default_rng(0)
    for count in (9, 4, 12):
        wanted = [
            (name, rng.permutation(prepared.rows[name])[:count])
            for name in ("phantom-south", "phantom-north")
        ]
        films = [prepared.corpora[name].images(rows) for name, rows in wanted]
        assert np.array_equal(source.read(wanted)().numpy(), np.concatenate(films))


def test_films_stay_off_a_cpu_unless_told(small: Small) -> None:
    """Memory of the CPU holds the map's pages already."""
    prepared = prepared_of(small)
    assert not fit(prepared.corpora, prepared.rows, CPU.device)


def test_a_batch_asks_nothing_of_the_device(small: Small) -> None:
    """Up to the gradients no number is read back: on a device without numbers it would fail."""
    prepared = prepared_of(small, strategy="concurrent", views={"photometry_p": 1.0})
    meta = Runtime(device=torch.device("meta"), precision="fp32")
    for resident in (False, True):
        store = prepared.config.store.model_copy(update={"resident": resident})
        batches = StoreBatches(
            prepared.plan,
            prepared.corpora,
            rows=prepared.rows,
            config=prepared.config.model_copy(update={"store": store}),
            runtime=meta,
        )
        batch = next(batches(prepared.plan.visits[0], 0))
        assert batch.student.shape == batch.teacher.shape == (batch.films, 1, 24, 24)
        student = build_student(prepared).to("meta")
        losses = make_losses(prepared, meta.device)
        features = student.encode(batch.student)
        known = Teacher(student).project(batch.teacher)
        parts = [
            losses.of_part(student.classify(p.task, features, p.films), p) for p in batch.parts
        ]
        total = torch.stack([*parts, losses.consistency(features.projected, known).sum()]).sum()
        total.backward()  # type: ignore[no-untyped-call]
        assert all(each.grad is not None for each in student.parameters())


# Views ----------------------------------------------------------------------------------------


def films(count: int = 9, size: int = 40) -> Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, 1, size, size), dtype=np.uint8))


@pytest.mark.parametrize(
    "changes", [{}, {"teacher": "whole"}, {"teacher_sampling": "nearest"}], ids=str
)
def test_views_by_few_are_views_at_once(changes: dict[str, Any]) -> None:
    """What a GPU does in large steps is what a CPU does film by film, with every kind of tone."""
    config = ViewsConfig(size=32, photometry_p=0.7, **changes)
    draws = draw(9, config, np.random.default_rng(1))
    assert (draws.gamma != 1).any()
    assert (draws.gain != 1).any()
    assert ((draws.gamma == 1) & (draws.gain == 1)).any()
    geometry, tone = map(torch.from_numpy, draws.numbers())
    whole = views._at_once(films(), geometry, tone, 32, config.teacher, config.teacher_sampling)
    for mine, theirs in zip(make_views(films(), draws, config), whole, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-7, rtol=0)


def test_the_grid_is_the_affine_map() -> None:
    """Sampling points are those of torch's ``affine_grid``, to the rounding of a float."""
    geometry = torch.from_numpy(draw(9, ViewsConfig(), np.random.default_rng(2)).geometry)
    exact = functional.affine_grid(geometry.double(), [9, 1, 31, 31], align_corners=False)
    torch.testing.assert_close(views.grid(geometry, 31).double(), exact, atol=3e-7, rtol=0)


# Settings -------------------------------------------------------------------------------------


def test_products_are_exact_unless_told() -> None:
    """TF32 is off for products and convolutions alike, also after a run that had it on."""

    def set_(tf32: bool) -> tuple[str, bool]:
        open_runtime(RuntimeConfig(device="cpu", tf32=tf32))
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    try:
        assert set_(True) == ("high", True)
    finally:
        assert set_(False) == ("highest", False)


TIMM = {
    "backbone": "timm",
    "options": {"name": "convnext_atto", "kwargs": {"depths": [1] * 4, "dims": [8] * 4}},
}


def test_channels_last_stays_inside(small: Small, tmp_path: Path) -> None:
    """Files hold the usual format, go into a run of either format, and both go on alike."""
    last = prepared_of(small, model=TIMM, runtime={"channels_last": True})
    plain = prepared_of(small, model=TIMM)
    layouts, losses = [], []
    for writer in (last, plain):
        state = state_of(writer)
        layouts.append([p.is_contiguous() for p in state.student.parameters()])
        assert [p.is_contiguous() for p in state.teacher.model.parameters()] == layouts[-1]
        run(writer, state, 3)
        path = tmp_path / "a.pt"
        checkpoint.save(path, state, {})
        content = checkpoint.load(path)
        momenta = [each["momentum_buffer"] for each in content["optimizer"]["state"].values()]
        held = [*content["student"].values(), *content["teacher"].values(), *momenta]
        assert all(each.is_contiguous() for each in held)
        for reader in (last, plain):
            again = state_of(reader)
            checkpoint.restore(again, checkpoint.load(path), path=path)
            for parameter, kept in again.optimizer.state.items():
                assert kept["momentum_buffer"].stride() == parameter.stride()
            losses.append(run(reader, again, 3))
    assert not all(layouts[0])
    assert all(layouts[1])
    for each in losses[1:]:
        torch.testing.assert_close(each, losses[0], atol=1e-5, rtol=1e-4)


def test_resumed_with_channels_last(small: Small, tmp_path: Path) -> None:
    """Stopped and resumed it ends with the bytes of a run that was left alone."""
    prepared = prepared_of(small, model=TIMM, runtime={"channels_last": True})
    whole, broken = state_of(prepared), state_of(prepared)
    losses = run(prepared, whole, 6)
    first = run(prepared, broken, 3)
    checkpoint.save(tmp_path / "a.pt", broken, {})
    again = state_of(prepared)
    checkpoint.restore(again, checkpoint.load(tmp_path / "a.pt"), path=tmp_path / "a.pt")
    assert torch.cat([first, run(prepared, again, 3)]).equal(losses)
    for name, value in whole.student.state_dict().items():
        assert value.equal(again.student.state_dict()[name]), name


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_weights_have_the_same_names(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """Student, teacher and a file know nothing of it, and the numbers are those of plain code."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend, fullgraph=True))
    model._compiled_maps.cache_clear()
    prepared = prepared_of(small, runtime={"compile": True})
    plain = prepared_of(small)
    state, other = state_of(prepared), state_of(plain)
    assert state.student.compiled
    assert state.teacher.model.compiled
    assert not other.student.compiled
    torch.testing.assert_close(run(prepared, state, 4), run(plain, other, 4), atol=1e-4, rtol=1e-4)
    assert model._compiled_maps.cache_info().misses == 1
    assert state.student.state_dict().keys() == other.student.state_dict().keys()
    checkpoint.save(tmp_path / "a.pt", state, {})
    checkpoint.restore(other, checkpoint.load(tmp_path / "a.pt"), path=tmp_path / "a.pt")
    model._compiled_maps.cache_clear()


def test_compiled_views_are_the_views() -> None:
    """What a GPU compiles is one graph with the numbers of the plain code."""
    config = ViewsConfig(size=32, photometry_p=0.7)
    geometry, tone = map(torch.from_numpy, draw(9, config, np.random.default_rng(1)).numbers())
    compiled = torch.compile(views._at_once, backend="eager", fullgraph=True)
    made, plain = (
        make(films(), geometry, tone, 32, config.teacher, config.teacher_sampling)
        for make in (compiled, views._at_once)
    )
    for mine, theirs in zip(made, plain, strict=True):
        assert mine.equal(theirs)


def test_without_a_compiler_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said before anything is read, with what to do."""

    def broken(_: object) -> object:
        raise RuntimeError("no C++ compiler was found\nand so on")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(MachineError, match=r"^runtime.compile: .*no C\+\+ compiler") as error:
        open_runtime(RuntimeConfig(device="cpu", compile=True))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "encoder",
    [
        TIMM,
        {
            "backbone": "timm",
            "options": {
                "name": "vit_tiny_patch16_224",
                "kwargs": {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 24},
            },
        },
    ],
    ids=["convnext", "vit"],
)
def test_checkpointing_keeps_less_and_gives_the_same(small: Small, encoder: dict[str, Any]) -> None:
    """Fewer numbers are kept for the backward pass; gradients and names are the same."""
    kept, gradients = [], []
    for on in (False, True):
        prepared = prepared_of(small, model={**encoder, "checkpointing": on})
        student = build_student(prepared).train()
        size = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal size
            size += 0 if isinstance(tensor, torch.nn.Parameter) else tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = student.encode(torch.linspace(0, 1, 4096).view(4, 1, 32, 32)).projected.sum()
        kept.append(size)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients.append({n: p.grad for n, p in student.named_parameters() if p.grad is not None})
    assert kept[1] < 0.8 * kept[0]
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_checkpointing_is_refused_where_there_is_none(small: Small) -> None:
    """A backbone that keeps its activations anyway is named."""
    with pytest.raises(ConfigError, match=r"^model.checkpointing: the backbone 'tiny'"):
        build_student(prepared_of(small, model={"checkpointing": True}))
