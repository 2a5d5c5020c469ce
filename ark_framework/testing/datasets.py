"""Checks of a dataset: its miniature is read into a table that keeps the contract."""

from __future__ import annotations

import csv
import gzip
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from ark_framework import masks
from ark_framework.annotations import AnnotationTable, validate
from ark_framework.packing import ensure
from ark_framework.registry import Registry, parse_options
from ark_framework.specs import DatasetSpec, LabelSchema
from ark_framework.store import Store
from ark_framework.testing.verdict import Check, Failed, Skipped, must, untouched_chance


@dataclass(frozen=True)
class Miniature:
    """A dataset's own fixture, read and validated."""

    folder: Path
    options: Any
    schema: LabelSchema
    table: AnnotationTable

    def again(self, spec: DatasetSpec) -> pd.DataFrame:
        """Read and validate once more."""
        return validate(spec.read(self.options), dataset=spec.name, schema=self.schema).frame

    def packed(self, spec: DatasetSpec, size: int) -> Store:
        """Pack its films beside it."""
        folder = self.folder.parent / "stores"
        return ensure(
            spec, self.options, self.table.films, folder=folder, size=size, fit="squash", workers=1,
            structures=self.table.structures,
        )  # fmt: skip


@contextmanager
def miniature(registry: Registry, spec: DatasetSpec) -> Iterator[Miniature]:
    """Write a dataset's fixture into a folder of its own, read it, and remove it afterwards."""
    with TemporaryDirectory() as name:
        folder = Path(name) / "data"
        folder.mkdir()
        options = spec.fixture(folder)
        must(
            isinstance(options, spec.options),
            f"fixture() returned {type(options).__name__}, not {spec.options.__name__}",
        )
        schema = registry.schema_of(spec, options)
        table = validate(spec.read(options), dataset=spec.name, schema=schema)
        yield Miniature(folder=folder, options=options, schema=schema, table=table)


def read_gives_a_valid_table(registry: Registry, spec: DatasetSpec) -> None:
    """``read`` of the fixture passes the core's validation: columns, values, paths, splits."""
    with miniature(registry, spec):
        pass


def read_is_deterministic(registry: Registry, spec: DatasetSpec) -> None:
    """Reading twice gives the same table, and no global random state is used or seeded."""
    with miniature(registry, spec) as mini:
        with untouched_chance("read()"):
            frame = mini.again(spec)
        must(frame.equals(mini.table.frame), "read() gave another table the second time")


def read_gives_a_table_of_its_own(registry: Registry, spec: DatasetSpec) -> None:
    """Whoever changes the table that was returned changes nothing for the next reader."""
    with miniature(registry, spec) as mini:
        given = spec.read(mini.options)
        given["split"] = "val"
        frame = mini.again(spec)
        must(frame.equals(mini.table.frame), "read() returns a table that it keeps; copy it")


def read_does_not_depend_on_the_working_folder(registry: Registry, spec: DatasetSpec) -> None:
    """From another working folder the same options give the same table."""
    with miniature(registry, spec) as mini:
        here = Path.cwd()
        try:
            os.chdir(mini.folder.parent)
            frame = mini.again(spec)
        finally:
            os.chdir(here)
        must(frame.equals(mini.table.frame), "read() gave another table from another folder")


def fixture_is_deterministic(registry: Registry, spec: DatasetSpec) -> None:
    """Writing the miniature twice gives the same table, and touches no global random state."""
    with miniature(registry, spec) as first:
        with untouched_chance("fixture()"), miniature(registry, spec) as second:
            same = first.table.frame.equals(second.table.frame)
        must(same, "fixture() wrote another miniature the second time; draw with a seed of its own")


def every_label_is_seen_both_ways(registry: Registry, spec: DatasetSpec) -> None:
    """The fixture holds a 1 and a 0 of each label, so that label order is proven by tests."""
    with miniature(registry, spec) as mini:
        if mini.schema.kind == "mask":
            raise Skipped("masks have no label columns")
        for label, column in zip(mini.schema.labels, mini.table.targets().T, strict=True):
            for value in (0, 1):
                must((column == value).any(), f"the fixture has no film with {label!r} = {value}")


