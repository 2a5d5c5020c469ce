"""Training films that are held out somewhere: refused, dropped or allowed, and remembered."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ark_framework import cli, config, exposure, roots
from ark_framework import registry as plugins
from ark_framework.audit import audit, film_keys, patient_keys
from ark_framework.errors import CheckpointError, DataError
from ark_framework.exposure import NO, UNKNOWN, YES, Exposure, trained_on
from ark_framework.launch import train
from ark_framework.leaks import LeakRecord
from ark_framework.linked import audited
from ark_framework.preparation import Prepared, exposure_of, prepare

Values = Callable[..., dict[str, Any]]


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """Two datasets on disk; two training films of ``first`` are test films of ``chestxray14``."""
    registry = plugins.load(["ark-first", "ark-chestxray14"])
    found = {name: tmp_path / name for name in ("first", "chestxray14")}
    for name, folder in found.items():
        registry.dataset(name).fixture(folder)
    taken = ("00000030_000.png", "00000031_001.png")
    for number, name in enumerate(taken):
        shutil.copy(
            found["chestxray14"] / "images" / name, found["first"] / f"films/00{number}.png"
        )
    return found


@pytest.fixture
def values(small: Values, tmp_path: Path) -> Values:
    """Return ``values(plugins, **changes)``: a run of one short cycle with stores of its own."""

    def make(*names: str, **changes: Any) -> dict[str, Any]:
        own = {
            "cycles": 1, "leaks": "refuse", "validation": {"fraction": 0.0},
            "store": {"folder": str(tmp_path / "stores")}, "log": {"every": 100},
        }  # fmt: skip
        return {**small(**config.merge(own, changes)), "plugins": list(names), "data": {}}

    return make


def prepared(values: dict[str, Any], places: dict[str, Path]) -> tuple[Prepared, list[str]]:
    said: list[str] = []
    names = {name.removeprefix("ark-") for name in values["plugins"]}
    given = {name: path for name, path in places.items() if name in names}
    return prepare(config.parse(values), roots=given, say=said.append), said


def test_a_leak_is_refused(values: Values, places: dict[str, Path], tmp_path: Path) -> None:
    """Without a word about leaks nothing is trained, and the counts are in the one line."""
    with pytest.raises(DataError) as error:
        train(values("ark-first", "ark-chestxray14"), out=tmp_path / "run", roots=places)
    said = str(error.value)
    assert said.startswith(
        "2 training films of first are in the test split of chestxray14: a score there"
    )
    assert "--leaks drop leaves 2 films out" in said
    assert "\n" not in said
    assert not (tmp_path / "run").exists()


def test_a_linked_dataset_counts(values: Values, places: dict[str, Path]) -> None:
    """A dataset that is only linked, or only in the environment, is looked at as well."""
    assert prepared(values("ark-first"), places)[0].leaks.compared == ("first",)
    roots.link("chestxray14", places["chestxray14"])
    try:
        with pytest.raises(DataError, match="2 training films of first are in the test split of"):
            prepared(values("ark-first"), places)
        found, _ = prepared(values("ark-first", leaks="drop"), places)
        assert found.leaks.compared == ("first", "chestxray14")
        assert found.leaks.dropped == {"first": ("films/000.png", "films/001.png")}
    finally:
        roots.links_file().unlink()


def test_drawn_films_need_no_audit_of_links(values: Values, places: dict[str, Path]) -> None:
    """A run of drawn films alone, as the demo, packs nothing that happens to be linked."""
    roots.link("chestxray14", places["chestxray14"])
    try:
        drawn = values("ark-phantom", leaks="drop", tasks=[{"dataset": "phantom-east"}])
        drawn["data"] = {"phantom-east": {"films": 60, "size": 32}}
        assert prepared(drawn, {})[0].leaks.compared == ("phantom-east",)
    finally:
        roots.links_file().unlink()


def test_the_environment_counts(
    values: Values, places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A root told by ``ARK_DATA_`` is a link as well."""
    monkeypatch.setenv("ARK_DATA_CHESTXRAY14", str(places["chestxray14"]))
    with pytest.raises(DataError, match="in the test split of chestxray14"):
        prepared(values("ark-first"), places)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("table", "chestxray14 is linked, but not audited: chestxray14: neither Data_Entry"),
        ("folder", "chestxray14 is linked, but not audited: chestxray14: its root"),
        ("film", "chestxray14 is linked, but audited by its declared identities alone: "),
        ("name", "nobody is linked, but not audited: no installed plugin is called after it"),
    ],
)
def test_a_broken_link_is_said(
    values: Values, places: dict[str, Path], harm: str, said: str
) -> None:
    """What is linked and cannot be audited stops no other run, and is said to be left out."""
    nih = places["chestxray14"]
    name = "nobody" if harm == "name" else "chestxray14"
    roots.link(name, nih)
    if harm == "table":
        (nih / "Data_Entry_2017_v2020.csv").unlink()
    elif harm == "folder":
        shutil.rmtree(nih)
    elif harm == "film":
        (nih / "images" / "00000033_000.png").write_bytes(b"no film")
    try:
        found, heard = prepared(values("ark-first"), places)
    finally:
        roots.links_file().unlink()
    assert any(line.startswith(said) for line in heard), heard
    assert found.leaks.films == 0
    assert found.leaks.unseen == (("chestxray14",) if harm == "film" else ())


