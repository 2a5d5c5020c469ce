"""The built-in encoders' specs: any timm model by name, and a tiny one for CPU work."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ark_framework import BackboneSpec

# What makes timm look for weights in files or on the network: a model's description must not.
SOURCES = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}


class TimmOptions(BaseModel):
    """``name`` is any timm model; ``kwargs`` go to ``timm.create_model`` as they are.

    ``pretrained``: ``False``, ``True`` (timm's weights, downloaded or from its cache) or the path
    of a local weights file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = "swin_base_patch4_window7_224"
    in_chans: int = Field(default=3, ge=1, le=3)
    pretrained: bool | str = False
    kwargs: dict[str, Any] = Field(default_factory=dict)

    @field_validator("kwargs")
    @classmethod
    def _no_weights(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        if weights := sorted(SOURCES & set(kwargs)):
            raise ValueError(f"{weights[0]} is not taken: model.init says where weights come from")
        return kwargs


class TinyOptions(BaseModel):
    """Width of the first stage and blocks per stage of the tiny convolution."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    width: int = Field(default=32, ge=4, le=4096)
    depths: tuple[Annotated[int, Field(ge=0, le=64)], ...] = Field(
        default=(1, 1, 1), min_length=1, max_length=8
    )


def _timm(options: TimmOptions) -> Any:
    from ark_framework.builtin.timm_encoder import TimmEncoder

    return TimmEncoder(
        options.name,
        in_chans=options.in_chans,
        pretrained=options.pretrained,
        kwargs=options.kwargs,
    )


def _tiny(options: TinyOptions) -> Any:
    from ark_framework.builtin.tiny import TinyConv

    return TinyConv(width=options.width, depths=options.depths, in_chans=1)


SPECS = [
    BackboneSpec(name="timm", options=TimmOptions, build=_timm),
    BackboneSpec(name="tiny", options=TinyOptions, build=_tiny),
]
