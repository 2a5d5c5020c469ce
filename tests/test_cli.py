"""The command line's shell: light, one-line errors, documented exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ark_framework import cli, errors
from ark_framework.builtin.table import SPEC
from ark_framework.cli.words import WordsCommand, spread

REAL = os.environ.get("ARK_REAL_DATA")
WORDS = st.lists(st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True), min_size=1, max_size=4)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARK_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("ARK_STORE", str(tmp_path / "stores"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """A folder of images with a CSV, and a config that says what its columns mean."""
    folder = tmp_path / "films"
    options = SPEC.fixture(folder).model_dump(mode="json", exclude={"root", "masks", "csv"})
    config = {"plugins": ["ark-table"], "data": {"table": options}}
    (tmp_path / "run.yaml").write_text(json.dumps(config), encoding="utf-8")
    assert cli.run(["data", "link", "table", str(folder)]) == 0
    return folder


@pytest.mark.parametrize(
    "command", [["--help"], ["plugins", "list"], ["plugins", "list", "--json"]]
)
def test_light(command: list[str]) -> None:
    """What people type to look around imports neither torch nor pandas nor any plugin."""
    code = (
        f"import sys; from ark_framework.cli import run; code = run({command!r});"
        "heavy = {'torch', 'pandas', 'numpy', 'rich', 'ark_framework.builtin'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ark" in done.stdout


def test_every_command_is_there() -> None:
    """Every command of the help exists, has help of its own and shows it without a traceback."""
    for name in cli.COMMANDS:
        command = cli.ark.get_command(click.Context(cli.ark), name)
        assert command is not None
        assert command.help
        assert cli.run([name, "--help"]) == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("a\nb"), 2),
        (errors.DataError("a\nb"), 3),
        (errors.PluginError("a\nb"), 4),
        (errors.MachineError("a\nb"), 5),
        (errors.RunError("a\nb"), 1),
        (errors.Interrupted("a\nb"), 75),
        (OSError(28, "a b", "file"), 5),
        (BrokenPipeError(), 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_exit_codes(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A user's error is one line on stderr and the exit code of its class."""

    @click.command("data")
    def failing() -> None:
        raise error

    monkeypatch.setattr("ark_framework.cli.data.data", failing)
    assert cli.run(["data"]) == code
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: a b") if code else said.err == ""
    assert said.err.count("\n") == bool(code)


def test_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not the user's fault is not dressed up as it."""

    @click.command("data")
    def failing() -> None:
        raise KeyError("ours")

    monkeypatch.setattr("ark_framework.cli.data.data", failing)
    with pytest.raises(KeyError):
        cli.run(["data"])


def test_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control-C ends with 130."""

    @click.command("data")
    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ark_framework.cli.data.data", stopped)
    assert cli.run(["data"]) == 130


def test_closed_pipe() -> None:
    """A reader that leaves early gets no traceback."""
    script = f"{sys.executable} -c 'from ark_framework.cli import main; main()' plugins list | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["dta"], "did you mean 'data'?"),
        (["data", "list", "--plugns", "a"], "--plugins"),
        (["data", "list", "--plugins"], "requires an argument"),
        (["data", "verify"], "--plugins"),
        (["data", "verify", "--plugins", "tabel"], "did you mean 'table'?"),
        (["data", "verify", "--plugins", "table", "--tasks", "tabel"], "did you mean 'table'?"),
        (["data", "verify", "--plugins", "table", "--data", "tabel=x"], "did you mean 'table'?"),
        (["data", "pack", "--plugins", "table", "--limit", "3"], "--limit"),
        (["data", "link", "a/b", "."], "name"),
    ],
)
def test_usage_errors(args: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A wrong name or option ends with 2 and says what is near."""
    assert cli.run(args) == 2
    said = capfd.readouterr().err
    assert message in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1


@given(WORDS, st.data())
def test_words(words: list[str], data: st.DataObject) -> None:
    """However words are split over commas, spaces and repeats, they arrive whole and in order."""
    args, index = ["before"], 0
    while index < len(words):
        take = data.draw(st.integers(1, len(words) - index))
        part = words[index : index + take]
        args += data.draw(
            st.sampled_from(
                [
                    ["--plugins", *part],
                    ["--plugins", ",".join(part)],
                    [f"--plugins={','.join(part)}"],
                ]
            )
        )
        index += take
    rest = ["--json", "value", "--", "--plugins", "x,y"]
    wanted = [each for word in words for each in ("--plugins", word)]
    assert list(spread([*args, *rest])) == ["before", *wanted, *rest]


