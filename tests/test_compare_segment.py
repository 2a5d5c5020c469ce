"""Segmentation compared: its table, its curve over films, its structures, its bootstrap."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ark_framework.cli import comparison
from ark_framework.overlap import FilmScores, film_frame
from ark_framework.statistics import BEST, TIED, bootstrap_means_paired
from ark_framework.transfer.arms import arms
from ark_framework.transfer.compare import FILMS, FOLDS, SEEDS, Comparison, Standing, compare
from ark_framework.transfer.files import outcome_frame, table_frame
from ark_framework.transfer.outcome import Outcome, segmented
from ark_framework.transfer.pieces import predictions_of
from ark_framework.transfer.settings import parse
from ark_framework.transfer.sheets import sheets

LABELS = ("lung", "heart")
COUNT = 40


def scores(level: float, seed: int) -> FilmScores:
    """Scores of 40 films about a level; the heart is not drawn on ten, and empty on one."""
    rng = np.random.default_rng([7, seed])
    dice = np.clip(level + rng.normal(0, 0.02, (COUNT, 2)), 0, 1)
    true = np.full((COUNT, 2), 100.0)
    true[:10, 1] = dice[:10, 1] = np.nan
    dice[10, 1], true[10, 1] = 1.0, 0.0
    return FilmScores(
        dice=dice,
        iou=dice / (2 - dice),
        hd95=np.where(np.isnan(dice), np.nan, 20 * (1 - dice)),
        intersection=100 * dice * (true > 0),
        predicted=np.where(true == 0, 0.0, true),
        true=true,
    )


def made(
    model: str, level: float, *, seed: int = 0, films: int = 90, split: str = "official"
) -> Outcome:
    """A segmentation of this Dice, about."""
    return segmented(
        scores(level, seed + films),
        LABELS,
        model=model,
        dataset="jsrt",
        setting={"seed": seed, "split": split, "films": films, "epoch": 3, "steps": 9},
        trained_on={"films": {"yes": 0, "no": COUNT, "unknown": 0}},
    )


def curve(seeds: int = 5) -> list[Outcome]:
    """Two models on few films and on all, the second better on few."""
    return [
        made(model, level + gain, seed=seed, films=films)
        for films, level, gain in ((4, 0.6, 0.05), (8, 0.7, 0.03), (90, 0.9, 0.0005))
        for seed in range(seeds)
        for model, gain in (("random", 0.0), ("ark", gain + seed / 10_000))
    ]


def standing(found: Comparison, model: str) -> Standing:
    return next(each for each in found.columns[0].standings if each.arm.model == model)


def test_the_score_is_dice_and_comes_back() -> None:
    """The mean is over structures, not films; it and every count survive JSON, old files too."""
    one = made("ark", 0.9)
    found = scores(0.9, 90)
    expected = (found.dice[:, 0].mean() + found.dice[10:, 1].mean()) / 2
    assert one.score == one.dice == pytest.approx(expected)
    assert (one.labels["heart"]["drawn"], one.labels["heart"]["empty"]) == (30, 1)
    back = Outcome.from_json(json.loads(json.dumps(one.to_json())))
    assert math.isnan(back.auroc)
    assert replace(back, auroc=0.0, accuracy=0.0) == replace(one, auroc=0.0, accuracy=0.0)
    old = {name: value for name, value in one.to_json().items() if name != "dice"}
    assert math.isnan(Outcome.from_json({**old, "auroc": 0.7}).dice)
    assert Outcome.from_json({**old, "auroc": 0.7}).score == 0.7


def test_the_table_has_all_films_and_the_curve_few(tmp_path: Path) -> None:
    """Seeds of all films are the table by Welch's t; each point's gain is paired over seeds."""
    found = compare(curve(), out=tmp_path)
    (column,) = found.columns
    assert (column.condition, column.method) == (("films", 90), SEEDS)
    assert standing(found, "ark").marks == (BEST,)
    assert TIED in standing(found, "random").marks
    (chart,) = found.curves
    assert [point.x for point in chart.lines["ark"]] == [4, 8, 90]
    for first, point in zip(chart.lines["random"], chart.lines["ark"], strict=True):
        gains = point.arm.values - first.arm.values
        assert point.gain
        low, high = stats.ttest_1samp(gains, 0).confidence_interval()
        assert (point.gain.value, point.gain.low, point.gain.high) == pytest.approx(
            (gains.mean(), low, high)
        )
        assert first.gain is None
        assert first.draws == 5
        assert (first.low, first.high) == pytest.approx(
            stats.t.interval(0.95, 4, first.mean, stats.sem(first.arm.values))
        )
    assert not compare(curve()[-10:], out=tmp_path).curves


def test_folds_of_unlike_size_are_one_arm(tmp_path: Path) -> None:
    """All training films of each fold are one condition, though their number differs."""
    found = [
        made(model, level, split=f"fold 1.{fold}", films=films)
        for model, level in (("random", 0.8), ("ark", 0.85))
        for fold, whole in enumerate((34, 35, 34), start=1)
        for films in (4, whole)
    ]
    assert {arm.condition: len(arm.outcomes) for arm in arms(found)} == {
        ("films", 4): 3,
        ("films", 35): 3,
    }
    assert compare(found, out=tmp_path).columns[0].method == FOLDS


def saved(out: Path, model: str, level: float, seed: int) -> tuple[Outcome, FilmScores]:
    """An outcome whose films lie where a study puts them: two a patient, one without."""
    found = scores(level, seed)
    setting = {"seed": 0, "split": "official", "films": 90}
    one = segmented(found, LABELS, model=model, dataset="jsrt", setting=setting)
    one = replace(one, predictions=f"{model}.csv")
    patients = [str(i // 2) for i in range(COUNT - 1)] + [None]
    rows = pd.DataFrame({"image": [f"{i}.png" for i in range(COUNT)], "patient": patients})
    path = predictions_of(out, one)
    path.parent.mkdir(exist_ok=True)
    path.write_text(film_frame(rows, found, LABELS).to_csv(index=False))
    return one, found


def test_one_seed_is_compared_by_patients(tmp_path: Path) -> None:
    """The saved Dice of films is drawn by patient, as the statistics do."""
    (good, first), (worse, second) = (
        saved(tmp_path, *each) for each in (("good", 0.9, 1), ("worse", 0.88, 2))
    )
    found = compare([good, worse], out=tmp_path)
    difference = standing(found, "worse").difference
    groups = np.append(np.arange(COUNT - 1) // 2, COUNT)
    expected = bootstrap_means_paired(first.dice, second.dice, groups=groups)
    assert found.columns[0].method == FILMS
    assert difference
    assert (difference.value, difference.low, difference.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert difference.value == pytest.approx(good.dice - worse.dice)


def test_nothing_is_claimed_of_other_films(tmp_path: Path) -> None:
    """Other scores, other drawn films and missing files leave a difference and no interval."""
    good, _ = saved(tmp_path, "good", 0.9, 1)
    worse, _ = saved(tmp_path, "worse", 0.88, 2)
    path = predictions_of(tmp_path, worse)
    whole = pd.read_csv(path)
    for reason, frame in (
        ("other scores", whole.assign(**{"lung:dice": whole["lung:dice"] / 2})),
        ("other films", whole.assign(**{"heart:dice": whole["lung:dice"]})),
        ("not saved", whole.drop(columns="heart:dice")),
    ):
        frame.to_csv(path, index=False)
        difference = standing(compare([good, worse], out=tmp_path), "worse").difference
        assert difference
        assert reason in difference.reason
        assert math.isnan(difference.low)


def test_the_sheets_say_what_was_scored(tmp_path: Path) -> None:
    """Header, structures with their counts and rule, and a curve in training films."""
    found = compare(curve(), out=tmp_path)
    table = {sheet.title: sheet for sheet in sheets(found)}
    assert table["Segmentation: scores"].columns[1] == "jsrt: mean Dice, 2 structures, n = 40"
    structures = table["Segmentation: by structure"]
    rows = {(row[0].text, row[2].text): [cell.text for cell in row] for row in structures.rows}
    assert len(rows) == 4
    ark = [each for each in curve() if each.model == "ark" and each.setting["films"] == 90]
    dice = [each.labels["heart"]["dice"] for each in ark]
    assert rows["ark", "heart"][3] == f"{np.mean(dice):.3f} ± {np.std(dice, ddof=1):.3f}"
    distance = np.mean([each.labels["heart"]["hd95"] for each in ark])
    assert rows["ark", "heart"][7:] == [f"{distance:.3f} px", "30", "1", "0"]
    assert "Dice 1" in structures.notes[2]
    few = table["Segmentation, jsrt: mean Dice, n = 40 test films"]
    assert few.columns == (
        "model",
        "training films",
        "mean ± SD",
        "95 %",
        "seeds",
        "gain over random",
    )
    assert [row[1].text for row in few.rows] == ["4", "8", "90"] * 2


def test_the_files_and_the_page_show_it(tmp_path: Path) -> None:
    """Dice and both counts of films are in the long tables, and the page draws the curve."""
    outcomes = curve()
    long = outcome_frame(outcomes)
    mean = long[long["row"] == "mean"]
    assert mean["dice"].tolist() == [each.dice for each in outcomes]
    assert set(mean["films"]) == {COUNT}
    assert set(mean["training_films"]) == {4, 8, 90}
    assert {"dice_set", "iou", "hd95", "unmatched"} <= set(long)
    found = compare(outcomes, out=tmp_path)
    table = table_frame(found)
    assert set(table["metric"]) == {"mean Dice"}
    assert set(table["labels"]) == {2}
    assert table.query("table == 'curve'")["training_films"].tolist() == [4, 8, 90] * 2
    config = parse({"models": {"ark": "random:tiny"}, "protocols": ["segment"]})
    html = comparison.html(found, [], config)
    assert html.count("<polyline") == 2
    assert ">training films</text>" in html
    assert "Segmentation: by structure" in html
