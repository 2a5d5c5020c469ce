"""Which head of the published weights is which: order and class names, as data."""

from __future__ import annotations

from collections.abc import Sequence

from ark_framework.blueprint import TaskHead
from ark_framework.errors import ConfigError
from ark_framework.text import is_name

# The released notebooks name MIMIC's classes in CheXpert's order; the weights answer to this one.
MIMIC = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum",
    "Fracture", "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other",
    "Pneumonia", "Pneumothorax", "Support Devices",
)  # fmt: skip
CHEXPERT = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
NIH = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia",
    "Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening",
    "Hernia",
)  # fmt: skip
RSNA = ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity")
VINDR = (
    "Pleural effusion", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "No finding",
)  # fmt: skip

# The order of both released six-headed files.
SIX = (
    TaskHead(name="mimic", kind="multilabel", labels=MIMIC),
    TaskHead(name="chexpert", kind="multilabel", labels=CHEXPERT),
    TaskHead(name="chestxray14", kind="multilabel", labels=NIH),
    TaskHead(name="rsna", kind="multiclass", labels=RSNA),
    TaskHead(name="vindr", kind="multilabel", labels=VINDR),
    TaskHead(name="shenzhen", kind="multilabel", labels=("TB",)),
)
KNOWN = {(head.name, len(head.labels)): head for head in SIX}


def name_heads(sizes: Sequence[int], given: str | None = None) -> tuple[TaskHead, ...]:
    """Return the heads of a file in its order.

    Args:
        sizes: Outputs of each head.
        given: ``mimic=14,mine=Nodule|Mass``: for each head a name, and its number of labels (a
            dataset of the published six then has its labels) or the labels themselves.  Without
            it six heads of the published sizes have their published names, and no others have.

    Raises:
        ConfigError: ``given`` is not of that form, or does not fit the file.
    """
    if given is not None:
        return _given(sizes, given)
    if tuple(sizes) == tuple(len(head.labels) for head in SIX):
        return SIX
    return tuple(_unnamed(f"head_{index}", size) for index, size in enumerate(sizes))


def _given(sizes: Sequence[int], given: str) -> tuple[TaskHead, ...]:
    heads = tuple(_one(entry.strip()) for entry in given.split(","))
    counts = [len(head.labels) for head in heads]
    if counts != list(sizes):
        raise ConfigError(f"--heads gives heads of sizes {counts}; the file's are {list(sizes)}")
    if len({head.name for head in heads}) != len(heads):
        raise ConfigError(f"--heads {given!r} gives a name twice")
    return heads


def _one(entry: str) -> TaskHead:
    name, _, value = entry.partition("=")
    if not name.replace("-", "").replace("_", "").isalnum() or not value:
        raise ConfigError(
            f"--heads: {entry!r} is not NAME=COUNT or NAME=LABEL|LABEL, as in mimic=14,rsna=3"
        )
    if not value.isdecimal():
        labels = tuple(label.strip() for label in value.split("|"))
        if not all(map(is_name, labels)) or len(set(labels)) != len(labels):
            raise ConfigError(f"--heads: {entry!r} has a label that is no text, or one twice")
        return TaskHead(name=name, kind="multilabel", labels=labels)
    return KNOWN.get((name, int(value))) or _unnamed(name, int(value))


def _unnamed(name: str, size: int) -> TaskHead:
    labels = tuple(f"label_{index}" for index in range(size))
    return TaskHead(name=name, kind="multilabel", labels=labels, named=False)
