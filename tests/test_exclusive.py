"""Training on one sex at a time: pairs, folds dealt and published, probes, and their verdicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, t
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from ark_framework import config as configuration
from ark_framework.annotations import validate
from ark_framework.corpus import Corpus
from ark_framework.errors import DataError
from ark_framework.fairness.exclusive import Exclusive, exclusive
from ark_framework.fairness.folds import Fold, dealt, patients
from ark_framework.fairness.pairs import pairs
from ark_framework.fairness.published_folds import published_folds
from ark_framework.fairness.training import training
from ark_framework.specs import LabelSchema
from ark_framework.statistics import cliffs_delta, holm, mann_whitney, stars
from ark_framework.transfer.candidate import open_candidate
from ark_framework.transfer.datasets import Datasets
from ark_framework.transfer.probe import standardized

CPU = torch.device("cpu")
SCHEMA = LabelSchema(name="three", kind="multilabel", labels=("Edema", "Nodule", "Mass"))
WIDTH = 12
World = tuple[Corpus, np.ndarray]


@pytest.fixture(scope="module")
def any_corpus(shared_stores: Path) -> Corpus:
    """A corpus whose table tests replace: no film is looked at."""
    values = {
        "plugins": ["ark-phantom"],
        "data": {"phantom-north": {"films": 40, "size": 32}},
        "store": {"size": 32, "folder": str(shared_stores), "workers": 1},
        "views": {"size": 24},
    }
    datasets = Datasets(config=configuration.parse(values))
    return datasets.open("phantom-north", open_candidate("random:tiny", size=24, resize=32))


@pytest.fixture(scope="module")
def world(any_corpus: Corpus) -> Callable[..., World]:
    """``world(films, seed)``: Edema looks otherwise in women; the other labels do not."""

    def make(films: int = 900, seed: int = 0, schema: LabelSchema = SCHEMA) -> World:
        rng = np.random.default_rng(seed)
        people = rng.integers(0, films * 2 // 3, films)
        sex = np.where(rng.random(films) < 0.45, "F", "M")[people]
        targets = (rng.random((films, 3)) < [0.4, 0.3, 0.2]).astype(float)
        if schema.kind == "multiclass":
            targets = np.eye(3)[rng.integers(0, 3, films)]
        ways = rng.normal(size=(4, WIDTH)) / 2
        edema = np.where((sex == "F")[:, None], ways[0], ways[3])
        x = rng.normal(size=(films, WIDTH)) + targets[:, :1] * edema + targets[:, 1:] @ ways[1:3]
        frame = pd.DataFrame(targets, columns=list(SCHEMA.labels)).assign(
            image=[f"train/patient{p:05d}/view{i}.jpg" for i, p in enumerate(people)],
            split="train",
            patient=[f"p{p}" for p in people],
            sex=sex,
        )
        return tabled(any_corpus, frame, schema), x.astype(np.float32)

    return make


def tabled(corpus: Corpus, frame: pd.DataFrame, schema: LabelSchema = SCHEMA) -> Corpus:
    table = validate(frame, dataset="made", schema=schema)
    return replace(corpus, table=table, schema=schema, index=np.arange(len(frame)))


def changed(corpus: Corpus, **columns: Any) -> Corpus:
    return tabled(corpus, corpus.table.frame.assign(**columns), corpus.schema)


def every(corpus: Corpus) -> np.ndarray:
    return np.arange(len(corpus.table))


def tried(world: World, folds: tuple[Fold, ...], **more: Any) -> Exclusive:
    corpus, x = world
    rows = np.unique(np.concatenate([fold.rows for fold in folds]))
    return exclusive(x[rows], rows, corpus, folds, **{"c": 0.1, "device": CPU, **more})


def lines(found: Exclusive) -> list[Any]:
    return list(found.folds.itertuples())


def verdicts(found: Exclusive) -> pd.DataFrame:
    table = training(found.folds.assign(model="m", dataset="d"))
    return table.set_index(["label", "tested_on"])


@given(st.integers(0, 2**32 - 1), st.integers(0, 200), st.sampled_from([2, 40]))
def test_pairs_are_all_that_can_be_made(seed: int, films: int, people: int) -> None:
    """One film per patient, equal labels pair by pair, and no pattern left over in both sexes."""
    rng = np.random.default_rng(seed)
    patient = rng.integers(0, people, films)
    sex = rng.choice(np.array(["F", "M", None], dtype=object), people)[patient]
    targets = rng.choice([0.0, 1.0, np.nan, -1.0], (films, 2))
    found = pairs(sex, patient, targets, np.arange(films), rng=rng)
    both = np.concatenate([found.female, found.male])
    assert len(set(patient[both])) == len(both)
    assert (sex[found.female] == "F").all()
    assert (sex[found.male] == "M").all()
    np.testing.assert_array_equal(targets[found.female], targets[found.male])
    drawn = sum(found.unpaired.values()) + len(both)
    assert drawn == len(set(patient[[each is not None for each in sex]]))


def test_no_pair_is_left_unmade() -> None:
    """Of each pattern, one with blanks too, there are as many pairs as the rarer sex has films."""
    targets = np.repeat([[0.0, 1.0], [0.0, np.nan], [0.0, -1.0]], [10, 6, 2], axis=0)
    sex = np.array([*"FFFMMMMMMM", *"FFFFMM", *"FF"], dtype=object)
    rng = np.random.default_rng(0)
    found = pairs(sex, np.arange(18), targets, np.arange(18), rng=rng)
    assert len(found) == 3 + 2
    assert found.unpaired == {"F": 4, "M": 4}


def test_folds_are_balanced_nested_and_apart(world: Callable[..., World]) -> None:
    """Equal sizes and cases for every share, more women only added, no patient in two parts."""
    corpus, _ = world()
    targets, sex = corpus.table.targets(), corpus.table.frame["sex"].to_numpy()
    shares = (0.0, 0.25, 0.5, 1.0)
    folds = dealt(corpus, every(corpus), folds=4, shares=shares, seed=3)
    for fold in folds:
        assert fold.mixed(patients(corpus)) == 0
        whole = len(fold.train[0.0]) + len(fold.val[0.0]) + len(fold.test["F"])
        assert (len(fold.test["F"]), len(fold.val[0.0])) == (whole // 5, whole // 10)
        cases = {tuple(targets[fold.train[share]].sum(axis=0)) for share in shares}
        assert len(cases) == 1
        np.testing.assert_array_equal(*(targets[fold.test[each]].sum(axis=0) for each in "FM"))
        women = [{*fold.train[share][sex[fold.train[share]] == "F"]} for share in shares]
        assert [len(each) for each in women] == [round(s * len(women[-1])) for s in shares]
        assert all(few <= more for few, more in pairwise(women))
    assert len({tuple(fold.test["F"]) for fold in folds}) == 4
    again = dealt(corpus, every(corpus), folds=2, shares=shares, seed=3)[1]
    np.testing.assert_array_equal(again.rows, folds[1].rows)


def test_a_blank_that_counts_as_zero_is_one(world: Callable[..., World]) -> None:
    """Women whose zeros are blanks find the same partners where the schema reads them so."""
    corpus, _ = world()
    sex, mass = corpus.table.frame["sex"], corpus.table.frame["Mass"]
    blank = changed(corpus, Mass=mass.mask((sex == "F") & (mass == 0)))
    zeros = replace(blank, schema=replace(SCHEMA, blank="zeros"))
    (one,), (two,) = (dealt(each, every(each), folds=1) for each in (corpus, zeros))
    np.testing.assert_array_equal(one.rows, two.rows)
    with pytest.raises(DataError, match="same labels"):
        dealt(blank, every(blank))


def test_a_shared_patient_is_noticed(world: Callable[..., World]) -> None:
    """``mixed`` counts patients, not films."""
    corpus, _ = world()
    (fold,) = dealt(corpus, every(corpus), folds=1)
    people = patients(corpus)
    people[fold.train[0.0][0]] = people[fold.test["M"][0]]
    assert fold.mixed(people) == 1


def test_too_few_pairs_are_refused(world: Callable[..., World]) -> None:
    """One line says how many women, men and pairs there are."""
    corpus, _ = world(60)
    with pytest.raises(DataError, match=r"\d+ women and \d+ men make \d+ pairs .* needs 30"):
        dealt(corpus, every(corpus))
    alone = changed(world()[0], sex="M")
    with pytest.raises(DataError, match=r"0 women and \d+ men make 0 pairs"):
        dealt(alone, every(alone))


def test_areas_are_those_of_logistic_regression(world: Callable[..., World]) -> None:
    """Scikit-learn's on the same standardized vectors, uncertain and blank entries out."""
    corpus, x = world()
    rng = np.random.default_rng(1)
    doubtful = np.where(rng.random(len(x)) < 0.1, -1.0, corpus.table.targets()[:, 1])
    corpus = changed(corpus, Nodule=np.where(rng.random(len(x)) < 0.1, np.nan, doubtful))
    folds = dealt(corpus, every(corpus), folds=2, shares=(0.0, 0.5, 1.0))
    found = tried((corpus, x), folds, c=0.3)
    assert found.folds["converged"].all()
    trained = np.unique(np.concatenate([r for fold in folds for r in fold.train.values()]))
    x, targets = standardized(x, trained, CPU).numpy(), corpus.table.targets()
    for line in lines(found):
        c, fold = SCHEMA.labels.index(line.label), folds[line.fold - 1]
        train, test = (
            rows[np.isin(targets[rows, c], (0, 1))]
            for rows in (fold.train[line.share], fold.test[line.tested_on])
        )
        model = LogisticRegression(C=0.3, tol=1e-6).fit(x[train], targets[train, c])
        area = roc_auc_score(targets[test, c], model.decision_function(x[test]))
        assert line.auroc == pytest.approx(area, abs=1e-3)
        counts = (line.train_films, line.train_positives, line.test_films, line.test_positives)
        truth = targets[train, c].sum(), targets[test, c].sum()
        assert counts == (len(train), truth[0], len(test), truth[1])