def test_roots_are_words_too() -> None:
    """``--data`` takes several words and leaves commas in paths alone."""
    args = ["--data", "a=/x,y", "b=/z", "--tasks", "a,b", "c"]
    wanted = ["--data", "a=/x,y", "--data", "b=/z"]
    assert list(spread(args)) == [*wanted, "--tasks", "a", "--tasks", "b", "--tasks", "c"]


def test_words_reach_the_command() -> None:
    """A command sees the words as click's own repeated option, arguments after ``--`` apart."""
    found: dict[str, object] = {}

    @click.command(cls=WordsCommand)
    @click.argument("rest", nargs=-1)
    @click.option("--plugins", multiple=True)
    def command(**given: object) -> None:
        found.update(given)

    command.main(["--plugins", "b,a", "c", "--", "d"], standalone_mode=False)
    assert found == {"plugins": ("b", "a", "c"), "rest": ("d",)}


def test_list(films: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Datasets are listed with labels and root, and where the root was said; also the links."""
    capfd.readouterr()
    assert cli.run(["data", "list", "-c", "run.yaml", "--json"]) == 0
    (entry,) = json.loads(capfd.readouterr().out)
    assert (entry["dataset"], entry["kind"], entry["labels"]) == ("table", "multilabel", "2")
    assert (entry["root"], entry["from"]) == (str(films), "link")
    assert cli.run(["data", "list"]) == 0
    assert capfd.readouterr().out == f"table  {films} (link)\n"


def test_verify(films: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Sound data verify; a missing, an empty and a changed film are named, with exit 3."""
    base, small = ["data", "verify", "-c", "run.yaml", "--json"], ["--size", "32"]
    capfd.readouterr()
    assert cli.run(["data", "pack", "-c", "run.yaml", *small, "--json"]) == 0
    (packed,) = json.loads(capfd.readouterr().out)
    assert cli.run([*base, *small]) == 0
    (found,) = json.loads(capfd.readouterr().out)
    assert found["splits"] == {"train": 32, "val": 0, "test": 16}
    assert (found["patients"], found["problems"]) == (24, [])
    assert found["store"] == packed["store"]
    os.utime(films / "film03.png", ns=(1, 1))
    assert cli.run([*base, *small]) == 3
    assert "film03.png: changed since it was packed" in capfd.readouterr().err
    (films / "film07.png").unlink()
    (films / "film08.png").write_bytes(b"")
    assert cli.run(base) == 3
    said = capfd.readouterr()
    assert "1 of 48 films are missing, first 'film07.png'" in said.err
    assert len(json.loads(said.out)[0]["problems"]) == 2


def test_shared_patients(films: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A patient on both sides of a split is noted."""
    csv = films / "labels.csv"
    csv.write_text(csv.read_text().replace("p16,test", "p0,test"), encoding="utf-8")
    assert cli.run(["data", "verify", "-c", "run.yaml"]) == 0
    assert "1 patients are in both train and test" in capfd.readouterr().out


def test_stats(films: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Labels are counted per split: positives, negatives, uncertain, missing; a mean is not."""
    csv = films / "labels.csv"
    csv.write_text(csv.read_text().replace("0,1\n", "-1,1\n", 1), encoding="utf-8")
    capfd.readouterr()
    assert cli.run(["data", "stats", "-c", "run.yaml", "--json"]) == 0
    train = json.loads(capfd.readouterr().out)["datasets"]["table"]["train"]
    left = train["labels"]["left"]
    assert left == {
        "positive": 15,
        "negative": 15,
        "uncertain": 1,
        "missing": 1,
        "prevalence": 0.5,
    }
    assert (train["films"], train["patients"], train["sex"]) == (32, 16, {"M": 16, "F": 16})
    assert cli.run(["data", "stats", "-c", "run.yaml"]) == 0
    assert "left" in capfd.readouterr().out


def test_pack(films: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Films are packed once into the store's folder; a bad one is named unless it is allowed."""
    (films / "film07.png").write_bytes(b"no png")
    base = ["data", "pack", "-c", "run.yaml", "--size", "32"]
    assert cli.run(base) == 3
    assert "film07.png" in capfd.readouterr().err
    allowed = [*base, "--max-bad", "1", "--store", str(tmp_path / "here")]
    assert cli.run(allowed) == 0
    assert "48 films of 32 x 32" in capfd.readouterr().out
    assert cli.run([*allowed, "--json"]) == 0
    (packed,) = json.loads(capfd.readouterr().out)
    assert Path(packed["store"]).parent == tmp_path / "here"
    assert list(packed["unreadable"]) == ["film07.png"]


def test_preview(films: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A sheet of films and views is written, the same each time, and never over another file."""
    base = ["data", "preview", "-c", "run.yaml", "--size", "32", "--limit", "4", "--out"]
    for name in ("a.png", "b.png"):
        assert cli.run([*base, name]) == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    with Image.open("a.png") as sheet:
        assert sheet.size[0] == 4 + 4 * 36
        assert len(set(sheet.convert("L").tobytes())) > 50
    capfd.readouterr()
    assert cli.run([*base, "a.png"]) == 2
    assert "not overwritten" in capfd.readouterr().err
    assert not (tmp_path / "stores").exists()


def test_doctor(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The doctor looks at everything, and what is amiss comes with what mends it."""
    gone = tmp_path / "gone"
    gone.mkdir()
    assert cli.run(["data", "link", "table", str(gone)]) == 0
    gone.rmdir()
    capfd.readouterr()
    code = cli.run(["doctor", "--json"])
    findings = {each["name"]: each for each in json.loads(capfd.readouterr().out)}
    assert {"python", "torch", "torchvision", "timm", "dicom", "store"} <= set(findings)
    assert code == (5 if any(each["state"] == "broken" for each in findings.values()) else 0)
    assert all(each["mend"] for each in findings.values() if each["state"] != "ok")
    assert findings["data table"]["mend"] == "ark data link table PATH"


def test_doctor_finds_the_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A store folder that is a file, and links that cannot be read, end with exit 5."""
    (tmp_path / "stores").write_text("a file", encoding="utf-8")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "links.json").write_text("{", encoding="utf-8")
    assert cli.run(["doctor"]) == 5
    said = capfd.readouterr().out
    assert "broken  store" in said
    assert "export ARK_STORE=" in said
    assert "broken  links" in said


def test_show(capfd: pytest.CaptureFixture[str]) -> None:
    """``plugins show`` names what a plugin provides, by its own name alone."""
    assert cli.run(["plugins", "show", "table"]) == 0
    said = capfd.readouterr().out
    assert said.startswith("ark-table: ark-framework ")
    assert "dataset table" in said
    assert "licence" in said
    assert "head linear" not in said
    assert cli.run(["plugins", "show", "builtin", "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert {"bce", "cross_entropy", "mse", "cosine"} <= set(shown["loss"])


@pytest.mark.skipif(not REAL, reason="ARK_REAL_DATA is not set")
def test_real_films(capfd: pytest.CaptureFixture[str]) -> None:
    """The real films verify, and their counts are those of the files."""
    pytest.importorskip("ark_plugin_rsna")
    roots = ["--data", f"rsna={REAL}/rsna_64px", f"chestxray14={REAL}/nih_64px"]
    plugins = ["--plugins", "ark-chestxray14", "ark-rsna"]
    assert cli.run(["data", "verify", *plugins, *roots]) == 0
    capfd.readouterr()
    assert cli.run(["data", "stats", *plugins, *roots, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)["datasets"]
    assert list(found) == ["chestxray14", "rsna"]
    nih, rsna = found["chestxray14"], found["rsna"]
    assert sum(split["films"] for split in nih.values()) == 1819
    assert sum(split["patients"] for split in nih.values()) == 831
    assert sum(split["labels"]["Normal"]["positive"] for split in rsna.values()) == 121


def test_check(capfd: pytest.CaptureFixture[str]) -> None:
    """``plugins check`` runs the conformance kit and passes on a built-in dataset."""
    pytest.importorskip("ark_framework.testing", reason="the conformance kit is not there")
    assert cli.run(["plugins", "check", "table", "--json"]) == 0
    results = json.loads(capfd.readouterr().out)
    assert results
    assert all(result["ok"] or result["skipped"] for result in results)
