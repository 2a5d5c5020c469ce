"""What ``ark data verify`` compares: files, table, card and store, each with what mends it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ark_framework import DatasetSpec, LabelSchema, PluginError, cli
from ark_framework.annotations import validate
from ark_framework.builtin.table import SPEC, schema
from ark_framework.cli.verification import examine, lines
from ark_framework.config import StoreConfig

Examine = Callable[..., dict[str, Any]]
ROWS = {"train": 32, "test": 16}
# The miniature: left is every odd film, the blank of film 5 aside; right is every third and fourth.
POSITIVES = {"train": {"left": 15, "right": 16}, "test": {"left": 8}}


@pytest.fixture
def films(tmp_path: Path) -> Path:
    return tmp_path / "films"


@pytest.fixture
def look(films: Path, tmp_path: Path) -> Examine:
    """Return ``look(**card)``: the findings of the miniature under a card that expects them."""
    options = SPEC.fixture(films)

    def look(**card: Any) -> dict[str, Any]:
        spec = replace(SPEC, card=replace(SPEC.card, **card))
        table = validate(SPEC.read(options), dataset="table", schema=schema(options))
        return examine(spec, table, options, config=StoreConfig(), folder=tmp_path / "stores")

    return look


def messages(found: dict[str, Any], kind: str) -> list[str]:
    return [each["message"] for each in found[kind]]


def test_sound(look: Examine) -> None:
    """A whole dataset that is what its card says has neither notes nor problems."""
    found = look(rows=ROWS, positives=POSITIVES, patients=24)
    assert (found["notes"], found["problems"]) == ([], [])
    assert lines(found)[-1] == "  ok"


def test_other_positives_are_a_problem(look: Examine, films: Path) -> None:
    """As many films but other labels: the label file is not the one that the plugin expects."""
    csv = films / "labels.csv"
    csv.write_text(csv.read_text().replace(",0,0\n", ",1,1\n", 3), encoding="utf-8")
    found = look(rows=ROWS, positives=POSITIVES, patients=24)
    assert messages(found, "problems") == [
        "train: 18 positives of 'left', the card says 15 (and 1 more labels)"
    ]
    assert "another edition" in found["problems"][0]["mend"]
    assert "PROBLEM: train: 18" in lines(found)[-1]


def test_a_part_has_its_own_prevalence(look: Examine) -> None:
    """Where there are fewer films than the card says, positives are not compared: a note."""
    found = look(rows={"train": 33, "all": 48}, positives={"train": {"left": 99}}, patients=25)
    assert found["problems"] == []
    assert messages(found, "notes") == [
        "train: 32 films, the card says 33",
        "24 patients, the card says 25",
    ]
    assert all(each["mend"] for each in found["notes"])


def test_positives_of_all(look: Examine) -> None:
    """``all`` is every row, for a dataset whose split is drawn by the user's options."""
    assert look(rows={"all": 48}, positives={"all": {"left": 23}})["problems"] == []
    found = look(rows={"all": 48}, positives={"all": {"left": 24, "gone": 3}})
    assert "23 positives of 'left', the card says 24 (and 1 more" in found["problems"][0]["message"]


def test_missing_and_empty(look: Examine, films: Path) -> None:
    """Each is counted, the first is named, and what to do differs."""
    (films / "film07.png").unlink()
    (films / "film08.png").write_bytes(b"")
    found = look()
    assert messages(found, "problems") == [
        "1 of 48 films are missing, first 'film07.png'",
        "1 of 48 films are empty, first 'film08.png'",
    ]
    assert str(films) in found["problems"][0]["mend"]
    for film in films.glob("*.png"):
        film.unlink()
    assert "ark data link table PATH" in look()["problems"][0]["mend"]


def test_extra(look: Examine, films: Path) -> None:
    """Films that no row names are noted; other kinds of files, and folders beside, are not."""
    for name in ("film99.png", "aside.PNG", "readme.txt"):
        (films / name).write_bytes(b"x")
    (films / "masks").mkdir()
    (films / "masks" / "film01.png").write_bytes(b"x")
    found = look()
    assert found["problems"] == []
    assert messages(found, "notes") == ["2 files beside the films are in no row, first 'aside.PNG'"]


def test_extra_below(look: Examine, films: Path) -> None:
    """Below a folder of films everything is looked at, once."""
    csv = films / "labels.csv"
    text = csv.read_text()
    for number in range(48):
        name, folder = f"film{number:02d}.png", "a" if number % 2 else "a/b"
        (films / folder).mkdir(parents=True, exist_ok=True)
        (films / name).rename(films / folder / name)
        text = text.replace(name, f"{folder}/{name}")
    csv.write_text(text, encoding="utf-8")
    assert look()["notes"] == []
    for extra in ("a/b/c/d.png", "a/z.png", "other/e.png"):
        (films / extra).parent.mkdir(parents=True, exist_ok=True)
        (films / extra).write_bytes(b"x")
    assert messages(look(), "notes") == [
        "2 files beside the films are in no row, first 'a/b/c/d.png'"
    ]


def test_command(films: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Notes exit 0 and problems 3, and each comes with what to do, on one line."""
    options = SPEC.fixture(films).model_dump(mode="json", exclude={"root", "masks", "csv"})
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps({"plugins": ["ark-table"], "data": {"table": options}}))
    command = ["data", "verify", "-c", str(config), "--data", f"table={films}"]
    (films / "film99.png").write_bytes(b"x")
    assert cli.run(command) == 0
    said = capfd.readouterr().out
    assert "note: 1 files beside the films are in no row, first 'film99.png'; right if" in said
    (films / "film07.png").unlink()
    assert cli.run([*command, "--json"]) == 3
    said = capfd.readouterr()
    assert said.err.startswith("error: table: 1 of 48 films are missing, first 'film07.png'; ")
    assert said.err.count("\n") == 1
    (found,) = json.loads(said.out)
    assert set(found["problems"][0]) == set(found["notes"][0]) == {"message", "mend"}


def test_cards_that_cannot_be_compared() -> None:
    """Positives need their split's rows and must be of labels that there are."""
    with pytest.raises(PluginError, match="positives of 'test' need its rows"):
        replace(SPEC.card, rows={"train": 1}, positives={"test": {"a": 1}})
    card = replace(SPEC.card, rows={"train": 1}, positives={"train": {"Efusion": 1}})
    with pytest.raises(PluginError, match="'Efusion', which is not among"):
        DatasetSpec(
            name="d", schema=LabelSchema(name="d", kind="multilabel", labels=("Effusion",)),
            options=SPEC.options, read=SPEC.read, fixture=SPEC.fixture, card=card,
        )  # fmt: skip