def test_saved_scores_give_the_areas_again(world: Callable[..., World], tmp_path: Path) -> None:
    """From the file alone, by scikit-learn, to the last digit that ties leave."""
    corpus, x = world()
    found = tried((corpus, x), dealt(corpus, every(corpus), folds=2))
    found.save(tmp_path / "scores.npz")
    with np.load(tmp_path / "scores.npz") as saved:
        for line in lines(found):
            of, column = f"fold-{line.fold:02d}/{line.tested_on}", SCHEMA.labels.index(line.label)
            scores = saved[f"{of}/trained-{line.share:.2f}"]
            area = roc_auc_score(saved[f"{of}/targets"][:, column], scores[:, column])
            assert line.auroc == pytest.approx(area, abs=1e-9)
            places = corpus.table.frame.set_index("image").index.get_indexer(saved[f"{of}/images"])
            np.testing.assert_array_equal(corpus.table.targets()[places], saved[f"{of}/targets"])


def test_a_label_with_one_class_is_left_out_alone(world: Callable[..., World]) -> None:
    """Its areas are unknown and its verdict says why; the others' are as they were."""
    corpus, x = world()
    folds = dealt(corpus, every(corpus), folds=3)
    whole, found = tried((corpus, x), folds), tried((changed(corpus, Mass=0.0), x), folds)
    lost = found.folds["label"] == "Mass"
    assert found.folds["auroc"][lost].isna().all()
    pd.testing.assert_frame_equal(found.folds[~lost], whole.folds[~lost])
    table = verdicts(found)
    assert table["note"].eq("").sum() == 4
    assert set(table["note"]["Mass"]) == {"not estimable: 0 folds have both areas, 2 are needed"}
    assert not table["distinguished"]["Mass"].any()


