"""The bias benchmark: what is planted is there and alone, and the audit finds it or is silent."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import bias  # noqa: E402
import bias_page  # noqa: E402
import planted  # noqa: E402
from planted import FAINT, FINDING, KINDS, MARK, MARKED, NOTHING, PREVALENCE  # noqa: E402

KEY = bias.FIRST_KEY - 1  # no seed's
FILMS = {"train": 600, "val": 300, "test": 1200}


def pixels(pictures: np.ndarray) -> np.ndarray:
    """Stand in for the network: the film at half its side, standardized."""
    films = pictures.astype(np.float32)
    films -= films.mean((1, 2), keepdims=True)
    films /= films.std((1, 2), keepdims=True)
    half = planted.SIDE // 2
    return films.reshape(-1, half, 2, half, 2).mean((2, 4)).reshape(len(films), -1)


def test_a_film_says_nothing_of_the_sex() -> None:
    """The same facts of a woman and of a man are the same film, unless something is planted."""
    case = planted.make(NOTHING, KEY, 3)
    other = replace(case, female=not case.female)
    assert (planted.picture(NOTHING, case) == planted.picture(NOTHING, other)).all()


def test_what_looks_different() -> None:
    """Women's films with the finding change, toward the film without it, and no others."""
    for film in range(150):
        case = planted.make(FAINT, KEY, film)
        clear = replace(case, findings=case.findings - {FINDING[FAINT]})
        plain, made, without = (
            planted.picture(*each).astype(float)
            for each in ((NOTHING, case), (FAINT, case), (NOTHING, clear))
        )
        if case.female and FINDING[FAINT] in case.findings:
            assert np.abs(made - without - planted.SEEN * (plain - without)).max() <= 0.5
            assert (plain != without).any()
        else:
            assert (made == plain).all()


def test_the_mark() -> None:
    """It is on men's films alone, with the shares that are said, and changes nothing else."""
    cases = [planted.make(MARK, KEY, film) for film in range(3000)]
    for ill, share in MARKED.items():
        men = [
            planted.marked(case)
            for case in cases
            if not case.female and (FINDING[MARK] in case.findings) == ill
        ]
        assert abs(np.mean(men) - share) < 4 * (share * (1 - share) / len(men)) ** 0.5
    for case in cases[:150]:
        changed = planted.picture(MARK, case) != planted.picture(NOTHING, case)
        assert changed.any() == planted.marked(case)
        assert not (case.female and changed.any())
        assert changed.mean() < 0.05


def test_prevalence_alone() -> None:
    """The finding is as frequent as said; who comes, what else they have and the films stay."""
    name = FINDING[PREVALENCE]
    counts: dict[str, list[bool]] = {"F": [], "M": []}
    for film in range(3000):
        case, plain = planted.make(PREVALENCE, KEY, film), planted.make(NOTHING, KEY, film)
        assert case.findings - {name} == plain.findings - {name}
        assert replace(case, findings=plain.findings, hospital=plain.hospital) == plain
        counts[planted.sex(case)].append(name in case.findings)
        if film < 100:
            same = replace(plain, findings=case.findings)
            assert (planted.picture(PREVALENCE, case) == planted.picture(NOTHING, same)).all()
    for sex, rate in planted.RATES.items():
        assert abs(np.mean(counts[sex]) - rate) < 0.04


@pytest.mark.parametrize("kind", KINDS)
def test_one_audit(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bias is found on the right label with the right sign; without one nothing alarms."""
    # These features hardly see an effusion, so on women's films there is none to see at all.
    monkeypatch.setattr(planted, "SEEN", 0.0)
    monkeypatch.setattr(bias, "C", 0.001)
    made = bias.predictions(kind, -1, pixels, films=FILMS)
    audit = bias_page.kept(bias.audited(made), kind)
    if kind in (FAINT, MARK):
        assert bias_page.found(audit, kind)
        for each in bias.dealt(made, seed=0):
            assert not bias_page.kept(bias.audited(each), kind)["alarms"]
    else:
        assert audit["alarms"] == []


def test_films_without_a_finding() -> None:
    """Nobody with the finding is left, everybody else is, and the finding is not judged."""
    films, name = {"train": 15, "val": 150, "test": 300}, FINDING[PREVALENCE]
    made = bias.predictions(PREVALENCE, -1, pixels, films=films)
    clear = bias.without(made, name)
    assert len(clear.frame) == (made.frame[name] == 0).sum() < len(made.frame)
    assert not clear.frame[name].any()
    assert set(clear.labels) == set(made.labels) - {name}


def test_sexes_are_dealt_by_patient() -> None:
    """A patient has one sex, each split as many women as before, and nothing else changes."""
    films = {"train": 15, "val": 150, "test": 300}
    made = bias.predictions(NOTHING, -1, pixels, films=films)
    for each in bias.dealt(made, seed=0):
        assert each.frame.drop(columns="sex").equals(made.frame.drop(columns="sex"))
        assert (each.frame.groupby("patient")["sex"].nunique() == 1).all()
        before, after = (
            frame.drop_duplicates("patient").groupby("split")["sex"].value_counts()
            for frame in (made.frame, each.frame)
        )
        assert before.sort_index().equals(after.sort_index())
        assert 0.3 < (each.frame["sex"] == made.frame["sex"]).mean() < 0.7


@pytest.mark.parametrize(
    ("alarms", "said"),
    [
        ([[FINDING[FAINT], "fnr", 0.2, 0.01]], True),
        ([[FINDING[FAINT], "auroc", -0.1, 0.01]], True),
        ([[FINDING[FAINT], "fnr", -0.2, 0.01]], False),
        ([[FINDING[FAINT], "fnr", 0.2, 0.01], [FINDING[FAINT], "auroc", 0.1, 0.01]], False),
        ([[FINDING[FAINT], "fpr", 0.2, 0.01], ["nodule", "fnr", 0.2, 0.01]], False),
        ([], False),
    ],
)
def test_found_is_the_label_and_the_sign(alarms: list[list[object]], *, said: bool) -> None:
    """An alarm counts only on the planted label, for the sex that is worse off."""
    assert bias_page.found({"alarms": alarms}, FAINT) is said


def test_the_page_is_the_results() -> None:
    """The page comes from the kept audits, and those from these drawings and settings."""
    result = json.loads(bias.RESULT.read_text("utf-8"))
    assert json.loads(json.dumps(bias.settings())).items() <= result.items()
    assert bias.PAGE.read_text("utf-8") == bias_page.page(result)
    assert len(result["dealt"]) == bias.DEALINGS * result["seeds"]
    assert len(result["without"]) == result["seeds"]
    assert {kind: len(each) for kind, each in result["audits"].items()} == dict.fromkeys(
        KINDS, bias.SEEDS
    )
