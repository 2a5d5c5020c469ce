"""``ark fairness``: every figure again from what it saved, and what it says where data lack."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, precision_score, roc_auc_score, roc_curve

from ark_framework import LabelSchema, cli
from ark_framework.annotations import validate
from ark_framework.errors import ConfigError, DataError
from ark_framework.fairness.audit import DERIVED, audit
from ark_framework.fairness.groupings import groupings
from ark_framework.fairness.predictions import Predictions, film_frame, judged
from ark_framework.fairness.settings import FairnessConfig
from ark_framework.transfer.settings import checked

LABELS = ("effusion", "mass")
SCHEMA = LabelSchema(name="two", kind="multilabel", labels=LABELS)


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models with random weights audited on many labels and on exclusive classes."""
    folder = tmp_path_factory.mktemp("fairness")
    config = {
        "plugins": ["ark-phantom"],
        "datasets": ["phantom-north", "phantom-south"],
        "data": {f"phantom-{name}": {"films": 900, "size": 32} for name in ("north", "south")},
        "store": {"size": 32, "workers": 1, "folder": str(folder / "stores")},
        "by": ["sex", "age", "sex+view"],
        "exclusive": {"folds": 3, "shares": [0, 0.5, 1]},
        "replicates": 200,
        "runtime": {"device": "cpu", "threads": 1},
    }
    (folder / "audit.yaml").write_text(json.dumps(config), encoding="utf-8")
    words = ["wide=random:tiny", "--size", "32", "--resize", "32"]
    words += ["-c", str(folder / "audit.yaml"), "--out", str(folder / "out")]
    assert cli.run(["fairness", *words]) == 0
    return folder / "out"


def film_table(out: Path, dataset: str) -> pd.DataFrame:
    return pd.read_csv(out / "predictions" / f"{dataset}_wide.csv", dtype={"patient": str})


def band(age: float) -> str:
    """The band of an age, worked out apart from the audit."""
    for low, high in ((0, 18), (18, 40), (40, 60), (60, 80)):
        if low <= age < high:
            return f"{low}-{high - 1}"
    return "80+"


def member(films: pd.DataFrame, attribute: str, group: str) -> np.ndarray:
    if attribute == "all":
        return np.ones(len(films), dtype=bool)
    found = {"sex": films["sex"], "age": films["age"].map(band)}
    found["sex+view"] = films["sex"] + ", " + films["view"]
    return (found[attribute] == group).to_numpy()


def measure(name: str, truth: np.ndarray, score: np.ndarray, cut: float) -> float:
    """One figure by scikit-learn."""
    called = score >= cut
    if name == "auroc":
        return float(roc_auc_score(truth, score))
    if name == "ppv":
        return float(precision_score(truth, called))
    if name == "bias":
        return float(score.mean() - truth.mean())
    if name == "ece":
        share, mean = calibration_curve(truth, score, n_bins=10, strategy="uniform")
        bins = np.clip(np.searchsorted(np.linspace(0, 1, 11)[1:-1], score), 0, 9)
        sizes = np.bincount(bins, minlength=10)
        return float(np.abs(share - mean) @ sizes[sizes > 0] / len(score))
    tn, fp, fn, tp = confusion_matrix(truth, called, labels=[False, True]).ravel()
    return float(fn / (fn + tp) if name == "fnr" else fp / (fp + tn))


