"""The report of a run and the model card: their numbers, what is left out, what may not be in."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from tempfile import gettempdir
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score

from ark_framework import cli
from ark_framework.cli.auditing import plain
from ark_framework.fairness.results import TABLES, TEXTS, Findings
from ark_framework.launch import train
from ark_framework.report import lines
from ark_framework.report.lines import Point
from ark_framework.story import curves, page, results, runs
from ark_framework.story.films import certainty
from ark_framework.story.folders import open_folders
from ark_framework.story.limits import limits
from ark_framework.transfer.outcome import Outcome

HOSTILE = '<script>alert(1)</script> | "a" & *b* {{ 7 * 7 }} [c](d) `e`\n# f: g'
TASKS = ("phantom-north", "phantom-south", "phantom-east")
FILMS = {"films": 150, "size": 32}
VOID = {"meta", "br", "img"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, shared_stores: Path) -> Path:
    """A folder with a run, and with a probe, an audit and an evaluation of it."""
    folder = tmp_path_factory.mktemp("made")
    config: dict[str, Any] = {
        "plugins": ["ark-phantom"],
        "leaks": "drop",
        "data": dict.fromkeys(TASKS, FILMS),
        "cycles": 3,
        "batch_size": 16,
        "store": {"size": 32, "folder": str(shared_stores), "workers": 1},
        "views": {"size": 24},
        "model": {"backbone": "tiny", "options": {"width": 4}, "features": 8, "init": "random"},
        "optim": {"name": "adamw", "lr": 0.02},
        "teacher": {"momentum": 0.5},
        "eval": {"every": 1, "forgetting_every": 2},
        "log": {"every": 4, "tensorboard": False},
        "runtime": {"threads": 1, "device": "cpu"},
    }
    run = train(config, out=folder / "first").folder
    sets = [f"data.{TASKS[1]}.films=150", f"data.{TASKS[1]}.size=32", "store.size=32"]
    sets += [f"store.folder={shared_stores}", "store.workers=1", "runtime.threads=1"]
    told = ["--plugins", "ark-phantom", "--tasks", TASKS[1]]
    told += [word for each in sets for word in ("--set", each)]
    probe = ["--shots", "1", "4", "--fractions", "0.5", "1"]
    assert (
        cli.run(["probe", str(run), f"random:{run}", *told, *probe, "--out", f"{folder}/probed"])
        == 0
    )
    fair = ["--folds", "3", "--by", "sex", "--out", f"{folder}/fair"]
    assert cli.run(["fairness", str(run), *told, *fair]) == 0
    assert cli.run(["eval", str(run), *told, "--out", f"{folder}/scored"]) == 0
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A run's folder that may be changed."""
    return Path(shutil.copytree(made / "first", tmp_path / "first"))


def html_of(*folders: Path, films: bool = False, at: Path | None = None) -> str:
    return page.html(open_folders(folders), folder=at or folders[0], films=films)


class Tables(HTMLParser):
    """Checks that tags nest; keeps tags, and tables by the words of their captions."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.found: list[dict[str, Any]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.found.append({"caption": "", "rows": []})
        elif tag == "tr":
            self.found[-1]["rows"].append([])
        elif tag in ("td", "th"):
            self.found[-1]["rows"][-1].append("")

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data: str) -> None:
        self.text += data
        if "caption" in self.open:
            self.found[-1]["caption"] += data
        elif "td" in self.open or "th" in self.open:
            self.found[-1]["rows"][-1][-1] += data

    def table(self, words: str) -> dict[str, list[str]]:
        """Return the rows, by their first cell, of the table of this caption."""
        (one,) = [each for each in self.found if words in each["caption"]]
        return {row[0].strip(): row[1:] for row in one["rows"]}


def predictions_of(run: Path, task: str) -> pd.DataFrame:
    return pd.read_csv(run / "predictions" / f"{task}-test.csv", dtype={"patient": str})


def scores(frame: pd.DataFrame, model: str, metric: Any = roc_auc_score) -> dict[str, float]:
    """Every label's score as scikit-learn gives it."""
    found = {}
    for column in frame:
        if (label := column.removeprefix(f"{model}:")) == column:
            continue
        known = frame[label].isin([0, 1])
        if frame[label][known].nunique() == 2:
            found[label] = float(metric(frame[label][known], frame[column][known]))
    return found


