"""Ark: pretrain one chest X-ray encoder from many datasets whose labels disagree in kind.

This is the plugin author's surface.  It imports neither torch nor pandas; ``train`` and ``load``
do so when they are first used.  Research use only: not a medical device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ark_framework.errors import (
    ArkError,
    ConfigError,
    DataError,
    MachineError,
    PluginError,
    did_you_mean,
)
from ark_framework.hooks import hookimpl
from ark_framework.specs import (
    BackboneSpec,
    DatasetCard,
    DatasetSpec,
    HeadSpec,
    LabelSchema,
    LossSpec,
)

if TYPE_CHECKING:
    from ark_framework.launch import train
    from ark_framework.pretrained import load

__version__ = "0.1.0"

__all__ = [
    "ArkError",
    "BackboneSpec",
    "ConfigError",
    "DataError",
    "DatasetCard",
    "DatasetSpec",
    "HeadSpec",
    "LabelSchema",
    "LossSpec",
    "MachineError",
    "PluginError",
    "__version__",
    "did_you_mean",
    "hookimpl",
    "load",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "train":
        from ark_framework.launch import train

        return train
    if name == "load":
        from ark_framework.pretrained import load

        return load
    raise AttributeError(f"module 'ark_framework' has no attribute {name!r}")
