"""The one way in: batches of views from the stores, in an order that is a function of the index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from time import perf_counter
from typing import Protocol

import numpy as np
import torch

from ark_framework.config import RunConfig
from ark_framework.corpus import Corpus, training_targets
from ark_framework.plan import RunPlan, TaskPlan, Visit
from ark_framework.runtime import Runtime, generator
from ark_framework.views import Views, draw, make_views, part

# What a generator is for; keys of the counter-based streams, never to be renumbered.
ORDER, VIEWS, SOFT = 1, 2, 3


class Batches(Protocol):
    """``batches(visit, start)`` yields the views of a visit from step ``start`` of it on."""

    def __call__(self, visit: Visit, start: int) -> Iterator[Views]:
        """Yield ``visit.steps - start`` batches."""
        ...


class StoreBatches:
    """Batches from stores.

    Args:
        plan: Whose visits will be asked for.
        corpora: By dataset name.
        rows: Training rows of each task, by task name, ``(n,)``.
        config: Views and seed.
        runtime: Device.
    """

    def __init__(
        self,
        plan: RunPlan,
        corpora: Mapping[str, Corpus],
        *,
        rows: Mapping[str, np.ndarray],
        config: RunConfig,
        runtime: Runtime,
    ) -> None:
        self._plan = plan
        self._corpora = corpora
        self._rows = rows
        self._config = config
        self._runtime = runtime
        self.seconds = 0.0  # spent on reading films and making views, since it was last asked
        self._targets = {name: corpus.table.targets() for name, corpus in corpora.items()}
        # The permutations in use; a pass needs one, or two where a fixed number of steps wraps.
        self._order = lru_cache(maxsize=2 * len(plan.tasks))(self._permutation)
        self._soft = lru_cache(maxsize=len(plan.tasks))(self._uniform)

    def __call__(self, visit: Visit, start: int) -> Iterator[Views]:
        """Yield the views of a visit from its step ``start`` on."""
        for step in range(start, visit.steps):
            began = perf_counter()
            views = self._batch(visit, step)
            self.seconds += perf_counter() - began
            yield views

    def waited(self) -> float:
        """Return the seconds that batches have taken since the last call.

        On a GPU this is the host's share: transfers and sampling go on while it works ahead.
        """
        seconds, self.seconds = self.seconds, 0.0
        return seconds

    def _batch(self, visit: Visit, step: int) -> Views:
        films, parts, count = [], [], 0
        for index in visit.tasks:
            task = self._plan.tasks[index]
            rows = self._chosen(index, visit.passes, step, visit.steps)
            films.append(self._corpora[task.dataset].images(rows))
            target = torch.from_numpy(self._target(index, rows, visit.passes))
            parts.append(part(task.name, target, start=count, device=self._runtime.device))
            count += len(rows)
        pixels = torch.from_numpy(np.concatenate(films)).to(self._runtime.device)
        rng = generator(self._plan.seed, VIEWS, visit.tasks[0], visit.passes, step)
        student, teacher = make_views(
            pixels, draw(count, self._config.views, rng), self._config.views
        )
        return Views(student=student, teacher=teacher, parts=tuple(parts))

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
