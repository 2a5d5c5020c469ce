"""How a model is probed and fine-tuned, for labels or for masks: what the user may write.

Beside it, the published protocols.  Nothing here needs torch, so that keys are looked up quickly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ark_framework.config import OptimConfig, Section, ViewsConfig


class ProbeConfig(Section):
    """How embeddings are probed."""

    features: Literal["projected", "pooled"] = Field(
        default="projected", description="the projection, as published, or the features before it"
    )
    c: tuple[float, ...] = Field(
        default=(1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0),
        description="inverse regularizations; validation chooses among them",
    )
    fractions: tuple[float, ...] = Field(
        default=(1.0,), description="shares of the training patients"
    )
    shots: tuple[int, ...] = Field(
        default=(1, 2, 4, 8, 16, 32),
        description="positives and negatives of each label, or films of each exclusive class",
    )
    few_shot_c: float = Field(
        default=0.01, gt=0, description="inverse regularization of few shots; nothing chooses it"
    )
    draws: int = Field(default=10, ge=10, description="draws of each few-shot set and fraction")
    neighbors: int = Field(default=20, gt=0, description="of the nearest-neighbor classifier")
    seed: int = Field(default=0, ge=0, description="of fractions and shots")

    @field_validator("c", "fractions", "shots")
    @classmethod
    def _some(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values or min(values) <= 0:
            raise ValueError("give one or more numbers above 0")
        return values

    @field_validator("fractions")
    @classmethod
    def _shares(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if max(values) > 1:
            raise ValueError("shares are at most 1")
        return values


class TuningConfig(Section):
    """What every kind of fine-tuning has; the seed is the caller's, the precision the runtime's."""

    epochs: int = Field(default=50, gt=0, description="passes over the training films, at most")
    steps: int | None = Field(
        default=None, gt=0, description="take exactly so many optimizer steps instead of epochs"
    )
    batch_size: int = Field(default=64, gt=0, description="films in a step, at most")
    optim: OptimConfig = Field(
        default=OptimConfig(lr=0.01), description="the optimizer; lr is the peak of what is new"
    )
    schedule: Literal["cosine", "constant"] = Field(
        default="cosine", description="down to zero at the end, or lr throughout (as published)"
    )
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of the steps; of the cosine")
    layer_decay: float = Field(
        default=1.0, gt=0, le=1, description="factor on the rate per layer below the head"
    )
    freeze: Literal["none", "backbone"] = Field(
        default="none", description="backbone: what is new alone is trained"
    )
    patience: int = Field(
        default=0, ge=0, description="epochs without a lower validation loss to stop at; 0 = never"
    )
    select: Literal["val", "last"] = Field(
        default="val", description="weights of the lowest validation loss, or the last ones"
    )
    views: ViewsConfig = Field(
        default=ViewsConfig(affine_p=1.0, shift=0.0, zoom=0.0, rotate=7.0, photometry_p=0.0),
        description="the training views; the published crop and rotation",
    )
    flip: float = Field(default=0.5, ge=0, le=1, description="chance of a left-right mirror image")
    keep: bool = Field(default=False, description="keep the weights as model.safetensors")

    @model_validator(mode="after")
    def _budget(self) -> TuningConfig:
        if self.steps is not None and self.patience:
            raise ValueError("steps is exact and patience would take fewer; set patience to 0")
        return self


class FinetuneConfig(TuningConfig):
    """How a model is fine-tuned for labels."""

    tencrop: bool = Field(
        default=False, description="test: mean over corners, middle and their mirror images"
    )


class SegmentConfig(TuningConfig):
    """How a segmentation network is trained on a model's encoder."""

    size: int | None = Field(
        default=None, ge=32, description="side of films and masks; the model's own if absent"
    )
    structures: tuple[str, ...] = Field(
        default=(),
        description="[DATASET:][NAME=]A+B,C: a network each; all structures in one if absent",
    )
    films: tuple[int, ...] = Field(
        default=(), description="also train on so many films alone, drawn by patient and seed"
    )
    loss: str = Field(default="dice", description="a loss for masks: dice, bce-dice or a plugin's")
    width: int = Field(default=256, ge=8, description="channels of the decoder")
    epochs: int = Field(default=200, gt=0, description="passes over the training films, at most")
    batch_size: int = Field(default=16, gt=0, description="films in a step, at most")
    optim: OptimConfig = Field(
        default=OptimConfig(name="adamw", lr=0.0005, weight_decay=0.05),
        description="the optimizer; lr is the decoder's peak",
    )
    views: ViewsConfig = Field(
        default=ViewsConfig(
            scale=(0.5, 1.0), affine_p=0.5, shift=0.05, zoom=0.1, rotate=10.0, photometry_p=0.5
        ),
        description="the training views; films and masks share their geometry",
    )
    flip: float = Field(
        default=0.0, ge=0, le=1, description="chance of a mirror image, where left is right"
    )
    pictures: int = Field(
        default=8, ge=0, description="test films drawn with their masks, for the first seed"
    )


# The published protocol (Swin, NIH): the rate was constant in effect, the lowest validation loss
# chose the weights, and 10 epochs without a lower one ended it.
PUBLISHED: Mapping[str, Any] = {
    "epochs": 200,
    "batch_size": 64,
    "optim": {
        "name": "sgd",
        "lr": 0.01,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 0.0,
        "clip": None,
    },
    "schedule": "constant",
    "layer_decay": 1.0,
    "freeze": "none",
    "patience": 10,
    "select": "val",
    "flip": 0.5,
    "tencrop": True,
}

# The published protocol (UperNet, JSRT's clavicles): a ramp over 20 of 500 epochs, then a cosine to
# zero; plain momentum; 50 epochs without a lower Dice loss ended it.
PUBLISHED_MASKS: Mapping[str, Any] = {
    "size": 224,
    "loss": "dice",
    "epochs": 500,
    "batch_size": 32,
    "optim": {
        "name": "sgd",
        "lr": 0.05,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 0.0,
        "clip": None,
    },
    "schedule": "cosine",
    "warmup": 0.04,
    "layer_decay": 1.0,
    "freeze": "none",
    "patience": 50,
    "select": "val",
    "flip": 0.0,
    "views": {
        "scale": [1.0, 1.0],
        "ratio": [1.0, 1.0],
        "affine_p": 0.5,
        "shift": 0.0625,
        "zoom": 0.1,
        "rotate": 10.0,
        "photometry_p": 0.3,
    },
}
