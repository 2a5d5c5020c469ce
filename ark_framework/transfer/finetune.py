"""Fine-tuning: all layers of a model, or its head alone, on one split of a dataset."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ark_framework.corpus import Corpus
from ark_framework.errors import ConfigError, DataError
from ark_framework.model import ArkModel
from ark_framework.runtime import Runtime
from ark_framework.transfer.classification import Classification
from ark_framework.transfer.protocol import FinetuneConfig
from ark_framework.transfer.splits import Split
from ark_framework.transfer.training import Course, Training, Validation, asked, course
from ark_framework.transfer.workfolder import WorkFolder

__all__ = ["FinetuneConfig", "Finetuned", "Validation", "finetune"]


@dataclass(frozen=True, kw_only=True)
class Finetuned(Course):
    """What came out: how it went, and ``probabilities`` of the split's test films, ``(n, C)``."""

    probabilities: np.ndarray


def finetune(
    model: ArkModel,
    corpus: Corpus,
    split: Split,
    config: FinetuneConfig,
    *,
    seed: int,
    folder: Path,
    runtime: Runtime,
    say: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
) -> Finetuned:
    """Train ``model`` on a split's training films and predict its test films, once.

    Validation films alone stop the training and choose the weights; test films are read after
    both.  A folder that is finished is read and the model left as it is; one that was interrupted
    goes on and ends as if it had not been, to the bit on the same device and threads.

    Args:
        model: Fresh, with one head named :data:`~ark_framework.transfer.candidate.TASK`; it is
            trained in place and ends with the chosen weights, in eval mode.
        corpus: The dataset.
        split: Which of its rows train, validate and test.
        config: The protocol; ``views.size`` is the side that the model sees.
        seed: Of order, views and drop path.
        folder: Holds this training and nothing else.
        runtime: Device and precision.
        say: Called with one-line notices.
        stop: Set it to save and stop after the step under way.

    Raises:
        Interrupted: ``stop`` was set; call again to go on.
        RunError: a loss was not finite; nothing was saved after it.
        ConfigError: the folder holds another training, or the films are too small.
        DataError: nothing to train on, or nothing to test on.
        CheckpointError: the folder is damaged.
        MachineError: the disk refuses.
    """
    _check(corpus, split, config)
    work = WorkFolder(path=folder, asked=asked(model, corpus, split, config, seed, runtime))
    found = work.result()
    if found is None:
        model.to(runtime.device)
        labels = Classification(model, corpus, split, config, seed, runtime)
        training = Training(model, labels, config, seed, runtime, work, say or _quiet)
        found = training.run(stop or threading.Event())
    values, predicted = found
    return Finetuned(**course(values, folder), probabilities=predicted)


def _check(corpus: Corpus, split: Split, config: FinetuneConfig) -> None:
    if corpus.schema.kind == "mask":
        raise ConfigError(f"{corpus.name} holds masks, which are for: ark segment")
    for rows, name in ((split.train, "training"), (split.test, "test")):
        if not len(rows):
            raise DataError(f"{corpus.name}, {split.name}: no {name} films")
    size, side = config.views.size, int(corpus.store.images.shape[-1])
    if side < size:
        raise ConfigError(
            f"{corpus.name}: films are packed at {side} pixels and views.size is {size}; "
            "films are not enlarged"
        )
    if config.tencrop and side == size:
        raise ConfigError(
            f"{corpus.name}: tencrop needs films larger than views.size {size}; pack them larger"
        )


def _quiet(_: str) -> None:
    pass
