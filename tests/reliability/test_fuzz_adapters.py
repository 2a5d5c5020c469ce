"""Every first-party dataset, with its official files changed at random.

What comes of it is an error of one line, or a table as good as any.  Rows and columns in another
order say the same.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import process_time
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oneline import LONGEST

from ark_framework import DataError
from ark_framework import registry as plugins
from ark_framework.annotations import validate
from ark_framework.discovery import discover
from ark_framework.specs import DatasetSpec, LabelSchema

FOLDERS = sorted(path.name for path in (Path(__file__).parents[2] / "plugins").glob("ark-plugin-*"))
ENDINGS = (".csv", ".txt", ".json", ".gz")
CELLS = (
    "", " ", "0", "1", "-1", "2", "1.0", "0.5", "nan", "inf", "1e400", "-0", "yes", "None", "NULL",
    "../../etc/passwd", "/etc/passwd", "C:\\x", "a/b", "x" * 5000, "é", "患者", "\u202e", "\u2028",
    "\x85", "\x1b[31m", "\ufeff", "\uff11", "true", "=1+1", "'", "`", "%s", "{0}", "\\n", "9" * 400,
)  # fmt: skip
# A miniature has a hundred lines: what takes so long here would take hours.
SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A dataset's miniature and the bytes of its label files."""

    spec: DatasetSpec
    options: Any
    schema: LabelSchema
    files: dict[Path, bytes]

    def read(self) -> pd.DataFrame:
        """Read and check the table; sorted, since its order says nothing."""
        frame = self.spec.read(self.options)
        table = validate(frame, dataset=self.spec.name, schema=self.schema)
        return table.frame.sort_values("image", ignore_index=True)

    def read_with(self, changes: dict[Path, bytes | None]) -> pd.DataFrame:
        """Read with other bytes in some files, or without them, and put all right again."""
        try:
            for path, data in changes.items():
                path.unlink()
                if data is not None:
                    path.write_bytes(data)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                return self.read()
        finally:
            for path in changes:
                path.write_bytes(self.files[path])


def plain(data: bytes) -> bytes:
    return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data


def packed(data: bytes, like: bytes) -> bytes:
    return gzip.compress(data, 1) if like.startswith(b"\x1f\x8b") else data


@pytest.fixture(scope="session")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Subject]]:
    """Return ``subjects(folder)``: a plugin's datasets; their miniatures are written once."""
    known: dict[str, list[Subject]] = {}

    def get(folder: str) -> list[Subject]:
        names = [
            each.name for each in discover() if each.distribution == folder and not each.problem
        ]
        if not names:
            pytest.skip(f"{folder} is not installed")
        if folder not in known:
            registry = plugins.load(names)
            known[folder] = [
                _subject(registry, spec, tmp_path_factory.mktemp(spec.name))
                for spec in registry.datasets.values()
                if registry.origin("dataset", spec.name).name in names
            ]
        return known[folder]

    return get


def _subject(registry: plugins.Registry, spec: DatasetSpec, folder: Path) -> Subject:
    options = spec.fixture(folder)
    paths = [p for p in sorted(folder.rglob("*")) if p.suffix in ENDINGS and p.is_file()]
    files = {path: path.read_bytes() for path in paths}
    schema = registry.schema_of(spec, options)
    return Subject(spec=spec, options=options, schema=schema, files=files)


# Other orders ------------------------------------------------------------------------------------


def shuffled(data: bytes, path: Path, draw: Random) -> bytes:
    """Return the same file in another order: of rows, of columns, of keys."""
    text = plain(data).decode()
    if path.suffix == ".json":
        return packed(json.dumps(_turned(json.loads(text), draw)).encode(), data)
    lines = text.removesuffix("\n").split("\n")
    if ".csv" in path.suffixes:
        return packed(_columns(lines, draw).encode(), data)
    if len(lines) > 10:  # a list, and no report of one film
        draw.shuffle(lines)
    return packed("\n".join(lines).encode() + b"\n", data)


