"""What a shell is told when somebody presses the tab key, as click's environment variables ask."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ark_framework import cli
from ark_framework.cli.words import pending

ROOT = Path(__file__).parents[1]
DATASETS = """
from ark_framework import DatasetCard, DatasetSpec, LabelSchema, hookimpl
from pydantic import BaseModel
print("a plugin that talks")
def spec(name):
    return DatasetSpec(
        name=name, schema=LabelSchema(name=name, kind="multilabel", labels=("a",)),
        options=BaseModel, read=lambda options: None, fixture=lambda folder: None,
        card=DatasetCard(title=name, home="h", licence="l", access="open", citation="c"),
    )
@hookimpl
def ark_datasets():
    return [spec("{name}-one"), spec("{name}-two")]
"""


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARK_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "here" / "runs" / "first").mkdir(parents=True)
    (tmp_path / "here" / "runs" / "first" / "run.json").write_text("{}")
    (tmp_path / "here" / "runs" / "nothing").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def tab(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """Return ``tab(*words)``: what the last word may become, in a shell that cuts at spaces."""

    def press(*words: str, inside: str = "zsh") -> list[str]:
        monkeypatch.setenv("_ARK_COMPLETE", f"{inside}_complete")
        mark = "\n" if inside == "bash" else " "
        monkeypatch.setenv("COMP_WORDS", mark.join(["ark", *words]))
        monkeypatch.setenv("COMP_CWORD", words[-1] if inside == "fish" else str(len(words)))
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.run([])
        assert ended.value.code == 0
        said = capfd.readouterr()
        assert said.err == ""
        lines = said.out.strip().splitlines()
        if inside == "zsh":
            kinds, values = lines[::3], lines[1::3]
            return [
                value if kind == "plain" else f"<{kind}>"
                for kind, value in zip(kinds, values, strict=True)
            ]
        return [line.partition(",")[2].partition("\t")[0] for line in lines]

    return press


def test_commands_and_options(tab: Callable[..., list[str]]) -> None:
    """Commands, subcommands and options; a command that is not there completes to nothing bad."""
    assert tab("tr") == ["train"]
    assert set(tab("")) == set(cli.COMMANDS)
    assert tab("data", "pre") == ["preview"]
    assert tab("train", "--le") == ["--leaks"]
    assert tab("train", "--leaks", "drop") == ["drop", "drop-patients"]
    assert tab("--no") == ["--no-color"]
    assert set(tab("dta", "")) <= {*cli.COMMANDS}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_plugins(tab: Callable[..., list[str]], install: Callable[..., str], shell: str) -> None:
    """Installed plugins, also as the second word or behind a comma; none is imported."""
    module = install("zebra", "raise SystemExit('imported')")
    assert tab("train", "--plugins", "ark-z", inside=shell) == ["ark-zebra"]
    assert tab("train", "--plugins", "zeb", inside=shell) == ["zebra"]
    assert tab("train", "--plugins", "ark-rsna", "ark-z", inside=shell) == ["ark-zebra"]
    assert tab("train", "--plugins", "ark-rsna,ark-z", inside=shell) == ["ark-rsna,ark-zebra"]
    assert tab("train", "--plugins", "ark-zebra", "ark-z", inside=shell) == []
    assert tab("plugins", "show", "ark-z", inside=shell) == ["ark-zebra"]
    assert module not in sys.modules


def test_a_disabled_plugin(
    tab: Callable[..., list[str]], install: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be used is not offered, and its datasets are not asked for."""
    module = install("zebra", DATASETS)
    monkeypatch.setenv("ARK_DISABLE_PLUGINS", "zebra")
    assert tab("train", "--plugins", "ark-z") == []
    assert tab("train", "--plugins", "ark-zebra", "--tasks", "") == []
    assert module not in sys.modules