def test_scores_are_scikit_learns(made: Path) -> None:
    """Each label's AUROC, their mean and the counts are those of the saved predictions."""
    found = Tables(html_of(made / "first"))
    for task in TASKS:
        frame = predictions_of(made / "first", task)
        table = found.table(f"{task}: {len(frame):,} test films of {frame['patient'].nunique():,}")
        by_model = {model: scores(frame, model) for model in ("student", "teacher")}
        exact = table.pop("accuracy", None)
        assert set(table) == {"label", "mean", *by_model["teacher"]}
        for label, area in by_model["teacher"].items():
            positives, negatives, student, teacher = table[label]
            assert student.split()[0] == f"{by_model['student'][label]:.3f}"
            assert teacher.split()[0] == f"{area:.3f}"
            counts = [int((frame[label] == value).sum()) for value in (1, 0)]
            assert [int(positives), int(negatives)] == counts
        means = [f"{np.mean([*each.values()]):.3f}" for each in by_model.values()]
        assert [cell.split()[0] for cell in table["mean"][2:]] == means
        assert (exact is None) == (task != TASKS[1])  # whose classes exclude one another
        if exact is not None:
            labels = [*by_model["teacher"]]
            answers = frame[[f"teacher:{label}" for label in labels]].to_numpy().argmax(axis=1)
            share = accuracy_score(frame[labels].to_numpy().argmax(axis=1), answers)
            assert exact[3].split()[0] == f"{share:.3f}"


def test_intervals_are_those_of_ark_eval(made: Path) -> None:
    """What a run's own predictions give is what scoring its model anew gives, to the last digit."""
    found = Tables(html_of(made / "first", made / "scored"))
    own = found.table(f"{TASKS[1]}: 22 test films of")
    again = found.table(f"first on {TASKS[1]}, test")
    for label in [*scores(predictions_of(made / "first", TASKS[1]), "teacher"), "mean"]:
        assert own[label][3] == again[label][2]


def test_women_and_men_are_scored_apart(made: Path) -> None:
    """The table by sex is of women's films and of men's, with counts of their own."""
    frame = predictions_of(made / "first", TASKS[0])
    table = Tables(html_of(made / "first")).table(f"{TASKS[0]}: the teacher on women and on men")
    for column, sex in ((0, "F"), (3, "M")):
        own = frame[frame["sex"] == sex]
        for label, area in scores(own, "teacher").items():
            assert table[label][column] == str(int((own[label] == 1).sum()))
            assert table[label][column + 2].split()[0] == f"{area:.3f}"


def test_curves_are_the_logged_ones(made: Path) -> None:
    """Points, rates and what was forgotten are those of metrics.jsonl."""
    lines_ = (made / "first" / "metrics.jsonl").read_text("utf-8").splitlines()
    events = [json.loads(line) for line in lines_]
    run = runs.read(made / "first", "first")
    for task in TASKS:
        for model in ("student", "teacher"):
            told = [
                score["auroc"]
                for event in events
                if event["event"] in ("task", "cycle")
                for score in event["scores"]
                if (score["task"], score["model"]) == (task, model)
            ]
            found = curves.scores(run, task, model)
            assert [each.auroc for each in found] == told
            assert [each.best for each in found] == np.maximum.accumulate(told).tolist()
            assert found[-1].cycle == 3
    steps = [event for event in events if event["event"] == "step"]
    assert run.log.steps["lr"].tolist() == [each["lr"] for each in steps]
    lost = Tables(html_of(made / "first")).table("Forgetting")
    told = [
        each["best"] - each["now"]
        for event in events
        if event["event"] == "task" and event["task"] != TASKS[2]
        for each in event["forgetting"]
        if (each["task"], each["model"]) == (TASKS[2], "teacher")
    ]
    assert told
    assert lost[TASKS[2]] == ["teacher", f"{max(told):.3f}", f"{np.mean(told):.3f}",
                              f"{told[-1]:.3f}", str(len(told))]  # fmt: skip