def _columns(lines: list[str], draw: Random) -> str:
    header, *rows = csv.reader(lines)
    order = draw.sample(range(len(header)), len(header))
    with_all = [row for row in (header, *rows) if len(row) == len(header)]
    draw.shuffle(rows)
    with io.StringIO(newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in (header, *rows):
            whole = len(with_all) == len(rows) + 1
            writer.writerow([row[at] for at in order] if whole else row)
        return file.getvalue()


def _turned(value: Any, draw: Random) -> Any:
    """Shuffle the keys of objects and leave lists, whose order means something."""
    if not isinstance(value, dict):
        return value
    keys = draw.sample(sorted(value), len(value))
    return {key: _turned(value[key], draw) for key in keys}


def check_orders(subject: Subject, examples: int) -> int:
    """Read the files in so many other orders."""
    right = subject.read()
    for seed in range(examples):
        draw = Random(seed)
        changes = {path: shuffled(data, path, draw) for path, data in subject.files.items()}
        pd.testing.assert_frame_equal(subject.read_with({**changes}), right)
    return examples


# Changes -----------------------------------------------------------------------------------------

KINDS = ("cell", "cells", "rename", "drop column", "cut", "insert", "flip", "drop line", "repeat",
         "swap lines", "swap cells", "quote", "gone", "other file")  # fmt: skip
Edit = tuple[str, float, float, float, str]
share = st.floats(0, 1, exclude_max=True)
text = st.sampled_from(CELLS) | st.text(max_size=12)
edits = st.lists(
    st.tuples(st.sampled_from(KINDS), share, share, share, text), min_size=1, max_size=4
)


def edited(subject: Subject, changes: list[Edit]) -> dict[Path, bytes | None]:
    """Return files after some changes, each at shares of their number, lines and fields."""
    paths = list(subject.files)
    made: dict[Path, bytes | None] = {}
    for kind, which, one, two, new in changes:
        path = paths[int(which * len(paths))]
        data = made.get(path, subject.files[path])
        if kind == "gone" or data is None:
            made[path] = None
        elif kind == "other file":
            made[path] = subject.files[paths[int(one * len(paths))]]
        else:
            raw = plain(data) if not (kind == "cut" and one < 0.1) else data
            changed = _edit(raw, kind, one, two, new.encode("utf-8", "surrogatepass"))
            made[path] = packed(changed, data) if raw is not data else changed
    return made


def _edit(data: bytes, kind: str, one: float, two: float, new: bytes) -> bytes:
    at = int(one * len(data))
    if kind == "cut":
        return data[:at]
    if kind == "insert":
        return data[:at] + new + data[at:]
    if kind == "flip":
        return data[:at] + new[:1] + data[at + 1 :]
    lines = data.split(b"\n")
    row, other = int(one * len(lines)), int(two * len(lines))
    if kind == "drop line":
        del lines[row]
    elif kind == "repeat":
        lines.insert(other, lines[row])
    elif kind == "swap lines":
        lines[row], lines[other] = lines[other], lines[row]
    elif kind == "rename":
        lines[0] = _with(lines[0], two, new)
    elif kind in ("cell", "quote"):
        lines[row] = _with(lines[row], two, b'"' + new if kind == "quote" else new)
    elif kind == "cells":
        lines = [lines[0], *(_with(line, two, new) for line in lines[1:])]
    elif kind == "swap cells":
        lines[row] = b",".join(lines[row].split(b",")[::-1])
    elif kind == "drop column":
        fields = [line.split(b",") for line in lines]
        place = int(two * len(fields[0]))
        lines = [b",".join([*each[:place], *each[place + 1 :]]) for each in fields]
    return b"\n".join(lines)


def _with(line: bytes, where: float, new: bytes) -> bytes:
    fields = line.split(b",")
    fields[int(where * len(fields))] = new
    return b",".join(fields)


def check_changes(subject: Subject, examples: int) -> Iterator[str]:
    """Read so many changes of the files; yield how each ended."""
    ends: list[str] = []

    @settings(
        max_examples=examples, derandomize=True, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(changes=edits)
    def body(changes: list[Edit]) -> None:
        start = process_time()
        try:
            table = subject.read_with(edited(subject, changes))
        except DataError as error:
            name = subject.spec.name.removesuffix("-mask")
            assert_shown(str(error), name)
            ends.append("refused")
        else:
            assert len(table)
            assert table["image"].is_unique
            ends.append("read")
        assert process_time() - start < SECONDS

    body()
    yield from ends


def assert_shown(error: str, name: str) -> None:
    """Check that a line says which dataset is meant, and would be one line on a terminal."""
    assert name in error
    assert len(error) < LONGEST + 300
    assert len(error.splitlines()) == 1, repr(error)


@pytest.mark.parametrize("folder", FOLDERS)
def test_another_order_says_the_same(
    subjects: Callable[[str], list[Subject]], folder: str, ledger
) -> None:
    """Rows, columns and keys may stand in any."""
    for subject in subjects(folder):
        for _ in range(check_orders(subject, 3)):
            ledger.survived("official files in another order")


@pytest.mark.parametrize("folder", FOLDERS)
def test_changed_files_are_said_or_read(
    subjects: Callable[[str], list[Subject]], folder: str, ledger
) -> None:
    """A few changes of each."""
    fuzz(subjects(folder), 15, ledger)


@pytest.mark.long
@pytest.mark.parametrize("folder", FOLDERS)
def test_many_changed_files(subjects: Callable[[str], list[Subject]], folder: str, ledger) -> None:
    """And many."""
    for subject in subjects(folder):
        check_orders(subject, 20)
    fuzz(subjects(folder), 250, ledger)


def fuzz(subjects: list[Subject], examples: int, ledger: Any) -> None:
    """Change the files of each dataset; write down how each change ended."""
    for subject in subjects:
        for end in check_changes(subject, examples):
            (ledger.survived if end == "read" else ledger.refused)(
                "official files changed at random"
            )


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_is_no_file_is_not_read(
    subjects: Callable[[str], list[Subject]], folder: str, ledger
) -> None:
    """A pipe would be waited for, a device has no end: in place of each official file."""
    for subject in subjects(folder):
        for path in _some(subject):
            for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir):
                data = path.read_bytes()
                path.unlink()
                make(path)
                try:
                    frame = subject.read()
                    for row in frame.head(1).itertuples():  # which may be drawn from such a file
                        subject.spec.read_mask and subject.spec.read_mask(row, subject.options)
                except DataError as error:
                    assert_shown(str(error), subject.spec.name.removesuffix("-mask"))
                finally:
                    path.rmdir() if path.is_dir() else path.unlink()
                    path.write_bytes(data)
                ledger.refused("pipe or device for an official file")


def _some(subject: Subject) -> list[Path]:
    """Return of each folder at the root, and of each kind in it, a label file, film or mask."""
    root = subject.options.root
    found: dict[tuple[tuple[str, ...], str], Path] = {}
    for path in sorted(each for each in root.rglob("*") if each.is_file()):
        folder = path.relative_to(root).parts[:-1][:1]
        found.setdefault((folder, path.name if not folder else path.suffix), path)
    return list(found.values())
