"""Outcomes become Table 2 and Figure 2: what is compared, by which test, and what is said."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from ark_framework import LabelSchema, cli
from ark_framework.cli import comparison
from ark_framework.statistics import BEST, SECOND, TIED, bootstrap_paired
from ark_framework.transfer.arms import arms
from ark_framework.transfer.compare import (
    DRAWS,
    FILMS,
    FOLDS,
    SEEDS,
    Comparison,
    Standing,
    compare,
)
from ark_framework.transfer.files import markdown, outcome_frame, table_frame
from ark_framework.transfer.outcome import Outcome, outcome
from ark_framework.transfer.pieces import predictions_of
from ark_framework.transfer.settings import parse
from ark_framework.transfer.sheets import score_sheets, sheets

CLEAN = {"films": {"yes": 0, "no": 40, "unknown": 0}, "patients": {"yes": 0, "no": 40}}
HOSTILE = '<script>alert(1)</script> | "a" & *b*'


def made(
    model: str,
    score: float,
    *,
    protocol: str = "finetune",
    dataset: str = "rsna",
    exclusive: bool = False,
    trained_on: Mapping[str, Mapping[str, int]] = CLEAN,
    labels: Mapping[str, float] | None = None,
    scored: tuple[str, ...] = (),
    **setting: Any,
) -> Outcome:
    """An outcome of this score, on 40 films."""
    areas = labels or {"opacity": score}
    return Outcome(
        model=model,
        dataset=dataset,
        protocol=protocol,
        setting={"seed": 0, "split": "official", **setting},
        films=40,
        labels={
            label: {"auroc": area, "average_precision": 0.5, "positives": 20, "negatives": 20}
            for label, area in areas.items()
        },
        auroc=0.9 if exclusive else score,
        accuracy=score if exclusive else math.nan,
        scored=scored,
        trained_on=trained_on,
    )


def over_seeds(model: str, scores: Sequence[float], **about: Any) -> list[Outcome]:
    return [made(model, score, seed=seed, **about) for seed, score in enumerate(scores)]


def standing(found: Comparison, model: str, *, column: int = 0) -> Standing:
    return next(s for s in found.columns[column].standings if s.arm.model == model)


def test_arms_pair_up() -> None:
    """An arm is in the order of its seeds, splits and draws, in whatever order outcomes come."""
    found = [
        made("a", seed + fold / 100 + draw / 1000, seed=seed, split=f"fold 1.{fold}", draw=draw)
        for seed in (1, 0)
        for fold in (10, 9)
        for draw in (1, 0)
    ]
    (arm,) = arms(found)
    assert arm.values.tolist() == sorted(each.score for each in found)
    assert arm.by("seed") == {0: pytest.approx(0.0955), 1: pytest.approx(1.0955)}
    assert arm.films == 80  # two folds of 40


def test_seeds_are_tested_as_published_and_by_welch(tmp_path: Path) -> None:
    """Both t tests equal scipy's, Holm's p is over all models, and marks follow from it alone."""
    scores = {"a": [0.80, 0.82, 0.81], "b": [0.70, 0.71, 0.66], "c": [0.805, 0.80, 0.815]}
    found = compare([o for m, s in scores.items() for o in over_seeds(m, s)], out=tmp_path)
    (column,) = found.columns
    b, c = standing(found, "b"), standing(found, "c")
    assert column.method == SEEDS
    assert standing(found, "a").marks == (BEST,)
    assert (b.marks, c.marks) == ((), (SECOND, TIED))
    assert b.difference
    assert b.published
    welch = {m: stats.ttest_ind(scores["a"], scores[m], equal_var=False) for m in "bc"}
    low, high = welch["b"].confidence_interval()
    assert (b.difference.p, b.difference.low, b.difference.high) == pytest.approx(
        (welch["b"].pvalue, low, high)
    )
    assert b.published.p == pytest.approx(stats.ttest_ind(scores["a"], scores["b"]).pvalue)
    assert b.p == pytest.approx(2 * welch["b"].pvalue)
    assert c.p == pytest.approx(max(welch["c"].pvalue, b.p))


def test_seeds_that_agree(tmp_path: Path) -> None:
    """A model whose seeds all agree is tested all the same, without a warning."""
    found = compare(
        [*over_seeds("a", [0.1 + 0.2, 0.3, 0.3]), *over_seeds("b", [0.21, 0.2, 0.19])],
        out=tmp_path,
    )
    b = standing(found, "b")
    assert b.difference
    assert b.difference.p < 0.01


def test_folds_are_tested_as_resamples(tmp_path: Path) -> None:
    """Seeds are averaged within a fold, and the variance is Nadeau and Bengio's."""
    rng = np.random.default_rng(0)
    base = rng.normal(0.7, 0.03, 10)
    gains = rng.normal(0.02, 0.01, 10)
    found = []
    for i, (low, gain) in enumerate(zip(base, gains, strict=True)):
        split = f"fold {i // 5 + 1}.{i % 5 + 1}"
        found.append(made("good", low + gain, split=split, protocol="probe", fraction=1.0))
        for seed, shift in enumerate((-0.01, 0.01)):
            found.append(
                made("random", low + shift, split=split, seed=seed, protocol="probe", fraction=1.0)
            )
    done = compare(found, out=tmp_path, folds=5)
    difference = standing(done, "random").difference
    assert done.columns[0].method == FOLDS
    assert difference
    error = math.sqrt(gains.var(ddof=1) * (1 / 10 + 0.2 / 0.8))
    assert difference.value == pytest.approx(gains.mean())
    assert difference.p == pytest.approx(2 * stats.t.sf(gains.mean() / error, 9))