def test_datasets(
    tab: Callable[..., list[str]],
    install: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Datasets of the plugins on the line, which alone are imported; else those with a place."""
    zebra, other = install("zebra", DATASETS), install("other", "raise SystemExit('imported')")
    both = ["zebra-one", "zebra-two"]
    assert tab("train", "--plugins", "ark-zebra", "--tasks", "") == both
    assert tab("train", "--plugins", "zebra", "--tasks", "zebra-one", "zebra-t") == both[1:]
    assert tab("train", "--plugins", "zebra", "--data", "zebra-o") == ["zebra-one="]
    assert tab("train", "--plugins", "ark-other", "--tasks", "") == []
    del sys.modules[zebra]
    monkeypatch.setenv("ARK_DATA_ELSEWHERE", str(tmp_path))
    (tmp_path / "linked").mkdir()
    monkeypatch.delenv("_ARK_COMPLETE")
    assert cli.run(["data", "link", "rsna", str(tmp_path / "linked")]) == 0
    assert tab("train", "--tasks", "") == ["elsewhere", "rsna"]
    assert tab("train", "--data", "rsna=" + str(tmp_path / "lin")) == [
        f"rsna={tmp_path / 'linked'}/"
    ]
    assert not {zebra, other} & set(sys.modules)


def test_settings(tab: Callable[..., list[str]]) -> None:
    """Keys of a run, a study or an audit, each with its command; values where there are few."""
    assert tab("train", "--set", "optim.l") == ["optim.lr="]
    assert tab("train", "--set", "optim.name=") == ["optim.name=sgd", "optim.name=adamw"]
    assert tab("train", "--set", "model.checkpointing=t") == ["model.checkpointing=true"]
    assert tab("train", "--set", "optim.lr=") == []
    assert "probe.shots=" in tab("probe", "runs/first", "--set", "probe.")
    assert tab("fairness", "runs/first", "--set", "cuts.p") == ["cuts.policy="]
    assert tab("compare", "study.yaml", "--set", "finetune.ep") == ["finetune.epochs="]


def test_recipes_and_runs(tab: Callable[..., list[str]]) -> None:
    """Recipes by name; folders that hold a run, and where there is none what the shell finds."""
    assert tab("train", "--recipe", "ark6") == ["ark6", "ark6-as-released", "ark6-plus"]
    assert tab("recipes", "diff", "ark6", "ark5") == ["ark5"]
    assert tab("recipes", "diff", "ark6", "mine") == ["<file>"]
    assert tab("export", "") == ["runs/first"]
    assert tab("report", "runs/f") == ["runs/first"]
    assert tab("export", "elsewhere/") == ["<dir>"]
    assert tab("probe", "ra") == ["random\\:"]
    assert tab("probe", "random:") == ["random:runs/first"]
    assert tab("predict", "runs/") == ["runs/first"]


def test_bash_cuts_words(tab: Callable[..., list[str]]) -> None:
    """Bash cuts at ``=`` and ``:`` and replaces what is behind them alone."""
    assert tab("train", "--set", "optim.name", "=", inside="bash") == ["sgd", "adamw"]
    assert tab("train", "--set", "optim.name", "=", "a", inside="bash") == ["adamw"]
    assert tab("train", "--leaks", "=", "dr", inside="bash") == ["drop", "drop-patients"]
    assert tab("probe", "random", ":", inside="bash") == ["runs/first"]
    assert tab("train", "--le", inside="bash") == ["--leaks"]


def test_which_option_takes_the_next_word() -> None:
    """The last of those that take several, until another option or ``--``."""
    assert pending(["train", "--plugins", "a"]) == "--plugins"
    assert pending(["train", "--plugins=a"]) == "--plugins"
    assert pending(["train", "--plugins", "a", "--json"]) == ""
    assert pending(["train", "--plugins", "a", "--tasks"]) == "--tasks"
    assert pending(["train", "--plugins", "a", "--", "b"]) == ""


def test_light() -> None:
    """A key press imports neither torch nor pandas where no plugin is on the line."""
    code = (
        "import os, sys; from ark_framework.cli import run\n"
        "try: run([])\n"
        "except SystemExit: pass\n"
        "sys.exit(str({'torch', 'pandas', 'timm'} & set(sys.modules) or ''))"
    )
    for words in ("ark train --plugins ", "ark probe m --set probe.", "ark data pack --tasks "):
        env = {"_ARK_COMPLETE": "zsh_complete", "COMP_WORDS": words, "COMP_CWORD": "9"}
        env["COMP_CWORD"] = str(len(words.split(" ")) - 1)
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **env},
            capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        assert done.stderr.strip() == ""
        assert "plain" in done.stdout or words.endswith("--tasks ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script(
    shell: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The script is of the shell that is named, or that $SHELL names."""
    assert cli.run(["completion", shell]) == 0
    said = capfd.readouterr().out
    assert f"_ARK_COMPLETE={shell}_complete" in said
    opened = {"bash": ["compopt -o nospace"], "zsh": ["open=(-S '')", '-U "${open[@]}"\n']}
    assert all(said.count(each) == 1 for each in opened.get(shell, []))
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    assert cli.run(["completion"]) == 0
    assert capfd.readouterr().out == said
    if shutil.which(shell):  # the shell itself finds nothing wrong with it
        subprocess.run([shell, "-n"], input=said, text=True, check=True)


def test_an_unknown_shell(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without a word, and in a shell that is not known, the command is named."""
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert cli.run(["completion"]) == 2
    assert "ark completion bash" in capfd.readouterr().err


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
def test_in_bash(tmp_path: Path) -> None:
    """A bash that has read the script completes a line, and leaves an open word open."""
    command = tmp_path / "ark"
    code = "import sys; sys.argv[0] = 'ark'; from ark_framework.cli import main; main()"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    script = """
    source <(ark completion bash)
    compopt() { echo compopt "$@"; }
    try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _ark_completion ark
            printf '%s ' "${COMPREPLY[@]}"; echo; }
    try ark train --recipe ark6-p
    try ark train --set optim.l
    try ark train --set optim.name = a
    """
    surroundings = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env={**os.environ, **surroundings},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines == ["ark6-plus", "compopt -o nospace", "optim.lr=", "adamw"]


def test_what_a_recipe_is_for(capfd: pytest.CaptureFixture[str]) -> None:
    """A shell that shows descriptions is given them."""
    assert cli.run(["recipes", "list", "--json"]) == 0
    assert all(len(line) > 20 for line in json.loads(capfd.readouterr().out).values())