def labels_are_found_by_name(registry: Registry, spec: DatasetSpec) -> None:
    """Turning round the columns of the fixture's CSV files changes nothing: none is by position."""
    with miniature(registry, spec) as mini:
        turned = [path for path in _tables(mini) if _turn(path)]
        if not turned:
            raise Skipped("the fixture has no CSV file with a header")
        when = f"when the columns of {turned[0].name} stand in another order; find them by name"
        try:
            frame = mini.again(spec)
        except Exception as error:  # the values of one column read as another's
            raise Failed(f"read() fails {when} ({error})") from error
        for name in frame.columns:
            must(frame[name].equals(mini.table.frame[name]), f"column {name!r} changes {when}")


def splits_are_usable(registry: Registry, spec: DatasetSpec) -> None:
    """The fixture has train and test films."""
    with miniature(registry, spec) as mini:
        for split in ("train", "test"):
            must(len(mini.table.rows(split)), f"the fixture has no {split} films")


def patients_stay_in_one_split(registry: Registry, spec: DatasetSpec) -> None:
    """No patient of the fixture is in two splits."""
    with miniature(registry, spec) as mini:
        used = mini.table.frame[mini.table.frame["split"].notna()]
        spread = used.groupby("patient")["split"].nunique()
        both = spread[spread > 1]
        must(both.empty, f"patient {both.index[0]!r} is in two splits" if len(both) else "")


def films_lie_below_the_root(registry: Registry, spec: DatasetSpec) -> None:
    """Every film that is a file is there, below the root, links included."""
    with miniature(registry, spec) as mini:
        root = getattr(mini.options, "root", None)
        if root is None or spec.read_image is not None:
            raise Skipped("its films are not read as files of a root")
        below = Path(root).resolve()
        for image in mini.table.frame["image"]:
            path = below / image
            must(path.is_file(), f"film {image!r} is not below the root")
            must(path.resolve().is_relative_to(below), f"film {image!r} leads out of the root")


def films_can_be_packed(registry: Registry, spec: DatasetSpec) -> None:
    """Every film of the fixture decodes, and none is blank."""
    with miniature(registry, spec) as mini:
        store = mini.packed(spec, 32)
        flat = np.asarray(store.images).reshape(len(store.names), -1)
        blank = np.flatnonzero(flat.min(axis=1) == flat.max(axis=1))
        must(not len(blank), f"film {store.names[blank[0]] if len(blank) else ''!r} is blank")


def reading_changes_no_file(registry: Registry, spec: DatasetSpec) -> None:
    """``read`` writes nothing below the root: a user's data are only read."""
    with miniature(registry, spec) as mini:
        before = _listing(mini.folder)
        spec.read(mini.options)
        changed = sorted(before ^ _listing(mini.folder))
        must(not changed, f"read() changed {changed[0][0] if changed else ''!r} below its root")


def options_refuse_unknown_keys(_: Registry, spec: DatasetSpec) -> None:
    """A misspelt option is an error, not silence."""
    must(
        spec.options.model_config.get("extra") == "forbid",
        f'{spec.options.__name__} must have model_config = ConfigDict(extra="forbid")',
    )


def options_survive_a_config_file(registry: Registry, spec: DatasetSpec) -> None:
    """Options written as plain data, as in a YAML file, come back the same."""
    with miniature(registry, spec) as mini:
        plain = mini.options.model_dump(mode="json")
        back = parse_options(spec, plain, where=f"data.{spec.name}")
        must(back == mini.options, f"{plain} does not read back to the options that it came from")


