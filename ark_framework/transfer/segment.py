"""Segmentation: UperNet trained on one split of a mask dataset."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ark_framework import masks as bits
from ark_framework.corpus import Corpus
from ark_framework.errors import ConfigError, DataError
from ark_framework.overlap import FilmScores, concatenate, film_scores
from ark_framework.registry import Registry
from ark_framework.runtime import Runtime
from ark_framework.transfer.protocol import SegmentConfig
from ark_framework.transfer.segmentation import Segmentation
from ark_framework.transfer.splits import Split
from ark_framework.transfer.structures import Structures
from ark_framework.transfer.training import Course, Training, asked, course
from ark_framework.transfer.upernet import UperNet
from ark_framework.transfer.workfolder import WorkFolder

CHUNK = 64  # films scored at a time


@dataclass(frozen=True, kw_only=True)
class Segmented(Course):
    """What came out: how it went, and the ``masks`` of the test films, ``(n, B, S, S)`` uint8.

    Structure k is bit k % 8 of plane k // 8; see :mod:`ark_framework.masks`.
    """

    masks: np.ndarray


def segment(
    network: UperNet,
    corpus: Corpus,
    split: Split,
    structures: Structures,
    config: SegmentConfig,
    *,
    seed: int,
    folder: Path,
    runtime: Runtime,
    plugins: Registry | None = None,
    say: Callable[[str], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> Segmented:
    """Train ``network`` on a split's training films and find masks on its test films, once.

    Validation films, whole and never augmented, alone stop the training and choose the weights.
    A folder that is finished is read and the network left as it is; one that was interrupted goes
    on and ends as if it had not been, to the bit on the same device and threads.

    Args:
        network: Fresh; it is trained in place and ends with the chosen weights, in eval mode.
        corpus: A mask dataset, packed at ``config.views.size``.
        split: Which of its rows train, validate and test.
        structures: Which masks the network gives.
        config: The protocol.
        seed: Of order, views and drop path.
        folder: Holds this training and nothing else.
        runtime: Device and precision.
        plugins: Where a loss is looked up; the built-in ones when absent.
        say: Called with one-line notices.
        stop: Set it to save and stop after the step under way.

    Raises:
        Interrupted: ``stop`` was set; call again to go on.
        RunError: a loss was not finite; nothing was saved after it.
        ConfigError: the folder holds another training, or this is no mask dataset.
        DataError: nothing to train on, or nothing to test on.
        CheckpointError: the folder is damaged.
        MachineError: the disk refuses.
    """
    _check(corpus, split, config)
    told = {**asked(network, corpus, split, config, seed, runtime), "masks": list(structures.names)}
    told["parts"] = [list(each) for each in structures.parts]
    work = WorkFolder(path=folder, asked=told)
    found = work.result()
    if found is None:
        network.to(runtime.device)
        masks = Segmentation(
            network, corpus, split, structures, config, seed, runtime, plugins=plugins
        )
        training = Training(network, masks, config, seed, runtime, work, say)
        found = training.run(stop or threading.Event())
    values, predicted = found
    return Segmented(**course(values, folder), masks=predicted)


def score(
    masks: np.ndarray, corpus: Corpus, rows: np.ndarray, structures: Structures
) -> FilmScores:
    """Score masks ``(n, B, S, S)``, as :class:`Segmented` has them, of table rows ``(n,)``.

    HD95 is in mm where the dataset says how large its films are, else in pixels.
    """
    spacing = corpus.spacing(rows)
    drawn = structures.drawn(corpus.table.drawn()[rows])
    parts = []
    for start in range(0, len(rows), CHUNK):
        some = slice(start, start + CHUNK)
        found = bits.unpack(masks[some], len(structures.names))
        true = structures.of(corpus.masks(rows[some]))
        apart = None if spacing is None else spacing[some]
        parts.append(film_scores(found, true, drawn[some], apart))
    return concatenate(parts)


def _check(corpus: Corpus, split: Split, config: SegmentConfig) -> None:
    if corpus.schema.kind != "mask":
        raise ConfigError(f"{corpus.name} has labels and no masks; they are for: ark finetune")
    if not len(split.test):
        raise DataError(f"{corpus.name}, {split.name}: no test films")
    side = int(corpus.store.images.shape[-1])
    if side != config.views.size:
        raise ConfigError(
            f"{corpus.name}: packed at {side} pixels and views.size is {config.views.size}; "
            "films and masks are segmented whole, at the size they are packed at"
        )