def test_a_class_that_was_not_trained_on_has_no_area(world: Callable[..., World]) -> None:
    """Exclusive classes are fitted together, and one without cases says nothing."""
    corpus, x = world(1500, schema=replace(SCHEMA, kind="multiclass"))
    folds = dealt(corpus, every(corpus), folds=1)
    whole = tried((corpus, x), folds).folds
    assert whole["auroc"].notna().all()
    kept = np.concatenate([folds[0].train[1.0], folds[0].train[0.0]])
    blank = np.isin(every(corpus), kept) & (corpus.table.targets()[:, 2] == 1)
    columns = {name: corpus.table.frame[name].mask(blank) for name in SCHEMA.labels}
    found = tried((changed(corpus, **columns), x), folds).folds
    assert found["auroc"].isna().equals(found["label"] == "Mass")


def test_a_planted_difference_is_found_alone(world: Callable[..., World]) -> None:
    """Edema, which looks otherwise in women, is told for both sexes; the rest is not."""
    corpus, x = world(4000)
    table = verdicts(tried((corpus, x), dealt(corpus, every(corpus))))
    edema = table.loc["Edema"]
    assert (edema["distinguished"] & (edema["low"] > 0) & (edema["delta"] > 0.9)).all()
    assert edema["stars"].eq("****").all()
    assert not table.drop("Edema", level="label")["distinguished"].any()


