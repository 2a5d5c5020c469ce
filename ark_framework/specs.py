"""What a plugin declares: frozen, keyword-only descriptions that the core turns into a run.

A plugin returns these from its hooks (see :mod:`ark_framework.hooks`); nothing is registered by
importing.  This module imports neither torch nor pandas, so a dataset plugin stays light.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ark_framework.errors import PluginError
from ark_framework.text import is_name

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from pydantic import BaseModel

Kind = Literal["multilabel", "multiclass", "mask"]
LossKind = Literal["multilabel", "multiclass", "mask", "consistency"]
HeadInput = Literal["projected", "pooled", "map"]
Uncertain = Literal["ignore", "zeros", "ones", "soft"]
Blank = Literal["ignore", "zeros"]
Access = Literal["open", "registered", "credentialed"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


def _check_name(what: str, name: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PluginError(
            f"{what} name {name!r} must be lower-case letters, digits, '-' and '_', and start with "
            "a letter or digit"
        )


def _check_calls(what: str, spec: Any, *names: str, optional: tuple[str, ...] = ()) -> None:
    for name in (*names, *optional):
        value = getattr(spec, name)
        if not callable(value) and not (value is None and name in optional):
            raise PluginError(f"{what} {spec.name!r}: {name} must be a function, not {value!r:.60}")


def _check_options(what: str, name: str, options: Any) -> None:
    if not isinstance(options, type) or not hasattr(options, "model_fields"):
        raise PluginError(f"{what} {name!r}: options must be a pydantic type, not {options!r:.60}")


def _check_kinds(what: str, name: str, kinds: Any, known: tuple[str, ...]) -> None:
    if not isinstance(kinds, tuple) or not kinds or not set(kinds) <= set(known):
        raise PluginError(
            f"{what} {name!r}: kinds must be a tuple of {', '.join(known)}, not {kinds!r:.60}"
        )


@dataclass(frozen=True, kw_only=True)
class LabelSchema:
    """The labels of one task: their names, in order, and how they are read.

    Args:
        name: Unique among the plugins of a run, such as ``"chexpert-14"``.
        kind: ``multilabel`` (each label 1, 0, NaN = not annotated, -1 = uncertain), ``multiclass``
            (exactly one 1 per row, or all NaN) or ``mask`` (one binary structure per label; they
            may overlap).
        labels: Label names; column ``i`` of every target and output is ``labels[i]``.
        report: The labels that are scored; all of them when ``None``.
        uncertain: What a -1 becomes in training: ``ignore`` (excluded), ``zeros``, ``ones``, or
            ``soft``, a uniform draw from ``soft_range`` per image, label and cycle.
        soft_range: Bounds of the ``soft`` draw; (0.55, 0.85) is the range of the published
            method's CheXpert policy (from the paper's reference code).
        blank: What NaN is in training and in scores: ``ignore`` (excluded) or ``zeros``.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    report: tuple[str, ...] | None = None
    uncertain: Uncertain = "ignore"
    soft_range: tuple[float, float] = (0.55, 0.85)
    blank: Blank = "ignore"

    def __post_init__(self) -> None:
        _check_name("label schema", self.name)
        if self.kind not in ("multilabel", "multiclass", "mask"):
            raise PluginError(
                f"label schema {self.name!r}: kind {self.kind!r} is not one of "
                "multilabel, multiclass, mask"
            )
        if not isinstance(self.labels, tuple) or not self.labels:
            raise PluginError(f"label schema {self.name!r}: labels must be a non-empty tuple")
        if wrong := [label for label in self.labels if not is_name(label)]:
            raise PluginError(
                f"label schema {self.name!r}: label {wrong[0]!r} must be text on one line"
            )
        if len(set(self.labels)) != len(self.labels):
            raise PluginError(f"label schema {self.name!r}: a label is named twice")
        unknown = set(self.report or ()) - set(self.labels)
        if unknown:
            raise PluginError(
                f"label schema {self.name!r}: report names {sorted(unknown)}, which "
                "are not among its labels"
            )
        low, high = self.soft_range
        if not 0.0 <= low <= high <= 1.0:
            raise PluginError(
                f"label schema {self.name!r}: soft_range {self.soft_range} must lie in 0..1"
            )

    @property
    def scored(self) -> tuple[str, ...]:
        """The labels that are scored, in schema order."""
        return tuple(label for label in self.labels if self.report is None or label in self.report)


