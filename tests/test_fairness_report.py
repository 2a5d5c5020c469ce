"""What an audit shows: charts true to their numbers, and sentences that claim no more than them."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ark_framework.fairness import page, sheets
from ark_framework.fairness.audit import DERIVED, corrected
from ark_framework.fairness.results import Findings
from ark_framework.fairness.summary import summary
from ark_framework.fairness.training import training
from ark_framework.report import rows
from ark_framework.report.bars import Bar, bars
from ark_framework.report.boxes import Row, axis, boxes
from ark_framework.report.boxes import summary as five
from ark_framework.transfer.files import markdown

HOSTILE = '<script>alert(1)</script> | "a" & *b* ' + "long_" * 20
LABELS = ("Effusion", "Edema", "Hernia")
FEW = "not scored: 3 patients with positives, at least 10 are needed"


def score(**given: Any) -> dict[str, Any]:
    """Return a row of ``scores``."""
    about = {"model": "m", "dataset": "d", "attribute": "sex", "note": ""}
    sizes = {"films": 200, "patients": 150, "positives": 58, "negatives": 142}
    return {**about, **sizes, **given}


def gap(**given: Any) -> dict[str, Any]:
    """Return a row of ``gaps`` between women and men."""
    about = {"model": "m", "dataset": "d", "attribute": "sex", "first": "F", "second": "M"}
    sizes = {"first_positives": 58, "second_positives": 71}
    sizes |= {"first_negatives": 142, "second_negatives": 150}
    return {**about, "p": math.nan, "note": "", **sizes, **given}


def findings(
    *, p: float = 0.001, sign: int = 1, labels: tuple[str, ...] = LABELS, model: str = "m"
) -> Findings:
    """Return an audit by sex: the first label's FNR differs by 0.21, the last is too rare."""
    scores, gaps = [], []
    for label in labels:
        planted, rare = label == labels[0], label == labels[-1]
        for measure in ("auroc", "fnr", "fpr"):
            missing = rare and measure != "fpr"
            high, low = (0.62, 0.41) if planted and measure == "fnr" else (0.5, 0.5)
            first, second = (high, low) if sign > 0 else (low, high)
            value = math.nan if missing else first - second
            about = {"model": model, "label": label, "measure": measure}
            about |= {"note": FEW if missing else ""}
            for group, rate in (("F", first), ("M", second)):
                known = math.nan if missing else rate
                bounds = {"low": known - 0.1, "high": known + 0.1}
                scores.append(score(**about, group=group, value=known, **bounds))
            chance = math.nan if missing else p if value else 0.9
            bounds = {"low": value - 0.12, "high": value + 0.18}
            gaps.append(gap(**about, value=value, **bounds, p=chance))
    return Findings(scores=pd.DataFrame(scores), gaps=corrected(pd.DataFrame(gaps)))


def folds(*, apart: float = 0.05) -> pd.DataFrame:
    """Return folds of two labels, of which training on the other sex costs the first one."""
    rng, made = np.random.default_rng(0), []
    for label, cost in (("Edema", apart), ("Mass", 0.0)):
        for fold in range(10):
            for share in (0.0, 0.5, 1.0):
                for sex in "FM":
                    other = 1 - share if sex == "F" else share
                    about = {"model": "m", "dataset": "d", "label": label, "fold": fold}
                    area = 0.8 - cost * other + rng.normal(0, 0.005)
                    about |= {"share": share, "tested_on": sex, "auroc": area}
                    sizes = {"train_films": 700, "test_films": 200, "converged": True}
                    made.append({**about, **sizes})
    return pd.DataFrame(made)


def said(found: Findings) -> list[str]:
    """Return the sentences on the only model and dataset."""
    (account,) = summary(found)
    return [line.text for line in account.lines]


class Tree(HTMLParser):
    """Keeps tags and checks that all are closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another"


def test_bars_are_proportional_and_whiskers_stand_at_the_bounds() -> None:
    """A share's bar is that share of the scale; a whisker ends where the interval does."""
    made = bars({"a": [Bar(0.25, 0.1, 0.5), Bar(0.5)]}, groups=["F", "M"])
    first, second = made["rows"][0]["lanes"]
    width = rows.RIGHT - rows.LEFT
    assert first["bar"] == (rows.LEFT, width / 4)
    assert second["bar"] == (rows.LEFT, width / 2)
    expected = [rows.LEFT + width * 0.1, rows.LEFT + width * 0.5]
    assert list(first["whisker"]) == pytest.approx(expected)
    assert second["whisker"] is None
    assert first["y"] + first["height"] < second["y"]


