"""Configurations that are broken: refused in a line, quickly, before anything is made or read."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from corpus_configs import (
    FILES,
    LISTS,
    MAPS,
    MERGES,
    NUMBERS,
    OPTIONS,
    TEXTS,
    numeric_keys,
    setting,
)
from oneline import assert_one_line, files, refused

from ark_framework import cli
from ark_framework import config as configuration
from ark_framework.errors import ConfigError

COMMANDS = (["train", "--dry-run"], ["plan"], ["config", "show"])
BOUND = 2**20  # of more memory, in KiB
SMALL = {
    "plugins": ["ark-phantom"],
    "tasks": [{"dataset": "phantom-north"}],
    "data": {"phantom-north": {"films": 40, "size": 32}},
    "cycles": 1,
    "store": {"size": 32, "workers": 1},
    "views": {"size": 24},
    "model": {"backbone": "tiny", "options": {"width": 4}, "features": 8, "init": "random"},
    "runtime": {"threads": 1, "device": "cpu"},
}


@pytest.fixture(autouse=True)
def bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No memory was taken that a file asked for."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + BOUND


@pytest.mark.parametrize("name", TEXTS)
def test_a_file_is_broken(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """By every command that reads one; nothing is made."""
    content, said = TEXTS[name]
    path = tmp_path / "run.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = files(tmp_path)
    for words in COMMANDS:
        refused([*words, "-c", path], 2, capfd, said)
    assert files(tmp_path) == before
    ledger.refused("YAML configuration")


@pytest.mark.parametrize("name", FILES)
def test_there_is_no_such_file(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """Or none that could be read."""
    make, said = FILES[name]
    path = tmp_path / "run.yaml"
    make(path)
    for words in COMMANDS:
        error = refused([*words, "-c", path], 2, capfd)
        assert said.lower() in error.lower()
    assert {each.name for each in tmp_path.iterdir()} <= {"here", path.name}
    ledger.refused("YAML configuration")


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_misused(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """One line says which."""
    words, said = OPTIONS[name]
    refused(["train", "--dry-run", *words], 2, capfd, said)
    assert not list((tmp_path / "here").iterdir())
    ledger.refused("option")


@pytest.mark.parametrize("key", [*numeric_keys()])
def test_a_number_is_refused_or_kept(key: str, capfd: pytest.CaptureFixture[str], ledger) -> None:
    """Whatever is put where a number belongs: one line with the key, or the same number again."""
    refusals = 0
    for value in NUMBERS:
        given = configuration.assignment(setting(key, value))
        try:
            made = configuration.parse(configuration.merge(SMALL, given))
        except ConfigError as error:
            assert_one_line(str(error), key.rpartition(".")[2])
            refusals += 1
            ledger.refused("number")
            continue
        again = configuration.yamlfile.parse(configuration.dump(made))
        assert configuration.parse(again) == made
        ledger.survived("number")
    assert refusals > len(NUMBERS) / 2


HUGE = [
    *("batch_size", "limit", "log.every", "checkpoint.every", "checkpoint.keep", "eval.every"),
    *("eval.batch_size", "eval.forgetting_every", "runtime.piece", "store.max_bad"),
    *("optim.lr", "optim.clip", "optim.weight_decay", "lr.start", "lr.end"),
]


@pytest.mark.parametrize("key", HUGE)
def test_a_huge_number_makes_a_plan(
    key: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """Where nothing bounds it, and with nothing of its size."""
    (tmp_path / "run.yaml").write_text(json.dumps(SMALL))
    words = ["train", "-c", str(tmp_path / "run.yaml"), "--dry-run", "--set", f"{key}=1000000000"]
    assert cli.run(words) == 0, capfd.readouterr().err
    ledger.survived("number")


@pytest.mark.parametrize("key", ["seed", "validation.seed"])
def test_the_largest_seed_trains(
    key: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """To the end; one more is refused."""
    (tmp_path / "run.yaml").write_text(json.dumps(SMALL))
    words = ["train", "-c", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run"), "--set"]
    refused([*words, f"{key}={configuration.SEED + 1}"], 2, capfd, key)
    assert cli.run([*words, f"{key}={configuration.SEED}", "--set", "log.tensorboard=false"]) == 0
    ledger.survived("number")


@pytest.mark.parametrize("key", ["model.features", "cycles", "views.size"])
def test_what_would_fill_the_memory_is_bounded(
    key: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """In a line, not by the system that kills."""
    (tmp_path / "run.yaml").write_text(json.dumps(SMALL))
    words = ["train", "-c", str(tmp_path / "run.yaml"), "--dry-run", "--set", f"{key}=1000000000"]
    refused(words, 2, capfd, key)
    ledger.refused("number")


@pytest.mark.parametrize("text", [LISTS, MAPS, MERGES])
def test_aliases_are_counted_and_not_written_out(text: str) -> None:
    """A few are convenient, and are read."""
    few = text.split("\na3:", maxsplit=1)[0]
    assert len(configuration.yamlfile.parse(few)) == 3
    with pytest.raises(ValueError, match="more than"):
        configuration.yamlfile.parse(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E5", 100000.0), ("-2.5e+3", -2500.0), (".5", 0.5), ("1_000", 1000),
        ("0x10", 16), ("0", 0), ("-7", -7), ("~", None), ("", None), ("on", True), ("No", False),
        ("010", "010"), ("1:30", "1:30"), ("2024-01-31", "2024-01-31"), ("1e", "1e"), ("e5", "e5"),
        ("'1e-3'", "1e-3"), ("0b1", "0b1"), ("0o7", "0o7"), ("1.2.3", "1.2.3"), ("=", "="),
    ],
)  # fmt: skip
def test_scalars_are_what_people_mean(text: str, value: object) -> None:
    """And what is written reads back to the same, quoted where it must be."""
    assert configuration.yamlfile.parse(text) == value
    assert type(configuration.yamlfile.parse(text)) is type(value)
    assert configuration.yamlfile.parse(configuration.yamlfile.dump({"a": value})) == {"a": value}
