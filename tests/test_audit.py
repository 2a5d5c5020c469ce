"""The audit: the same film or patient in two places, by identity and by pixels."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ark_framework import config as configuration
from ark_framework import registry as plugins
from ark_framework import store as stores
from ark_framework.annotations import AnnotationTable, validate
from ark_framework.audit import Audit, Audited, audit
from ark_framework.corpus import Corpus, open_corpus
from ark_framework.specs import LabelSchema

REAL = os.environ.get("ARK_REAL_DATA")
real = pytest.mark.skipif(REAL is None, reason="ARK_REAL_DATA is not set")
SCHEMA = LabelSchema(name="one", kind="multilabel", labels=("sick",))


def table(name: str, rows: list[dict[str, Any]]) -> AnnotationTable:
    frame = pd.DataFrame(rows)
    return validate(frame.assign(sick=0.0), dataset=name, schema=SCHEMA)


def film(image: str, split: str | None, **more: Any) -> dict[str, Any]:
    return {"image": image, "split": split, **more}


def packed(folder: Path, films: np.ndarray) -> stores.Store:
    """Return a store of drawn films, as packing would have left it."""
    folder.mkdir()
    return stores.Store(
        folder=folder, images=films, masks=films[:, :0], structures=0,
        names=tuple(map(str, range(len(films)))), fingerprint="", size=films.shape[-1], channels=1,
        fit="squash", bad={},
    )  # fmt: skip


def cells(found: Audit) -> dict[tuple[str, str, str, str], tuple[int, int]]:
    return {
        (r.dataset, r.split, r.other_dataset, r.other_split): (r.films, r.patients)
        for r in found.overlaps().itertuples()
    }


def test_identities_that_say_nothing_change_nothing() -> None:
    """Films and patients that declare what they are anyway make the same groups."""

    def groups(*, declared: bool) -> list[list[int]]:
        tables = []
        for name in ("one", "two"):
            rows = []
            for image, patient in (("a", "1"), ("b", "1"), ("c", None), ("d", None), ("e", "2")):
                own = f"patient:{patient}" if patient else f"film:{image}"
                ids = {"source_id": f"{name}:{image}", "source_patient": f"{name}:{own}"}
                rows.append(film(image, "train", patient=patient, **(ids if declared else {})))
            tables.append(Audited(table=table(name, rows)))
        frame = audit(tables).frame
        return [pd.factorize(frame[what])[0].tolist() for what in ("film", "patient")]

    assert groups(declared=False) == groups(declared=True)
    assert groups(declared=False)[1] == [0, 0, 1, 2, 3, 4, 4, 5, 6, 7]


def test_declared_films_and_patients() -> None:
    """Films are one by ``source_id``, patients by ``source_patient``; ``patient`` is local."""
    nih = table("nih", [
        film("a", "train", patient="1", source_id="nih:a", source_patient="nih:1"),
        film("b", "train", patient="1", source_id="nih:b", source_patient="nih:1"),
        film("c", "test", patient="2", source_id="nih:c", source_patient="nih:2"),
        film("d", None, patient="3", source_id="nih:d", source_patient="nih:3"),
    ])  # fmt: skip
    rsna = table("rsna", [
        film("x", "test", patient="9", source_id="nih:a", source_patient="nih:1"),
        film("y", "train", patient="2", source_id=None, source_patient="nih:2"),
        film("z", "train", patient="1"),
        film("w", "train", patient="7", source_id="nih:d", source_patient="nih:3"),
    ])  # fmt: skip
    found = audit([Audited(table=nih), Audited(table=rsna)])
    assert (found.declared, found.pixels, found.unseen) == (2, 0, ("nih", "rsna"))
    assert cells(found) == {
        ("nih", "train", "rsna", "test"): (1, 1),
        ("rsna", "test", "nih", "train"): (1, 1),
        ("nih", "test", "rsna", "train"): (0, 1),
        ("rsna", "train", "nih", "test"): (0, 1),
    }
    leaks = found.leaks({"nih": nih.rows("train"), "rsna": rsna.rows("train")})
    assert leaks.films["nih"].tolist() == [0]
    assert leaks.patients["nih"].tolist() == [0, 1]
    assert leaks.films["rsna"].tolist() == []
    assert leaks.patients["rsna"].tolist() == [1]
    assert leaks.describe() == "1 training film of nih is in the test split of rsna"


def test_one_film_makes_two_patients_one() -> None:
    """Where a film is of both, two names are one patient, and so are all films under them."""
    first = table("first", [
        film("a", "train", patient="p", source_id="s:1"), film("b", "train", patient="p"),
    ])  # fmt: skip
    second = table("second", [
        film("x", "train", patient="q", source_id="s:1"), film("y", "test", patient="q"),
    ])  # fmt: skip
    found = audit([Audited(table=first), Audited(table=second)])
    assert found.frame["patient"].nunique() == 1
    assert found.leaks({"first": first.rows("train")}).patients["first"].tolist() == [0, 1]


def test_a_cell_against_itself_counts_repeated_rows() -> None:
    """A film that stands twice in one split is reported, once it stands alone it is not."""
    found = audit([Audited(table=table("one", [
        film("a", "train", source_id="s:1"), film("b", "train", source_id="s:1"),
        film("c", "train", source_id="s:2"),
    ]))])  # fmt: skip
    assert cells(found) == {("one", "train", "one", "train"): (2, 0)}


def test_overlaps_against_a_slow_count() -> None:
    """The table equals a count by sets over random films, patients and splits."""
    rng = np.random.default_rng(0)
    tables = [
        table(name, [
            film(
                f"{i}", [None, "train", "val", "test"][rng.integers(4)],
                source_id=f"s:{rng.integers(40)}", source_patient=f"s:{rng.integers(20)}",
            )
            for i in range(60)
        ])
        for name in "abc"
    ]  # fmt: skip
    found = audit([Audited(table=each) for each in tables])
    frame = found.frame[found.frame["split"].notna()]
    groups = list(frame.groupby(["dataset", "split"]))
    expected = {}
    for one, mine in groups:
        for two, theirs in groups:
            films = mine["film"].isin(theirs["film"])
            patients = len(set(mine["patient"]) & set(theirs["patient"]))
            if one == two:
                films, patients = mine["film"].duplicated(keep=False), 0
            if films.any() or patients:
                expected[(*one, *two)] = (int(films.sum()), patients)
    assert cells(found) == expected


def test_pixels(tmp_path: Path) -> None:
    """Equal pixels are one film without any declared identity; an unreadable film is nothing."""
    films = np.random.default_rng(5).integers(0, 255, (6, 1, 64, 64), dtype=np.uint8)
    one = packed(tmp_path / "one", films[:4])
    two = packed(tmp_path / "two", films[[3, 0, 4, 5]])
    left = table("left", [film(str(i), "train", patient=str(i)) for i in range(4)])
    right = table("right", [film(str(i), "test", patient=str(i)) for i in range(4)])
    index = np.arange(4)
    found = audit([
        Audited(table=left, store=one, index=index),
        Audited(table=right, store=two, index=np.array([0, -1, 2, 3])),
    ])  # fmt: skip
    assert (found.declared, found.pixels, found.unseen) == (0, 1, ())
    assert cells(found)["left", "train", "right", "test"] == (1, 1)
    assert found.leaks({"left": index}).films["left"].tolist() == [3]


def test_twins_are_kept_beside_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second audit reads what the first one found; a damaged file is made anew."""
    from ark_framework import prints
    from ark_framework.twins import twins

    films = np.random.default_rng(6).integers(0, 255, (5, 1, 64, 64), dtype=np.uint8)
    films[4] = films[1]
    store = packed(tmp_path / "store", films)
    first, wide = twins(store, store)
    assert (first.tolist(), wide) == ([[1, 4]], True)
    kept = list(store.folder.glob("twins-*.npy"))
    assert len(kept) == 1
    with monkeypatch.context() as patch:
        patch.setattr(prints, "store_hashes", None)
        assert twins(store, store)[0].tolist() == [[1, 4]]
    kept[0].write_bytes(b"damaged")
    assert twins(store, store)[0].tolist() == [[1, 4]]
    assert not list(store.folder.glob(".*part"))