@dataclass(frozen=True, kw_only=True)
class DatasetCard:
    """What people must know before they use a dataset.

    Args:
        title: The dataset's own name.
        home: The page where it is had.
        licence: Its licence or terms, in the owner's words where short.
        access: ``open``, ``registered`` or ``credentialed``; films of a credentialed dataset never
            enter anything made for sharing.
        citation: How its owners ask to be cited.
        rows: Expected number of images by split name, ``all`` being every one, as far as known.
        positives: Expected positives by split name and label, as far as known; compared where a
            split has the expected ``rows``, since many people have a part of a dataset.
        patients: Expected number of patients.
    """

    title: str
    home: str
    licence: str
    access: Access
    citation: str
    rows: Mapping[str, int] = field(default_factory=dict)
    positives: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    patients: int | None = None

    def __post_init__(self) -> None:
        for split in self.positives:
            if split not in self.rows:
                raise PluginError(
                    f"card {self.title!r}: positives of {split!r} need its rows, or nobody knows "
                    "whether a dataset is whole"
                )


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """A dataset: how its official files become an annotation table.

    Args:
        name: Short lower-case name; also the default task name.
        schema: Its labels, or the name of a schema that a plugin provides, or
            ``schema(options) -> LabelSchema`` where the user's options name the labels.
        options: The plugin's own pydantic type; ``root: Path`` if it reads files.
        read: ``read(options) -> DataFrame``, one row per image of all splits; columns as in
            :mod:`ark_framework.annotations`.  For kind ``mask`` a label's column may be left out;
            where it is NaN, that structure was not drawn on that film.
        fixture: ``fixture(folder) -> options`` writes a licence-free miniature in the official
            layout and returns the options that read it.
        card: Terms, citation, expected rows.
        head: Name of the default head.
        loss: Name of the default loss; by the schema's kind when ``None``.
        channels: Channels stored per image, 1 (grey) or 3.
        read_image: ``read_image(row, options) -> array`` of shape ``(H, W)`` or ``(H, W, 3)``,
            uint8 or uint16, for sources that are not image files; files are read by the core when
            ``None``.  ``row`` is a named tuple of the table's row; packing gives ``image`` alone.
        read_mask: ``read_mask(row, options) -> bool array (K, H, W)``, structure k = label k, in
            the film's aspect and any size; only for kind ``mask``.  It is packed with the film, and
            a film whose mask cannot be read is unreadable.
        extent: ``extent(row, options) -> (height, width)`` of a film in mm, where that is known,
            for a mask dataset: distances are then in mm and else in pixels.
        reader_version: Change it when ``read_image`` or ``read_mask`` begins to give other pixels;
            it is part of the store's fingerprint.
    """

    name: str
    schema: LabelSchema | str | Callable[[Any], LabelSchema]
    options: type[BaseModel]
    read: Callable[[Any], pd.DataFrame]
    fixture: Callable[[Path], Any]
    card: DatasetCard
    head: str = "linear"
    loss: str | None = None
    channels: Literal[1, 3] = 1
    read_image: Callable[[Any, Any], np.ndarray] | None = None
    read_mask: Callable[[Any, Any], np.ndarray] | None = None
    extent: Callable[[Any, Any], tuple[float, float]] | None = None
    reader_version: str = "1"

    def __post_init__(self) -> None:
        _check_name("dataset", self.name)
        _check_options("dataset", self.name, self.options)
        drawn = ("read_image", "read_mask", "extent")
        _check_calls("dataset", self, "read", "fixture", optional=drawn)
        if not isinstance(self.card, DatasetCard):
            raise PluginError(f"dataset {self.name!r}: card must be a DatasetCard")
        if not isinstance(self.schema, LabelSchema | str) and not callable(self.schema):
            raise PluginError(
                f"dataset {self.name!r}: schema must be a LabelSchema, its name or a function"
            )
        if self.channels not in (1, 3):
            raise PluginError(
                f"dataset {self.name!r}: channels must be 1 or 3, not {self.channels!r}"
            )
        if (
            isinstance(self.schema, LabelSchema)
            and self.schema.kind == "mask"
            and not (self.read_mask)
        ):
            raise PluginError(f"dataset {self.name!r}: a mask schema needs read_mask")
        if isinstance(self.schema, LabelSchema):
            for split, counts in self.card.positives.items():
                if unknown := sorted(set(counts) - set(self.schema.labels)):
                    raise PluginError(
                        f"dataset {self.name!r}: its card has {split} positives of {unknown[0]!r}, "
                        "which is not among its labels"
                    )

    @property
    def needs_root(self) -> bool:
        """Whether the dataset reads files that a user must have downloaded."""
        return "root" in self.options.model_fields


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """A task head: ``build(in_features, schema)`` gives a module from features to ``(B, C)``.

    Args:
        name: Unique name.
        kinds: The schema kinds it serves.
        build: Called with the width of its input and the schema; torch is imported inside.
        input: ``projected`` (B, D) as published, ``pooled`` (B, D) before the projector, or
            ``map`` (B, D, H, W), the encoder's last feature map.
    """

    name: str
    kinds: tuple[Kind, ...]
    build: Callable[[int, LabelSchema], Any]
    input: HeadInput = "projected"

    def __post_init__(self) -> None:
        _check_name("head", self.name)
        _check_kinds("head", self.name, self.kinds, get_args(Kind))
        _check_calls("head", self, "build")
        if self.input not in get_args(HeadInput):
            raise PluginError(f"head {self.name!r}: input {self.input!r} is not a head's input")


