"""A first dataset: a folder ``films`` of PNG files, and ``findings.csv`` with a reader's marks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import BaseModel, ConfigDict

from ark_framework import DatasetCard, DatasetSpec, LabelSchema, hookimpl

LABELS = ("effusion", "nodule")


class FirstOptions(BaseModel):
    """``root`` holds ``films/`` and ``findings.csv``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path


def read(options: FirstOptions) -> pd.DataFrame:
    """Return one row per film; an empty cell is a film that was not read for that finding."""
    found = pd.read_csv(options.root / "findings.csv", dtype={"film": str, "person": str})
    frame = pd.DataFrame({"image": "films/" + found["film"] + ".png"})
    frame["patient"] = found["person"]
    frame["split"] = found["part"].map({"train": "train", "held out": "test"})
    for label in LABELS:
        frame[label] = found[label].map({"yes": 1.0, "no": 0.0, "perhaps": -1.0})
    return frame


def fixture(folder: Path) -> FirstOptions:
    """Write a miniature: 24 films of noise, in the layout that ``read`` expects."""
    rng = np.random.default_rng(0)
    (folder / "films").mkdir(parents=True)
    lines = ["film,person,part,effusion,nodule"]
    for film in range(24):
        part = "train" if film < 16 else "held out"
        marks = [("yes", "no", "perhaps", "")[(film + shift) % 4] for shift in (0, 1)]
        lines.append(f"{film:03d},p{film // 2},{part},{','.join(marks)}")
        pixels = rng.integers(0, 256, (40, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "films" / f"{film:03d}.png")
    (folder / "findings.csv").write_text("\n".join(lines) + "\n")
    return FirstOptions(root=folder)


SPEC = DatasetSpec(
    name="first",
    schema=LabelSchema(name="first", kind="multilabel", labels=LABELS),
    options=FirstOptions,
    read=read,
    fixture=fixture,
    card=DatasetCard(
        title="A first dataset",
        home="https://example.org/first",
        licence="CC0-1.0",
        access="open",
        citation="nobody; it is noise",
    ),
)


@hookimpl
def ark_datasets() -> list[DatasetSpec]:
    """Return the dataset."""
    return [SPEC]