def test_a_line_chart_is_to_scale() -> None:
    """Values lie in proportion between marked ends; a gap parts a line; a constant has an axis."""
    style = {"a": {"color": "#000", "dash": "", "mark": ""}}
    drawn = lines.lines(
        {"a": [Point(0, 100, "x"), Point(5, 150), Point(6, np.nan), Point(10, 200, "y")]}, style
    )
    (line,) = drawn["lines"]
    assert [len(path.split()) for path in line["paths"]] == [2, 1]
    first, last = line["points"]
    assert (first["x"], last["x"]) == (lines.LEFT, lines.RIGHT)
    assert (first["y"], last["y"]) == (lines.BOTTOM, lines.TOP)
    assert [tick["text"] for tick in drawn["y"]] == ["100", "120", "140", "160", "180", "200"]
    for value in (0.0, 3.0, -2.0, 1e-6, 4e9):
        low, high, step = lines.scale([value, value])
        assert low <= value <= high
        assert step > 0
        assert 2 <= len(lines.ticks((low, high, step))) <= lines.TICKS + 2


def test_every_number_links_to_its_file(made: Path) -> None:
    """Each table and figure names a file; each link leads to one that is there."""
    folders = [made / name for name in ("first", "probed", "fair", "scored")]
    html = html_of(*folders)
    found = Tables(html)
    assert all(" from " in each["caption"] for each in found.found)
    links = [
        dict(attrs)["href"] for tag, attrs in found.tags if tag == "a" and "#" not in attrs["href"]
    ]
    assert len(links) > 30
    for link in links:
        assert (made / "first" / unquote(str(link))).is_file(), link
    figures = html.count('<div class="plots"')
    assert figures == len(
        re.findall(r'<div class="plots".*?</div>\s*<p class="soft">.*?<a href', html, re.DOTALL)
    )


def test_far_files_are_named_and_not_linked(made: Path, tmp_path: Path) -> None:
    """A link that would tell whose disk a file is on is not made; the file is named."""
    far = tmp_path / "a" / "b" / "c" / "d"
    html = html_of(made / "first", at=far)
    assert "first/metrics.jsonl" in html
    assert "../" not in html


def test_it_names_no_film_patient_or_place(made: Path) -> None:
    """Neither the page nor the card has a film's name, a patient, or a path of this machine."""
    folders = [made / name for name in ("first", "probed", "fair", "scored")]
    html = html_of(*folders, films=True)
    assert cli.run(["export", str(made / "first"), "--out", str(made / "shared")]) == 0
    card = (made / "shared" / "README.md").read_text("utf-8")
    frames = [predictions_of(made / "first", task) for task in TASKS]
    secret = {name for frame in frames for name in (*frame["image"], *frame["patient"].dropna())}
    assert len(secret) > 50
    words = set(re.findall(r"[\w./-]+", re.sub(r"base64,[\w+/=]+", "", html + card)))
    assert not words & secret
    for place in (str(made), str(made.parent), str(Path.home()), gettempdir(), ".stores"):
        assert place not in html
        assert place not in card


def test_films_are_shown_where_their_terms_allow(run: Path) -> None:
    """The least and most certain films are in the page on request, never those of credentialed."""
    assert "<img" not in html_of(run)
    html = html_of(run, films=True)
    assert html.count("<img") == 3 * 2 * 4
    assert "their datasets&#39; terms go with it" in html
    about = json.loads((run / "run.json").read_text("utf-8"))
    about["data"][TASKS[0]]["access"] = "credentialed"
    (run / "run.json").write_text(json.dumps(about), "utf-8")
    html = html_of(run, films=True)
    assert html.count("<img") == 2 * 2 * 4
    assert f"no film of {TASKS[0]} is shown" in html
    assert "Strictest terms of all: credentialed" in html
    del about["data"][TASKS[1]]["access"]  # not known is taken for the strictest
    (run / "run.json").write_text(json.dumps(about), "utf-8")
    assert html_of(run, films=True).count("<img") == 2 * 4


