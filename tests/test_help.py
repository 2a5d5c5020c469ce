"""Every command's help: examples that parse, options that say what they are."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from rich.console import Console

from ark_framework import cli


def commands(
    command: click.Command = cli.ark, name: str = "ark", parent: click.Context | None = None
) -> Iterator[click.Context]:
    context = click.Context(command, parent, name, **command.context_settings)
    yield context
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            assert found
            yield from commands(found, each, context)


ALL = {context.command_path: context for context in commands()}


def examples(context: click.Context) -> list[list[str]]:
    """Return the lines of a help that begin with ``ark ``, continued lines joined, as words."""
    text = re.sub(r"\\\n\s*", "", context.command.help or "")
    lines = [line.strip() for line in text.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("ark ")]


def parsed(words: list[str]) -> click.Context:
    """Parse a line as the shell would; what follows ``|`` or ``>`` is the shell's."""
    args = words[1:]
    for mark in ("|", ">", ">>"):
        args = args[: args.index(mark)] if mark in args else args
    context = cli.ark.make_context("ark", args)
    while isinstance(context.command, click.Group):
        name, command, args = context.command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        assert command
        context = command.make_context(name, args, parent=context)
    return context


@pytest.mark.parametrize("path", ALL)
def test_examples(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command has an example, of itself, that the command line takes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "films").mkdir()
    found = examples(ALL[path])
    assert found, f"{path}: no line of its help begins with 'ark '"
    group = isinstance(ALL[path].command, click.Group)
    for words in found:
        reached = parsed(words).command_path
        assert reached.startswith(f"{path} ") if group else reached == path


def test_an_example_can_fail() -> None:
    """A line with an option that is not there is refused."""
    with pytest.raises(click.UsageError):
        parsed(shlex.split("ark train --plugin ark-rsna"))


@pytest.mark.parametrize("path", ALL)
def test_every_option_is_described(path: str) -> None:
    """An option without a word of help is a riddle."""
    for each in ALL[path].command.params:
        if isinstance(each, click.Option):
            assert each.help, each.opts


# What an option is, wherever it is found: JSON is a flag, a place is a path, a count a number.
KINDS = {
    "--json": click.types.BoolParamType,
    "--overwrite": click.types.BoolParamType,
    "--out": click.Path,
    "--html": click.Path,
    "--store": click.Path,
    "--config": click.Path,
    "--limit": click.IntRange,
    "--max-bad": click.IntRange,
    "--gpus": click.IntRange,
    "--seeds": click.IntRange,
    "--size": click.IntRange,
    "--resize": click.IntRange,
}


def test_one_word_for_a_thing() -> None:
    """An option is of one kind in all commands, and those for people's scripts say ``JSON``."""
    for path, context in ALL.items():
        for each in context.command.params:
            for name in each.opts:
                if name in KINDS:
                    assert isinstance(each.type, KINDS[name]), f"{path} {name}"
            if "--json" in each.opts:
                assert "JSON" in str(getattr(each, "help", "")), path


def test_no_color(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """``--no-color`` is what ``NO_COLOR`` is; neither leaves a color, even on a terminal."""
    from ark_framework.cli import console

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    colored = console.console()
    colored.print("red", style="red")
    assert "\x1b[31m" in capfd.readouterr().out
    monkeypatch.setenv("NO_COLOR", "")  # so that what the option sets is taken back
    assert cli.run(["--no-color", "plugins", "list"]) == 0
    assert os.environ["NO_COLOR"] == "1"
    capfd.readouterr()
    plain: Console = console.console()
    plain.print("red", style="red")
    assert "\x1b[31m" not in capfd.readouterr().out
