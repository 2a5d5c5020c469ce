"""The batch of a bad step: made again and written beside its run, for the user to look at.

Batches are functions of an index, so none has to be kept until its losses are read.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ark_framework.batches import StoreBatches
from ark_framework.errors import MachineError, RunError
from ark_framework.events import StepRecord
from ark_framework.plan import RunPlan, Visit
from ark_framework.pretrain import Losses, NotFinite, State, part_losses
from ark_framework.run import write_text
from ark_framework.runtime import Runtime

# Films or steps that are named where a line has to do; all films are in the file.
NAMED = 3


@dataclass(frozen=True, kw_only=True)
class BadBatches:
    """What a run writes, and says, of its bad steps.

    Attributes:
        folder: The run's.
    """

    folder: Path
    plan: RunPlan
    batches: StoreBatches
    runtime: Runtime

    def skipped(self, records: Sequence[StepRecord], state: State) -> str | None:
        """List the films of the steps that were skipped; return a line on them, if any were.

        Raises:
            MachineError: the disk refuses.
        """
        steps = [record.step for record in records if record.skipped]
        if not steps or not self.runtime.ranks.first:
            return None
        for step in steps:
            self._list_films(step)
        return (
            f"warning: {len(steps)} of the last {len(records)} steps were skipped, their loss or a "
            f"gradient not being finite: {_few(steps)}; {int(state.bad.count.item())} so far of "
            f"{state.bad.allowed} that may be; their films are listed in {self._listing(steps[0])}"
        )

    def ended(self, error: NotFinite, state: State, losses: Losses) -> RunError:
        """Write the batch that ended a run; return the error with its films.

        Every rank takes part, as in the step; the first one writes.
        """
        names = [image for _, _, image in self._films(error.step)]
        told = "are listed in"
        try:
            found = self._losses(error.step, state, losses)
            if self.runtime.ranks.first:
                self._list_films(error.step)
                self._keep(error.step, found)
        except Exception as refused:  # whatever it is, what ended the run is what is told
            why = next(iter(str(refused).splitlines()), type(refused).__name__)
            told = f"could not be listed ({why}) in"
        return RunError(
            f"{error}; its {len(names)} films ({_few(names)}) {told} {self._listing(error.step)}; "
            "skip such steps with --max-bad-steps, or begin another run with a lower optim.lr or "
            "with optim.clip"
        )

    def _listing(self, step: int) -> Path:
        return self.folder / f"bad-batch-{step}.csv"

    def _where(self, step: int) -> tuple[Visit, int]:
        visit = self.plan.visit_of(step)
        return visit, step - visit.first_step

    def _films(self, step: int) -> list[tuple[str, str, str]]:
        return self.batches.films(*self._where(step))

    def _list_films(self, step: int) -> None:
        text = StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("task", "dataset", "image"))
        rows.writerows(self._films(step))
        write_text(self._listing(step), text.getvalue())

    def _keep(self, step: int, found: Mapping[str, Tensor]) -> None:
        """Write both views and the targets, of all ranks, and what was found of their losses."""
        views = self.batches.whole(*self._where(step))
        content = {"student": views.student, "teacher": views.teacher, **found}
        content |= {f"target/{part.task}": part.target for part in views.parts}
        path = self._listing(step).with_suffix(".safetensors")
        try:
            save_file({name: each.cpu().contiguous() for name, each in content.items()}, path)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise MachineError(f"cannot write {path}: {error}") from error

    @torch.no_grad()
    def _losses(self, step: int, state: State, losses: Losses) -> dict[str, Tensor]:
        """Take the step's forward pass again: the weights have not moved since."""
        visit, number = self._where(step)
        names = self.plan.task_names(visit)
        values = torch.zeros(len(names) + 1, device=self.runtime.device)
        self.runtime.seed_step(self.plan.seed, step)
        with closing(self.batches(visit, number)) as batches:
            for piece in next(batches).pieces(self.runtime.piece):
                each, consistency = part_losses(state, piece, losses, self.runtime)
                for part, loss in zip(piece.parts, each, strict=True):
                    values[names.index(part.task)] += loss
                values[-1] += consistency
        self.runtime.ranks.add([values])
        named = (*(f"loss/{name}" for name in names), "consistency")
        return {name: value.clone() for name, value in zip(named, values, strict=True)}


def _few(words: Sequence[object]) -> str:
    return ", ".join(map(str, words[:NAMED])) + (", …" if len(words) > NAMED else "")
