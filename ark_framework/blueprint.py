"""What it takes to build a trained model again, without its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from ark_framework import registry as plugins
from ark_framework.config import ModelConfig
from ark_framework.errors import CheckpointError
from ark_framework.model import ArkModel, HeadPlan
from ark_framework.registry import Registry
from ark_framework.runtime import seeded
from ark_framework.specs import Kind, LabelSchema

Projector = Literal["linear", "mlp", "none"]


@dataclass(frozen=True, kw_only=True)
class TaskHead:
    """One head: its task, what its outputs are, and whether its labels' names are known."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    head: str = "linear"
    named: bool = True


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From a film to what the model sees: fitted to ``resize``, its middle ``size`` cut out."""

    size: int
    resize: int
    fit: Literal["squash", "pad", "crop"]
    normalize: Literal["imagenet", "none"]


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

    def build(self, *, seed: int = 0) -> ArkModel:
        """Build the model, its weights not yet filled in but drawn by ``seed``, in eval mode.

        Raises:
            ArkError: a plugin that provides a part of it is missing or broken.
        """
        registry = self._registry()
        spec = registry.backbone(self.backbone)
        # Its weights are filled in: none are fetched, whatever the run began with.
        values = {name: value for name, value in self.options.items() if name != "pretrained"}
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

    def fill(self, model: ArkModel, tensors: Mapping[str, Tensor], *, path: Path) -> None:
        """Put tensors into a model that was built from this.

        Raises:
            CheckpointError: they are not all of its tensors, or of other shapes.
        """
        try:
            model.load_state_dict(tensors)
        except RuntimeError as error:
            why = " ".join(str(error).split()).partition("ArkModel: ")[2]
            raise CheckpointError(f"{path} does not fit the model it describes: {why[:200]}") from (
                error
            )

    def _registry(self) -> Registry:
        """Return the built-ins where they do, so that a model needs no dataset's plugin."""
        registry = plugins.load(())
        known = {task.head for task in self.tasks} <= set(registry.heads)
        if known and self.backbone in registry.backbones:
            return registry
        return plugins.load(self.plugins)