@pytest.mark.parametrize("seed", range(4))
def test_sexes_that_were_dealt_at_random_are_not_told_apart(
    world: Callable[..., World], seed: int
) -> None:
    """With sex permuted over patients nothing is distinguished."""
    corpus, x = world(2000, seed=seed)
    people = patients(corpus)
    sex = np.random.default_rng(seed).choice(["F", "M"], people.max() + 1)[people]
    corpus = changed(corpus, sex=sex)
    table = verdicts(tried((corpus, x), dealt(corpus, every(corpus), folds=10)))
    assert not table["distinguished"].any()


def test_verdicts_are_those_of_the_formulas() -> None:
    """Nadeau and Bengio's t by hand, SciPy's U, Holm over labels and sexes, sign by tested sex."""
    rng = np.random.default_rng(0)
    index = pd.MultiIndex.from_product(
        [["A", "B"], range(1, 7), [0.0, 0.5, 1.0], ["F", "M"]],
        names=["label", "fold", "share", "tested_on"],
    )
    folds = pd.DataFrame({"auroc": rng.normal(0.8, 0.02, len(index))}, index=index).reset_index()
    folds = folds.assign(model="m", dataset="d", train_films=700, test_films=200)
    table = training(folds).set_index(["label", "tested_on"])
    for label, sex in table.index:
        row = table.loc[(label, sex)]
        part = folds[(folds["label"] == label) & (folds["tested_on"] == sex)]
        of = {share: part.loc[part["share"] == share, "auroc"].to_numpy() for share in (0.0, 1.0)}
        same, cross = (of[1.0], of[0.0]) if sex == "F" else (of[0.0], of[1.0])
        error = np.sqrt((same - cross).var(ddof=1) * (1 / 6 + 200 / 700))
        assert row["difference"] == pytest.approx((same - cross).mean())
        assert row["p"] == pytest.approx(2 * t.sf(abs(row["difference"]) / error, 5))
        oracle = mannwhitneyu(same, cross, alternative="two-sided")
        assert row["mann_whitney_p"] == oracle.pvalue
        assert row["delta"] == pytest.approx(2 * oracle.statistic / 36 - 1)
    np.testing.assert_allclose(table["p_holm"].astype(float), holm(table["p"].to_numpy()))


def test_ranks_and_stars() -> None:
    """U and p are SciPy's, delta is U's, levels are the published ones and include their limit."""
    a, b = np.array([0.7, 0.8, 0.8, 0.9]), np.array([0.6, 0.8, 0.75])
    expected = mannwhitneyu(a, b)
    assert mann_whitney(a, b) == (expected.statistic, expected.pvalue)
    assert cliffs_delta(a, b) == pytest.approx(2 * expected.statistic / 12 - 1)
    assert mann_whitney(np.ones(5), np.ones(5))[1] == 1
    levels = (0.0101, 0.01, 1e-3, 1e-4, 1e-5)
    assert [stars(p) for p in levels] == ["ns", "*", "**", "***", "****"]


class Files:
    """A miniature of the published folder: two folds of each sex, ``Edema`` and ``Mass`` given."""

    def __init__(self, folder: Path, corpus: Corpus) -> None:
        self.folder, self.corpus = folder, corpus
        self.folds = dealt(corpus, every(corpus), folds=2, seed=7)

    def write(self, column: str, path: str, **tests: str) -> Path:
        """Write all files; ``path`` names an image, ``tests`` the test file of each sex."""
        names = {"F": "test.csv", "M": "test.csv", **tests}
        for number, fold in enumerate(self.folds):
            for sex, share, home in (("F", 1.0, "100%"), ("M", 0.0, "0%")):
                place = self.folder / f"{home}_female_images" / f"Fold_{number}"
                place.mkdir(parents=True)
                parts = {"train.csv": fold.train[share], "dev.csv": fold.val[share]}
                for name, rows in {**parts, names[sex]: fold.test[sex]}.items():
                    self.table(rows, column, path).to_csv(place / name)
        return self.folder

    def table(self, rows: np.ndarray, column: str, path: str) -> pd.DataFrame:
        frame = self.corpus.table.frame.iloc[rows].reset_index(drop=True)
        images = [path.format(each, name=each.rpartition("/")[2]) for each in frame["image"]]
        labels = frame[["Edema", "Mass"]].fillna(0).replace(-1, 0)
        return pd.DataFrame({column: images}).join(labels)


