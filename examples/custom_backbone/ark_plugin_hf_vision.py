"""A vision transformer of Hugging Face ``transformers`` as an encoder; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ark_framework import BackboneSpec, hookimpl

# A ViT of the tiny size, so that a first try needs no GPU; transformers' own default is the base.
TINY = {"hidden_size": 192, "num_attention_heads": 3}


class HfVisionOptions(BaseModel):
    """Which transformer.

    ``architecture`` is a ``model_type`` of transformers (``dinov2``, ``dinov2_with_registers``,
    ``vit``, …) and ``config`` what differs from its defaults.  ``pretrained`` is a folder as
    ``save_pretrained`` writes it, which says both; it is what ``model.init: PATH`` sets.  With
    ``class_token`` the class token stands beside every patch token, as further channels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    architecture: str = "dinov2"
    config: dict[str, Any] = Field(default_factory=lambda: dict(TINY))
    pretrained: Path | None = None
    class_token: bool = True

    @field_validator("pretrained", mode="before")
    @classmethod
    def _no_download(cls, value: object) -> object:
        if value is True:  # model.init: pretrained
            raise ValueError("nothing is downloaded; give a folder, as model.init: PATH")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> HfVisionOptions:
        given = self.model_fields_set & {"architecture", "config"}
        if self.pretrained and given:
            raise ValueError(f"{min(given)} is said by the folder of model.init; leave it out")
        return self


def _build(options: HfVisionOptions) -> Any:
    from ark_plugin_hf_vision_encoder import HfVision

    return HfVision(options)


SPEC = BackboneSpec(name="hf-vision", options=HfVisionOptions, build=_build)


@hookimpl
def ark_backbones() -> list[BackboneSpec]:
    """Return the encoder."""
    return [SPEC]