def test_drop_takes_training_rows_alone(values: Values, places: dict[str, Path]) -> None:
    """After ``drop`` no training film is held out; held-out films all stay."""
    found, said = prepared(values("ark-first", "ark-chestxray14", leaks="drop"), places)
    first = found.corpora["first"]
    assert len(first.rows("train")) == 14
    assert [len(c.rows("test")) for c in found.corpora.values()] == [8, 24]
    assert found.rows["first"].tolist() == first.rows("train").tolist() == list(range(2, 16))
    again, _ = prepared(values("ark-first", "ark-chestxray14", leaks="allow"), places)
    assert len(again.rows["first"]) == 16
    assert "leaks: drop: left out: 2 training films of first" in said


def test_drop_patients_takes_every_film_of_theirs(values: Values, places: dict[str, Path]) -> None:
    """``drop-patients`` leaves no film of a held-out patient, whose films need not be twins."""
    found, _ = prepared(values("ark-first", "ark-chestxray14", leaks="drop-patients"), places)
    # Films 0 and 1 of ``first`` are patient p0's; no other patient of its has a twin.
    assert found.leaks.dropped == {"first": ("films/000.png", "films/001.png")}
    path = places["first"] / "findings.csv"
    path.write_text(path.read_text().replace("002,p1", "002,p0"))
    found, _ = prepared(values("ark-first", "ark-chestxray14", leaks="drop-patients"), places)
    assert found.leaks.dropped["first"] == ("films/000.png", "films/001.png", "films/002.png")
    assert found.leaks.films == 2


def test_a_resumed_run_drops_what_it_dropped(
    values: Values, places: dict[str, Path], tmp_path: Path
) -> None:
    """A dataset linked meanwhile changes nothing of a run that has begun."""
    out, wanted = tmp_path / "run", values("ark-first", leaks="drop", cycles=2)
    given = {"first": places["first"]}
    train(wanted, out=out, roots=given)
    before = json.loads((out / "plan.json").read_text())
    roots.link("chestxray14", places["chestxray14"])
    try:
        train(out=out, resume=True, roots=given)
    finally:
        roots.links_file().unlink()
    assert json.loads((out / "plan.json").read_text()) == before
    record = LeakRecord.from_json(json.loads((out / "leaks.json").read_text()))
    assert (record.policy, record.films, record.dropped) == ("drop", 0, {})


def test_allow_is_recorded(values: Values, places: dict[str, Path], tmp_path: Path) -> None:
    """``allow`` trains on all, says so, and the run's record names no film."""
    said: list[str] = []
    out = tmp_path / "run"
    wanted = values("ark-first", "ark-chestxray14", leaks="allow")
    train(wanted, out=out, roots=places, say=said.append)
    assert any("films seen in training" in line for line in said)
    run = json.loads((out / "run.json").read_text())["leaks"]
    assert run["policy"] == "allow"
    assert run["told"] == {"first > chestxray14 > test": 2}
    assert "films/000" not in (out / "run.json").read_text()


def test_the_flag_and_the_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    """``--leaks`` sets the policy; the published recipes allow, the demo drops, others refuse."""
    assert cli.run(["config", "show", "--recipe", "ark6"]) == 0
    assert "leaks: allow" in capsys.readouterr().out
    policies = {name: config.parse(config.recipe(name)).leaks for name in config.recipes()}
    assert policies == {
        "ark5": "allow", "ark6": "allow", "ark6-as-released": "allow", "ark6-plus": "allow",
        "default": "refuse",
        "demo": "drop",
    }  # fmt: skip
    assert cli.run(["train", "--plugins", "ark-phantom", "--leaks", "ignore"]) == 2
    assert "ignore" in capsys.readouterr().err


# Was this film trained on? -----------------------------------------------------------------------


@pytest.fixture
def run(values: Values, places: dict[str, Path]) -> Prepared:
    return prepared(values("ark-first", "ark-chestxray14", leaks="drop"), places)[0]


