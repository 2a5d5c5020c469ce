"""The engine's own loop against the published implementation's arrays."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ark_framework import LabelSchema, schedule
from ark_framework.badsteps import BadSteps
from ark_framework.builtin import backbones, heads, losses
from ark_framework.config import ModelConfig, OptimConfig
from ark_framework.model import ArkModel, HeadPlan
from ark_framework.plan import RunPlan, TaskPlan, Visit
from ark_framework.pretrain import Losses, State, make_optimizer, pretrain
from ark_framework.published import convert
from ark_framework.runtime import Runtime
from ark_framework.teacher import Teacher
from ark_framework.views import Views, part


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One file of reference arrays."""

    arrays: dict[str, np.ndarray]
    config: dict[str, Any]

    @property
    def tasks(self) -> list[str]:
        return [f"task{index}" for index in range(len(self.config["heads"]))]

    def state(self, prefix: str) -> dict[str, torch.Tensor]:
        flat = {
            name.removeprefix(prefix + "/"): torch.from_numpy(np.array(array))
            for name, array in self.arrays.items()
            if name.startswith(prefix + "/")
        }
        return convert(flat, self.tasks)


@pytest.fixture(scope="module")
def reference() -> Reference:
    """The arrays named by ARK_PARITY, or those beside the real data."""
    data = os.environ.get("ARK_REAL_DATA")
    default = Path(data).parent / "reference" / "parity_a.npz" if data else None
    path = Path(os.environ["ARK_PARITY"]) if "ARK_PARITY" in os.environ else default
    if path is None or not path.is_file():
        pytest.skip("no parity file: set ARK_PARITY to one")
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    return Reference(arrays=arrays, config=json.loads(str(arrays.pop("config"))))


def _model(reference: Reference) -> ArkModel:
    config = reference.config
    options = backbones.TimmOptions(
        name="swin_tiny_patch4_window7_224",
        kwargs={
            "img_size": config["img"],
            "patch_size": 4,
            "window_size": config["win"],
            "embed_dim": config["dim"],
            "depths": tuple(config["depths"]),
            "num_heads": tuple(config["nh"]),
            "drop_path_rate": 0.0,
        },
    )
    linear = heads.SPECS[0]
    plans = {
        task: HeadPlan(spec=linear, schema=_schema(task, count))
        for task, count in zip(reference.tasks, config["heads"], strict=True)
    }
    model = ModelConfig(
        projector="mlp" if config["mlp"] else "linear", features=config["proj"], normalize="none"
    )
    return ArkModel(backbones.SPECS[0].build(options), plans, config=model, size=config["img"])


def _schema(task: str, count: int) -> LabelSchema:
    labels = tuple(f"label{index}" for index in range(count))
    return LabelSchema(name=task, kind="multilabel", labels=labels)


def _plan(reference: Reference) -> RunPlan:
    config = reference.config
    steps = config["nb"]
    tasks = tuple(
        TaskPlan(
            name=name,
            dataset=name,
            kind="multilabel",
            labels=(),
            head="linear",
            loss="bce",
            weight=1.0,
            class_weights=None,
            rows=0,
            val_rows=0,
            test_rows=0,
            batch_size=0,
            steps=steps,
            whole_passes=True,
            store="",
        )
        for name in reference.tasks
    )
    visits = tuple(
        Visit(
            index=i,
            cycle=i // len(tasks),
            tasks=(i % len(tasks),),
            passes=i // len(tasks),
            first_step=i * steps,
            steps=steps,
        )
        for i in range(config["cycles"] * len(tasks))
    )
    rate = schedule.LearningRate(
        kind="constant",
        unit="step",
        peak=config["lr"],
        start=0.0,
        end=0.0,
        warmup=0.0,
        length=1.0,
        prefix=True,
        first_cycle=None,
    )
    return RunPlan(
        strategy="cyclic",
        cycles=config["cycles"],
        tasks=tasks,
        visits=visits,
        learning_rate=rate,
        ema="task",
        first_momentum=0.9,
        consistency_peak=0.5,
        seed=0,
    )


class _Sums:
    """Takes the trajectory's two sums after each visit."""

    def __init__(self) -> None:
        self.rows: list[list[float]] = []

    def stepped(self, state: State, visit: Visit) -> None: ...

    def visited(self, state: State, visit: Visit) -> None:
        models = (state.student, state.teacher.model)
        self.rows.append([float(next(m.projector.parameters()).detach().sum()) for m in models])

    def cycled(self, state: State, cycle: int) -> None: ...