def defaults_exist(registry: Registry, spec: DatasetSpec) -> None:
    """The dataset's default head and loss can be had and serve its kind."""
    with miniature(registry, spec) as mini:
        schema = mini.schema
    if schema.kind == "mask":
        raise Skipped("masks are not pretrained on")
    registry.head(spec.head, kind=schema.kind)
    if spec.loss:
        registry.loss(spec.loss, kind=schema.kind)


def masks_fit_their_films(registry: Registry, spec: DatasetSpec) -> None:
    """``read_mask`` gives bool ``(K, H, W)`` for every film, each structure drawn in some."""
    with miniature(registry, spec) as mini:
        if mini.schema.kind != "mask" or spec.read_mask is None:
            raise Skipped("not a mask dataset")
        drawn = np.zeros(len(mini.schema.labels), dtype=bool)
        for row in mini.table.frame.itertuples(index=False):
            mask = spec.read_mask(row, mini.options)
            kind = f"{getattr(mask, 'dtype', type(mask).__name__)} {getattr(mask, 'shape', '')}"
            good = getattr(mask, "dtype", None) == np.dtype(bool) and mask.ndim == 3
            must(good and len(mask) == len(drawn), f"read_mask gave {kind}")
            drawn |= mask.any(axis=(1, 2))
        empty = [name for name, seen in zip(mini.schema.labels, drawn, strict=True) if not seen]
        must(not empty, f"no film of the fixture shows {empty[0] if empty else ''!r}")


def masks_survive_packing(registry: Registry, spec: DatasetSpec) -> None:
    """Packed masks are those of ``read_mask`` at the stored size, bit for bit, overlaps too."""
    with miniature(registry, spec) as mini:
        if mini.schema.kind != "mask" or spec.read_mask is None:
            raise Skipped("not a mask dataset")
        store = mini.packed(spec, 32)
        rows = mini.table.frame.itertuples(index=False)
        for row, bits in zip(rows, store.masks, strict=True):
            wanted = masks.fit(spec.read_mask(row, mini.options), 32, "squash")
            same = np.array_equal(masks.unpack(bits, store.structures), wanted)
            must(same, f"the mask of {row.image!r} is packed otherwise than read_mask gives it")


def the_card_is_filled_in(_: Registry, spec: DatasetSpec) -> None:
    """Users learn from the card where a dataset comes from and on what terms."""
    for name in ("title", "home", "licence", "citation"):
        must(str(getattr(spec.card, name)).strip(), f"card.{name} is empty")


def _listing(folder: Path) -> set[tuple[str, int, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        (path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
        for path in files
    }


def _tables(mini: Miniature) -> list[Path]:
    endings = (".csv", ".csv.gz")
    return sorted(path for path in mini.folder.rglob("*") if path.name.endswith(endings))


def _turn(path: Path) -> bool:
    """Write a CSV file with its columns turned round; whether it was one with a header."""
    zipped = path.suffix == ".gz"
    raw = gzip.decompress(path.read_bytes()) if zipped else path.read_bytes()
    rows = list(csv.reader(raw.decode("utf-8").splitlines()))
    header = rows[0] if rows else []
    named = all(cell.strip() and not cell.strip("-. ").isdigit() for cell in header)
    if len(header) < 2 or not named or any(len(row) != len(header) for row in rows):
        return False
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(row[::-1] for row in rows)
    turned = text.getvalue().encode("utf-8")
    path.write_bytes(gzip.compress(turned) if zipped else turned)
    return True


CHECKS: tuple[Check, ...] = (
    read_gives_a_valid_table,
    read_is_deterministic,
    read_gives_a_table_of_its_own,
    read_does_not_depend_on_the_working_folder,
    reading_changes_no_file,
    fixture_is_deterministic,
    every_label_is_seen_both_ways,
    labels_are_found_by_name,
    splits_are_usable,
    patients_stay_in_one_split,
    films_lie_below_the_root,
    films_can_be_packed,
    masks_fit_their_films,
    masks_survive_packing,
    defaults_exist,
    options_refuse_unknown_keys,
    options_survive_a_config_file,
    the_card_is_filled_in,
)
