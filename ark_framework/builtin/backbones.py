"""The built-in encoders' specs: any timm model by name, and a tiny one for CPU work."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ark_framework import BackboneSpec


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


class TinyOptions(BaseModel):
    """Width of the first stage and blocks per stage of the tiny convolution."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    width: int = Field(default=32, ge=4)
    depths: tuple[int, ...] = (1, 1, 1)


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
