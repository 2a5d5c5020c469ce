"""Where a dataset lies: four ways, in order."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from ark_framework import ConfigError, DataError, DatasetSpec
from ark_framework.registry import load
from ark_framework.roots import check_names, dataset_name, link, links, links_file, resolve

WAYS = ("given", "configured", "variable", "link")


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARK_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("ARK_DATA_TABLE", raising=False)


@pytest.fixture
def spec() -> DatasetSpec:
    return load(["table"]).dataset("table")


@pytest.mark.parametrize(
    "said", [each for count in range(1, 5) for each in combinations(WAYS, count)], ids="+".join
)
def test_precedence(
    said: tuple[str, ...], spec: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all the ways in which a root was said, the first in the documented order holds."""
    folders = {way: tmp_path / way for way in WAYS}
    for folder in folders.values():
        folder.mkdir()
    if "link" in said:
        link("table", folders["link"])
    if "variable" in said:
        monkeypatch.setenv("ARK_DATA_TABLE", str(folders["variable"]))
    configured = {"csv": "x.csv"}
    if "configured" in said:
        configured["root"] = str(folders["configured"])
    given = {"table": folders["given"]} if "given" in said else {}
    values = resolve(spec, given=given, configured=configured)
    assert values == {"csv": "x.csv", "root": folders[said[0]]}


def test_no_root(spec: DatasetSpec) -> None:
    """A missing root names all four ways."""
    with pytest.raises(DataError) as caught:
        resolve(spec, given={}, configured={})
    for way in ("--data table=", "data.table.root", "ARK_DATA_TABLE", "ark data link table PATH"):
        assert way in str(caught.value)


def test_root_is_gone(spec: DatasetSpec, tmp_path: Path) -> None:
    """A root that is no folder is told with where it was said."""
    with pytest.raises(DataError, match=r"gone \(from --data\) is not a folder"):
        resolve(spec, given={"table": tmp_path / "gone"}, configured={})


def test_home(spec: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``~`` means the home folder where no shell has seen it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "films").mkdir()
    values = resolve(spec, given={}, configured={"root": "~/films"})
    assert values["root"] == tmp_path / "films"


def test_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links are kept as absolute paths, one per dataset, by whichever name they were given."""
    monkeypatch.chdir(tmp_path)
    for name in ("first", "second"):
        Path(name).mkdir()
    link("ark-plugin-one", Path("first"))
    link("two", Path("second"))
    link("ONE", Path("second"))
    assert links() == {"one": tmp_path / "second", "two": tmp_path / "second"}
    with pytest.raises(DataError, match="third is not a folder"):
        link("one", Path("third"))
    assert links()["one"] == tmp_path / "second"
    assert [each.name for each in links_file().parent.iterdir()] == ["links.json"]


@pytest.mark.parametrize("text", ["[1]", "{", '{"a": 3}'])
def test_damaged_links(text: str) -> None:
    """A damaged file of links is named, with what to do."""
    links_file().parent.mkdir()
    links_file().write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"links\.json"):
        links()


def test_names() -> None:
    """A plugin's name stands for its dataset; a path or nothing is no name."""
    assert dataset_name("Ark-Plugin-covid_lungs") == "covid_lungs"
    for wrong in ("", "a/b", "..", "ark-"):
        with pytest.raises(ConfigError, match="cannot be a dataset's name"):
            dataset_name(wrong)


def test_unknown_names() -> None:
    """A root of a dataset that nobody provides is refused with the nearest name."""
    check_names(["rsna"], ["rsna", "other"])
    with pytest.raises(ConfigError, match="did you mean 'rsna'"):
        check_names(["rsan"], ["rsna", "other"])