def test_yes_and_no(run: Prepared, tmp_path: Path) -> None:
    """Films and patients of the run's own datasets are known, also after saving."""
    exposure_of(run).save(tmp_path / exposure.FILE)
    first = run.corpora["first"]
    answer = trained_on(tmp_path, first.table, first.store, first.index)
    # Rows 0 and 1 were dropped, so their film was not trained on.
    assert answer.films.tolist() == [NO] * 2 + [YES] * 14 + [NO] * 8
    # Whether a person of ``first`` is one of NIH's patients too, nobody can say.
    assert answer.patients.tolist() == [UNKNOWN] * 2 + [YES] * 14 + [UNKNOWN] * 8
    alone = Exposure(parts=exposure.load(tmp_path).parts[:1], complete=True)
    assert alone.of(first.table).patients.tolist() == [NO] * 2 + [YES] * 14 + [NO] * 8
    assert alone.of(first.table).films.tolist() == answer.films.tolist()
    assert answer.counts()["films"] == {YES: 14, NO: 10, UNKNOWN: 0}


def test_another_dataset_is_known_by_pixels_alone(run: Prepared, places: dict[str, Path]) -> None:
    """A film under another name is found by pixels; without them the answer is ``unknown``."""
    trained = Exposure(
        parts=tuple(p for p in exposure_of(run).parts if p.dataset == "first"), complete=True
    )
    nih = run.corpora["chestxray14"]
    assert set(trained.of(nih.table).films) == {UNKNOWN}
    seen = trained.of(nih.table, nih.store, nih.index)
    assert set(seen.films) == {NO}
    # Who they are stays unknown: two datasets' patients cannot be compared.
    assert set(seen.patients) == {UNKNOWN}
    whole = exposure_of(run)
    train_rows = nih.rows("train")
    first = run.corpora["first"]
    # The two twins were dropped from ``first`` and are test films of NIH: nobody trained on them.
    assert whole.of(first.table, first.store, first.index).films[:2].tolist() == [NO, NO]
    assert set(whole.of(nih.table, nih.store, nih.index).films[train_rows]) == {YES}


def test_a_twin_is_known_by_pixels(values: Values, places: dict[str, Path]) -> None:
    """Trained on under one dataset's name, a film is recognised under another's."""
    run, _ = prepared(values("ark-first", "ark-chestxray14", leaks="allow"), places)
    trained = Exposure(
        parts=tuple(p for p in exposure_of(run).parts if p.dataset == "first"), complete=True
    )
    nih = run.corpora["chestxray14"]
    films = trained.of(nih.table, nih.store, nih.index).films
    names = nih.table.frame["image"][films == YES].tolist()
    assert names == ["images/00000030_000.png", "images/00000031_001.png"]


def test_credentialed_data_are_not_shared(run: Prepared) -> None:
    """What leaves the house holds nothing of a credentialed dataset, and then "no" is not said."""
    from dataclasses import replace

    trained = exposure_of(run)
    first_part, *others = trained.parts
    parts = [replace(first_part, access="credentialed"), *others]
    shared = Exposure(parts=tuple(parts), complete=True).shareable()
    assert [part.dataset for part in shared.parts] == ["chestxray14"]
    first = run.corpora["first"]
    assert set(shared.of(first.table, first.store, first.index).films) == {UNKNOWN}
    nih = run.corpora["chestxray14"]
    answers = shared.of(nih.table, nih.store, nih.index).films
    assert set(answers[nih.rows("train")]) == {YES}
    assert set(answers[nih.rows("test")]) == {UNKNOWN}
    assert trained.shareable() == trained


def test_without_a_record_all_is_unknown(run: Prepared, tmp_path: Path) -> None:
    """Imported weights say nothing; a damaged record is an error and not a "no"."""
    first = run.corpora["first"]
    answer = trained_on(tmp_path, first.table, first.store, first.index)
    assert set(answer.films) == set(answer.patients) == {UNKNOWN}
    (tmp_path / exposure.FILE).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="is damaged"):
        trained_on(tmp_path, first.table)


def test_weights_remember_where_they_come_from(
    values: Values, places: dict[str, Path], tmp_path: Path
) -> None:
    """A run that starts from another's weights carries that run's films; a stranger's, none."""
    given = {"first": places["first"]}
    train(values("ark-first"), out=tmp_path / "one", roots=given)
    more = values("ark-phantom", leaks="drop")
    more["data"] = {f"phantom-{n}": {"films": 120, "size": 32} for n in ("north", "south", "east")}
    train(more, out=tmp_path / "two", init_from=tmp_path / "one")
    two = exposure.load(tmp_path / "two")
    assert two.complete
    assert two.parts[0].dataset == "first"
    assert len(two.parts) == 4
    (tmp_path / "one" / exposure.FILE).unlink()
    train(more, out=tmp_path / "three", init_from=tmp_path / "one")
    assert not exposure.load(tmp_path / "three").complete


