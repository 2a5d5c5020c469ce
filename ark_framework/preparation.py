"""Plugins, data, plan, student and losses of a run, before its first step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ark_framework import registry as plugins
from ark_framework.config import RunConfig, TaskConfig
from ark_framework.corpus import Corpus, Progress, open_corpus
from ark_framework.errors import ConfigError, DataError
from ark_framework.exposure import Exposure, record
from ark_framework.leaks import LeakRecord, repeat, settle
from ark_framework.linked import linked
from ark_framework.model import ArkModel, Features, HeadPlan
from ark_framework.plan import RunPlan, choose_tasks, resolve, train_rows
from ark_framework.pretrain import Losses
from ark_framework.registry import Registry
from ark_framework.roots import check_names
from ark_framework.runtime import seeded
from ark_framework.specs import HeadSpec, LabelSchema
from ark_framework.text import counted


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
    registry = plugins.load(config.plugins, data=config.data)
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
        if not len(corpus.table.rows("test")):
            say(f"{name}: no test films; it trains, and is not scored at the end")
        if corpus.store.bad:
            say(f"{name}: left out: {counted(len(corpus.store.bad), 'unreadable film')}")
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
            spec=_head(registry, task.head, task.kind),
            schema=prepared.corpora[task.dataset].schema,
        )
        for task in prepared.plan.tasks
    }
    backbone = config.model.backbone
    with seeded(config.seed + draw):
        built = spec.build(options)
        with registry.blaming("backbone", backbone, "forward_maps() or pool()"):
            model = ArkModel(built, heads, config=config.model, size=config.views.size)
        _check_heads(model, prepared)
    if config.model.checkpointing:
        _checkpoint(model, config.model.backbone)
    if config.runtime.channels_last:
        model = model.to(memory_format=torch.channels_last)
    model.compiled = config.runtime.compile
    return model


def _head(registry: Registry, name: str, kind: str) -> HeadSpec:
    """Return a head that names its plugin where it builds no module."""
    spec = registry.head(name, kind=kind)

    def build(width: int, schema: LabelSchema) -> Any:
        with registry.blaming("head", name, "build()"):
            made = spec.build(width, schema)
            if not isinstance(made, torch.nn.Module):
                raise TypeError(f"it gives {type(made).__name__}, not a torch module")
        return made

    return replace(spec, build=build)


def _check_heads(model: ArkModel, prepared: Prepared) -> None:
    """Refuse a head whose outputs are not one for each label, before anything is trained."""
    model.eval()
    wide = {name: torch.zeros(2, width) for name, width in model.widths.items()}
    features = Features(**{**wide, "map": wide["map"][:, :, None, None].expand(-1, -1, 4, 4)})
    with torch.no_grad():
        for task in prepared.plan.tasks:
            with prepared.registry.blaming("head", task.head, "forward()"):
                _must_be(model.classify(task.name, features), (2, len(task.labels)))
    model.train()


def _must_be(found: Any, *shapes: tuple[int, ...]) -> None:
    if not isinstance(found, torch.Tensor) or tuple(found.shape) not in shapes:
        given = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise TypeError(f"it gives {given} for two films, not {' or '.join(map(str, shapes))}")
    if not bool(torch.isfinite(found).all()):
        raise ValueError("it gives numbers that are not finite for two black films")


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
    """Build every task's loss and the consistency loss, and look at what each gives."""
    plan, registry = prepared.plan, prepared.registry
    name = prepared.config.teacher.consistency
    tasks = {
        task.name: _loss(
            registry, task.loss, task.kind, prepared.corpora[task.dataset].schema, len(task.labels)
        )
        for task in plan.tasks
    }
    return Losses(
        tasks=tasks,
        consistency=_loss(registry, name, "consistency", None, 4),
        weights={task.name: task.weight for task in plan.tasks},
        class_weights={
            task.name: torch.tensor(task.class_weights, device=device)
            for task in plan.tasks
            if task.class_weights is not None
        },
    )


def _loss(
    registry: Registry, name: str, kind: str, schema: LabelSchema | None, outputs: int
) -> Callable[..., Any]:
    """Build a loss that names its plugin when it fails, and refuse one of another form."""
    build = registry.loss(name, kind=kind).build
    loss = registry.blamed("loss", name, "its loss", build(schema))
    first, second = torch.zeros(2, outputs, requires_grad=True), torch.zeros(2, outputs)
    second[:, 0] = 1
    with seeded(0), registry.blaming("loss", name, "its loss"):
        _must_be(loss(first, second), (2,), *([] if schema is None else [(2, outputs)]))
    made: Callable[..., Any] = loss
    return made