def _train(
    reference: Reference,
    *,
    plan: RunPlan | None = None,
    nesterov: bool = False,
    teacher_type: type[Teacher] = Teacher,
) -> tuple[State, _Sums]:
    plan = plan or _plan(reference)
    student = _model(reference)
    student.load_state_dict(reference.state("init_student"))
    teacher = teacher_type(student)
    teacher.model.load_state_dict(reference.state("init_teacher"))
    optim = OptimConfig(lr=reference.config["lr"], momentum=0.9, nesterov=nesterov)
    state = State(
        student=student.train(),
        teacher=teacher,
        optimizer=make_optimizer(student, optim),
        bad=BadSteps(student),
    )

    def batches(visit: Visit, start: int) -> Generator[Views, None, None]:
        for step in range(start, visit.steps):
            arrays = {
                name: torch.from_numpy(reference.arrays[f"batch/{visit.tasks[0]}/{step}/{name}"])
                for name in ("student", "teacher", "target")
            }
            task = reference.tasks[visit.tasks[0]]
            yield Views(
                student=arrays["student"],
                teacher=arrays["teacher"],
                parts=(part(task, arrays["target"]),),
            )

    sums = _Sums()
    pretrain(
        plan,
        state,
        batches,
        losses=Losses(
            tasks={task: losses.SPECS[0].build(None) for task in reference.tasks},
            consistency=losses.SPECS[2].build(None),
        ),
        runtime=Runtime(device=torch.device("cpu"), precision="fp32"),
        watcher=sums,
    )
    return state, sums


def _worst(model: ArkModel, expected: dict[str, torch.Tensor]) -> float:
    actual = model.state_dict()
    assert set(actual) == set(expected)
    return max(
        float(
            (actual[name].double() - expected[name].double()).norm()
            / expected[name].double().norm().clamp_min(1e-12)
        )
        for name in expected
    )


def _error(reference: Reference, state: State) -> float:
    return max(
        _worst(state.student, reference.state("final_student")),
        _worst(state.teacher.model, reference.state("final_teacher")),
    )


def test_initial_student_gives_the_reference_outputs(reference: Reference) -> None:
    """Pooled features, projection and every head's logits agree before training."""
    model = _model(reference)
    model.load_state_dict(reference.state("init_student"))
    with torch.no_grad():
        features = model.eval().encode(torch.from_numpy(reference.arrays["x"]))
    pairs = [(features.pooled, "embed_before_proj"), (features.projected, "embed_after_proj")]
    pairs += [
        (model.classify(task, features), f"head/{i}") for i, task in enumerate(reference.tasks)
    ]
    for actual, name in pairs:
        expected = reference.arrays[name]
        np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=0, atol=1e-5)


def test_final_tensors_and_trajectory(reference: Reference) -> None:
    """Every tensor of student and teacher ends within 1e-5 of its norm, as do the sums between."""
    state, sums = _train(reference)
    assert _error(reference, state) <= 1e-5
    np.testing.assert_allclose(
        sums.rows,
        reference.arrays["trajectory"].reshape(len(sums.rows), -1)[:, :2],
        rtol=1e-5,
        atol=1e-5,
    )


def test_schedules(reference: Reference) -> None:
    """Momentum and consistency weight equal the reference's to 1e-12."""
    plan = _plan(reference)
    for name, values in (("momentum", plan.momentum), ("coef", plan.consistency_weight)):
        expected = reference.arrays[name].ravel()
        actual = [values(index) for index in range(len(expected))]
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)


class _ForgetfulTeacher(Teacher):
    """Mutant: leaves the heads where they were."""

    def update(self, student: ArkModel, momentum: float) -> None:
        kept = {name: each.clone() for name, each in self.model.heads.state_dict().items()}
        super().update(student, momentum)
        self.model.heads.load_state_dict(kept)


class _LatePlan(RunPlan):
    """Mutant: the momentum's index is off by one."""

    def momentum(self, update: int) -> float:
        return super().momentum(update + 1)


@pytest.mark.parametrize(
    "mutant",
    ["no consistency", "EMA every step", "Nesterov", "momentum index", "heads not averaged"],
)
def test_mutants_fail(reference: Reference, mutant: str) -> None:
    """Each of five wrong engines is told apart from the right one."""
    plan = _plan(reference)
    fields = {name: getattr(plan, name) for name in plan.__dataclass_fields__}
    if mutant == "no consistency":
        state, _ = _train(reference, plan=replace(plan, consistency_peak=0.0))
    elif mutant == "EMA every step":
        state, _ = _train(reference, plan=replace(plan, ema="step"))
    elif mutant == "Nesterov":
        state, _ = _train(reference, nesterov=True)
    elif mutant == "momentum index":
        state, _ = _train(reference, plan=_LatePlan(**fields))
    else:
        state, _ = _train(reference, teacher_type=_ForgetfulTeacher)
    error = _error(reference, state)
    assert error > 1e-5
    assert not math.isnan(error)
