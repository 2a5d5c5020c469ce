"""What it takes to build a trained model again, without its data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from ark_framework import registry as plugins
from ark_framework.config import ModelConfig
from ark_framework.errors import CheckpointError
from ark_framework.model import ArkModel, HeadPlan
from ark_framework.registry import Registry
from ark_framework.runtime import seeded
from ark_framework.specs import Kind, LabelSchema
from ark_framework.tensors import must_fit
from ark_framework.text import is_name
from ark_framework.wording import explain

# A head's name is a part of files' names; files of others may say anything.
_NAME = re.compile(r"\w[\w-]*")
SIDE = 8192  # above what a film has, and far below what fills a memory
Projector = Literal["linear", "mlp", "none"]


@dataclass(frozen=True, kw_only=True)
class TaskHead:
    """One head: its task, what its outputs are, and whether its labels' names are known."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    head: str = "linear"
    named: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(f"a head is called {self.name!r}: letters, digits, '-' and '_'")
        odd = [each for each in self.labels if not isinstance(each, str) or not is_name(each)]
        if odd:
            raise ValueError(f"head {self.name!r}: label {odd[0]!r} must be text on one line")


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From a film to what the model sees: fitted to ``resize``, its middle ``size`` cut out."""

    size: int
    resize: int
    fit: Literal["squash", "pad", "crop"]
    normalize: Literal["imagenet", "none"]

    def __post_init__(self) -> None:
        for side in (self.size, self.resize):
            if not isinstance(side, int) or not 1 <= side <= SIDE:
                raise ValueError(f"a film's side is {side!r}: 1 to {SIDE} pixels")


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """A model's parts by name; ``plugins`` provide those that are not built in."""

    backbone: str
    options: Mapping[str, Any]
    projector: Projector
    features: int
    tasks: tuple[TaskHead, ...]
    preprocessing: Preprocessing
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two heads are called {min(twice)!r}")

    def without_origin(self) -> Blueprint:
        """Return this without where its first weights came from: maybe a path of its owner's."""
        kept = {name: value for name, value in self.options.items() if name != "pretrained"}
        return replace(self, options=kept)

    def build(self, *, seed: int = 0) -> ArkModel:
        """Build the model, its weights not yet filled in but drawn by ``seed``, in eval mode.

        Raises:
            ArkError: a plugin that provides a part of it is missing or broken.
        """
        registry = self.registry()
        spec = registry.backbone(self.backbone)
        # Its weights are filled in: none are fetched, whatever the run began with.
        values = self.without_origin().options
        options = plugins.parse_options(spec, values, where="model.options")
        heads = {
            task.name: HeadPlan(
                spec=registry.head(task.head, kind=task.kind),
                schema=LabelSchema(name="labels", kind=task.kind, labels=task.labels),
            )
            for task in self.tasks
        }
        config = ModelConfig(
            projector=self.projector,
            features=self.features,
            normalize=self.preprocessing.normalize,
        )
        with seeded(seed):  # and the caller's random numbers stay as they were
            model = ArkModel(
                spec.build(options), heads, config=config, size=self.preprocessing.size
            )
        return model.eval()

    def filled(self, tensors: Mapping[str, Tensor], *, path: Path) -> ArkModel:
        """Build the model and put a file's tensors into it.

        Sizes are compared before the model takes any memory: a description may say anything.

        Raises:
            CheckpointError: there is no such model, or these are not all of its tensors.
            ArkError: a plugin that provides a part of it is missing or broken.
        """
        registry = self.registry()  # what is missing here is nothing wrong with the file
        try:
            registry.backbone(self.backbone)
            ours = registry.origin("backbone", self.backbone).name == plugins.BUILTIN
            shapes = self._shapes(must=ours)
            must_fit(shapes, tensors, path)
            model = self.build()
        except CheckpointError:
            raise
        except Exception as error:  # whatever is made of options that nobody ever wrote
            why = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{path} describes no model that can be built: {why}") from error
        must_fit(model.state_dict(), tensors, path)
        model.load_state_dict(tensors)
        return model

    def _shapes(self, *, must: bool) -> dict[str, Tensor]:
        """Return the model's tensors without their numbers.

        A plugin's backbone may compute with its numbers when it is built, and then is built in
        earnest, unless it ``must`` not be.
        """
        try:
            with torch.device("meta"):
                return self.build().state_dict()
        except Exception:
            if must:
                raise
            return self.build().state_dict()

    def registry(self) -> Registry:
        """Return who provides its parts: the built-ins where they do, without any plugin.

        Raises:
            ArkError: a plugin that provides a part of it is missing or broken.
        """
        registry = plugins.load(())
        known = {task.head for task in self.tasks} <= set(registry.heads)
        if known and self.backbone in registry.backbones:
            return registry
        return plugins.load(self.plugins)


_PLAIN = TypeAdapter(Blueprint)


def described(values: Mapping[str, Any]) -> Blueprint:
    """Return the blueprint that plain data describes.

    Raises:
        ValueError: naming the first value that is missing or of another kind.
    """
    try:
        return _PLAIN.validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise ValueError(explain(error, ModelConfig, where="its description")) from error