def label_of(films: pd.DataFrame, label: str, cuts: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Truth with NaN and score of a label, the derived one among them."""
    if label != DERIVED:
        truth = films[label].where(films[label].isin([0, 1]))
        return truth.to_numpy(dtype=float), films[f"p:{label}"].to_numpy(dtype=float)
    labels = list(cuts.index)
    every = films[labels].to_numpy(dtype=float)
    clear = np.where((every == 1).any(axis=1), 0.0, np.where((every == 0).all(axis=1), 1.0, np.nan))
    apart = films[[f"p:{each}" for each in labels]].to_numpy() - cuts.to_numpy()
    return clear, -apart.max(axis=1)


@pytest.mark.parametrize("dataset", ["phantom-north", "phantom-south"])
def test_every_figure_again(audited: Path, dataset: str) -> None:
    """Cuts, scores, counts and gaps follow from the saved predictions, by scikit-learn."""
    films = film_table(audited, dataset)
    val, test = films[films["split"] == "val"], films[films["split"] == "test"]
    thresholds = pd.read_csv(audited / "thresholds.csv").query("dataset == @dataset")
    for row in thresholds.itertuples():
        known = val[val[row.label].isin([0, 1])]
        truth, score = known[row.label] == 1, known[f"p:{row.label}"]
        fpr, tpr, cuts = roc_curve(truth, score, drop_intermediate=False)
        last = np.flatnonzero(1 - fpr >= 0.9)[-1]
        assert (row.cut, row.positives) == (pytest.approx(cuts[last]), truth.sum())
        assert (row.sensitivity, row.specificity) == pytest.approx((tpr[last], 1 - fpr[last]))
    cuts = thresholds.set_index("label")["cut"]
    scores = pd.read_csv(audited / "scores.csv").query("dataset == @dataset")
    assert set(scores["label"]) >= {*cuts.index}
    seen = 0
    for row in scores.itertuples():
        truth, score = label_of(test, row.label, cuts)
        rows = member(test, row.attribute, row.group) & np.isfinite(truth)
        positive, people = truth[rows] == 1, test["patient"].to_numpy()[rows]
        assert (row.films, row.positives) == (rows.sum(), positive.sum())
        assert row.patients == len(set(people))
        if np.isfinite(row.value):
            cut = np.nextafter(0, 1) if row.label == DERIVED else cuts[row.label]
            expected = measure(row.measure, positive, score[rows], cut)
            assert row.value == pytest.approx(expected, abs=1e-9), row
            seen += 1
    assert seen > 100
    gaps = pd.read_csv(audited / "gaps.csv").query("dataset == @dataset and second != 'others'")
    by_group = scores.set_index(["label", "attribute", "group", "measure"])["value"]
    for row in gaps[gaps["value"].notna()].itertuples():
        ends = [by_group[row.label, row.attribute, g, row.measure] for g in (row.first, row.second)]
        assert row.value == pytest.approx(ends[0] - ends[1], abs=1e-9)


def test_training_on_one_sex_again(audited: Path) -> None:
    """The areas of the dealings, their means and the film counts follow from what is saved."""
    dataset = "phantom-south"
    folds = pd.read_csv(audited / "folds.csv").query("dataset == @dataset")
    assert len(folds) == 3 * 3 * 2 * 3  # folds, shares, tested sexes, classes
    with np.load(audited / "predictions" / f"{dataset}_wide_one-sex.npz") as kept:
        for row in folds.itertuples():
            where = f"fold-{row.fold:02d}/{row.tested_on}"
            at = ["normal", "abnormal without opacity", "opacity"].index(row.label)
            truth, score = kept[f"{where}/targets"][:, at], kept[f"{where}/trained-{row.share:.2f}"]
            assert (row.test_films, row.test_positives) == (len(truth), truth.sum())
            if np.isfinite(row.auroc):
                assert row.auroc == pytest.approx(roc_auc_score(truth, score[:, at]), abs=1e-9)
    training = pd.read_csv(audited / "training.csv").query("dataset == @dataset")
    for row in training.itertuples():
        own = folds[(folds["label"] == row.label) & (folds["tested_on"] == row.tested_on)]
        means = own.groupby("share")["auroc"].mean()
        same, cross = (1.0, 0.0) if row.tested_on == "F" else (0.0, 1.0)
        assert (row.same, row.cross) == pytest.approx((means[same], means[cross]))


def test_what_is_left_to_share_names_nobody(audited: Path) -> None:
    """The page, Markdown and tables hold no film's and no patient's name; predictions do."""
    films = film_table(audited, "phantom-north")
    names = {*films["image"], *films["patient"]}
    for path in audited.iterdir():
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert not [name for name in names if name in text], path.name
    assert "Research use only" in (audited / "fairness.html").read_text(encoding="utf-8")


def predictions(frame: pd.DataFrame, **more: object) -> Predictions:
    """What a model said of films, every label at once."""
    table = validate(frame, dataset="d", schema=SCHEMA)
    rows = np.arange(len(table))
    scores = frame[["s:effusion", "s:mass"]].to_numpy(dtype=float)
    films = film_frame(table, rows, scores, LABELS, np.full(len(rows), "no", dtype=object))
    made = Predictions(
        model="m", dataset="d", schema=SCHEMA, labels=LABELS, frame=films, answers="file"
    )
    return replace(made, **more)  # type: ignore[arg-type]


def films(count: int = 400, seed: int = 0) -> pd.DataFrame:
    """Films of as many patients with two findings that a model sees fairly well."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((count, 2)) < 0.4).astype(float)
    scores = 1 / (1 + np.exp(-(rng.normal(0, 1, (count, 2)) + 2 * truth - 1)))
    return pd.DataFrame(
        {
            "image": [f"f{number}.png" for number in range(count)],
            "split": np.where(np.arange(count) % 4 == 0, "val", "test"),
            "patient": [f"p{number}" for number in range(count)],
            "sex": np.where(rng.random(count) < 0.5, "F", "M"),
            "age": rng.uniform(20, 90, count).round(),
            "view": "PA",
            "group:scanner": rng.choice(["a", "b", "c"], count),
            **dict(zip(LABELS, truth.T, strict=True)),
            **{f"s:{name}": column for name, column in zip(LABELS, scores.T, strict=True)},
        }
    )


def config(**given: object) -> FairnessConfig:
    return checked(FairnessConfig, {"models": {}, **given}, where="fairness", models=False)


def test_groupings() -> None:
    """Bands, crossings and a plugin's column; a film that does not say belongs nowhere."""
    frame = films(40)
    frame.loc[0, "sex"] = None
    frame.loc[1, "age"] = 40.0
    found, notes = groupings(frame, None, ages=(18, 40, 60, 80))
    names = [each.name for each in found]
    assert names[:3] == ["sex", "age", "scanner"]
    assert {"sex+age", "sex+scanner"} <= {*names}
    assert notes == ["view: every film that says it is PA, so nothing can be compared"]
    sex, age = found[0], found[1]
    assert (sex.groups, sex.names()[0]) == (("F", "M"), "missing")
    assert age.names()[1] == "40-59"
    crossed = next(each for each in found if each.name == "sex+age")
    assert (crossed.of >= 0).sum() == 39
    with pytest.raises(ConfigError, match=r"no grouping 'sexx'; did you mean 'sex'"):
        groupings(frame, ["sexx"], ages=(40,))


def test_missing_pieces_are_said_and_the_rest_is_reported() -> None:
    """No sex, one sex, one class, no validation positives: a line each, and figures for others."""
    frame = films()
    frame["sex"] = None
    found = audit(predictions(frame), config())
    assert "sex: no film says it, so nothing is told apart by it" in found.notes
    assert found.gaps["attribute"].unique().tolist() == ["age", "scanner", "age+scanner"]
    frame["sex"] = "M"
    found = audit(predictions(frame), config())
    assert "sex: every film that says it is M, so nothing can be compared" in found.notes
    frame = films()
    frame.loc[frame["split"] == "val", "mass"] = 0.0
    found = audit(predictions(frame), config(by=["sex"]))
    told = found.thresholds.set_index("label")["note"]
    assert "no threshold from 0 positives" in told["mass"]
    assert told["effusion"] == ""
    scores = found.scores.set_index(["label", "group", "measure"])
    assert np.isfinite(scores.loc[("mass", "F", "auroc"), "value"])
    assert "no cut could be chosen" in scores.loc[("mass", "F", "fnr"), "note"]
    assert np.isfinite(scores.loc[("effusion", "F", "fnr"), "value"])
    frame = films()
    frame["mass"] = 0.0
    found = audit(predictions(frame), config(by=["sex"]))
    notes = found.scores.query("label == 'mass' and measure == 'auroc'")["note"]
    assert notes.str.contains("0 patients with positives").all()


def test_small_groups_are_not_scored() -> None:
    """A group below the stated number has no rate, and says how many there were."""
    frame = films()
    women = np.flatnonzero(frame["sex"] == "F")
    frame.loc[women[12:], "sex"] = "M"
    found = audit(predictions(frame), config(by=["sex"], least=30)).scores
    few = found.query("group == 'F' and measure == 'auroc'")
    assert few["value"].isna().all()
    assert few["note"].str.contains("at least 30 are needed").all()
    assert found.query("group == 'M' and measure == 'auroc'")["value"].notna().all()


def test_cuts_of_groups_are_their_own() -> None:
    """With cuts by sex both sexes reach the specificity; with one cut a shifted sex does not."""
    frame = films(2000)
    shifted = frame["sex"] == "F"
    for label in LABELS:
        frame[f"s:{label}"] = np.where(shifted, frame[f"s:{label}"] ** 0.5, frame[f"s:{label}"])
    rates = {}
    for by in (None, "sex"):
        found = audit(predictions(frame), config(by=["sex"], cuts={"by": by}))
        rows = found.scores.query("label == 'effusion' and measure == 'fpr'")
        rates[by] = rows.set_index("group")["value"]
        assert len(found.thresholds) == (2 if by is None else 6)
    assert rates[None]["F"] - rates[None]["M"] > 0.1
    assert abs(rates["sex"]["F"] - rates["sex"]["M"]) < 0.06
    assert abs(rates["sex"]["F"] - 0.1) < 0.06


def test_the_label_of_clear_films_is_the_schemas_own() -> None:
    """A no-finding label is judged although it is not scored; another name is given."""
    schema = LabelSchema(
        name="x", kind="multilabel", labels=("No Finding", "mass"), report=("mass",)
    )
    assert judged(schema, None, None) == ["No Finding", "mass"]
    with pytest.raises(ConfigError, match="no label 'nodule'"):
        judged(schema, ["nodule"], None)
    frame = films()
    found = audit(predictions(frame), config(by=["sex"]))
    assert found.underdiagnosis == DERIVED
    derived = found.gaps[found.gaps["label"] == DERIVED]
    assert derived["p"].isna().all()
    assert derived["value"].notna().any()
    named = audit(predictions(frame), config(by=["sex"], normal="mass"))
    assert named.underdiagnosis == "mass"


def test_refused(tmp_path: Path) -> None:
    """No test films, films that are not the dataset's, one twice, no number: one line each."""
    frame = films(40)
    with pytest.raises(DataError, match="no test films"):
        audit(predictions(frame.assign(split="val")), config())
    from ark_framework.fairness.predictions import is_file, read

    table = validate(frame, dataset="d", schema=SCHEMA)
    path = tmp_path / "d-test.csv"
    made = frame[["image"]].assign(**{"p:mass": 0.5})
    made.to_csv(path, index=False)
    assert is_file(str(path))
    assert is_file(str(tmp_path))
    told = {"model": "m", "table": table, "labels": LABELS}
    assert read(str(path), **told).labels == ("mass",)  # type: ignore[arg-type]
    for wrong, why in (
        (made.assign(image="elsewhere.png").drop_duplicates(), "predicts no test film"),
        (pd.concat([made, made[:1]]), "'f0.png' is predicted twice"),
        (made.assign(**{"p:mass": "much"}), "'f0.png' is 'much', not a number"),
    ):
        wrong.to_csv(path, index=False)
        with pytest.raises(DataError, match=why):
            read(str(path), **told)  # type: ignore[arg-type]