def saved(out: Path, model: str, schema: LabelSchema, noise: float) -> Outcome:
    """An outcome whose predictions lie where a study puts them; one label has blanks."""
    rng = np.random.default_rng(7)
    raw = (rng.random((200, 3)) < 0.4).astype(float)
    raw[:60, 0] = np.nan
    scores = raw + np.random.default_rng([8, len(model)]).normal(0, noise, raw.shape)
    scores = np.where(np.isnan(scores), rng.random(scores.shape), scores)
    targets = np.nan_to_num(raw) if schema.blank == "zeros" else raw
    about = {"dataset": schema.name, "protocol": "probe", "model": model}
    setting = {"seed": 0, "split": "official", "fraction": 1.0}
    found = outcome(scores, targets, schema, setting=setting, trained_on=CLEAN, **about)
    frame = pd.DataFrame(raw, columns=list(schema.labels))
    frame = frame.join(pd.DataFrame(scores, columns=[f"p:{each}" for each in schema.labels]))
    frame.insert(0, "patient", np.arange(200) // 2)
    frame.insert(0, "image", [f"{i}.png" for i in range(200)])
    found = replace(found, predictions=f"{model}.csv")
    path = predictions_of(out, found)
    path.parent.mkdir(exist_ok=True)
    frame.to_csv(path, index=False)
    return found


@pytest.mark.parametrize("blank", ["ignore", "zeros"])
def test_one_score_is_compared_by_films(tmp_path: Path, blank: Any) -> None:
    """The saved predictions are drawn by patient, of scored labels, blanks as they were scored."""
    schema = LabelSchema(
        name="three", kind="multilabel", labels=("x", "y", "z"), report=("x", "y"), blank=blank
    )
    found = [saved(tmp_path, m, schema, noise) for m, noise in (("good", 0.5), ("worse", 0.9))]
    done = compare(found, out=tmp_path)
    worse = standing(done, "worse").difference
    assert done.columns[0].method == FILMS
    assert worse
    films = [pd.read_csv(predictions_of(tmp_path, each)) for each in found]
    targets = films[0][["x", "y"]].fillna(0 if blank == "zeros" else np.nan).to_numpy()
    first, second = (each[["p:x", "p:y"]].to_numpy() for each in films)
    expected = bootstrap_paired(first, second, targets, groups=films[0]["patient"].to_numpy()).macro
    assert (worse.value, worse.low, worse.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert worse.value == pytest.approx(found[0].score - found[1].score)


def test_nothing_is_claimed_of_other_predictions(tmp_path: Path) -> None:
    """Missing predictions, and ones that give another score, leave no interval and the tie mark."""
    schema = LabelSchema(name="three", kind="multilabel", labels=("x", "y", "z"))
    good, worse = (saved(tmp_path, m, schema, n) for m, n in (("good", 0.5), ("worse", 0.9)))
    path = predictions_of(tmp_path, worse)
    frame = pd.read_csv(path)
    frame["p:x"] = 1 - frame["p:x"]
    frame.to_csv(path, index=False)
    for reason in ("other scores", "not saved"):
        one = standing(compare([good, worse], out=tmp_path), "worse")
        assert one.difference
        assert reason in one.difference.reason
        assert TIED in one.marks
        assert math.isnan(one.difference.low)
        path.unlink(missing_ok=True)


def few_shot() -> list[Outcome]:
    rng = np.random.default_rng(3)
    return [
        made(model, level + rise * k + noise, protocol="few-shot", shots=k, draw=draw)
        for k in (1, 4, 16)
        for draw, noise in enumerate(rng.normal(0, 0.02, 10))
        for model, level, rise in (("first", 0.6, 0.005), ("second", 0.65, 0.006 + noise / 100))
    ]


def test_few_shots_are_curves(tmp_path: Path) -> None:
    """Bands are Student's over draws, and gains are paired: much narrower than the bands."""
    found = compare(few_shot(), out=tmp_path)
    assert not found.columns
    (curve,) = found.curves
    assert [point.x for point in curve.lines["second"]] == [1, 4, 16]
    point = curve.lines["second"][1]
    values = point.arm.values
    low, high = stats.t.interval(0.95, 9, values.mean(), stats.sem(values))
    assert (point.low, point.high) == pytest.approx((low, high))
    assert point.gain
    assert point.gain.value == pytest.approx(np.mean(values - curve.lines["first"][1].arm.values))
    assert point.gain.high - point.gain.low < (high - low) / 10
    assert curve.lines["first"][0].gain is None


def test_fractions_are_a_curve_and_all_of_it_the_table(tmp_path: Path) -> None:
    """The table has the largest share; a share is compared over draws where it alone was tried."""
    few = [
        made(model, 0.7 + draw / 100 + shift, protocol="probe", fraction=0.1, draw=draw)
        for model, shift in (("a", 0.0), ("b", 0.05))
        for draw in range(10)
    ]
    alone = compare(few, out=tmp_path)
    assert (alone.columns[0].method, alone.curves) == (DRAWS, ())
    full = [made(m, 0.8, protocol="probe", fraction=1.0) for m in ("a", "b")]
    found = compare([*few, *full], out=tmp_path)
    assert [column.condition for column in found.columns] == [("fraction", 1.0)]
    assert [point.draws for point in found.curves[0].lines["a"]] == [10, 1]


def test_every_score_says_whether_its_films_were_trained_on(tmp_path: Path) -> None:
    """Seen and unknown films mark the cell, a clean one has no mark, and the counts are told."""
    seen = {"films": {"yes": 3, "no": 37}, "patients": {"yes": 5, "no": 35}}
    patients = {"films": {"yes": 0, "no": 40}, "patients": {"yes": 2, "no": 38}}
    found = compare(
        [
            *over_seeds("seen", [0.7, 0.8], trained_on=seen),
            *over_seeds("patients", [0.7, 0.8], trained_on=patients),
            *over_seeds("untold", [0.7, 0.8], trained_on={}),
            *over_seeds("clean", [0.7, 0.8]),
        ],
        out=tmp_path,
    )
    scores, *_, counts = sheets(found)
    cells = {row[0].text: row[1].text for row in scores.rows}
    assert {model: text[-1] for model, text in cells.items()} == {
        "seen": "†",
        "patients": "†",
        "untold": "‡",
        "clean": "≈",
    }
    told = {row[0].text: [cell.text for cell in row[3:]] for row in counts.rows}
    assert told["seen"] == ["3", "37", "0", "5", "35", "0"]
    assert told["untold"][2] == "40"
    assert told["clean"] == ["0", "40", "0", "0", "40", "0"]


def test_exclusive_classes_and_external_heads(tmp_path: Path) -> None:
    """Accuracy is the score of exclusive classes, AUROC beside it; heads are told by label."""
    found = compare(
        [
            *over_seeds("a", [0.6, 0.7], exclusive=True, labels={"x": 0.9, "y": 0.9, "z": 0.1}),
            made(
                "a",
                0.7,
                protocol="external",
                head="nih",
                labels={"x": 0.7, "y": math.nan, "z": 0.7},
                scored=("x", "y"),
            ),
            made(
                "a",
                0.8,
                protocol="external",
                head="mimic",
                labels={"x": 0.8, "y": 0.8, "z": 0.8},
                scored=("x", "y"),
            ),
        ],
        out=tmp_path,
    )
    scores, external, _ = sheets(found)
    assert scores.columns[1] == "rsna: accuracy, n = 40"
    assert scores.rows[0][1].text == "0.650 ± 0.071 (2); AUROC 0.900"
    assert [[cell.text for cell in row] for row in external.rows] == [
        ["a", "nih", "0.700 (1)"],
        ["a", "mimic", "0.800 (2)"],
    ]


def test_the_long_tables_hold_everything(tmp_path: Path) -> None:
    """A row for each label and mean with all settings, and a row for each cell and point."""
    outcomes = [*few_shot(), *over_seeds("first", [0.7, 0.8], dataset="nih")]
    long = outcome_frame(outcomes)
    assert len(long) == 2 * len(outcomes)
    assert {"seed", "split", "shots", "draw", "films_trained_on_yes"} <= set(long)
    mean = long[(long["row"] == "mean") & (long["shots"] == 16) & (long["model"] == "first")]
    assert mean["auroc"].tolist() == [
        o.auroc for o in outcomes if o.model == "first" and o.setting.get("shots") == 16
    ]
    table = table_frame(compare(outcomes, out=tmp_path))
    assert table["table"].value_counts().to_dict() == {"curve": 6, "scores": 1}
    assert table.query("model == 'second' and shots == 4")["gain_low"].notna().all()


class Tree(HTMLParser):
    """The tags, the text, and whether all tags are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        del attrs
        self.tags.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        del attrs
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_escaped_and_draws_what_was_found(tmp_path: Path) -> None:
    """A hostile name is text on the page and in Markdown; a line and a band per model and chart."""
    outcomes = [*few_shot(), *over_seeds(HOSTILE, [0.7, 0.8]), *over_seeds("first", [0.6, 0.7])]
    found = compare(outcomes, out=tmp_path)
    config = parse({"models": {HOSTILE: "random:tiny"}, "protocols": ["finetune"]})
    html = comparison.html(found, ["research use only"], config)
    tree = Tree(html)
    assert HOSTILE in tree.text
    assert not {"script", "img", "b"} & {*tree.tags}
    assert (tree.tags.count("polyline"), tree.tags.count("polygon")) == (2, 2)
    assert "finetune.epochs" in tree.text
    assert "probe.draws" not in tree.text
    lines = markdown("Heading", [], score_sheets(found)).splitlines()
    (row,) = (line for line in lines if "script" in line and "0.750" in line and "**" in line)
    assert "<script" not in row
    assert row.replace("\\|", "").count("|") == 3  # two columns


@pytest.fixture
def study(small: Callable[..., dict[str, Any]], tmp_path: Path) -> Path:
    """A file that compares two small random models on two hospitals, in three ways."""
    run = small()
    told = {
        "models": {
            "narrow": {"source": "random:tiny", "size": 24, "resize": 32},
            "wide": {"source": "random:tiny", "size": 32, "resize": 32},
        },
        "plugins": run["plugins"],
        "datasets": ["phantom-north", "phantom-south"],
        "protocols": ["probe", "few-shot", "finetune"],
        "seeds": 2,
        "probe": {"shots": [1, 2], "c": [0.01]},
        "finetune": {"steps": 2, "batch_size": 16},
        **{key: run[key] for key in ("data", "store", "runtime")},
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(told), encoding="utf-8")
    return path


def test_the_command_computes_once(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second run recomputes no piece, prints the same outcomes, and writes its tables anew."""
    out = tmp_path / "out"
    words = ["compare", str(study), "--out", str(out), "--json"]
    assert cli.run(words) == 0
    first = json.loads(capsys.readouterr().out)
    pieces = {path: path.stat().st_mtime_ns for path in (out / "pieces").rglob("*.json")}
    saved = {path: path.stat().st_mtime_ns for path in (out / "predictions").iterdir()}
    assert {each["protocol"] for each in first} == {"probe", "few-shot", "finetune"}
    (out / "table.csv").unlink()
    assert cli.run(words) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert pieces
    assert {path: path.stat().st_mtime_ns for path in pieces} == pieces
    assert {path: path.stat().st_mtime_ns for path in saved} == saved
    table = pd.read_csv(out / "table.csv")
    assert set(table["model"]) == {"narrow", "wide"}
    assert (table["films_trained_on_yes"] == 0).all()
    page = (out / "compare.html").read_text("utf-8")
    images = pd.read_csv(next(iter(saved)))["image"]
    assert not [image for image in images if image in page]
    assert "Research use only" in page


def test_a_page_does_not_say_whose_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a path its end alone is shown, and nothing of where data lie."""
    words = ["compare", "/home/me/s.yaml", "--data", "rsna=/data/rsna", "--set", "seeds=5"]
    monkeypatch.setattr("sys.argv", ["ark", *words])
    models = {"a": "/home/me/runs/a", "b": "random:/home/me/runs/b", "c": "timm:x=/home/me/w.pth"}
    config = parse({"models": models})
    said = [*comparison._about(compare([], out=Path()), []), *comparison.settings(config).values()]
    assert not [line for line in said if "/home" in line or "/data" in line]
    assert any("ark compare s.yaml --set seeds=5" in line for line in said)
    assert {"a", "random:b", "timm:x=w.pth"} <= set(said)