def test_bars_that_are_not_scored_say_why() -> None:
    """No bar is drawn for NaN but a dash and its reason, once where it holds for the whole row."""
    made = bars({"a": [Bar(math.nan, note="few"), Bar(0.0)], "b": [Bar(math.nan)] * 2}, groups="FM")
    mixed, absent = (row["lanes"] for row in made["rows"])
    assert (mixed[0]["bar"], mixed[0]["text"], mixed[0]["title"]) == (None, "- few", "a, F: few")
    assert (mixed[1]["bar"][1], mixed[1]["text"]) == (0, "0")
    assert [lane["text"] for lane in absent] == ["- not scored", ""]


def test_boxes_are_numpys_quartiles_and_tukeys_whiskers() -> None:
    """Quartiles equal numpy's; whiskers reach data, never beyond 1.5 IQR; the rest are dots."""
    values = np.array([0.5, 0.7, 0.71, 0.72, 0.74, 0.75, 0.9])
    found = five(values)
    assert [found.first, found.median, found.third] == np.quantile(
        values, [0.25, 0.5, 0.75]
    ).tolist()
    assert (found.low, found.high, found.outliers) == (0.7, 0.75, (0.5, 0.9))
    row = Row([values, np.array([np.nan])], stars="**", note="no folds")
    drawn = boxes({"a": row}, groups=("same", "other"), scale=axis([row]))["rows"][0]
    box, absent = drawn["lanes"]
    assert box["box"] == sorted(box["box"])
    assert rows.LEFT <= box["outliers"][0] < box["box"][0] < box["outliers"][1] <= rows.RIGHT
    assert (absent["box"], absent["text"]) == (None, "- no folds")


@pytest.mark.parametrize("count", [6, 14])
def test_rows_do_not_overlap(count: int) -> None:
    """Names keep to two lines within their own row, however long they are."""
    names = {
        f"{number} Enlarged Cardiomediastinum {'W' * 40}": [Bar(0.5)] * 2 for number in range(count)
    }
    made = bars(names, groups="FM")
    tops = [line["y"] - rows.SIZE for row in made["rows"] for line in row["lines"]]
    assert len(tops) == 2 * count
    assert np.diff(tops).min() > rows.SIZE
    assert tops[-1] + rows.SIZE < made["bottom"]


@pytest.mark.parametrize(("sign", "worse"), [(1, "women than in men"), (-1, "men than in women")])
def test_an_alarm_names_who_is_worse_off(sign: int, worse: str) -> None:
    """The sentence has direction, both rates, the gap's interval, Holm's p and both sizes."""
    text = " ".join(said(findings(sign=sign)))
    low, high = (0.09, 0.39) if sign > 0 else (0.03, 0.33)
    assert (
        f"Effusion is missed more often in {worse}: FNR 0.62 against 0.41, a gap of +0.21 "
        f"({low:.2f} to {high:.2f}), Holm's p 0.007; "
    ) in text
    sizes = "58 and 71" if sign > 0 else "71 and 58"
    assert f"{sizes} films with it." in text
    assert "1 of 7 tested gaps is distinguished" in text


def test_no_alarm_claims_no_equality() -> None:
    """Without an alarm the text says what the data could have hidden, and never acquits."""
    text = " ".join(said(findings(p=0.2)))
    assert "no gap is distinguished among 7 tested" in text
    farther = [0.62 - 0.41 + 0.18, 0.18]  # ends of the intervals of two labels
    assert f"of FNR up to ±{np.mean(farther):.2f}" in text
    assert "not judged: AUROC and FNR of Hernia (3 patients with positives" in text
    assert not re.search(r"\b(un)?(fair|biased)\b|missed more often", text)


def test_a_worse_auroc_is_a_lower_one() -> None:
    """For AUROC the group with the lower value is the one that is worse off."""
    row = gap(label="Edema", measure="auroc", value=0.1, low=0.05, high=0.15, p=0.001)
    text = " ".join(said(Findings(gaps=corrected(pd.DataFrame([row])))))
    assert "Edema is told apart less well in men than in women" in text
    assert "a gap of -0.10 (-0.15 to -0.05)" in text
    assert "71 and 58 films with it and 150 and 142 films without it" in text


def test_one_sex_absent_is_said_and_the_rest_reported() -> None:
    """Where nobody is compared by sex the summary says so, and groupings that exist are judged."""
    row = gap(label="Edema", measure="fnr", value=0.1, low=-0.1, high=0.3, p=0.3)
    row |= {"attribute": "age", "first": "80+", "second": "others"}
    text = " ".join(said(Findings(gaps=corrected(pd.DataFrame([row])), notes=("sex: no",))))
    assert "Women and men are not compared on these films; see the notes." in text
    assert "By age, no gap is distinguished among 1 tested" in text
    assert "For the only comparison, gaps of FNR up to ±0.30 cannot be excluded." in text


