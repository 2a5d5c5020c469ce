"""Where in a film an output comes from: Grad-CAM on the backbone's last map.

Selvaraju et al., 2017: the channels of the map, weighted by the mean gradient of the output before
softmax or sigmoid, summed, and only what speaks for it kept.  It shows what the output depends on
here, which is not why a patient is ill.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from ark_framework.errors import MachineError
from ark_framework.model import ArkModel, Features
from ark_framework.pretrained import Pretrained
from ark_framework.transfer.films import Stems
from ark_framework.transfer.predict import Predicted
from ark_framework.transfer.zeroshot import Part

# A picture is enlarged to at least this side; this color covers at most this share of the film.
SIDE, COLOR, OPACITY = 512, (1.0, 0.25, 0.0), 0.6


class Above(nn.Module):
    """What lies above the backbone's last map ``(B, C, H, W)``, which passes through ``last``."""

    def __init__(self, model: ArkModel, task: str) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.last = nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """Return the logits ``(B, labels)``."""
        maps = self.last(maps)
        pooled = self.model.encoder.pool(maps)
        projected = self.model.projector(pooled)
        features = Features(map=maps, pooled=pooled, projected=projected)
        return self.model.classify(self.task, features)


def must_be_installed() -> None:
    """Raise where the library of the extra is missing.

    Raises:
        MachineError: it is.
    """
    try:
        import captum.attr  # noqa: F401
    except ImportError as error:
        raise MachineError(
            "saliency maps need captum: pip install 'ark-framework[saliency]'"
        ) from error


def grad_cam(model: Pretrained, views: Tensor, part: Part) -> np.ndarray:
    """Return Grad-CAM maps ``(B, H, W)`` float32, 0 and above, as fine as the last map.

    Args:
        model: The model.
        views: ``(B, C, S, S)`` floats in 0..1, as it sees them.
        part: The output that is asked about.

    Raises:
        MachineError: the extra is not installed.
    """
    must_be_installed()
    from captum.attr import LayerGradCam

    label = _label(model, part)
    above = Above(model.model, part.task).eval()
    with torch.no_grad():  # nothing below the map needs a gradient
        last = model.model.encode(views.to(model.device)).map
    with torch.enable_grad():
        found = LayerGradCam(above, above.last).attribute(
            last.requires_grad_(), target=label, relu_attributions=True
        )
    maps: np.ndarray = found[:, 0].detach().float().cpu().numpy()
    return maps


def overlay(view: np.ndarray, heat: np.ndarray) -> Image.Image:
    """Lay a map over its film in one color, the denser the nearer to the map's own maximum.

    One color: a map is coarse, and a scale of several would draw edges where it has none.

    Args:
        view: ``(S, S)`` floats in 0..1.
        heat: ``(H, W)``, 0 and above.
    """
    side = len(view) * -(-SIDE // len(view))
    highest = max(float(heat.max()), float(np.finfo(np.float32).tiny))
    share = OPACITY * _enlarged(heat / highest, side)[..., None]
    mixed = (1 - share) * _enlarged(view, side)[..., None] + share * np.array(COLOR)
    return Image.fromarray(np.rint(255 * mixed.clip(0, 1)).astype(np.uint8))


class Gallery:
    """A folder of pictures, named for their films; of two with one name the later has a number.

    Args:
        folder: Made where it is not there.
        model: The model.
        part: The output that is asked about.
        raw: Whether to keep each map, as computed, beside its picture (``.npy``).
    """

    def __init__(self, folder: Path, model: Pretrained, part: Part, *, raw: bool = False) -> None:
        must_be_installed()
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._model, self._part, self._raw = folder, model, part, raw
        self._stems = Stems()

    def hang(self, found: Predicted) -> list[str | None]:
        """Write the pictures of some films and return their names, ``None`` where unreadable."""
        names: list[str | None] = [None] * len(found.names)
        maps = grad_cam(self._model, found.views, self._part) if len(found.views) else ()
        shown = zip(np.flatnonzero(found.readable), found.views, maps, strict=True)
        for row, view, heat in shown:
            stem = self._stems.of(found.names[row])
            names[row] = f"{stem}.png"
            overlay(view.mean(0).numpy(), heat).save(self._folder / f"{stem}.png")
            if self._raw:
                np.save(self._folder / f"{stem}.npy", heat)
        return names


def _label(model: Pretrained, part: Part) -> int:
    (task,) = (task for task in model.tasks if task.name == part.task)
    return task.labels.index(part.label)


def _enlarged(array: np.ndarray, side: int) -> np.ndarray:
    given = torch.from_numpy(np.asarray(array, dtype=np.float32))[None, None]
    large = functional.interpolate(given, (side, side), mode="bilinear", align_corners=False)
    values: np.ndarray = large[0, 0].numpy()
    return values