LAYOUTS = [
    ("Path", "CheXpert-v1.0-small/{}", {}),
    ("Image Index", "{name}", {"F": "test_females.csv", "M": "test_males.csv"}),
    ("image", "{}", {"F": "Female_test.csv", "M": "test-male.csv"}),
]


@pytest.mark.parametrize(("column", "path", "tests"), LAYOUTS)
def test_published_folds_are_read(
    world: Callable[..., World], tmp_path: Path, column: str, path: str, tests: dict[str, str]
) -> None:
    """Every spelling gives the films that were written, and the files' labels alone."""
    corpus, x = world()
    corpus = changed(corpus, Mass=corpus.table.frame["Mass"].replace(0, np.nan))
    files = Files(tmp_path, corpus)
    folds, targets = published_folds(files.write(column, path, **tests), corpus)
    assert targets is not None
    for found, written in zip(folds, files.folds, strict=True):
        assert found.number == written.number
        for part in ("train", "val", "test"):
            for key, rows in getattr(written, part).items():
                np.testing.assert_array_equal(getattr(found, part)[key], rows)
    rows = folds[0].rows
    expected = np.nan_to_num(corpus.table.targets()[rows])
    np.testing.assert_array_equal(targets[rows][:, [0, 2]], expected[:, [0, 2]])
    assert np.isnan(targets[:, 1]).all()
    zeros = replace(corpus, schema=replace(SCHEMA, blank="zeros"))
    result = tried((zeros, x), folds, targets=targets).folds
    assert result.groupby("label")["train_films"].max()["Nodule"] == 0
    assert result.loc[result["label"] != "Nodule", "auroc"].notna().all()


def test_a_file_name_of_two_films_finds_neither(
    world: Callable[..., World], tmp_path: Path
) -> None:
    """Where names alone are listed, one that is not unique is a film that is missing."""
    corpus, _ = world()
    files = Files(tmp_path, corpus)
    files.write("Image Index", "{name}")
    images = corpus.table.frame["image"].copy()
    first, second = files.folds[0].train[1.0][:2]
    images[first] = "other/" + images[second].rpartition("/")[2]
    with pytest.raises(DataError, match=r"100%_female_images/Fold_0/train.csv: 2 of \d+ films"):
        published_folds(tmp_path, changed(corpus, image=images))


def test_broken_published_folds_are_refused(world: Callable[..., World], tmp_path: Path) -> None:
    """A line names the file, and how many films or patients are wrong."""
    corpus, _ = world()
    with pytest.raises(DataError, match="no 0%_female_images/Fold_0"):
        published_folds(tmp_path, corpus)
    files = Files(tmp_path, corpus)
    files.write("Path", "CheXpert-v1.0-small/{}")
    frame = corpus.table.frame
    others = np.concatenate([files.folds[0].rows, files.folds[0].val[1.0]])
    lost = np.setdiff1d(files.folds[1].test["F"], others)[:2]
    with pytest.raises(DataError, match=r"100%_female_images/Fold_1/test.csv: 2 of \d+ films are"):
        published_folds(tmp_path, tabled(corpus, frame.drop(lost).reset_index(drop=True)))
    patient = frame["patient"].copy()
    patient[files.folds[0].test["M"][0]] = patient[files.folds[0].train[0.0][0]]
    with pytest.raises(DataError, match=r"1 patients of .* are in two of Fold_0's"):
        published_folds(tmp_path, changed(corpus, patient=patient))
    swapped = frame["sex"].map({"F": "M", "M": "F"})
    with pytest.raises(DataError, match="most films of it are of the other sex"):
        published_folds(tmp_path, changed(corpus, sex=swapped))
    (tmp_path / "100%_female_images/Fold_1/test.csv").unlink()
    with pytest.raises(DataError, match="Fold_1: 0 test files"):
        published_folds(tmp_path, corpus)
