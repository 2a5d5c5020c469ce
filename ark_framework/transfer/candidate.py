"""A model under test: how it is written, where its weights come from, what they were trained on.

=====================  =========================================================================
``PATH``               a run, a checkpoint, an import or export; a published file of weights;
                       or a table of embeddings made elsewhere (``.npz``, ``.csv``)
``random:ARCH``        fresh weights, drawn anew for every seed
``timm:ARCH``          timm's pretrained weights, downloaded or from its cache
``timm:ARCH=FILE``     a local file of weights that timm reads
=====================  =========================================================================

``ARCH`` is a backbone's name, a timm model's name or, for ``random``, a model's path.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import timm
from torch import Tensor

from ark_framework import exposure, pretrained, registry
from ark_framework.blueprint import Blueprint, Preprocessing, TaskHead
from ark_framework.errors import CheckpointError, ConfigError, did_you_mean
from ark_framework.exposure import Exposure
from ark_framework.model import ArkModel
from ark_framework.published import import_file
from ark_framework.specs import LabelSchema
from ark_framework.transfer.vectors import Vectors

TASK = "task"  # the name of a fresh model's only head
RANDOM, TIMM = "random", "timm"
TABLES = (".npz", ".csv")
# What films are fitted to where the architecture alone is known, as for the published 224.
SIDE, MARGIN = 224, 8 / 7


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model under test, or a table of embeddings in its place.

    Attributes:
        name: What tables call it.
        source: As it was written.
        trained: What it was trained on.
        blueprint: How to build it; ``None`` for a table.
        weights: Its tensors; ``None`` where they are drawn anew for every seed.
        vectors: The table.
    """

    name: str
    source: str
    trained: Exposure
    blueprint: Blueprint | None = None
    weights: dict[str, Tensor] | None = None
    vectors: Vectors | None = None
    _keys: dict[int, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def random(self) -> bool:
        """Whether its weights depend on the seed."""
        return self.weights is None and self.vectors is None

    @property
    def plan(self) -> Blueprint:
        """Return how to build it.

        Raises:
            ConfigError: it is a table of embeddings.
        """
        if self.blueprint is None:
            raise ConfigError(f"{self.source}: a table of embeddings, where a model is needed")
        return self.blueprint

    @property
    def film(self) -> Preprocessing:
        """Return how a film is brought to it."""
        return self.plan.preprocessing

    def model(self, *, seed: int = 0) -> ArkModel:
        """Build it with all its heads, in eval mode."""
        model = self.plan.build(seed=seed)
        if self.weights is not None:
            model.load_state_dict(self.weights)
        return model

    def for_task(self, schema: LabelSchema, *, seed: int = 0) -> ArkModel:
        """Build a model to train on one task: its backbone, no projector, a new linear head.

        The head, and a random candidate's backbone, are drawn by ``seed``; the model is in train
        mode and its head's name is :data:`TASK`.
        """
        head = TaskHead(name=TASK, kind=schema.kind, labels=schema.labels)
        model = replace(self.plan, projector="none", tasks=(head,)).build(seed=seed)
        if self.weights is not None:
            model.backbone.load_state_dict(self.encoder(self.weights))
        return model.train()

    @staticmethod
    def encoder(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of a model's backbone, by their names in it."""
        prefix = "backbone."
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in weights.items()
            if name.startswith(prefix)
        }

    def key(self, *, seed: int = 0) -> str:
        """Return 16 hexadecimal digits that name its weights, architecture and view of films."""
        if self.vectors is not None:
            return self.vectors.key
        which = seed if self.random else 0
        if which not in self._keys:
            self._keys[which] = _digest(self.plan, self.model(seed=which).state_dict())
        return self._keys[which]


def open_candidate(
    source: str, *, name: str | None = None, size: int | None = None, resize: int | None = None
) -> Candidate:
    """Open a model under test.

    Args:
        source: See the module.
        name: What tables call it; from ``source`` when absent.
        size: Side that the model sees, for ``random:`` and ``timm:``.
        resize: Side that films are fitted to, of which the middle ``size`` is seen.

    Raises:
        ArkError: nothing there, or nothing that can be read.
    """
    scheme, colon, rest = source.partition(":")
    if colon and scheme in (RANDOM, TIMM):
        made = _fresh(source, scheme, rest, size, resize)
    elif size is not None or resize is not None:
        raise ConfigError(f"{source}: --size and --resize are for random: and timm: alone")
    else:
        made = _stored(source, Path(source))
    return replace(made, name=name or made.name)


def _stored(source: str, path: Path) -> Candidate:
    name = path.absolute().name
    if not path.exists():
        known = ", ".join(f"{scheme}:ARCH" for scheme in (RANDOM, TIMM))
        raise CheckpointError(f"no model at {source!r}; give a run, a file of weights, or {known}")
    if path.suffix.lower() in TABLES:
        return Candidate(
            name=path.stem, source=source, trained=Exposure(), vectors=Vectors.read(path)
        )
    if path.is_file() and not (path.absolute().parent.parent / "config.yaml").is_file():
        imported = import_file(path)
        return Candidate(
            name=path.name.partition(".")[0],
            source=source,
            trained=Exposure(),
            blueprint=imported.blueprint,
            weights=imported.model.state_dict(),
        )
    loaded = pretrained.load(path)
    folder = path if path.is_dir() else path.absolute().parent.parent
    return Candidate(
        name=name if path.is_dir() else f"{folder.name}/{path.stem}",
        source=source,
        trained=exposure.load(folder),
        blueprint=loaded.blueprint,
        weights=loaded.model.state_dict(),
    )


def _fresh(source: str, scheme: str, rest: str, size: int | None, resize: int | None) -> Candidate:
    architecture, _, file = rest.partition("=")
    if scheme == RANDOM and Path(architecture).exists():
        plan = pretrained.load(Path(architecture)).blueprint
        if size is not None or resize is not None:
            raise ConfigError(f"{source}: --size and --resize are that model's")
        name = f"random {Path(architecture).absolute().name}"
        return Candidate(name=name, source=source, trained=_nothing(), blueprint=plan)
    plan = _architecture(source, architecture, size, resize)
    if scheme == RANDOM:
        name = f"random {architecture}"
        return Candidate(name=name, source=source, trained=_nothing(), blueprint=plan)
    if plan.backbone != TIMM:
        raise ConfigError(f"{source}: timm has no model {architecture!r}")
    # ImageNet holds no radiographs that any dataset here tests on; a file may hold anything.
    trained = Exposure() if file else _nothing()
    # Built as the run's student would be, weights and all, and then kept as tensors.
    options = {**plan.options, "pretrained": file or True}
    spec = registry.load(()).backbone(TIMM)
    backbone = spec.build(registry.parse_options(spec, options, where=source))
    model = plan.build()
    model.backbone.load_state_dict(backbone.state_dict())
    return Candidate(
        name=f"timm {architecture}",
        source=source,
        trained=trained,
        blueprint=plan,
        weights=model.state_dict(),
    )


def _architecture(source: str, name: str, size: int | None, resize: int | None) -> Blueprint:
    known = registry.load(()).backbones
    options: dict[str, Any] = {}
    backbone = name
    side = size or SIDE
    if name not in known:
        if not timm.is_model(name):
            hint = did_you_mean(name, [*timm.list_models(), *known])
            raise ConfigError(f"{source}: no backbone or timm model {name!r}{hint}")
        backbone, options = TIMM, {"name": name}
        config = timm.get_pretrained_cfg(name)
        side = size or (config.input_size[-1] if config else SIDE)
        if config and size not in (None, config.input_size[-1]) and config.fixed_input_size:
            options["kwargs"] = {"img_size": size}
    film = Preprocessing(
        size=side,
        resize=resize or (side if size is not None else round(side * MARGIN)),
        fit="squash",
        normalize="imagenet",
    )
    if film.resize < film.size:
        raise ConfigError(f"{source}: --resize {resize} is smaller than the {side} that are seen")
    return Blueprint(
        backbone=backbone,
        options=options,
        projector="none",
        features=1,
        tasks=(),
        preprocessing=film,
    )


def _nothing() -> Exposure:
    return Exposure(complete=True)


def _digest(plan: Blueprint, tensors: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(asdict(plan), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.flatten().view(-1).numpy().tobytes())
    return digest.hexdigest()[:16]
