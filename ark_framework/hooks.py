"""Where a plugin may speak: the hook specifications of the pluggy project ``ark``.

Providers take nothing and return a list of specs.  Observers are given one frozen event and return
nothing; one that fails is detached with a single warning.  pluggy calls the last registered first,
so no order is ever taken from it.
"""

from __future__ import annotations

import pluggy

from ark_framework import events, specs

PROJECT = "ark"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def ark_label_schemas() -> list[specs.LabelSchema]:  # type: ignore[empty-body]
    """Return the label schemas that others may refer to by name."""


@hookspec
def ark_datasets() -> list[specs.DatasetSpec]:  # type: ignore[empty-body]
    """Return the datasets of this plugin, in the order in which they should train."""


@hookspec
def ark_heads() -> list[specs.HeadSpec]:  # type: ignore[empty-body]
    """Return task heads."""


@hookspec
def ark_losses() -> list[specs.LossSpec]:  # type: ignore[empty-body]
    """Return task losses and consistency losses."""


@hookspec
def ark_backbones() -> list[specs.BackboneSpec]:  # type: ignore[empty-body]
    """Return encoders."""


@hookspec
def ark_run_started(event: events.RunStarted) -> None:
    """Called once before the first step of a run, also when it is resumed."""


@hookspec
def ark_steps_flushed(event: events.StepsFlushed) -> None:
    """Called every ``log.every`` steps and at the end of each task with the buffered steps."""


@hookspec
def ark_task_finished(event: events.TaskFinished) -> None:
    """Called after each visit to a task, when the teacher has been updated."""


@hookspec
def ark_cycle_finished(event: events.CycleFinished) -> None:
    """Called at the end of each cycle."""


@hookspec
def ark_run_finished(event: events.RunFinished) -> None:
    """Called once when the run ends, whether it is complete or failed."""