@dataclass(frozen=True, kw_only=True)
class LossSpec:
    """A loss: ``build(schema)`` gives ``(output, target) -> (B, C)`` or ``(B,)``, unreduced.

    An entry whose target is NaN must be zero with zero gradient, and the result must stay attached
    to the graph even when every entry is NaN.  The core divides the sum by the annotated entries
    of the global batch.  Kind ``mask``: ``(logits, target)``, each ``(B, K, H, W)``, to ``(B, K)``;
    a structure that is not drawn on a film is NaN throughout.  Kind ``consistency``:
    ``build(None)`` gives ``(student projection, teacher projection) -> (B,)``.

    Args:
        name: Unique name.
        kinds: The schema kinds it serves, or ``consistency``.
        build: Called with the schema, or ``None`` for ``consistency``; torch is imported inside.
    """

    name: str
    kinds: tuple[LossKind, ...]
    build: Callable[[LabelSchema | None], Callable[..., Any]]

    def __post_init__(self) -> None:
        _check_name("loss", self.name)
        _check_kinds("loss", self.name, self.kinds, get_args(LossKind))
        _check_calls("loss", self, "build")


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """An encoder: ``build(options)`` gives a module with ``forward_maps``, ``pool``, ``in_chans``.

    ``forward_maps(x)`` takes ``(B, in_chans, S, S)`` normalised floats and returns a list of maps
    ``(B, C_i, H_i, W_i)``, the last being the final one; ``pool(map)`` gives ``(B, D)``.  ``D`` is
    found by the core with a dry forward.  ``in_chans`` (1 or 3) says what it takes: grey films are
    expanded by the core.

    Args:
        name: Unique name.
        options: The plugin's own pydantic type, filled from ``model.options``.
        build: Called with the options; torch is imported inside.
    """

    name: str
    options: type[BaseModel]
    build: Callable[[Any], Any]

    def __post_init__(self) -> None:
        _check_name("backbone", self.name)
        _check_options("backbone", self.name, self.options)
        _check_calls("backbone", self, "build")
