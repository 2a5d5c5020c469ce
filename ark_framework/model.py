"""Backbone → projector → heads by task name (the paper's Figure 1, one of the two columns)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from ark_framework.config import ModelConfig
from ark_framework.errors import ConfigError
from ark_framework.specs import HeadSpec, LabelSchema

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Features:
    """What it gives: last ``map`` (B, C, H, W), ``pooled`` (B, D), ``projected`` (B, P)."""

    map: Tensor
    pooled: Tensor
    projected: Tensor


@dataclass(frozen=True, kw_only=True)
class HeadPlan:
    """One head to build: its spec and the schema that it serves."""

    spec: HeadSpec
    schema: LabelSchema


class Encoder(Protocol):
    """What a backbone's module offers; see :class:`ark_framework.BackboneSpec`."""

    in_chans: int

    def forward_maps(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps, finest first."""
        ...

    def pool(self, last: Tensor) -> Tensor:
        """Return the final map pooled, ``(B, D)``."""
        ...


class FilmEncoder(nn.Module):
    """An encoder that takes films as they are stored, of one channel or three.

    Args:
        backbone: A module as :class:`ark_framework.BackboneSpec` describes it.
        normalize: ``imagenet`` standardizes by ImageNet's constants, ``none`` leaves 0..1.

    Attributes:
        compiled: Whether maps are computed by compiled code.  Nothing is wrapped: parameters keep
            their names, and a copy is compiled as well.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Any, *, normalize: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.compiled = False
        self._normalize = normalize == "imagenet"
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)

    @property
    def encoder(self) -> Encoder:
        """The backbone, under the names that the core uses."""
        return cast("Encoder", self.backbone)

    def maps(self, views: Tensor) -> list[Tensor]:
        """Return the feature maps of ``views`` (B, C, S, S), floats in 0..1, finest first."""
        return (_compiled_maps() if self.compiled else _maps)(self, views)

    def _prepare(self, views: Tensor) -> Tensor:
        wanted = int(self.encoder.in_chans)
        if self._normalize:
            mean, std = self.mean, self.std
            if wanted == 1:  # a grey film has one channel: the mean of the three constants
                mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
            views = (views - mean) / std
        if views.shape[1] == wanted:
            return views
        if views.shape[1] == 1:
            return views.expand(-1, wanted, -1, -1)
        return views.mean(dim=1, keepdim=True)


def _maps(model: FilmEncoder, views: Tensor) -> list[Tensor]:
    return model.encoder.forward_maps(model._prepare(views))


@cache
def _compiled_maps() -> Callable[[FilmEncoder, Tensor], list[Tensor]]:
    return torch.compile(_maps)


class ArkModel(FilmEncoder):
    """An encoder, a projector and one head per task.

    Args:
        backbone: A module as :class:`ark_framework.BackboneSpec` describes it.
        heads: By task name.
        config: Projector and normalization.
        size: Side of the views in pixels, for the dry forward that finds the widths.
    """

    def __init__(
        self,
        backbone: Any,
        heads: Mapping[str, HeadPlan],
        *,
        config: ModelConfig,
        size: int,
    ) -> None:
        super().__init__(backbone, normalize=config.normalize)
        self.widths = _widths(self, size)
        self.projector, projected = _projector(self.widths["pooled"], config)
        self.widths["projected"] = projected
        self.inputs = {name: plan.spec.input for name, plan in heads.items()}
        self.heads = nn.ModuleDict(
            {
                name: plan.spec.build(self.widths[plan.spec.input], plan.schema)
                for name, plan in heads.items()
            }
        )

    def encode(self, views: Tensor) -> Features:
        """Return the features of ``views`` (B, C, S, S), floats in 0..1."""
        last = self.maps(views)[-1]
        pooled = self.encoder.pool(last)
        return Features(map=last, pooled=pooled, projected=self.projector(pooled))

    def classify(self, task: str, features: Features, films: slice = slice(None)) -> Tensor:
        """Return the logits ``(b, labels)`` of one task for some films of a batch."""
        head: nn.Module = self.heads[task]
        logits: Tensor = head(getattr(features, self.inputs[task])[films])
        return logits

    def forward(self, views: Tensor, task: str) -> Tensor:
        """Return the logits ``(B, labels)`` of one task."""
        return self.classify(task, self.encode(views))


def _projector(width: int, config: ModelConfig) -> tuple[nn.Module, int]:
    if config.projector == "none":
        return nn.Identity(), width
    if config.projector == "linear":
        return nn.Linear(width, config.features), config.features
    hidden = config.features
    layers = (nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
    return nn.Sequential(*layers), hidden


def _widths(model: ArkModel, size: int) -> dict[str, int]:
    was = model.training
    model.eval()
    try:
        with torch.no_grad():
            blank = torch.zeros(1, 1, size, size)
            last = model.maps(blank)[-1]
            pooled = model.encoder.pool(last)
        if last.ndim != 4 or pooled.ndim != 2:
            given = f"{tuple(last.shape)} and {tuple(pooled.shape)}"
            raise TypeError(f"a map and its pooling are (B, C, H, W) and (B, D), not {given}")
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(
            f"model.backbone does not take films of {size} x {size} pixels: "
            f"{str(error).splitlines()[0]}"
        ) from error
    model.train(was)
    return {"map": last.shape[1], "pooled": pooled.shape[1]}


def trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the named parameters that are trained."""
    return ((name, each) for name, each in model.named_parameters() if each.requires_grad)


def batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the batch-norm layers that keep running statistics."""
    kind = nn.modules.batchnorm._BatchNorm
    return [m for m in model.modules() if isinstance(m, kind) and m.track_running_stats]


@contextmanager
def reestimated(model: ArkModel, views: Iterable[Tensor]) -> Iterator[None]:
    """Score with batch-norm statistics taken over all tasks; the old ones come back after.

    Cyclic training leaves a batch-norm's running statistics with the last task.  ``views`` are
    batches ``(B, C, S, S)`` of every task; their statistics are averaged with equal weight.
    Without batch norm nothing happens.
    """
    norms = batch_norms(model)
    if not norms:
        yield
        return
    kept = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    momenta = [norm.momentum for norm in norms]
    estimate(model, views)
    try:
        yield
    finally:
        for norm, buffers, momentum in zip(norms, kept, momenta, strict=True):
            norm.momentum = momentum
            for name, buffer in norm.named_buffers():
                buffer.copy_(buffers[name])


def estimate(model: ArkModel, views: Iterable[Tensor]) -> None:
    """Replace batch-norm statistics by their plain mean over ``views``."""
    norms = batch_norms(model)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch: a cumulative mean
        norm.training = True
    with torch.no_grad():
        for batch in views:
            model.encoder.pool(model.maps(batch)[-1])
    for norm in norms:
        norm.training = False
