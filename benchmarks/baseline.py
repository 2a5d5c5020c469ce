"""What people write without a framework: the baselines of every speed benchmark, frozen.

This file is not to be tuned.  It is what the benchmarks' ratios are against, in the style of a
first working script: films decoded one by one by a DataLoader's workers, losses read every step,
torch's defaults.  Faster code belongs into the engine; a change here needs a reason that has
nothing to do with speed, and every result measured again.

- :class:`FilmDataset`, :func:`loader`: PIL → RGB → resize → two views → float → collate.
- :func:`script_loop`: student and teacher, fp32, `.item()` every step, EMA parameter by parameter.
- :func:`lean_loop`: the same method by somebody who knows torch: nothing read, fused, autocast.
- :func:`timm_loop`: timm's train script: one model, one view, autocast, EMA every step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms import v2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# A student's view, a teacher's view, targets.
Batch = tuple[Tensor, Tensor, Tensor]


class FilmDataset(Dataset[Any]):
    """Files decoded when they are asked for; both views have one random geometry."""

    def __init__(
        self, files: Sequence[Path], targets: np.ndarray, *, stored: int = 256, size: int = 224
    ) -> None:
        self.files, self.targets, self.stored = files, targets, stored
        self.geometry = v2.Compose(
            [
                v2.RandomResizedCrop(size, scale=(0.08, 1.0), antialias=True),
                v2.RandomApply(
                    [v2.RandomAffine(10, translate=(0.0625, 0.0625), scale=(0.9, 1.1))], p=0.5
                ),
            ]
        )
        self.tone = v2.RandomApply([v2.ColorJitter(brightness=0.2, contrast=0.2)], p=0.3)
        self.finish = v2.Compose(
            [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
        )

    def __len__(self) -> int:
        return len(self.files)

    def decode(self, index: int) -> Image.Image:
        """Return the film as a colour image of the stored side."""
        with Image.open(self.files[index]) as file:
            return file.convert("RGB").resize((self.stored, self.stored))

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        image = self.geometry(self.decode(index))
        student, teacher = self.finish(self.tone(image)), self.finish(image)
        return student, teacher, torch.from_numpy(self.targets[index])


def loader(data: FilmDataset, batch: int, *, workers: int | None = None) -> Iterable[Any]:
    """Return a DataLoader with a worker on each core."""
    count = (os.cpu_count() or 1) if workers is None else workers
    return DataLoader(data, batch, shuffle=True, num_workers=count, drop_last=True)


def decoded_batch(data: FilmDataset, indices: Sequence[int]) -> Any:
    """Decode and collate films without any view, as one worker does it."""
    return default_collate([np.array(data.decode(index)) for index in indices])


def whole_batch(data: FilmDataset, indices: Sequence[int]) -> Any:
    """Decode films, make both views and collate, as one worker does it."""
    return default_collate([data[index] for index in indices])


class TwoHeads(nn.Module):
    """A model as a script has it: a call returns the projection and the logits."""

    def __init__(self, model: Any, task: str) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model.encode(views)
        return features.projected, self.model.classify(self.task, features)


def script_loop(
    student: nn.Module,
    teacher: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Batch],
    *,
    weight: float = 0.25,
    momentum: float = 0.9,
) -> list[float]:
    """Train on every batch, then move the teacher; return the losses."""
    losses = []
    for first, second, target in batches:
        with torch.no_grad():
            known, _ = teacher(second)
        projected, logits = student(first)
        task = functional.binary_cross_entropy_with_logits(logits, target)
        consistency = functional.mse_loss(projected, known)
        loss = (1 - weight) * task + weight * consistency
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
            mine.data = momentum * mine.data + (1 - momentum) * theirs.data
    return losses


def lean_loop(
    student: nn.Module,
    teacher: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Batch],
    *,
    autocast: Callable[[], AbstractContextManager[Any]],
    weight: float = 0.25,
    momentum: float = 0.9,
) -> None:
    """Do the same work, and nothing that a run could do without; nothing is read or checked."""
    for first, second, target in batches:
        with autocast():
            with torch.no_grad():
                known, _ = teacher(second)
            projected, logits = student(first)
        task = functional.binary_cross_entropy_with_logits(logits.float(), target)
        consistency = functional.mse_loss(projected.float(), known.float())
        ((1 - weight) * task + weight * consistency).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1.0 - momentum)


def timm_loop(
    model: nn.Module,
    average: Any,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Batch],
    *,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> None:
    """Train one model as timm's `train_one_epoch` does: three quarters of the others' FLOPs."""
    for first, _, target in batches:
        with autocast():
            _, logits = model(first)
            loss = functional.binary_cross_entropy_with_logits(logits, target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if first.device.type == "cuda":
            torch.cuda.synchronize()
        average.update(model)
        optimizer.zero_grad()
        loss.item()
