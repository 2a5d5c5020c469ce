"""A segmentation network: built on a model's encoder, kept in a folder, used on films."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ark_framework import jsonfile
from ark_framework.blueprint import Blueprint, Preprocessing, described
from ark_framework.errors import CheckpointError, ConfigError, MachineError
from ark_framework.run import write_text
from ark_framework.runtime import seeded
from ark_framework.tensors import load_safetensors, must_fit
from ark_framework.transfer.candidate import Candidate
from ark_framework.transfer.upernet import UperNet

DESCRIPTION, WEIGHTS, FORMAT = "segmenter.json", "model.safetensors", 1


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """A network and what it takes to build it again.

    Attributes:
        network: The network.
        blueprint: Of its encoder, at the size that this was pretrained at.
        structures: The names of its masks.
        width: Channels of the decoder.
        size: Side of the films, whole.
    """

    network: UperNet
    blueprint: Blueprint
    structures: tuple[str, ...]
    width: int
    size: int

    @property
    def preprocessing(self) -> Preprocessing:
        """How a film is brought to it: whole, fitted to one size."""
        return replace(self.blueprint.preprocessing, size=self.size, resize=self.size)

    def segment(self, views: Tensor) -> Tensor:
        """Return probabilities ``(B, K, S, S)`` float32 of views ``(B, C, S, S)`` in 0..1."""
        self.network.eval()
        with torch.inference_mode():
            found: Tensor = self.network(views.to(self.network.mean.device)).float().sigmoid()
        return found


def film(candidate: Candidate, size: int | None) -> Preprocessing:
    """Return how a candidate's network takes films: whole, of ``size`` or its own side.

    Raises:
        ConfigError: the candidate is a table of embeddings.
    """
    side = size or candidate.film.size
    return replace(candidate.film, size=side, resize=side)


def build(
    candidate: Candidate,
    structures: tuple[str, ...],
    *,
    size: int | None,
    width: int,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Segmenter:
    """Build a network on a candidate's encoder; the decoder is drawn by ``seed``.

    Films may have another size than in pretraining: the weights are loaded at that size, and then
    timm fits window attention to the new one.

    Raises:
        ConfigError: its encoder cannot segment, or not at this size.
    """
    plan = replace(candidate.plan, projector="none", tasks=())
    backbone = plan.build(seed=seed).backbone
    if candidate.weights is None:
        say(f"{candidate.name}: encoder {_name(plan)} drawn by seed {seed}")
    else:
        tensors = candidate.encoder(candidate.weights)
        backbone.load_state_dict(tensors)  # strict: all of them, or an error
        say(f"{candidate.name}: all {len(tensors)} tensors of the encoder {_name(plan)} loaded")
    side = film(candidate, size).size
    with seeded(seed):
        network = _network(plan, backbone, structures, width=width, size=side)
    return Segmenter(network=network, blueprint=plan, structures=structures, width=width, size=side)


def _network(
    plan: Blueprint, backbone: Any, structures: tuple[str, ...], *, width: int, size: int
) -> UperNet:
    if size != plan.preprocessing.size:
        resize(backbone, size, name=_name(plan))
    return UperNet(
        backbone,
        normalize=plan.preprocessing.normalize,
        structures=len(structures),
        width=width,
        size=size,
        name=_name(plan),
    )


def _name(plan: Blueprint) -> str:
    return str(plan.options.get("name", plan.backbone))


def resize(backbone: Any, size: int, *, name: str) -> None:
    """Fit a timm model whose attention knows its film's size to another one; others need nothing.

    Swin keeps the windows that it was pretrained with, where they fit, and so all of its weights;
    what timm must resize, it interpolates.

    Raises:
        ConfigError: it cannot be.
    """
    inner = getattr(backbone, "model", backbone)
    if not hasattr(inner, "set_input_size"):
        return
    stages = [getattr(stage, "blocks", None) for stage in getattr(inner, "layers", ())]
    windows = [blocks[0].window_size for blocks in stages if blocks]
    told = {"window_size": windows} if windows else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of timm's own interpolation
            inner.set_input_size(img_size=(size, size), **told)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{name} cannot be fitted to films of {size} pixels: {reason}") from error


def save(folder: Path, segmenter: Segmenter, tensors: Mapping[str, Tensor]) -> None:
    """Write a network's tensors, and then what it takes to build it.

    Raises:
        MachineError: the disk refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        plain = {name: each.cpu().contiguous() for name, each in tensors.items()}
        safetensors.torch.save_file(plain, folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise MachineError(f"cannot write {folder}: {error}; free some space") from error
    values = {
        "format": FORMAT,
        "structures": segmenter.structures,
        "width": segmenter.width,
        "size": segmenter.size,
        "blueprint": asdict(segmenter.blueprint.without_origin()),
    }
    write_text(folder / DESCRIPTION, json.dumps(values, indent=1) + "\n")


def is_segmenter(path: Path) -> bool:
    """Whether a folder holds a segmentation network."""
    return (path / DESCRIPTION).is_file()


def load(path: Path, *, device: torch.device | str = "cpu") -> Segmenter:
    """Load a network that ``ark segment --keep`` wrote.

    Raises:
        CheckpointError: it is damaged, or of a later version.
    """
    try:
        values = jsonfile.read(path / DESCRIPTION)
        if values["format"] != FORMAT:
            raise CheckpointError(f"{path} was written by a later version of ark-framework")
        plan = described({**values["blueprint"], "tasks": []})
        structures, width, size = tuple(values["structures"]), values["width"], values["size"]
        tensors = load_safetensors(path / WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(f"{path} is damaged: {reason}") from error
    plan.registry()  # what is missing here is nothing wrong with the folder
    try:
        with torch.device("meta"):
            shapes = _network(plan, plan.build().backbone, structures, width=width, size=size)
        must_fit(shapes.state_dict(), tensors, path)
        network = _network(plan, plan.build().backbone, structures, width=width, size=size)
        network.load_state_dict(tensors)
    except CheckpointError:
        raise
    except Exception as error:  # whatever is made of a description that nobody ever wrote
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(f"{path} describes no network that can be built: {reason}") from error
    return Segmenter(
        network=network.to(device).eval(),
        blueprint=plan,
        structures=structures,
        width=width,
        size=size,
    )