def test_an_older_record_is_read(run: Prepared, tmp_path: Path) -> None:
    """Records of version 1, whose keys are longer and whose hash is another, answer the same."""
    new = exposure_of(run)
    part, corpus = new.parts[0], run.corpora[new.parts[0].dataset]
    key, trained = b"0123456789abcdef", np.unique(run.rows[part.dataset])

    def old(keys: pd.Series) -> np.ndarray:
        digests = (blake2b(k.encode(), key=key, digest_size=8).digest() for k in keys.iloc[trained])
        return np.unique(np.frombuffer(b"".join(digests), dtype=np.uint64))

    films, patients = old(film_keys(corpus.table)), old(patient_keys(corpus.table))
    older = replace(part, key=key, films=films, patients=patients)
    Exposure(parts=(older,), complete=True).save(tmp_path / exposure.FILE)
    path = tmp_path / exposure.FILE
    with np.load(path) as kept:
        arrays = dict(kept)
    about = arrays["about"].tobytes().replace(b'"version": 2', b'"version": 1')
    np.savez(path, **{**arrays, "about": np.frombuffer(about, np.uint8)})
    mine = Exposure(parts=(part,), complete=True).of(corpus.table)
    theirs = exposure.load(tmp_path).of(corpus.table)
    assert theirs.films.tolist() == mine.films.tolist()
    assert theirs.patients.tolist() == mine.patients.tolist()
    assert set(theirs.films) == {YES, NO}


def test_the_record_names_nobody(run: Prepared, tmp_path: Path) -> None:
    """Neither a film's nor a patient's name stands in the record, and two runs' hashes differ."""
    path = tmp_path / exposure.FILE
    exposure_of(run).save(path)
    with np.load(path) as arrays:
        raw = b"".join(arrays[name].tobytes() for name in arrays.files)
    assert b"00000001_000" not in raw
    assert b"films/" not in raw
    one, two = exposure_of(run), exposure_of(run)
    assert not np.isin(one.parts[0].films, two.parts[0].films).any()


def test_audit_command(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``ark data audit`` gives the same counts as table, JSON and page; the pairs name films."""
    words = ["data", "audit", "--plugins", "ark-first", "ark-chestxray14", "--size", "32"]
    words += ["--store", str(tmp_path / "stores")]
    words += ["--data", *(f"{name}={path}" for name, path in places.items())]
    page, pairs = tmp_path / "audit.html", tmp_path / "pairs.csv"
    assert cli.run([*words, "--json", "--html", str(page), "--pairs", str(pairs)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["declared_pairs"], found["pixel_pairs"]) == (0, 2)
    assert found["training_films_held_out"] == 2
    assert {
        "dataset": "first", "split": "train", "other_dataset": "chestxray14",
        "other_split": "test", "films": 2, "patients": 1,
    } in found["overlaps"]  # fmt: skip
    assert "2 training films are also in a val or test split" in page.read_text()
    assert "films/000" not in page.read_text()
    assert pairs.read_text().count("films/00") == 2
    assert cli.run(words) == 0
    assert "2 training films are in a val or test split" in capsys.readouterr().out
    assert cli.run([*words, "--declared"]) == 0
    assert "first: known by what it declares alone" in capsys.readouterr().out
    assert cli.run([*words, "--html", str(page)]) == 2
    assert cli.run([*words, "--pairs", str(pairs)]) == 2


def test_films_that_repeat_are_one(places: dict[str, Path]) -> None:
    """The twins are real twins: the copies' pixels are the originals'."""
    one = np.asarray(Image.open(places["first"] / "films" / "000.png"))
    two = np.asarray(Image.open(places["chestxray14"] / "images" / "00000030_000.png"))
    np.testing.assert_array_equal(one, two)


@pytest.mark.skipif("ARK_REAL_DATA" not in os.environ, reason="ARK_REAL_DATA is not set")
def test_real_films(values: Values, shared_stores: Path) -> None:
    """NIH and RSNA films are refused with their counts; dropped, nothing held out is trained on."""
    data = Path(os.environ["ARK_REAL_DATA"])
    given = {"chestxray14": data / "nih_64px", "rsna": data / "rsna_64px"}
    wanted = values("ark-chestxray14", "ark-rsna", store={"folder": str(shared_stores)})
    with pytest.raises(DataError) as error:
        prepare(config.parse(wanted), roots=given)
    assert "144 training films of rsna are in the test split of chestxray14" in str(error.value)
    assert "61 training films of chestxray14 are in the test split of rsna" in str(error.value)
    for policy, films, patients in (("drop", 0, None), ("drop-patients", 0, 0)):
        found = prepare(config.parse({**wanted, "leaks": policy}), roots=given)
        again = audit([audited(corpus) for corpus in found.corpora.values()])
        leaks = again.leaks(found.rows)
        assert leaks.film_count == films
        assert patients is None or leaks.patient_count == patients
        assert [len(c.rows("test")) for c in found.corpora.values()] == [428, 87]
        assert all(len(rows) for rows in found.rows.values())
