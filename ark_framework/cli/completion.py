"""``ark completion``: the script that lets a shell complete ``ark``, and what that script asks.

click does nearly all of it.  What is added here: options that take several words, and in bash words
that hold ``=`` or ``:``, at which bash cuts them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

from ark_framework.cli.plain import echo
from ark_framework.cli.words import WordsCommand, pending
from ark_framework.errors import ConfigError

VARIABLE = "_ARK_COMPLETE"
# Characters at which bash cuts a word into several.
CUTS = "=:"
# What ends in "=", ":" or "/" is not whole yet: no space may be put behind it.  Fish knows that.
HABIT = "            COMPREPLY+=($value)\n"
KEEP_OPEN = "            [[ $value == *[=:/] ]] && compopt -o nospace\n"
ZSH = (
    ("    local -a response\n", "    local -a response open\n"),
    ("; do\n        if", "; do\n        [[ ${key[-1]} == [=:/] ]] && open=(-S '')\n        if"),
    ("_with_descriptions -U\n", '_with_descriptions -U "${open[@]}"\n'),
    ("compadd -U -V", 'compadd -U "${open[@]}" -V'),
)


class _Words(ShellComplete):
    """Completes the second word of ``--plugins a b`` as the first."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """Repeat the option that takes the word, as click wants it."""
        option = pending(args)
        if option and option != args[-1] and isinstance(_command(self.cli, args), WordsCommand):
            args = [*args, option]
        with suppress(Exception):  # whoever presses a key wants no traceback
            return super().get_completions(args, incomplete)
        return []


@add_completion_class
class Bash(_Words, BashComplete):
    """Bash, whose words are put together again."""

    source_template = BashComplete.source_template.replace(HABIT, HABIT + KEEP_OPEN)

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the whole words before the one that is being typed, and that one."""
        place = int(os.environ["COMP_CWORD"])
        words = [_unquoted(word) for word in os.environ["COMP_WORDS"].split("\n")][: place + 1]
        words += [""] * (place + 1 - len(words))
        whole = _rejoined(words)
        option, equals, value = whole[-1].partition("=")
        typed = value if option.startswith("-") and equals else whole[-1]
        self._cut = len(typed) - len(words[-1].strip(CUTS))
        return whole[1:-1], whole[-1]

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Leave out what stands before the last cut: bash replaces what is behind it."""
        return f"{item.type},{item.value[self._cut :] if item.type == 'plain' else item.value}"


@add_completion_class
class Zsh(_Words, ZshComplete):
    """Zsh."""

    source_template = reduce(
        lambda text, change: text.replace(*change), ZSH, ZshComplete.source_template
    )


@add_completion_class
class Fish(_Words, FishComplete):
    """Fish."""


SHELLS: dict[str, type[ShellComplete]] = {"bash": Bash, "zsh": Zsh, "fish": Fish}


@click.command("completion")
@click.argument("shell", required=False, type=click.Choice(list(SHELLS)))
def completion(shell: str | None) -> None:
    """Print the script that lets a SHELL complete commands, options, plugins, datasets and runs.

    Without SHELL, the one that $SHELL names.  Installed, it works in every new shell:

    \b
    ark completion bash >> ~/.bashrc
    ark completion zsh >> ~/.zshrc
    ark completion fish > ~/.config/fish/completions/ark.fish

    In zsh the line  autoload -Uz compinit && compinit  must stand above it.  To try it in this
    shell alone, in bash or zsh:

    \b
    eval "$(ark completion)"
    """
    from ark_framework.cli import ark

    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in SHELLS:
        raise ConfigError(f"$SHELL names none of {', '.join(SHELLS)}; write: ark completion bash")
    echo(SHELLS[name](ark, {}, "ark", VARIABLE).source())


def _command(command: click.Command, args: Sequence[str]) -> click.Command:
    """Return the command that a line has come to."""
    for word in args:
        if not isinstance(command, click.Group):
            break
        found = command.get_command(click.Context(command), word)
        if found is None:
            break
        command = found
    return command


def _unquoted(word: str) -> str:
    return "".join(split_arg_string(word))


def _rejoined(words: Sequence[str]) -> list[str]:
    """Put together what bash cut at ``=`` and ``:``."""
    whole: list[str] = []
    glued = False
    for word in words:
        cut = bool(word) and not word.strip(CUTS)
        if whole and (cut or glued):
            whole[-1] += word
        else:
            whole.append(word)
        glued = cut
    return whole
