"""The one way in: batches of views from the stores, in an order that is a function of the index."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from time import perf_counter
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ark_framework.ahead import ahead
from ark_framework.config import RunConfig
from ark_framework.corpus import Corpus, training_targets
from ark_framework.films import Films, Mapped, Resident, fit
from ark_framework.plan import RunPlan, TaskPlan, Visit
from ark_framework.ranks import SINGLE, Ranks
from ark_framework.runtime import Runtime, generator, sent
from ark_framework.views import Draws, Part, Views, draw, make_views, part

# Batches read before they are due where a GPU works meanwhile.  On a CPU reading is next to
# nothing beside making views, and a thread would take its time from the model's.
AHEAD = 2

# What a generator is for; keys of the counter-based streams, never to be renumbered.
ORDER, VIEWS, SOFT = 1, 2, 3


class Batches(Protocol):
    """``batches(visit, start)`` yields the views of a visit from step ``start`` of it on."""

    def __call__(self, visit: Visit, start: int) -> Generator[Views, None, None]:
        """Yield ``visit.steps - start`` batches; close it if it is left early."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Read:
    """A batch on the CPU; ``films`` puts its films on the device."""

    films: Callable[[], Tensor]
    parts: tuple[Part, ...]
    draws: Draws
    count: int
    scarce: bool