def test_underdiagnosis_says_when_it_is_derived() -> None:
    """A derived label is described with its rates, not tested, and the reason is given."""
    rates = [
        score(label=DERIVED, measure="fpr", attribute=attribute, group=group, value=value)
        for attribute, group, value in (("all", "all", 0.12), ("sex", "F", 0.15), ("sex", "M", 0.1))
    ]
    gaps = [gap(label=DERIVED, measure="fpr", value=0.05, low=-0.02, high=0.12)]
    found = Findings(scores=pd.DataFrame(rates), gaps=corrected(pd.DataFrame(gaps)))
    text = " ".join(said(found))
    assert "women 0.15 of 142 films" in text
    assert "Women minus men: +0.05 (-0.02 to 0.12). It is derived" in text
    assert "described and not tested" in text


def test_training_on_one_sex_counts_what_is_distinguished() -> None:
    """The count and the names are those of the corrected test; the others are not acquitted."""
    made = folds()
    text = " ".join(said(Findings(folds=made, training=training(made))))
    assert "Tested on women, probes trained on women and probes trained on men are" in text
    assert "distinguished for 1 of 2 labels: Edema: AUROC 0.80 against 0.75" in text
    assert "the other label is not, which is not the same as no difference" in text
    same = folds(apart=0.0)
    text = " ".join(said(Findings(folds=same, training=training(same))))
    assert "for 0 of 2 labels, which is not the same as no difference." in text


def test_exposure_is_counted_and_cautioned() -> None:
    """Films that a model was trained on, or may have been, are counted; new films need no word."""
    seen = {"films": {"yes": 1, "no": 9, "unknown": 2}}
    found = Findings(about={("m", "d"): {"answers": "heads", "exposure": seen}})
    text = " ".join(said(found))
    assert "Of 12 test films, 1 was part of the model's training; of 2 it is not known." in text
    assert "can be smaller or larger than on new ones" in text
    seen = {"films": {"yes": 0, "no": 9, "unknown": 0}}
    text = " ".join(said(Findings(about={("m", "d"): {"exposure": seen}})))
    assert "Of 9 test films, 0 were part of the model's training." in text
    assert "smaller or larger" not in text


def test_tables_begin_with_alarms_and_mean_over_folds() -> None:
    """The gap that alarms is the first row and stands out; a sweep's cells are plain means."""
    made, found = folds(), findings(labels=("Zoster", "Edema", "Hernia"))
    (table,) = sheets.gap_sheets(found, "d")
    assert table.rows[0][0].text == "Zoster"
    assert [cell.place for cell in table.rows[0]].count("best") == 1
    assert not any(cell.place for row in table.rows[1:] for cell in row)
    (sweep,) = sheets.sweep_sheets(Findings(folds=made), "d")
    column = sweep.columns.index("women tested: 50 % women")
    rows = made[(made["share"] == 0.5) & (made["tested_on"] == "F")]
    of_one = rows[rows["label"] == "Edema"]["auroc"].mean()
    assert sweep.rows[0][0].text == "Edema"
    assert sweep.rows[0][column].text == f"{of_one:.3f}"
    assert sweep.rows[-1][column].text == f"{rows['auroc'].mean():.3f}"


def test_hostile_names_are_text_everywhere() -> None:
    """A label that is a script is text on the page, in its charts, and in Markdown."""
    found = findings(labels=(HOSTILE, "Edema", "Hernia"), model=HOSTILE)
    html = page.html(found, [HOSTILE])
    assert set(Tree(html).tags) & {"script", "img"} == set()
    assert "&lt;script&gt;alert(1)" in html
    text = markdown("audit", said(found), sheets.sheets(found))
    assert "<script" not in text


def test_a_page_is_made_of_what_there_is() -> None:
    """Nothing at all gives a page; frames give both plots, with a bar for each known rate."""
    empty = Findings(scores=pd.DataFrame([]), gaps=pd.DataFrame([]))
    html = page.html(empty, [])
    Tree(html)
    assert "Nothing was audited" in html
    made, audit = folds(), findings()
    found = Findings(scores=audit.scores, gaps=audit.gaps, folds=made, training=training(made))
    html = page.html(found, ["Research use only; not for diagnosis."])
    Tree(html)
    assert html.count('class="rows"') == 3  # FNR; tested on women, tested on men
    known = audit.scores[(audit.scores["measure"] == "fnr") & audit.scores["value"].notna()]
    assert len(re.findall(r"<title>[^<]*: 0\.\d{3} \[", html)) == len(known)
    assert "****" in html
