"""One dataset of a run: its validated table joined to its opened store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ark_framework import masks
from ark_framework.annotations import SPLITS, AnnotationTable, validate, with_validation
from ark_framework.config import RunConfig
from ark_framework.decoding import Row
from ark_framework.packing import ensure
from ark_framework.registry import Registry, parse_options
from ark_framework.roots import resolve
from ark_framework.specs import DatasetSpec, LabelSchema
from ark_framework.store import Store, default_folder

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A dataset ready for training.

    Attributes:
        table: The validated annotations, ``N`` rows.
        store: The packed films.
        index: ``(N,)`` int64, the store row of each table row, -1 where the film is unreadable.
        made_validation: Rows moved from train to val because there was no validation split.
        options: The dataset's checked options.
    """

    spec: DatasetSpec
    schema: LabelSchema
    table: AnnotationTable
    store: Store
    index: np.ndarray
    made_validation: int = 0
    options: Any = None

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.spec.name

    def rows(self, split: str, *, limit: int | None = None, seed: int = 0) -> np.ndarray:
        """Return the readable rows of a split, ``(n,)``; at most ``limit``, drawn by ``seed``."""
        rows = self.table.rows(split)
        rows = rows[self.index[rows] >= 0]
        if limit is not None and len(rows) > limit:
            chosen = np.random.default_rng([seed, SPLITS.index(split)]).permutation(len(rows))
            rows = np.sort(rows[chosen[:limit]])
        return rows

    def without(self, rows: np.ndarray) -> Corpus:
        """Return the corpus with rows in no split: they are neither trained on nor scored."""
        if not len(rows):
            return self
        frame = self.table.frame.copy()
        frame.loc[rows, "split"] = None
        return replace(self, table=replace(self.table, frame=frame))

    def images(self, rows: np.ndarray) -> np.ndarray:
        """Return stored films ``(n, C, S, S)`` uint8 of table rows."""
        return np.asarray(self.store.images[self.index[rows]])

    def masks(self, rows: np.ndarray) -> np.ndarray:
        """Return stored masks ``(n, K, S, S)`` bool of table rows, structure k = label k."""
        return masks.unpack(np.asarray(self.store.masks[self.index[rows]]), self.store.structures)

    def spacing(self, rows: np.ndarray) -> np.ndarray | None:
        """Return mm per stored pixel, down and across, ``(n, 2)``; ``None`` where one is unknown.

        A plugin's ``extent`` says how large a film is.
        """
        extent = self.spec.extent
        if extent is None:
            return None
        images = self.table.frame["image"].iloc[rows]
        sides = np.array([extent(Row(image), self.options) for image in images], dtype=float)
        sides = sides.reshape(-1, 2)
        if self.store.fit != "squash":  # the longer side is the square's, or the shorter one
            longest = self.store.fit == "pad"
            side = sides.max(axis=1) if longest else sides.min(axis=1)
            sides = np.stack([side, side], axis=1)
        return sides / self.store.size if np.isfinite(sides).all() else None


def training_targets(raw: np.ndarray, schema: LabelSchema, uniform: np.ndarray) -> np.ndarray:
    """Apply the schema's policy for uncertain and blank entries.

    Args:
        raw: ``(n, C)`` with 1, 0, NaN and -1.
        schema: Whose policy it is.
        uniform: ``(n, C)`` draws from [0, 1), used by the ``soft`` policy alone.

    Returns:
        ``(n, C)`` float32; NaN = not annotated.
    """
    low, high = schema.soft_range
    instead: np.ndarray = np.asarray(
        {
            "ignore": np.float32(np.nan),
            "zeros": np.float32(0),
            "ones": np.float32(1),
            "soft": (low + (high - low) * uniform).astype(np.float32),
        }[schema.uncertain]
    )
    targets: np.ndarray = np.where(raw == -1, instead, raw).astype(np.float32)
    return np.where(np.isnan(raw), scored_targets(raw, schema), targets)


def scored_targets(raw: np.ndarray, schema: LabelSchema) -> np.ndarray:
    """Apply the schema's policy for blank entries alone; an uncertain one stays -1, unscored."""
    if schema.blank == "ignore":
        return raw
    return np.where(np.isnan(raw), np.float32(0), raw)


def open_corpus(
    spec: DatasetSpec,
    registry: Registry,
    config: RunConfig,
    *,
    roots: Mapping[str, Path],
    progress: Progress | None = None,
) -> Corpus:
    """Read, validate and pack one dataset, or open its store.

    Raises:
        DataError: no root, a wrong table, or unreadable films beyond ``store.max_bad``.
    """
    table, options, moved = read_split(spec, registry, config, roots=roots)

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress(spec.name, done, total)

    store = ensure(
        spec,
        options,
        table.films,
        folder=Path(config.store.folder) if config.store.folder else default_folder(),
        size=config.store.size,
        fit=config.store.fit,
        structures=table.structures,
        workers=config.store.workers,
        max_bad=config.store.max_bad,
        progress=report,
    )
    return Corpus(
        spec=spec,
        schema=table.schema,
        table=table,
        store=store,
        index=store.rows(table.frame["image"].tolist()),
        made_validation=moved,
        options=options,
    )


def read_split(
    spec: DatasetSpec, registry: Registry, config: RunConfig, *, roots: Mapping[str, Path]
) -> tuple[AnnotationTable, Any, int]:
    """Read a table and give it a validation split; return it, its options and the rows moved."""
    table, options = read_table(spec, registry, config, roots=roots)
    table, moved = with_validation(
        table, fraction=config.validation.fraction, seed=config.validation.seed
    )
    return table, options, moved


def read_table(
    spec: DatasetSpec, registry: Registry, config: RunConfig, *, roots: Mapping[str, Path]
) -> tuple[AnnotationTable, Any]:
    """Resolve the options, read the plugin's table and validate it."""
    options = options_of(spec, config, roots=roots)
    schema = registry.schema_of(spec, options)
    with registry.blaming("dataset", spec.name, "read()"):
        frame = spec.read(options.model_copy(deep=True))  # whatever it does to them
    return validate(frame, dataset=spec.name, schema=schema), options


def options_of(spec: DatasetSpec, config: RunConfig, *, roots: Mapping[str, Path]) -> Any:
    """Return a dataset's checked options, its root filled in."""
    values = resolve(spec, given=roots, configured=config.data.get(spec.name, {}))
    return parse_options(spec, values, where=f"data.{spec.name}")