def test_certainty_is_one_minus_entropy() -> None:
    """A coin is not certain at all, a sure answer wholly; classes are one distribution."""
    halves = np.array([[0.5, 0.5], [1.0, 0.0], [0.5, 1.0]])
    assert certainty(halves, "multilabel") == pytest.approx([0, 1, 0.5])
    thirds = np.array([[1 / 3] * 3, [1.0, 0, 0]])
    assert certainty(thirds, "multiclass") == pytest.approx([0, 1])


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("metrics.jsonl", "No steps are logged"),
        ("predictions", "No test predictions"),
        ("leaks", "No audit is in run.json"),
        ("stores", "its packed films are no longer here"),
    ],
)
def test_what_is_missing_is_said(run: Path, lost: str, said: str) -> None:
    """A run without one of its files has a page that says what would fill the place."""
    if lost == "predictions":
        shutil.rmtree(run / lost)
    elif lost in ("leaks", "stores"):
        name = "run.json" if lost == "leaks" else "config.yaml"
        values = yaml.safe_load((run / name).read_text("utf-8"))
        if lost == "leaks":
            del values["leaks"]
        else:
            values["store"]["folder"] = str(run / "none")
        (run / name).write_text(json.dumps(values), "utf-8")
    else:
        (run / lost).unlink()
    html = html_of(run, films=True)
    Tables(html)
    assert said in html
    assert "ark fairness RUN" in html  # what would fill Figure 3