class StoreBatches:
    """Batches from stores.

    Args:
        plan: Whose visits will be asked for.
        corpora: By dataset name.
        rows: Training rows of each task, by task name, ``(n,)``.
        config: Views, and whether films stay on the device.
        runtime: Device.
        depth: Batches that a thread reads ahead; 0 = no thread; by the device when absent.
    """

    def __init__(
        self,
        plan: RunPlan,
        corpora: Mapping[str, Corpus],
        *,
        rows: Mapping[str, np.ndarray],
        config: RunConfig,
        runtime: Runtime,
        depth: int | None = None,
    ) -> None:
        self._plan = plan
        self._corpora = corpora
        self._rows = rows
        self._config = config
        self._runtime = runtime
        cuda = runtime.device.type == "cuda"
        self._depth = depth if depth is not None else AHEAD * cuda
        self._films = self._source()
        self.seconds = 0.0  # that the loop waited for batches, since it was last asked
        self._targets = {name: corpus.table.targets() for name, corpus in corpora.items()}
        # The permutations in use; a pass needs one, or two where a fixed number of steps wraps.
        self._order = lru_cache(maxsize=2 * len(plan.tasks))(self._permutation)
        self._soft = lru_cache(maxsize=len(plan.tasks))(self._uniform)

    def __call__(self, visit: Visit, start: int) -> Generator[Views, None, None]:
        """Yield the views of a visit from its step ``start`` on."""
        steps = range(start, visit.steps)
        began = perf_counter()
        read = partial(self._read, visit, ranks=self._runtime.ranks)
        with closing(ahead(read, steps, depth=self._depth)) as batches:
            for batch in batches:
                views = self._views(batch)
                self.seconds += perf_counter() - began
                yield views
                began = perf_counter()

    def whole(self, visit: Visit, step: int) -> Views:
        """Make one batch again, with the films of every rank."""
        return self._views(self._read(visit, step, SINGLE))

    def films(self, visit: Visit, step: int) -> list[tuple[str, str, str]]:
        """Return task, dataset and image of each film of a batch, in its order."""
        found: list[tuple[str, str, str]] = []
        for index in visit.tasks:
            task = self._plan.tasks[index]
            images = self._corpora[task.dataset].table.frame["image"]
            rows = self._chosen(index, visit.passes, step, visit.steps)
            found += [(task.name, task.dataset, image) for image in images.iloc[rows]]
        return found

    def waited(self) -> float:
        """Return the seconds that the loop has waited for batches since the last call.

        On a GPU this is the host's share: transfers and sampling go on while it works ahead.
        """
        seconds, self.seconds = self.seconds, 0.0
        return seconds

    def _source(self) -> Films:
        """Choose where films come from; their bytes are the same."""
        device, wanted = self._runtime.device, self._config.store.resident
        if wanted or (wanted is None and device.type == "cuda"):
            rows: dict[str, np.ndarray] = {}
            for task in self._plan.tasks:
                before = rows.get(task.dataset, np.empty(0, dtype=np.int64))
                rows[task.dataset] = np.union1d(before, self._rows[task.name])
            if wanted or fit(self._corpora, rows, device):
                return Resident(self._corpora, rows, device)
        # Views on a CPU are made before the next batch is read.
        return Mapped(self._corpora, device, reuse=device.type == "cpu" and not self._depth)

    def _read(self, visit: Visit, step: int, ranks: Ranks) -> _Read:
        """Do what needs no device: choose the films, read them, their targets and draws."""
        chosen = [self._chosen(index, visit.passes, step, visit.steps) for index in visit.tasks]
        count = sum(map(len, chosen))
        # Draws and targets are of the global batch; its films are read by the ranks they are for.
        mine = ranks.mine(count)
        wanted, parts, start, here = [], [], 0, 0
        for index, rows in zip(visit.tasks, chosen, strict=True):
            task = self._plan.tasks[index]
            own = mine[(mine >= start) & (mine < start + len(rows))] - start
            wanted.append((task.dataset, rows[own]))
            target = torch.from_numpy(self._target(index, rows, visit.passes))
            parts.append(part(task.name, target, start=here, mine=own))
            start, here = start + len(rows), here + len(own)
        rng = generator(self._plan.seed, VIEWS, visit.tasks[0], visit.passes, step)
        return _Read(
            films=self._films.read(wanted),
            parts=tuple(parts),
            draws=draw(count, self._config.views, rng).of(mine),
            count=count,
            scarce=min(map(len, chosen)) < ranks.world,
        )

    def _views(self, batch: _Read) -> Views:
        """Do the rest on the device, and wait for none of it."""
        device = self._runtime.device
        student, teacher = make_views(
            batch.films(), batch.draws, self._config.views, compiled=self._runtime.compiled
        )
        return Views(
            student=student,
            teacher=teacher,
            parts=tuple(replace(p, target=sent(p.target, device)) for p in batch.parts),
            count=batch.count,
            scarce=batch.scarce,
        )

    def _chosen(self, index: int, passes: int, step: int, steps: int) -> np.ndarray:
        task = self._plan.tasks[index]
        rows = self._rows[task.name]
        if task.whole_passes:
            start = step * task.batch_size
            chosen: np.ndarray = rows[self._order(index, passes)[start : start + task.batch_size]]
            return chosen
        # A fixed number of steps walks along an endless row of permutations.
        where = (passes * steps + step) * task.batch_size + np.arange(task.batch_size)
        turns = where // len(rows)
        picked = [
            self._order(index, int(turn))[where[turns == turn] % len(rows)]
            for turn in np.unique(turns)
        ]
        walked: np.ndarray = rows[np.concatenate(picked)]
        return walked

    def _permutation(self, index: int, turn: int) -> np.ndarray:
        count = len(self._rows[self._plan.tasks[index].name])
        return generator(self._plan.seed, ORDER, index, turn).permutation(count)

    def _target(self, index: int, rows: np.ndarray, passes: int) -> np.ndarray:
        task: TaskPlan = self._plan.tasks[index]
        schema = self._corpora[task.dataset].schema
        raw = self._targets[task.dataset][rows]
        uniform = np.zeros_like(raw)
        if schema.uncertain == "soft" and (raw == -1).any():
            uniform = self._soft(index, passes)[rows]
        return training_targets(raw, schema, uniform)

    def _uniform(self, index: int, passes: int) -> np.ndarray:
        shape = self._targets[self._plan.tasks[index].dataset].shape
        return generator(self._plan.seed, SOFT, index, passes).random(shape, dtype=np.float32)
