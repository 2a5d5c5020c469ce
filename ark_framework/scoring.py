"""How a model does on a split: predictions, then one score per task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ark_framework.config import RunConfig
from ark_framework.corpus import Corpus, scored_targets
from ark_framework.events import TaskScore
from ark_framework.metrics import score
from ark_framework.model import ArkModel, reestimated
from ark_framework.plan import RunPlan, TaskPlan, Visit
from ark_framework.run import make_folder, write_text
from ark_framework.runtime import Runtime, generator
from ark_framework.views import center

# Films of each task that batch-norm statistics are re-estimated on.
NORM_FILMS = 512
NORM = 4  # purpose of the generator that draws them; beside those of batches.py


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """Scores models on the corpora of a plan.

    Attributes:
        train_rows: By task name; batch-norm statistics are re-estimated on a draw from them.
        between: Called before every batch, equally often on all ranks; what it raises ends the
            scoring.
    """

    plan: RunPlan
    corpora: Mapping[str, Corpus]
    train_rows: Mapping[str, np.ndarray]
    config: RunConfig
    runtime: Runtime
    between: Callable[[], None] = lambda: None

    def rows(self, task: TaskPlan, split: str) -> np.ndarray:
        """Return the rows of a task's split, ``(n,)``."""
        return self.corpora[task.dataset].rows(split, limit=self.config.limit)

    def due(self, visit: Visit) -> bool:
        """Whether validation is scored when a visit has ended."""
        config, cycle = self.config.eval, visit.cycle + 1
        if config.forgetting_every and cycle % config.forgetting_every == 0:
            return True
        ended = visit.index == self.plan.visits_of(visit.cycle)[-1].index
        last = cycle == self.plan.cycles
        return ended and config.every > 0 and (cycle % config.every == 0 or last)

    def scores(
        self, models: Mapping[str, ArkModel], split: str, *, save: Path | None = None
    ) -> tuple[TaskScore, ...]:
        """Score every model on every task that has films in ``split``.

        Args:
            models: By name (``student``, ``teacher``).
            split: ``val`` or ``test``.
            save: Folder for ``<task>-<split>.csv`` with every model's probabilities.
        """
        found: list[TaskScore] = []
        predictions: dict[str, dict[str, np.ndarray]] = {}
        for name, model in models.items():
            with reestimated(model, self._norm_views()):
                for task in self.plan.tasks:
                    rows = self.rows(task, split)
                    if not len(rows):
                        continue
                    probabilities = self.predict(model, task, rows)
                    predictions.setdefault(task.name, {})[name] = probabilities
                    found.append(self._score(task, name, split, rows, probabilities))
        if save is not None:
            for task in self.plan.tasks:
                if task.name in predictions:
                    self._save(task, split, predictions[task.name], save)
        return tuple(found)

    def predict(self, model: ArkModel, task: TaskPlan, rows: np.ndarray) -> np.ndarray:
        """Return probabilities ``(n, C)`` float64 of the central view of table rows."""
        corpus = self.corpora[task.dataset]
        size = self.config.eval.batch_size
        ranks = self.runtime.ranks
        mine = rows[ranks.mine(len(rows))]
        was, outputs = model.training, []
        model.eval()
        with torch.no_grad():
            for start in range(0, -(-len(rows) // ranks.world), size):
                self.between()
                if start >= len(mine):
                    break  # the last film of all is another rank's
                views = self._views(corpus, mine[start : start + size])
                with self.runtime.autocast():
                    logits = model(views, task.name)
                outputs.append(logits.float().cpu().numpy())
        model.train(was)
        logits = torch.from_numpy(ranks.gather(outputs)).double()
        exclusive = task.kind == "multiclass"
        return (logits.softmax(dim=1) if exclusive else logits.sigmoid()).numpy()

    def _score(
        self, task: TaskPlan, model: str, split: str, rows: np.ndarray, probabilities: np.ndarray
    ) -> TaskScore:
        corpus = self.corpora[task.dataset]
        return score(
            task=task.name,
            model=model,
            split=split,
            scores=probabilities,
            targets=scored_targets(corpus.table.targets()[rows], corpus.schema),
            schema=corpus.schema,
        )

    def _norm_views(self) -> Iterator[Tensor]:
        for index, task in enumerate(self.plan.tasks):
            rows = self.train_rows[task.name]
            chosen = generator(self.plan.seed, NORM, index).permutation(len(rows))[:NORM_FILMS]
            for start in range(0, len(chosen), 64):
                self.between()
                batch = rows[np.sort(chosen)[start : start + 64]]
                yield self._views(self.corpora[task.dataset], batch)

    def _views(self, corpus: Corpus, rows: np.ndarray) -> Tensor:
        films = torch.from_numpy(corpus.images(rows)).to(self.runtime.device)
        return center(films, self.config.views.size)

    def _save(
        self, task: TaskPlan, split: str, predictions: Mapping[str, np.ndarray], folder: Path
    ) -> None:
        corpus = self.corpora[task.dataset]
        rows = self.rows(task, split)
        known = ["image", "patient", "sex", *task.labels]
        frame = corpus.table.frame.iloc[rows][known].copy()
        for model, probabilities in predictions.items():
            columns: Sequence[str] = [f"{model}:{label}" for label in task.labels]
            frame[list(columns)] = pd.DataFrame(probabilities, index=frame.index)
        make_folder(folder)
        write_text(folder / f"{task.name}-{split}.csv", frame.to_csv(index=False))