def test_a_run_under_way(run: Path) -> None:
    """A half-written last line is left out; a damaged one elsewhere is an error of one line."""
    path = run / "metrics.jsonl"
    whole = path.read_text("utf-8")
    path.write_text(whole[: len(whole) // 2], "utf-8")
    Tables(html_of(run))
    path.write_text("{damaged\n" + whole, "utf-8")
    assert cli.run(["report", str(run)]) == 3


def test_predictions_that_were_changed_are_noticed(run: Path) -> None:
    """Where the file gives another score than the run wrote down, the page and the card say so."""
    path = run / "predictions" / f"{TASKS[0]}-test.csv"
    frame = pd.read_csv(path)
    labels = [name for name in frame if str(name).startswith("teacher:")]
    frame[labels] = 1 - frame[labels]
    frame.to_csv(path, index=False)
    assert "one of the files has been changed" in html_of(run)


def test_names_are_text(run: Path) -> None:
    """Labels, titles and settings that are markup are text on the page and in the card."""
    for name in ("plan.json", "run.json"):
        text = (run / name).read_text("utf-8")
        (run / name).write_text(text.replace("Phantom", json.dumps(HOSTILE)[1:-1]), "utf-8")
    about = json.loads((run / "run.json").read_text("utf-8"))
    about["data"][TASKS[0]] |= {"title": HOSTILE, "licence": HOSTILE, "citation": HOSTILE}
    about["plugins"].append({"name": HOSTILE, "distribution": HOSTILE, "version": HOSTILE})
    about["command"] = ["ark", "train", HOSTILE]
    (run / "run.json").write_text(json.dumps(about), "utf-8")
    html = html_of(run)
    found = Tables(html)
    assert [tag for tag, _ in found.tags].count("script") == 1
    assert "<script>alert(1)</script>" in found.text
    assert "{{ 7 * 7 }}" in found.text
    assert cli.run(["export", str(run), "--out", str(run / "shared")]) == 0
    card = (run / "shared" / "README.md").read_text("utf-8")
    front, body = card.split("---\n", 2)[1:]
    told = yaml.safe_load(front)
    assert told["model-index"][0]["results"][0]["dataset"]["name"] == HOSTILE
    assert "<script" not in body
    assert "\n# f:" not in body
    assert r"\*b\*" in body


def test_the_browser_may_run_and_fetch_nothing_else(made: Path) -> None:
    """The policy allows the one script by its digest, and images that are in the page."""
    html = html_of(made / "first", films=True)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy
    assert re.fullmatch(
        r"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-[^']+'",
        policy[1],
    )
    assert not re.search(
        r"https?://(?![^<]*</(td|a)>)", html.split("</style>")[1].split("<script>")[0]
    )
    assert not re.search(r"\bon\w+=", html)


def test_the_same_files_give_the_same_page(made: Path) -> None:
    """Nothing of the clock, of chance or of this process is in it."""
    folders = [made / name for name in ("first", "probed", "fair", "scored")]
    assert html_of(*folders, films=True) == html_of(*folders, films=True)


def test_runs_side_by_side(made: Path, run: Path) -> None:
    """Two runs are columns of the same tables; of each the teacher is scored."""
    other = run.rename(run.with_name("second"))
    found = Tables(html_of(made / "first", other))
    assert found.table("How it was trained")["what"] == ["first", "second"]
    (head,) = [each["rows"][0] for each in found.found if f"{TASKS[0]}: " in each["caption"]
               and "test films" in each["caption"]]  # fmt: skip
    assert [cell.split("AUROC")[0] for cell in head[3:]] == ["first, teacher", "second, teacher"]
    assert found.table("Speed")["second"]


def test_studies_are_read_as_they_were_written(made: Path) -> None:
    """A study's numbers are those of its own table; an audit's tables come back whole."""
    found = Tables(html_of(made / "probed"))
    own = pd.read_csv(made / "probed" / "table.csv")
    full = own[(own["table"] == "scores") & (own["protocol"] == "probe")].set_index("model")
    for model, row in found.table("Linear probe: scores").items():
        if model in full.index:
            assert f"{full['mean'][model]:.3f}" in row[0]
    assert "Few-shot" in found.text
    html = html_of(made / "fair")
    assert "Trained on one sex (Figure 3)" in html
    audit = results.audited(made / "fair", "fair").findings
    for name in TABLES:
        again = pd.read_csv(made / "fair" / f"{name}.csv")
        frame = getattr(audit, name)
        assert len(again) == len(frame)
        for column in set(again.select_dtypes("number")) - {*TEXTS}:
            np.testing.assert_allclose(again[column], frame[column].astype(float), atol=1e-8)


@pytest.mark.parametrize("cuts", [[], [0.5, np.nan], [np.inf, 0.25, np.nan]])
def test_a_cut_that_calls_nobody_is_kept(cuts: list[float], tmp_path: Path) -> None:
    """JSON has no infinity; it is not the same as no cut."""
    thresholds = pd.DataFrame({"label": ["x"] * len(cuts), "cut": cuts})
    found = Findings(about={}, notes=(), settings={}, thresholds=thresholds)
    (tmp_path / results.FINDINGS).write_text(json.dumps(plain(found), allow_nan=False))
    again = results.audited(tmp_path, "audit").findings.thresholds
    np.testing.assert_array_equal(again["cut"].astype(float), cuts)


def test_overlays_are_shown_where_their_terms_allow(tmp_path: Path) -> None:
    """What segmentation drew is in the page on request, and only of datasets known to be free."""
    found = segmented_outcome("wide.csv")
    (tmp_path / "pictures").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "pictures" / "wide.png")
    for access, films, shown, said in (
        ({"lungs": "open"}, True, 1, "from the worst to the best"),
        ({"lungs": "open"}, False, 0, "--films shows them"),
        ({"lungs": "credentialed"}, True, 0, "its films may not be passed on"),
        ({}, True, 0, "its films may not be passed on"),
    ):
        told = {"folds": 5, "access": access, "settings": {}, "outcomes": [found.to_json()]}
        (tmp_path / "outcomes.json").write_text(json.dumps(told), "utf-8")
        html = html_of(tmp_path, films=films)
        assert html.count("<img") == shown
        assert said in html
        assert "0.812" in html


def segmented_outcome(predictions: str) -> Outcome:
    scores = {"dice": 0.8123, "dice_set": 0.8, "iou": 0.7, "hd95": 2.0, "drawn": 9.0}
    scores |= {"empty": 0.0, "unmatched": 0.0, "dice_low": 0.7, "dice_high": 0.9}
    return Outcome(
        model="wide",
        dataset="lungs/both",
        protocol="segment",
        setting={"seed": 0, "split": "test", "films": 20, "unit": "pixels"},
        films=9,
        labels={"lung": scores},
        auroc=float("nan"),
        dice=0.8123,
        scored=("lung",),
        predictions=predictions,
    )


def test_the_command(
    run: Path, made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It says where the page is; its own place is written anew, no other file ever is."""
    assert cli.run(["report", str(run)]) == 0
    assert capfd.readouterr().out.strip() == f"report: {run / 'report.html'}"
    assert cli.run(["report", str(run), "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"report": str(run / "report.html")}
    out = tmp_path / "page.html"
    assert cli.run(["report", str(run), str(made / "fair"), "--out", str(out)]) == 0
    (run / "report.html").write_text("mine", "utf-8")
    capfd.readouterr()
    for words, said in (
        ([str(run)], "no report of ours"),
        ([str(run), "--out", str(out)], "is not overwritten"),
        ([str(run), "--out", str(tmp_path / "page.txt")], "name a .html file"),
        ([str(run), str(run)], "given twice"),
        ([str(tmp_path)], "is no run"),
        ([str(tmp_path / "none")], "is no folder"),
    ):
        assert cli.run(["report", *words]) == 2
        told = capfd.readouterr().err.strip()
        assert said in told
        assert "\n" not in told


def test_a_study_of_an_earlier_version(
    made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One that has no file to read says how it gets one."""
    old = Path(shutil.copytree(made / "probed", tmp_path / "old"))
    (old / "outcomes.json").unlink()
    assert cli.run(["report", str(old)]) == 2
    assert "its command, given again, writes it" in capfd.readouterr().err


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., tuple[dict[str, Any], str]]:
    def make(*words: str) -> tuple[dict[str, Any], str]:
        out = tmp_path / f"exported-{len(list(tmp_path.iterdir()))}"
        assert cli.run(["export", *words, "--out", str(out)]) == 0
        text = (out / "README.md").read_text("utf-8")
        assert text.startswith("---\n")
        front, body = text.split("---\n", 2)[1:]
        return yaml.safe_load(front), body

    return make


def test_the_cards_numbers_are_scikit_learns(made: Path, export: Callable[..., Any]) -> None:
    """The results in the front matter are means over labels of the teacher's predictions."""
    front, body = export(str(made / "first"))
    assert (front["license"], front["library_name"]) == ("other", "ark-framework")
    assert front["datasets"] == [*TASKS]
    (index,) = front["model-index"]
    assert [each["dataset"]["type"] for each in index["results"]] == [*TASKS]
    for each in index["results"]:
        frame = predictions_of(made / "first", each["dataset"]["type"])
        told = {metric["type"]: metric["value"] for metric in each["metrics"]}
        areas = scores(frame, "teacher")
        precisions = scores(frame, "teacher", average_precision_score)
        assert told["roc_auc"] == pytest.approx(np.mean([*areas.values()]), abs=1e-12)
        assert told["average_precision"] == pytest.approx(
            np.mean([*precisions.values()]), abs=1e-12
        )
        part = body.partition(f"### {each['dataset']['type']}: {len(frame)} test films")[2]
        for label, area in areas.items():
            row = next(line for line in part.splitlines() if line.startswith(f"| {label} |"))
            assert f" {area:.3f}" in row
    for heading in ("Data and their terms", "Splits", "Leaks", "Results", "Subgroups", "Limits",
                    "Intended use", "Out of scope", "Citations"):  # fmt: skip
        assert f"\n## {heading}\n" in body
    assert "| policy | drop |" in body


def test_a_card_of_another_checkpoint_claims_no_scores(
    made: Path, run: Path, export: Callable[..., Any]
) -> None:
    """Test scores are of the run's end; an earlier checkpoint's card has none."""
    shutil.copy(run / "checkpoints" / "last.pt", run / "checkpoints" / "cycle-0001.pt")
    front, body = export(str(run / "checkpoints" / "cycle-0001.pt"))
    assert front["model-index"][0]["results"] == []
    assert "no test predictions of this very model" in body
    front, body = export(str(run), "--fairness", str(made / "fair"))
    assert "Underdiagnosis" in body or "By sex" in body
    assert cli.run(["export", str(run), "--out", "x", "--fairness", str(run)]) == 2


def test_confounds_are_found(run: Path) -> None:
    """A label that goes with sex, or is one patient's, is told; one that does not is not."""
    path = run / "predictions" / f"{TASKS[2]}-test.csv"
    frame = pd.read_csv(path)
    label = next(name.split(":")[1] for name in frame if str(name).startswith("teacher:"))
    rows = np.arange(len(frame))
    frame[label], frame["sex"], frame["patient"] = rows % 2, "F", rows.astype(str)
    frame.to_csv(path, index=False)
    told = [line for line in limits(runs.read(run, "first")) if TASKS[2] in line]
    assert told == []
    frame["sex"] = np.where(rows % 2, "F", "M")
    frame["patient"] = np.where((rows % 2 == 1) & (rows > 4), "one", rows.astype(str))
    frame.to_csv(path, index=False)
    sex, patient = sorted(line for line in limits(runs.read(run, "first")) if TASKS[2] in line)[
        ::-1
    ]
    assert f"with {label} are of one patient" in sex + patient
    assert f"100% of those with {label} are of women, and 0% of those without" in sex + patient
