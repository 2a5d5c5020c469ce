"""Plugins, data, plan, student and losses of a run, before its first step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ark_framework import registry as plugins
from ark_framework.config import RunConfig, TaskConfig
from ark_framework.corpus import Corpus, Progress, open_corpus
from ark_framework.errors import ConfigError, DataError
from ark_framework.exposure import Exposure, record
from ark_framework.leaks import LeakRecord, repeat, settle
from ark_framework.linked import linked
from ark_framework.model import ArkModel, HeadPlan
from ark_framework.plan import RunPlan, choose_tasks, resolve, train_rows
from ark_framework.pretrain import Losses
from ark_framework.registry import Registry
from ark_framework.roots import check_names
from ark_framework.runtime import seeded


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A run with its data opened and everything decided, before the first step."""

    config: RunConfig
    registry: Registry
    tasks: tuple[TaskConfig, ...]
    corpora: Mapping[str, Corpus]
    rows: Mapping[str, np.ndarray]
    plan: RunPlan
    leaks: LeakRecord


def prepare(
    config: RunConfig,
    *,
    roots: Mapping[str, Path] | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    begun: LeakRecord | None = None,
) -> Prepared:
    """Load the plugins, open the data, audit it and resolve the plan; no model is built.

    Args:
        config: The configuration.
        roots: Roots by dataset name, over those of the configuration.
        progress: ``progress(dataset, done, total)`` while films are packed.
        say: Called with one-line notices.
        begun: What a run that is resumed left out when it began; the audit is not made again.

    Raises:
        DataError: among much else, a training film is held out in a dataset that is known here.
    """
    say = say or (lambda _: None)
    registry = plugins.load(config.plugins)
    check_names(roots or {}, registry.datasets)
    tasks = choose_tasks(config, registry, roots=roots or {})
    corpora = _opened(config, registry, tasks, roots=roots or {}, progress=progress, say=say)
    if begun is None:
        others = linked(
            config, registry, tuple(corpora), roots=roots or {}, progress=progress, say=say
        )
        corpora, leaks = settle(corpora, others, config.leaks, say=say)
    else:
        corpora, leaks = repeat(corpora, begun), begun
    for corpus in corpora.values():
        _must_train(corpus)
    plan = resolve(config, registry, tasks, corpora)
    rows = {
        task.name or task.dataset: train_rows(corpora[task.dataset], task, config) for task in tasks
    }
    return Prepared(
        config=config,
        registry=registry,
        tasks=tasks,
        corpora=corpora,
        rows=rows,
        plan=plan,
        leaks=leaks,
    )


def _opened(
    config: RunConfig,
    registry: Registry,
    tasks: Sequence[TaskConfig],
    *,
    roots: Mapping[str, Path],
    progress: Progress | None,
    say: Callable[[str], None],
) -> dict[str, Corpus]:
    """Open each task's dataset once, and say what was made or left out of it."""
    corpora: dict[str, Corpus] = {}
    for name in dict.fromkeys(task.dataset for task in tasks):
        corpus = open_corpus(
            registry.dataset(name), registry, config, roots=roots, progress=progress
        )
        corpora[name] = corpus
        if corpus.made_validation:
            say(
                f"{name}: no validation split of its own; {corpus.made_validation} films of "
                f"{config.validation.fraction:.0%} of the training patients were set aside"
            )
        if corpus.store.bad:
            say(f"{name}: {len(corpus.store.bad)} unreadable films are left out")
    return corpora


def exposure_of(prepared: Prepared) -> Exposure:
    """Return the record of the films and patients that a run trains on."""
    rows: dict[str, list[np.ndarray]] = {}
    for task in prepared.tasks:
        rows.setdefault(task.dataset, []).append(prepared.rows[task.name or task.dataset])
    return record(prepared.corpora, rows)


def _must_train(corpus: Corpus) -> None:
    if not len(corpus.rows("train")):
        held = corpus.table.frame["split"].value_counts().to_dict()
        raise DataError(f"{corpus.name}: no training films; its splits hold {held}")


def build_student(prepared: Prepared, *, draw: int = 0) -> ArkModel:
    """Build the student; its initial weights are a function of the seed and ``draw``.

    Raises:
        ConfigError: the backbone cannot do what is asked of it.
        MachineError: pretrained weights were asked for and are not here.
    """
    config, registry = prepared.config, prepared.registry
    spec = registry.backbone(config.model.backbone)
    values = dict(config.model.options)
    if config.model.init != "random":
        values["pretrained"] = True if config.model.init == "pretrained" else config.model.init
    options = plugins.parse_options(spec, values, where="model.options")
    heads = {
        task.name: HeadPlan(
            spec=registry.head(task.head, kind=task.kind),
            schema=prepared.corpora[task.dataset].schema,
        )
        for task in prepared.plan.tasks
    }
    with seeded(config.seed + draw):
        model = ArkModel(spec.build(options), heads, config=config.model, size=config.views.size)
    if config.model.checkpointing:
        _checkpoint(model, config.model.backbone)
    if config.runtime.channels_last:
        model = model.to(memory_format=torch.channels_last)
    model.compiled = config.runtime.compile
    return model


def _checkpoint(model: ArkModel, name: str) -> None:
    """Let the backbone compute its activations again when gradients need them."""
    able = getattr(model.backbone, "set_grad_checkpointing", None)
    if able is None:
        raise ConfigError(
            f"model.checkpointing: the backbone {name!r} cannot compute its activations twice; "
            "leave it off and lower runtime.piece"
        )
    able()


def make_losses(prepared: Prepared, device: torch.device) -> Losses:
    """Build every task's loss and the consistency loss."""
    plan, registry = prepared.plan, prepared.registry
    consistency = registry.loss(prepared.config.teacher.consistency, kind="consistency")
    return Losses(
        tasks={
            task.name: registry.loss(task.loss, kind=task.kind).build(
                prepared.corpora[task.dataset].schema
            )
            for task in plan.tasks
        },
        consistency=consistency.build(None),
        weights={task.name: task.weight for task in plan.tasks},
        class_weights={
            task.name: torch.tensor(task.class_weights, device=device)
            for task in plan.tasks
            if task.class_weights is not None
        },
    )