def test_one_picture_many_times(tmp_path: Path) -> None:
    """Each is paired with the first alone, and with other stores once; black films with nothing.

    Where films are missing there may be thousands of one placeholder, and a black film for each
    that cannot be read: in all their pairs a search would not end.
    """
    from ark_framework.twins import twins

    drawn = np.random.default_rng(7).integers(0, 255, (8, 1, 64, 64), dtype=np.uint8)
    films = np.concatenate([drawn, np.zeros((3000, 1, 64, 64), np.uint8)])
    films[20:1020], films[2000:3000] = drawn[5], 200
    store, other = packed(tmp_path / "store", films), packed(tmp_path / "other", drawn[[0, 5, 5]])
    mine, _ = twins(store, store)
    assert mine.tolist() == [[5, row] for row in range(20, 1020)]
    assert twins(store, other)[0].tolist() == [[0, 0], [5, 1]]
    assert twins(other, store)[0].tolist() == [[0, 0], [1, 5]]


@pytest.fixture(scope="session")
def real_corpora(shared_stores: Path) -> Callable[[int], list[Corpus]]:
    registry = plugins.load(["ark-chestxray14", "ark-rsna"])
    folders = {"chestxray14": "nih_chestxray14", "rsna": "rsna_pneumonia"}

    def make(size: int) -> list[Corpus]:
        config = configuration.parse({
            "store": {"size": size, "folder": str(shared_stores), "workers": 1},
            "views": {"size": 32}, "validation": {"fraction": 0.0},
        })  # fmt: skip
        roots = {name: Path(str(REAL)) / folder for name, folder in folders.items()}
        return [
            open_corpus(registry.dataset(name), registry, config, roots=roots) for name in folders
        ]

    return make


