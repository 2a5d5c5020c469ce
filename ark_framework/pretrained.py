"""A trained model to use: films in, embeddings and probabilities out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from ark_framework import bundle, checkpoint, jsonfile
from ark_framework import config as configuration
from ark_framework.blueprint import Blueprint, Preprocessing, TaskHead
from ark_framework.config import RunConfig
from ark_framework.errors import CheckpointError, ConfigError, DataError
from ark_framework.images import fit_square, read_image
from ark_framework.model import ArkModel, Features
from ark_framework.views import center

# Films that go through the model at once.
BATCH = 32
# Floats beyond this are pixels that nobody divided by 255; normalized ones are not this far out.
LARGEST = 16.0

Images: TypeAlias = "np.ndarray | Tensor | Sequence[Path | str | Image.Image]"


class Pretrained:
    """A trained model, always in eval mode.

    ``images`` are files, PIL images, or an array ``(B, C, S, S)`` of floats in 0..1 with C 1 or 3
    and S the model's side.  Files and PIL images are made grey, fitted and cut as in training;
    all are normalized inside.
    """

    def __init__(
        self, model: ArkModel, blueprint: Blueprint, *, device: torch.device | str = "cpu"
    ) -> None:
        self.device = torch.device(device)
        self.model = model.eval().requires_grad_(requires_grad=False).to(self.device)
        self.blueprint = blueprint

    @property
    def tasks(self) -> tuple[TaskHead, ...]:
        """The heads, with their labels."""
        return self.blueprint.tasks

    def embed(self, images: Images, *, projected: bool = True) -> np.ndarray:
        """Return embeddings ``(B, D)`` float32: the projection, or the pooled features before it.

        Raises:
            DataError: a film that cannot be read, or an array of another form.
        """
        found = [each.projected if projected else each.pooled for each in self._encode(images)]
        width = self.model.widths["projected" if projected else "pooled"]
        return _joined(found, width)

    def predict(self, images: Images) -> dict[str, pd.DataFrame]:
        """Return each task's probabilities ``(B, labels)``, columns by label.

        They sum to one over a task whose classes exclude each other.  Raises as :meth:`embed`.
        """
        found: dict[str, list[Tensor]] = {task.name: [] for task in self.tasks}
        for features in self._encode(images):
            for task in self.tasks:
                logits = self.model.classify(task.name, features).double()
                exclusive = task.kind == "multiclass"
                found[task.name].append(logits.softmax(1) if exclusive else logits.sigmoid())
        return {
            task.name: pd.DataFrame(
                _joined(found[task.name], len(task.labels)), columns=list(task.labels)
            )
            for task in self.tasks
        }

    def _encode(self, images: Images) -> Iterator[Features]:
        for batch in _batches(images, self.blueprint.preprocessing):
            self.model.eval()  # whoever trains it between two calls does not change what is given
            with torch.inference_mode():
                yield self.model.encode(batch.to(self.device))


def load(path: Path | str, *, device: torch.device | str = "cpu") -> Pretrained:
    """Load a run's teacher, an import or an export.

    Args:
        path: A run's folder (its last checkpoint) or one of its checkpoints, or the folder that
            ``ark import`` or ``ark export`` wrote.
        device: Where the model computes.

    Raises:
        CheckpointError: there is no such model, or it is damaged.
        ArkError: a plugin that provides a part of it is missing or broken.
    """
    path = Path(path)
    model, blueprint = bundle.read(path) if bundle.is_bundle(path) else _of_run(path)
    return Pretrained(model, blueprint, device=device)


def _of_run(path: Path) -> tuple[ArkModel, Blueprint]:
    folder = path if path.is_dir() else path.parent.parent
    if path.is_dir() and not (path / "config.yaml").is_file():
        raise CheckpointError(f"{path} is neither a run nor the folder of an import or export")
    content = checkpoint.load(path)
    told = checkpoint.meta(content, path=path).config
    try:
        blueprint = _blueprint(configuration.parse(told), _tasks(folder))
    except (ConfigError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    return blueprint.filled(content["teacher"], path=path), blueprint


def _tasks(folder: Path) -> tuple[TaskHead, ...]:
    try:
        plan = jsonfile.read(folder / "plan.json")
        return tuple(
            TaskHead(
                name=task["name"],
                kind=task["kind"],
                labels=tuple(task["labels"]),
                head=task["head"],
            )
            for task in plan["tasks"]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} is no run: its plan.json cannot be read") from error


def _blueprint(config: RunConfig, tasks: tuple[TaskHead, ...]) -> Blueprint:
    return Blueprint(
        backbone=config.model.backbone,
        options=config.model.options,
        projector=config.model.projector,
        features=config.model.features,
        tasks=tasks,
        preprocessing=Preprocessing(
            size=config.views.size,
            resize=config.store.size,
            fit=config.store.fit,
            normalize=config.model.normalize,
        ),
        plugins=config.plugins,
    )


def _batches(images: Images, film: Preprocessing) -> Iterator[Tensor]:
    """Yield views ``(b, C, S, S)`` float32 in 0..1."""
    if isinstance(images, np.ndarray | Tensor):
        whole = _checked(torch.as_tensor(images), film.size)
        yield from (whole[start : start + BATCH] for start in range(0, len(whole), BATCH))
        return
    if isinstance(images, str | Path):
        raise DataError(f"images: a list of files is wanted, not the one file {str(images)!r}")
    for start in range(0, len(images), BATCH):
        films = [_film(each, film) for each in images[start : start + BATCH]]
        yield center(torch.from_numpy(np.stack(films)), film.size)


def _checked(views: Tensor, size: int) -> Tensor:
    given = f"{tuple(views.shape)} {str(views.dtype).removeprefix('torch.')}"
    if views.ndim != 4 or views.shape[1] not in (1, 3) or tuple(views.shape[2:]) != (size, size):
        raise DataError(f"images: (B, 1 or 3, {size}, {size}) is wanted, not {given}")
    if not views.is_floating_point():
        raise DataError(f"images: floats in 0..1 are wanted, not {given}; divide by the largest")
    if len(views) and not float(views.abs().max()) <= LARGEST:
        raise DataError("images: floats in 0..1 are wanted; these go beyond or are not finite")
    return views.to(torch.float32)


def _film(image: Any, film: Preprocessing) -> np.ndarray:
    """Return a film fitted ``(1, R, R)`` uint8."""
    if not isinstance(image, Image.Image):
        return fit_square(read_image(Path(image)), film.resize, film.fit)
    if image.mode[0] in "IF":
        raise DataError(f"images: a PIL image of mode {image.mode!r}; give its file instead")
    flat = image if image.mode in ("1", "L", "LA", "RGB") else image.convert("RGB")
    return fit_square(np.asarray(flat.convert("L")), film.resize, film.fit)


def _joined(found: Sequence[Tensor], width: int) -> np.ndarray:
    if not found:
        return np.zeros((0, width), dtype=np.float32)
    joined: np.ndarray = torch.cat(list(found)).cpu().numpy()
    return joined
