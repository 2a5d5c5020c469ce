"""Config + registry + row counts → one frozen plan; nothing is left to decide after it.

A *visit* is one stay at a task: cyclic pretraining visits every task once a cycle; sequential
pretraining makes the same visits, all of one task before the next; concurrent pretraining visits
all tasks at once, each batch holding the same number of films of each.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ark_framework import schedule
from ark_framework.config import RunConfig, TaskConfig
from ark_framework.corpus import Corpus, options_of
from ark_framework.errors import ConfigError, did_you_mean
from ark_framework.registry import Registry, canonical
from ark_framework.specs import DatasetSpec

RESIDUAL_WARNING = 0.02


@dataclass(frozen=True, kw_only=True)
class TaskPlan:
    """One task with every number decided; ``steps`` per cycle of ``batch_size`` films."""

    name: str
    dataset: str
    kind: str
    labels: tuple[str, ...]
    head: str
    loss: str
    weight: float
    class_weights: tuple[float, ...] | None
    rows: int
    val_rows: int
    test_rows: int
    batch_size: int
    steps: int
    whole_passes: bool
    store: str


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One stay: which tasks, which pass over their films, which global steps."""

    index: int
    cycle: int
    tasks: tuple[int, ...]
    passes: int
    first_step: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """The whole run: visits and schedules.

    ``ema`` says when the teacher follows: at the end of each ``task`` visit, or at each ``step``
    (concurrent).  Momentum and consistency weight are indexed by EMA update.
    """

    strategy: str
    cycles: int
    tasks: tuple[TaskPlan, ...]
    visits: tuple[Visit, ...]
    learning_rate: schedule.LearningRate
    ema: Literal["task", "step"]
    first_momentum: float
    consistency_peak: float
    seed: int

    @cached_property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return sum(visit.steps for visit in self.visits)

    @cached_property
    def updates(self) -> int:
        """EMA updates of the whole run."""
        return self.total_steps if self.ema == "step" else len(self.visits)

    @cached_property
    def _first_steps(self) -> list[int]:
        return [visit.first_step for visit in self.visits]

    def visit_of(self, step: int) -> Visit:
        """Return the visit that a global step belongs to."""
        return self.visits[bisect_right(self._first_steps, step) - 1]

    def cycles_from(self, visit: int) -> range:
        """Return the cycles that are left when ``visit`` is the next one."""
        first = self.visits[visit].cycle if visit < len(self.visits) else self.cycles
        return range(first, self.cycles)

    def passes_by(self, visit: int, visit_step: int, step: int) -> bool:
        """Whether a run of this plan stands there at some time."""
        if visit >= len(self.visits):
            return (visit, visit_step, step) == (len(self.visits), 0, self.total_steps)
        return visit_step <= self.visits[visit].steps and (
            step == self.visits[visit].first_step + visit_step
        )

    def visits_of(self, cycle: int) -> tuple[Visit, ...]:
        """Return the visits of a cycle, in order."""
        return tuple(visit for visit in self.visits if visit.cycle == cycle)

    def task_names(self, visit: Visit) -> tuple[str, ...]:
        """Return the names of the tasks of a visit."""
        return tuple(self.tasks[index].name for index in visit.tasks)

    def lr(self, step: int) -> float:
        """Return the learning rate of a global step."""
        return self.learning_rate.value(step=step, cycle=self.visit_of(step).cycle)

    def momentum(self, update: int) -> float:
        """Return the teacher's momentum of EMA update ``update``, counted from 0."""
        return schedule.momentum(update, self.updates, first=self.first_momentum)

    def consistency_weight(self, update: int) -> float:
        """Return the consistency weight of the steps that lead to EMA update ``update``."""
        return schedule.consistency_weight(update, self.updates, peak=self.consistency_peak)

    def update_of(self, visit: Visit, step: int) -> int:
        """Return the index of the EMA update that a global step leads to."""
        return step if self.ema == "step" else visit.index

    @cached_property
    def residual(self) -> float:
        """Share of its initial weights left in the last teacher: the product of the momenta."""
        return math.prod(self.momentum(update) for update in range(self.updates))

    def remains(self) -> str:
        """Return a line on how much of its start is left in the teacher; a warning if much."""
        left = f"{self.residual:.4f} of the teacher will still be its initial weights"
        if self.residual <= RESIDUAL_WARNING:
            return left
        return (
            f"warning: {left} (more than {RESIDUAL_WARNING}); train more cycles or lower "
            "teacher.momentum"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data: schedules as formula, parameters and per-task values."""
        shown = range(0, self.updates, max(1, self.updates // 2000))
        return {
            "strategy": self.strategy,
            "cycles": self.cycles,
            "total_steps": self.total_steps,
            "seed": self.seed,
            "tasks": [asdict(task) for task in self.tasks],
            "visits": [asdict(visit) for visit in self.visits],
            "learning_rate": {
                "formula": "warm-up: start + t (peak - start) / warmup; then end + (peak - end) / 2"
                " (1 + cos(pi u / L))",
                **asdict(self.learning_rate),
            },
            "momentum": {
                "formula": "1 - (1 - first) / 2 (1 + cos(pi i / updates))",
                "first": self.first_momentum,
                "updates": self.updates,
                "per": self.ema,
                "values": [[update, self.momentum(update)] for update in shown],
            },
            "consistency_weight": {
                "formula": "peak / 2 (1 - cos(pi i / updates))",
                "peak": self.consistency_peak,
                "values": [[update, self.consistency_weight(update)] for update in shown],
            },
            "initial_weights_left_in_teacher": self.residual,
        }


def choose_tasks(
    config: RunConfig, registry: Registry, *, roots: Mapping[str, Path]
) -> tuple[TaskConfig, ...]:
    """Return what trains: ``tasks`` as given, else every classification dataset of the plugins.

    Raises:
        ConfigError: a mask dataset was asked to pretrain, a name is used twice, or none is left.
        DataError: a dataset whose options name its labels has no root.
    """

    asked = config.tasks
    if asked is None:
        asked = tuple(
            TaskConfig(dataset=name)
            for name in named(config, registry)
            if not _holds_masks(registry.dataset(name), config, registry, roots=roots)
        )
    seen: set[str] = set()
    for task in asked:
        spec = registry.dataset(task.dataset)
        if _holds_masks(spec, config, registry, roots=roots):
            raise ConfigError(
                f"task {task.dataset!r}: a mask dataset does not pretrain; leave it out of --tasks"
            )
        name = task.name or task.dataset
        if name in seen:
            raise ConfigError(f"task name {name!r} is used twice; give one of them a name")
        seen.add(name)
    if not asked:
        raise ConfigError(
            "nothing to train: name plugins with --plugins, such as --plugins ark-phantom"
        )
    return asked


def named(config: RunConfig, registry: Registry) -> list[str]:
    """Return the datasets of the plugins that were named, in order."""
    return [
        name
        for name in registry.datasets
        if _is_named(registry.origin("dataset", name).name, config)
    ]


def _holds_masks(
    spec: DatasetSpec, config: RunConfig, registry: Registry, *, roots: Mapping[str, Path]
) -> bool:
    """Whether a dataset has masks and no labels."""
    # Only where the options say what the labels are do they have to be read for it.
    if callable(spec.schema):
        _check_told(spec, config, registry)
    options = options_of(spec, config, roots=roots) if callable(spec.schema) else None
    return registry.schema_of(spec, options).kind == "mask"


def _check_told(spec: DatasetSpec, config: RunConfig, registry: Registry) -> None:
    """Say what to write where ``data`` speaks of other names than the dataset's."""
    other = [name for name in config.data if name not in registry.datasets]
    if other and spec.name not in config.data:
        raise ConfigError(
            f"data.{other[0]}: the named plugins have no dataset {other[0]!r}"
            f"{did_you_mean(other[0], registry.datasets)}; to read it as {spec.name!r} is read, "
            f"say data.{other[0]}.like = {spec.name}"
        )


def resolve(
    config: RunConfig,
    registry: Registry,
    tasks: Sequence[TaskConfig],
    corpora: Mapping[str, Corpus],
) -> RunPlan:
    """Derive every number of the run; the only place that does.

    Raises:
        ConfigError: an unknown head or loss, or one that does not serve the schema's kind.
    """
    plans = tuple(
        _task(config, registry, task, corpora[task.dataset], len(tasks)) for task in tasks
    )
    visits = _visits(config, plans)
    total = sum(visit.steps for visit in visits)
    length = float(total if config.lr.unit == "step" else config.cycles)
    rate = schedule.LearningRate(
        kind=config.lr.schedule,
        unit=config.lr.unit,
        peak=config.optim.lr,
        start=config.lr.start,
        end=config.lr.end,
        warmup=config.lr.warmup * length,
        length=length,
        prefix=config.lr.prefix,
        first_cycle=config.lr.first_cycle,
    )
    return RunPlan(
        strategy=config.strategy,
        cycles=config.cycles,
        tasks=plans,
        visits=visits,
        learning_rate=rate,
        ema="step" if config.strategy == "concurrent" else "task",
        first_momentum=config.teacher.momentum,
        consistency_peak=config.teacher.consistency_peak,
        seed=config.seed,
    )


def _is_named(plugin: str, config: RunConfig) -> bool:
    return plugin in {canonical(name) for name in config.plugins}


def _task(
    config: RunConfig, registry: Registry, task: TaskConfig, corpus: Corpus, count: int
) -> TaskPlan:
    kind = corpus.schema.kind
    by_kind = {"multilabel": config.losses.multilabel, "multiclass": config.losses.multiclass}
    try:
        head = registry.head(task.head or corpus.spec.head, kind=kind)
        loss = registry.loss(task.loss or corpus.spec.loss or by_kind[kind], kind=kind)
    except ConfigError as error:
        raise ConfigError(f"task {task.name or task.dataset!r}: {error}") from error
    rows = len(train_rows(corpus, task, config))
    batch = config.batch_size
    steps = task.steps or math.ceil(rows / batch)
    if config.strategy == "concurrent":
        batch = max(1, config.batch_size // count)
    return TaskPlan(
        name=task.name or task.dataset,
        dataset=task.dataset,
        kind=kind,
        labels=corpus.schema.labels,
        head=head.name,
        loss=loss.name,
        weight=task.weight,
        class_weights=_class_weights(task, corpus, config),
        rows=rows,
        val_rows=len(corpus.rows("val", limit=config.limit)),
        test_rows=len(corpus.rows("test", limit=config.limit)),
        batch_size=batch,
        steps=steps,
        whole_passes=task.steps is None and config.strategy != "concurrent",
        store=corpus.store.fingerprint,
    )


def train_rows(corpus: Corpus, task: TaskConfig, config: RunConfig) -> np.ndarray:
    """Return the table rows that a task trains on, ``(n,)``."""
    limits = [limit for limit in (task.max_rows, config.limit) if limit is not None]
    return corpus.rows("train", limit=min(limits, default=None), seed=config.seed)


def _class_weights(task: TaskConfig, corpus: Corpus, config: RunConfig) -> tuple[float, ...] | None:
    labels = corpus.schema.labels
    if task.class_weights is None:
        return None
    if isinstance(task.class_weights, dict):
        for label in task.class_weights:
            if label not in labels:
                raise ConfigError(
                    f"tasks.{task.dataset}.class_weights: no label {label!r}"
                    f"{did_you_mean(label, labels)}"
                )
        return tuple(float(task.class_weights.get(label, 1.0)) for label in labels)
    targets = corpus.table.targets()[train_rows(corpus, task, config)]
    positives = np.maximum((targets == 1).sum(axis=0), 1)
    negatives = np.maximum((targets == 0).sum(axis=0), 1)
    # A label with a handful of positives would otherwise own the gradient.
    return tuple(float(weight) for weight in np.clip(negatives / positives, 0.01, 100.0))


def _visits(config: RunConfig, tasks: tuple[TaskPlan, ...]) -> tuple[Visit, ...]:
    visits: list[Visit] = []
    step = 0
    count = len(tasks)
    for cycle in range(config.cycles):
        order = list(range(count))
        if config.order == "shuffled":
            order = np.random.default_rng([config.seed, cycle]).permutation(count).tolist()
        stays: list[tuple[int, ...]] = [(index,) for index in order]
        if config.strategy == "concurrent":
            stays = [tuple(range(count))]
        if config.strategy == "sequential":
            # Visit v stays at task v // cycles: the same visits, sorted by task.
            stays = [((cycle * count + index) // config.cycles,) for index in range(count)]
        for stay in stays:
            number = len(visits)
            passes = number % config.cycles if config.strategy == "sequential" else cycle
            steps = sum(tasks[index].steps for index in stay)
            visits.append(
                Visit(
                    index=len(visits),
                    cycle=cycle,
                    tasks=stay,
                    passes=passes,
                    first_step=step,
                    steps=steps,
                )
            )
            step += steps
    return tuple(visits)
