"""How large the structures of a mask dataset are, measured on its packed films."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.table import Table

from ark_framework import masks
from ark_framework.annotations import SPLITS, AnnotationTable
from ark_framework.cli.console import sheet
from ark_framework.store import Store


def areas(table: AnnotationTable, store: Store) -> dict[str, dict[str, Any]]:
    """Measure every structure in every split that has films; unreadable films are left out.

    Returns:
        ``{split: {structure: measures}}``, as :func:`measures` says; ``unused`` stands for the
        films of no split.
    """
    index = store.rows(table.frame["image"].tolist())
    shares, drawn = _shares(store)[index], table.drawn() & (index >= 0)[:, None]
    split = table.frame["split"].fillna("unused").to_numpy()
    return {
        name: {
            label: measures(shares[split == name, column][drawn[split == name, column]])
            for column, label in enumerate(table.schema.labels)
        }
        for name in (*SPLITS, "unused")
        if (split == name).any()
    }


def measures(shares: np.ndarray) -> dict[str, Any]:
    """Measure one structure on the films where it is drawn.

    Args:
        shares: Its share of each packed film, 0..1.

    Returns:
        ``drawn`` films, those where it is ``empty``, and the ``mean``, ``least`` and ``largest``
        share where it is not, ``None`` where it is nowhere.
    """
    there = shares[shares > 0]
    return {
        "drawn": len(shares),
        "empty": len(shares) - len(there),
        "mean": float(there.mean()) if len(there) else None,
        "least": float(there.min()) if len(there) else None,
        "largest": float(there.max()) if len(there) else None,
    }


def layout(dataset: str, found: dict[str, dict[str, Any]]) -> Table:
    """Lay the areas of a dataset out for a terminal."""
    columns = ("drawn", "empty", "mean", "least", "largest")
    made = sheet("structure", "split", *columns, title=f"{dataset}: areas, where not empty")
    for column in made.columns[2:]:
        column.justify = "right"
    for label in next(iter(found.values())):
        for name, structures in found.items():
            one = structures[label]
            made.add_row(
                label if name == next(iter(found)) else "",
                name,
                *(str(one[key]) for key in columns[:2]),
                *("" if one[key] is None else f"{one[key]:.2%}" for key in columns[2:]),
            )
    return made


def _shares(store: Store) -> np.ndarray:
    """Return the share of the square ``(N, K)`` that each structure of each stored film fills."""
    counts = np.zeros((len(store.names), store.structures))
    for row, bits in enumerate(store.masks):  # one at a time: twenty ribs are twenty films
        counts[row] = masks.unpack(bits, store.structures).sum(axis=(1, 2))
    return counts / store.size**2
