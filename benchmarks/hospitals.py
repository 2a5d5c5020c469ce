"""Hospitals of the gain benchmark: drawn by the phantom generator, which is left as it is.

Four pretraining hospitals whose labels disagree in kind, one that labels the very concept of the
held-out task, and the held-out hospital.  The concept, an opacity in the upper zone, is no label
of the four: of them only `classes` counts opacities at all, within a wider class.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from ark_framework import DatasetCard, DatasetSpec, LabelSchema, hookimpl
from ark_framework.builtin.phantom import generator_hash, image_name
from ark_framework.builtin.phantom.case import FINDINGS, Case, Hospital, make_case, split_of
from ark_framework.builtin.phantom.film import draw

PLUGIN = "ark-gain"
CURVE = ("heart", "nodules", "classes", "findings")  # in the order in which the curve adds them
SHARED, HELD_OUT = "shared", "heldout"
SIDE = 64
LUNG = frozenset({"opacity", "nodule", "edema"})
Facts = Callable[[Case], Mapping[str, float]]


class FilmOptions(BaseModel):
    """``films`` from index ``first`` on; ``permuted``: labels dealt out anew among the films."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    films: int = Field(default=96, ge=24)
    first: int = Field(default=0, ge=0)
    permuted: bool = False


@dataclass(frozen=True, kw_only=True)
class Center:
    """A hospital and what it writes down of a film."""

    hospital: Hospital
    labels: tuple[str, ...]
    facts: Facts
    kind: Literal["multilabel", "multiclass"] = "multilabel"


def present(case: Case, *, labels: tuple[str, ...]) -> dict[str, float]:
    """Return 1 or 0 for each finding."""
    return {name: float(name in case.findings) for name in labels}


def exclusive(case: Case) -> dict[str, float]:
    """Return the one class of a film: a lung finding goes before any other."""
    lung = bool(case.findings & LUNG)
    return {
        "normal": float(not case.findings),
        "lung finding": float(lung),
        "other finding": float(bool(case.findings) and not lung),
    }


def apical(case: Case) -> dict[str, float]:
    """Return the held-out concept."""
    return {"apical opacity": float("opacity" in case.findings and case.upper)}


def _hospital(name: str, key: int, rates: tuple[float, ...], **equipment: Any) -> Hospital:
    return Hospital(name=name, key=key, rates=dict(zip(FINDINGS, rates, strict=True)), **equipment)


def _findings(hospital: Hospital, *labels: str) -> Center:
    return Center(hospital=hospital, labels=labels, facts=partial(present, labels=labels))


def _apical(hospital: Hospital) -> Center:
    return Center(hospital=hospital, labels=("apical opacity",), facts=apical)


# Rates in the order of FINDINGS: opacity, nodule, effusion, enlarged heart, pneumothorax, edema.
CENTERS: Mapping[str, Center] = {
    "heart": _findings(
        _hospital(
            "heart",
            21,
            (0.20, 0.15, 0.32, 0.36, 0.10, 0.20),
            gamma=(0.8, 1.3),
            noise=0.03,
            blur=0,
            border=0.1,
        ),
        "effusion",
        "enlarged heart",
    ),
    "nodules": _findings(
        _hospital(
            "nodules",
            22,
            (0.20, 0.40, 0.10, 0.15, 0.08, 0.08),
            gamma=(0.6, 1.1),
            noise=0.04,
            blur=0,
            border=0.0,
        ),
        "nodule",
    ),
    "classes": Center(
        hospital=_hospital(
            "classes",
            23,
            (0.22, 0.12, 0.22, 0.20, 0.18, 0.10),
            gamma=(0.7, 1.4),
            noise=0.045,
            blur=1,
            border=0.4,
        ),
        labels=("normal", "lung finding", "other finding"),
        facts=exclusive,
        kind="multiclass",
    ),
    "findings": _findings(
        _hospital(
            "findings",
            24,
            (0.25, 0.28, 0.24, 0.20, 0.18, 0.28),
            gamma=(0.9, 1.5),
            noise=0.035,
            blur=0,
            border=0.2,
        ),
        "effusion",
        "nodule",
        "edema",
    ),
    SHARED: _apical(
        _hospital(
            SHARED,
            25,
            (0.50, 0.15, 0.15, 0.18, 0.10, 0.12),
            gamma=(0.7, 1.2),
            noise=0.03,
            blur=0,
            border=0.0,
            upper=0.6,
        )
    ),
    HELD_OUT: _apical(
        _hospital(
            HELD_OUT,
            26,
            (0.55, 0.12, 0.12, 0.15, 0.08, 0.08),
            gamma=(0.9, 1.7),
            noise=0.055,
            blur=1,
            border=0.15,
            upper=0.6,
        )
    ),
}


def dataset(name: str) -> str:
    """Return the dataset's name of a center."""
    return f"gain-{name}"


def hospitals_hash() -> str:
    """Return 12 digits of a hash over this file: it names the hospitals and their labels."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]


def table(center: Center, options: FilmOptions) -> pd.DataFrame:
    """Return one row per film; ``permuted`` breaks the tie to the film and keeps prevalences.

    Whole rows of labels change places, within each split.
    """
    cases = [make_case(center.hospital, options.first + film) for film in range(options.films)]
    frame = pd.DataFrame(
        {
            "image": image_name(case),
            "split": split_of(case.patient),
            "patient": str(case.patient),
            **center.facts(case),
        }
        for case in cases
    )
    if options.permuted:
        labels = list(center.labels)
        rng = np.random.default_rng([center.hospital.key, options.first])
        for _, rows in frame.groupby("split").groups.items():
            frame.loc[rows, labels] = frame.loc[rng.permutation(rows), labels].to_numpy()
    return frame


def read_image(row: Any, options: FilmOptions) -> np.ndarray:
    """Draw a film, ``(SIDE, SIDE)`` uint8, from its path."""
    del options
    center, _, name = row.image.split("/")
    return draw(make_case(CENTERS[center].hospital, int(name.removesuffix(".png"))), SIDE)


@hookimpl
def ark_datasets() -> list[DatasetSpec]:
    """Return a dataset for each center."""
    return [
        DatasetSpec(
            name=dataset(name),
            schema=LabelSchema(name=dataset(name), kind=center.kind, labels=center.labels),
            options=FilmOptions,
            read=partial(table, center),
            fixture=lambda folder: FilmOptions(),
            card=DatasetCard(
                title=f"Phantom hospital {name}",
                home="drawn by ark-framework",
                licence="Apache-2.0",
                access="open",
                citation="drawn by ark-framework's phantom generator; no patients",
            ),
            read_image=read_image,
            reader_version=f"{generator_hash()}-{hospitals_hash()}",
        )
        for name, center in CENTERS.items()
    ]
