"""The phantom world: radiographs drawn by a program, for demos, documentation and tests.

Three hospitals whose labels disagree in kind, and masks of five organs and of twenty ribs.  Twelve
films of the north are in the south's table too (source ids ``phantom:north/…``), six of them from
the north's test split: a leak on purpose, for the audit to find.  These are drawings, not patients.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from ark_framework import DatasetCard, DatasetSpec, LabelSchema, hookimpl
from ark_framework.builtin.phantom import case as cases
from ark_framework.builtin.phantom.case import FINDINGS, HOSPITALS, Case, make_case, split_of
from ark_framework.builtin.phantom.film import STRUCTURES, draw, masks
from ark_framework.builtin.phantom.ribs import RIBS, ribs

VERSION = "1"
SHARED = 6  # of each kind: from the north's train split and from its test split
CLASSES = ("normal", "abnormal without opacity", "opacity")


class PhantomOptions(BaseModel):
    """``films``: how many there are over all splits; ``size``: side in pixels as drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    films: int = Field(default=3000, ge=24)
    size: int = Field(default=128, ge=32, le=1024)


def generator_hash(*more: str) -> str:
    """Return 12 digits of a hash over the generator's own source: it names the world.

    ``more`` are further files of it, which say something of the films without changing them.
    """
    digest = hashlib.sha256()
    for name in ("case.py", "film.py", *more):
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:12]


def image_name(case: Case) -> str:
    """Return a film's path, which says all that is needed to draw it."""
    return f"{case.hospital.name}/p{case.patient:05d}/{case.film:06d}.png"


def case_of(image: str) -> Case:
    """Return the case behind a film's path."""
    hospital, _, name = image.split("/")
    return make_case(HOSPITALS[hospital], int(name.removesuffix(".png")))


def _row(case: Case) -> dict[str, Any]:
    name = case.hospital.name
    return {
        "image": image_name(case),
        "split": split_of(case.patient),
        "patient": f"{name}-{case.patient}",
        "sex": "F" if case.female else "M",
        "age": float(case.age),
        "view": case.view,
        "source_id": f"phantom:{image_name(case)}",
        "source_patient": f"phantom:{name}-{case.patient}",
    }


def _findings(case: Case) -> dict[str, float]:
    def value(name: str) -> float:
        if name in case.missing:
            return np.nan
        return -1.0 if name in case.uncertain else float(name in case.findings)

    return {name: value(name) for name in FINDINGS}


def _class(case: Case) -> dict[str, float]:
    chosen = 2 if "opacity" in case.findings else 1 if case.findings else 0
    return {name: float(index == chosen) for index, name in enumerate(CLASSES)}


def _apical(case: Case) -> dict[str, float]:
    return {"apical opacity": float("opacity" in case.findings and case.upper)}


def _cases(hospital: str, count: int) -> list[Case]:
    return [make_case(HOSPITALS[hospital], film) for film in range(count)]


def _north(options: PhantomOptions) -> pd.DataFrame:
    return pd.DataFrame([{**_row(c), **_findings(c)} for c in _cases("north", options.films)])


def _south(options: PhantomOptions) -> pd.DataFrame:
    rows = [{**_row(c), **_class(c)} for c in _cases("south", options.films)]
    return pd.DataFrame(
        rows
        + [
            {**_row(c), "split": "train", **_class(c)}
            for c in _shared(_cases("north", options.films))
        ]
    )


def _shared(north: Sequence[Case]) -> list[Case]:
    found: list[Case] = []
    for split in ("train", "test"):
        found += [c for c in north if split_of(c.patient) == split][:SHARED]
    return found


def _east(options: PhantomOptions) -> pd.DataFrame:
    return pd.DataFrame([{**_row(c), **_apical(c)} for c in _cases("east", options.films)])


def _organs(options: PhantomOptions) -> pd.DataFrame:
    # Films of the north that its classification table does not reach.
    first = 10_000_000
    north = HOSPITALS["north"]
    return pd.DataFrame([_row(make_case(north, first + film)) for film in range(options.films)])


def _read_image(row: Any, options: PhantomOptions) -> np.ndarray:
    return draw(case_of(row.image), options.size)


def _read_mask(row: Any, options: PhantomOptions) -> np.ndarray:
    return masks(case_of(row.image), options.size)


def _read_ribs(row: Any, options: PhantomOptions) -> np.ndarray:
    return ribs(case_of(row.image), options.size)


def _fixture(folder: Path, films: int = 96) -> PhantomOptions:
    del folder  # nothing is written: films are drawn
    return PhantomOptions(films=films, size=64)


def _card(title: str) -> DatasetCard:
    return DatasetCard(
        title=title,
        home="built into ark-framework",
        licence="Apache-2.0",
        access="open",
        citation="drawn by ark-framework's phantom generator; no patients",
    )


def _spec(name: str, schema: LabelSchema, read: Any, **more: Any) -> DatasetSpec:
    return DatasetSpec(
        name=f"phantom-{name}",
        schema=schema,
        options=PhantomOptions,
        read=read,
        fixture=partial(_fixture, films=96),
        card=_card(f"Phantom {name}"),
        read_image=_read_image,
        **{"reader_version": f"{VERSION}-{generator_hash()}", **more},
    )


@hookimpl
def ark_datasets() -> list[DatasetSpec]:
    """Return three classification datasets whose labels disagree in kind, and two of masks."""
    return [
        _spec(
            "north",
            LabelSchema(name="phantom-findings", kind="multilabel", labels=FINDINGS),
            _north,
        ),
        _spec(
            "south", LabelSchema(name="phantom-classes", kind="multiclass", labels=CLASSES), _south
        ),
        _spec(
            "east",
            LabelSchema(name="phantom-apical", kind="multilabel", labels=("apical opacity",)),
            _east,
        ),
        _spec(
            "organs",
            LabelSchema(name="phantom-organs", kind="mask", labels=STRUCTURES),
            _organs,
            read_mask=_read_mask,
        ),
        _spec(
            "ribs",
            LabelSchema(name="phantom-ribs", kind="mask", labels=RIBS),
            _organs,
            read_mask=_read_ribs,
            reader_version=f"{VERSION}-{generator_hash('ribs.py')}",
        ),
    ]


__all__ = ["PhantomOptions", "ark_datasets", "cases", "generator_hash", "image_name"]