@real
@pytest.mark.parametrize("size", [64, 128])
def test_real_twins_without_a_table(real_corpora: Callable[[int], list[Corpus]], size: int) -> None:
    """By pixels alone: all 286 pairs of NIH and RSNA films and the one inside NIH, nothing else."""
    corpora = real_corpora(size)
    found = audit([Audited(table=c.table, store=c.store, index=c.index) for c in corpora])
    # The two inside NIH have the same pixels, and are found in RSNA once.
    assert (found.declared, found.pixels, found.narrow) == (0, 286, ())
    nih, rsna = (found.frame[found.frame["dataset"] == c.name] for c in corpora)
    pairs = nih.merge(rsna, on="film")
    assert len(pairs) == 286
    twice = nih[nih["film"].duplicated(keep=False)]
    assert [Path(image).name for image in twice["image"]] == [
        "00002658_001.png", "00002658_002.png",
    ]  # fmt: skip
    assert not rsna["film"].duplicated().any()
    table_ = pd.read_csv(Path(str(REAL)) / "annotations" / "rsna_nih_matches.csv.gz")
    known = table_.set_index("rsna_patientId")["nih_image"]
    told = pairs["image_y"].map(lambda image: known[Path(image).stem])
    agree = (told == pairs["image_x"].map(lambda image: Path(image).name)).to_numpy()
    assert set(pairs["image_x"][~agree].map(lambda image: Path(image).name)) <= {
        "00002658_001.png", "00002658_002.png",
    }  # fmt: skip
    assert agree.sum() == 285


def published(source: Path, root: Path, *, max_mse: float) -> list[AnnotationTable]:
    """Return NIH and RSNA with the published splits, RSNA's identities from the match table."""
    registry = plugins.load(["ark-chestxray14", "ark-rsna"])
    nih, rsna = registry.dataset("chestxray14"), registry.dataset("rsna")
    lists = source / "ark_splits"
    (root / "images").mkdir(parents=True, exist_ok=True)
    entries = root / "Data_Entry_2017_v2020.csv"
    if not entries.exists():
        pd.read_csv(source / "Data_Entry_2017_v2020.csv.gz", dtype=str).to_csv(entries, index=False)
        matches = pd.read_csv(source / "rsna_nih_matches.csv.gz", dtype=str)
        classes = matches.rename(columns={"rsna_patientId": "patientId", "rsna_class": "class"})
        classes[["patientId", "class"]].to_csv(
            root / "stage_2_detailed_class_info.csv", index=False
        )
        for name in ("train_val_list.txt", "test_list.txt"):
            parts = ("train", "val") if name.startswith("train") else ("test",)
            films = [
                pd.read_csv(lists / f"Xray14_{part}_official.txt.gz", sep=r"\s+", header=None)[0]
                for part in parts
            ]
            (root / name).write_text("\n".join(pd.concat(films)), encoding="utf-8")
    names = ("train", "val", "test")
    options = {
        "chestxray14": {f: lists / f"Xray14_{f}_official.txt.gz" for f in names},
        "rsna": {f: lists / f"RSNAPneumonia_{f}.txt.gz" for f in names},
    }
    more = {
        "nih_mapping": source / "rsna_nih_matches.csv.gz", "max_mse": max_mse,
        "headers": source / "kaggle_stage_2_train_images_dicom_headers.csv.gz",
    }  # fmt: skip
    return [
        validate(
            spec.read(spec.options(root=root, split_files=options[spec.name], **extra)),
            dataset=spec.name, schema=registry.schema_of(spec),
        )
        for spec, extra in ((nih, {}), (rsna, more))
    ]  # fmt: skip


@real
@pytest.mark.parametrize(
    ("max_mse", "train_in_test", "distinct", "test_in_train", "shared", "patients"),
    [(10.0, 5699, None, 1722, 1398, 2161), (1e9, 5719, 5714, 1728, 1403, 2166)],
    ids=["confirmed", "in all"],
)
def test_real_figures_with_the_table(
    tmp_path: Path,
    max_mse: float,
    train_in_test: int,
    distinct: int | None,
    test_in_train: int,
    shared: int,
    patients: int,
) -> None:
    """The published lists leak as counted independently: films and patients, exactly."""
    nih, rsna = published(Path(str(REAL)) / "annotations", tmp_path, max_mse=max_mse)
    assert [len(nih.rows(split)) for split in ("train", "val", "test")] == [75312, 11212, 25596]
    assert [len(rsna.rows(split)) for split in ("train", "val", "test")] == [21295, 2680, 2709]
    found = audit([Audited(table=nih), Audited(table=rsna)])
    overlap = cells(found)
    assert overlap["rsna", "train", "chestxray14", "test"][0] == train_in_test
    assert overlap["rsna", "test", "chestxray14", "train"][0] == test_in_train
    assert overlap["rsna", "test", "rsna", "train"][1] == shared
    known = found.frame[(found.frame["dataset"] == "rsna") & (found.frame["split"] == "test")]
    of_nih = rsna.frame.loc[known["row"], "source_patient"].notna().to_numpy()
    assert known["patient"][of_nih].nunique() == patients
    if distinct is not None:
        assert overlap["chestxray14", "test", "rsna", "train"] == (distinct, 1159)
        assert round(100 * distinct / 25596, 1) == 22.3
