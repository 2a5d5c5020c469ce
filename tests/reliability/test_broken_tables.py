"""Tables of labels of every kind: read right, or refused in a line that names file and place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from corpus_images import picture
from corpus_tables import OPTIONS, RIGHT, TEXT, Table, tables
from oneline import files, refused

from ark_framework import cli
from ark_framework.annotations import validate
from ark_framework.builtin.table import SPEC, TableOptions, schema


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Four films, and a configuration that reads them as most tables have them."""
    for name in RIGHT["image"]:
        (tmp_path / name).write_bytes(picture("png"))
    return write(tmp_path, OPTIONS)


def write(folder: Path, options: dict[str, object]) -> Path:
    """Write the configuration."""
    values = {
        "plugins": ["ark-table"],
        "data": {"table": {"root": str(folder), **options}},
        "store": {"size": 32, "folder": str(folder / "stores"), "workers": 1},
        "views": {"size": 32},
    }
    (folder / "run.yaml").write_text(json.dumps(values))
    return folder / "run.yaml"


def as_read(column: pd.Series) -> list[object]:
    """Return values with ``None`` for what is missing."""
    return [None if pd.isna(value) else value for value in column]


@pytest.mark.parametrize("table", tables(), ids=str)
def test_a_table(
    table: Table, tmp_path: Path, config: Path, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """Nothing is made of what is refused."""
    path = tmp_path / "labels.csv"
    table.make(path)
    write(tmp_path, table.options)
    if table.read is None:
        before = files(tmp_path)
        # All read a table alike: each is refused by one of them.
        word = ("pack", "stats", "verify", "labels")[len(table.name) % 4]
        line = refused(["data", word, "-c", config], table.code, capfd, *table.said)
        assert str(path) in line or "no rows" in line
        assert files(tmp_path) == before
        ledger.refused("table of labels")
        return
    options = TableOptions.model_validate({"root": tmp_path, **table.options})
    frame = validate(SPEC.read(options), dataset="table", schema=schema(options)).frame
    for name, values in table.read.items():
        assert as_read(frame[name]) == values, name
    assert cli.run(["data", "stats", "-c", str(config)]) == 0, capfd.readouterr().err
    assert capfd.readouterr().err == ""
    ledger.survived("table of labels")


def test_what_is_refused_was_packed_before(config: Path, tmp_path: Path, ledger) -> None:
    """A store is not touched by a table that has been spoilt since."""
    (tmp_path / "labels.csv").write_text(TEXT)
    assert cli.run(["data", "pack", "-c", str(config)]) == 0
    before = files(tmp_path / "stores")
    (tmp_path / "labels.csv").write_text(TEXT[:-5])
    assert cli.run(["data", "pack", "-c", str(config)]) == 3
    assert files(tmp_path / "stores") == before
    ledger.refused("table of labels")


def test_patients_in_two_splits_are_said(
    config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """They are allowed, since some datasets are so, and noted."""
    (tmp_path / "labels.csv").write_text(TEXT.replace("p3", "p1"))
    assert cli.run(["data", "verify", "-c", str(config)]) == 0
    assert "1 patients are in both train/test" in capfd.readouterr().out.replace(" and ", "/")
    ledger.survived("patient in two splits")


def test_an_address_is_no_film(
    config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """It is a path like any other, and nothing is fetched."""
    (tmp_path / "labels.csv").write_text(TEXT.replace("a.png", "https://example.org/a.png"))
    line = refused(["data", "pack", "-c", config], 3, capfd, "https://example.org/a.png")
    assert "no such file" in line
    ledger.refused("address in a table")


def test_a_long_table_is_a_table(tmp_path: Path, ledger) -> None:
    """A hundred thousand rows are read as four are."""
    rows = "".join(f"x/{n:06d}.png,{n // 2},{n % 2}\n" for n in range(100_000))
    (tmp_path / "labels.csv").write_text("image,person,a\n" + rows)
    options = TableOptions(root=tmp_path, labels=("a",), patient="person")
    table = validate(SPEC.read(options), dataset="table", schema=schema(options))
    assert len(table) == 100_000
    np.testing.assert_array_equal(table.targets()[:, 0], np.arange(100_000) % 2)
    ledger.survived("table of labels")
