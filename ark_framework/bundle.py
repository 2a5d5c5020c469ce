"""A model in a folder for others: safetensors, plain JSON, a card; timm reads its backbone.

``model.safetensors`` and ``config.json`` are the backbone, in timm's Hub layout where it is a
timm model; ``heads.safetensors`` and ``heads.json`` the projector and the heads.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from timm.models import save_for_hf
from torch import Tensor

from ark_framework import jsonfile
from ark_framework.blueprint import Blueprint, described
from ark_framework.builtin.timm_encoder import TimmEncoder
from ark_framework.errors import CheckpointError, ConfigError, MachineError
from ark_framework.exposure import FILE, Exposure
from ark_framework.model import IMAGENET_MEAN, IMAGENET_STD, ArkModel
from ark_framework.run import write_text
from ark_framework.tensors import load_safetensors

FORMAT = 1
TIMM = "backbone.model."  # where a timm model lies in ours
CONFIG, BACKBONE = "config.json", "model.safetensors"
HEADS, HEAD_TENSORS = "heads.json", "heads.safetensors"
PREPROCESS, CARD = "preprocess.json", "README.md"


def write(
    out: Path,
    model: ArkModel,
    blueprint: Blueprint,
    *,
    card: str,
    trained: Exposure | None = None,
) -> None:
    """Write the folder with its card, which is Markdown, whole or not at all.

    Raises:
        ConfigError: something lies at ``out``.
        MachineError: the disk refuses.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} is in use; give another folder")
    beside = out.with_name(f".{out.name}.part")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        _backbone(beside, model, blueprint)
        _heads(beside, model, blueprint)
        _json(beside / PREPROCESS, _preprocess(model, blueprint))
        write_text(beside / CARD, card)
        if trained is not None and trained.parts:
            trained.shareable().save(beside / FILE)
        for file in beside.glob("*.safetensors"):  # written for their owner's eyes alone
            file.chmod((beside / CARD).stat().st_mode)
        if out.exists():
            out.rmdir()
        beside.replace(out)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        why = getattr(error, "strerror", None) or error
        raise MachineError(f"cannot write {out}: {why}") from error


def is_bundle(path: Path) -> bool:
    """Whether a folder is one of these."""
    return (path / HEADS).is_file()


def read(path: Path) -> tuple[ArkModel, Blueprint]:
    """Build the model of a folder.

    Raises:
        CheckpointError: the folder is damaged or of a later format.
        ArkError: a plugin that provides a part of it is missing or broken.
    """
    try:
        config, heads = (jsonfile.read(path / name) for name in (CONFIG, HEADS))
        if heads["format"] != FORMAT:
            told = str(heads["format"])[:40]
            raise CheckpointError(f"{path} has format {told}; this version reads format {FORMAT}")
        blueprint = _blueprint(path, config["ark"], heads)
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = " ".join(str(error).split())
        raise CheckpointError(f"{path} is damaged: {type(error).__name__}: {why}") from error
    prefix = TIMM if "architecture" in config else "backbone."
    backbone = load_safetensors(path / BACKBONE)
    tensors = {f"{prefix}{name}": tensor for name, tensor in backbone.items()}
    tensors |= load_safetensors(path / HEAD_TENSORS)
    return blueprint.filled(tensors, path=path), blueprint


def _backbone(folder: Path, model: ArkModel, blueprint: Blueprint) -> None:
    ark = {
        "backbone": blueprint.backbone,
        "options": dict(blueprint.without_origin().options),
        "plugins": list(blueprint.plugins),
    }
    if isinstance(model.backbone, TimmEncoder):
        film = _preprocess(model, blueprint)
        channels, size = film["channels"], film["size"]
        save_for_hf(
            model.backbone.model,
            str(folder),
            model_config={
                "pretrained_cfg": {
                    "input_size": [channels, size, size],
                    "mean": film["mean"],
                    "std": film["std"],
                    "crop_pct": size / film["resize"],
                    "interpolation": "bilinear",
                    "num_classes": 0,
                    # Those of the architecture's weights in timm are not those of these.
                    "tag": "ark",
                    "license": "other",
                },
                "ark": ark,
            },
            model_args={"in_chans": channels, **blueprint.options.get("kwargs", {})},
            safe_serialization=True,
        )
        return
    safetensors.torch.save_file(_below(model, "backbone."), folder / BACKBONE)
    _json(folder / CONFIG, {"ark": ark})


def _heads(folder: Path, model: ArkModel, blueprint: Blueprint) -> None:
    tensors = {
        f"{part}{name}": tensor
        for part in ("projector.", "heads.")
        for name, tensor in _below(model, part).items()
    }
    safetensors.torch.save_file(tensors, folder / HEAD_TENSORS)
    _json(
        folder / HEADS,
        {
            "format": FORMAT,
            "projector": blueprint.projector,
            "features": blueprint.features,
            "tasks": [asdict(task) for task in blueprint.tasks],
        },
    )


def _below(model: ArkModel, prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if name.startswith(prefix)
    }


def _preprocess(model: ArkModel, blueprint: Blueprint) -> dict[str, Any]:
    film, channels = blueprint.preprocessing, int(model.encoder.in_chans)
    mean, std = (IMAGENET_MEAN, IMAGENET_STD)
    if film.normalize == "none":
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return {
        **asdict(film),
        "channels": channels,
        "grey": "repeated in every channel" if channels == 3 else "one channel",
        "scale": "0..1, before mean and std",
        "mean": list(mean) if channels == 3 else [sum(mean) / 3],
        "std": list(std) if channels == 3 else [sum(std) / 3],
    }


def _blueprint(path: Path, ark: Mapping[str, Any], heads: Mapping[str, Any]) -> Blueprint:
    return described(
        {
            **{name: ark[name] for name in ("backbone", "options", "plugins")},
            **{name: heads[name] for name in ("projector", "features", "tasks")},
            "preprocessing": jsonfile.read(path / PREPROCESS),
        }
    )


def _json(path: Path, values: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(values, indent=1) + "\n")
