"""How a model is fine-tuned: what the user may write, and the published protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from ark_framework.config import OptimConfig, Section, ViewsConfig


class FinetuneConfig(Section):
    """How a model is fine-tuned; the seed is the caller's, the precision the runtime's."""

    epochs: int = Field(default=50, gt=0, description="passes over the training films, at most")
    steps: int | None = Field(
        default=None, gt=0, description="take exactly so many optimizer steps instead of epochs"
    )
    batch_size: int = Field(default=64, gt=0, description="films in a step, at most")
    optim: OptimConfig = Field(
        default=OptimConfig(lr=0.01), description="the optimizer; lr is the head's peak"
    )
    schedule: Literal["cosine", "constant"] = Field(
        default="cosine", description="down to zero at the end, or lr throughout (as published)"
    )
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of the steps; of the cosine")
    layer_decay: float = Field(
        default=1.0, gt=0, le=1, description="factor on the rate per layer below the head"
    )
    freeze: Literal["none", "backbone"] = Field(
        default="none", description="backbone: the head alone is trained"
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
    tencrop: bool = Field(
        default=False, description="test: mean over corners, middle and their mirror images"
    )
    keep: bool = Field(default=False, description="keep the weights as model.safetensors")

    @model_validator(mode="after")
    def _budget(self) -> FinetuneConfig:
        if self.steps is not None and self.patience:
            raise ValueError("steps is exact and patience would take fewer; set patience to 0")
        return self


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
