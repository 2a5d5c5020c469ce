"""The progress of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from ark_framework.events import CycleFinished, RunFinished, RunStarted, StepsFlushed
from ark_framework.hooks import hookimpl
from ark_framework.observers import Lines

# Seconds between plain lines, so that a job's log stays readable.
QUIET = 10.0


class Progress:
    """An observer that shows where the run is."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lines = Lines()
        self._spoke = 0.0
        self._bar: Bar | None = None
        self._task = TaskID(0)

    @hookimpl
    def ark_run_started(self, event: RunStarted) -> None:
        """Draw the bar, or say the first line."""
        self._console.print(self._lines.started(event), highlight=False, soft_wrap=True)
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Bar(*columns, console=self._console)
            self._task = self._bar.add_task("", total=event.total_steps, completed=event.step)
            self._bar.start()

    @hookimpl
    def ark_steps_flushed(self, event: StepsFlushed) -> None:
        """Move the bar, or say a line now and then."""
        last = event.steps[-1]
        if self._bar is not None:
            what = (
                f"cycle {last.cycle + 1} {last.task} loss {last.loss:.3f} lr {last.lr:.1e} "
                f"{self._lines.speed(event)}"
            )
            self._bar.update(self._task, completed=last.step + 1, description=what)
        elif monotonic() - self._spoke > QUIET:
            self._spoke = monotonic()
            self._console.print(self._lines.steps(event), highlight=False, soft_wrap=True)

    @hookimpl
    def ark_cycle_finished(self, event: CycleFinished) -> None:
        """Say the validation scores."""
        if event.scores:
            self._console.print(
                self._lines.scores(event.scores, event.cycle), highlight=False, soft_wrap=True
            )

    @hookimpl
    def ark_run_finished(self, event: RunFinished) -> None:
        """Take the bar away."""
        del event
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
