"""The command line: a shell over the Python API, and the only place that prints.

Commands are imported when they are used, so that ``ark --help`` needs neither torch nor pandas.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import click
from click.shell_completion import CompletionItem

from ark_framework.cli.plain import answers_alone, echo
from ark_framework.errors import ArkError, MachineError

# What the machine refuses, as against what a program got wrong.
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
# Name → where the command lives, and its line in the help.
COMMANDS = {
    "train": ("ark_framework.cli.train:train", "Pretrain one encoder on many datasets."),
    "plan": ("ark_framework.cli.plan:plan", "Print what a training run would do."),
    "import": ("ark_framework.cli.importing:import_", "Turn published weights into a model."),
    "export": ("ark_framework.cli.export:export", "Write a run's model for others."),
    "predict": ("ark_framework.cli.predict:predict", "Write probabilities for films."),
    "eval": ("ark_framework.cli.evaluate:evaluate", "Score a model's heads, with intervals."),
    "embed": ("ark_framework.cli.embed:embed", "Write films' embeddings into a file."),
    "probe": ("ark_framework.cli.probe:probe", "Fit classifiers on models' embeddings."),
    "finetune": ("ark_framework.cli.finetune:finetune", "Train models on one dataset each."),
    "segment": ("ark_framework.cli.segment:segment", "Train models to find masks."),
    "fairness": ("ark_framework.cli.fairness:fairness", "Whom a model fails, by subgroup."),
    "compare": ("ark_framework.cli.compare:compare", "Models on datasets, in one table."),
    "report": ("ark_framework.cli.report:report", "What runs and studies left, as one page."),
    "demo": ("ark_framework.cli.demo:demo", "Train on drawn films; needs no data."),
    "data": ("ark_framework.cli.data:data", "List, link, verify, pack, audit, see datasets."),
    "plugins": ("ark_framework.cli.plugins:plugins", "List, show, check and begin plugins."),
    "config": ("ark_framework.cli.config:config", "Show the configuration."),
    "recipes": ("ark_framework.cli.recipes:recipes", "List, copy and compare named settings."),
    "bench": ("ark_framework.cli.bench:bench", "Measure this machine, from disk to step."),
    "doctor": ("ark_framework.cli.doctor:doctor", "Check this machine, and say what mends it."),
    "completion": ("ark_framework.cli.completion:completion", "Let your shell complete ark."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of a user's day."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands' help lines without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Return the commands that begin so, without importing them."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [
            CompletionItem(name, help=line)
            for name, (_, line) in COMMANDS.items()
            if name.startswith(incomplete)
        ]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a near miss is named."""
        from ark_framework.errors import did_you_mean

        known = ctx.resilient_parsing or args[0] in COMMANDS if args else True
        if not known and not args[0].startswith("-"):
            ctx.fail(f"no command {args[0]!r}{did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ark-framework", prog_name="ark")
@click.option("--no-color", is_flag=True, help="Print without colors, as with NO_COLOR set.")
def ark(no_color: bool) -> None:
    """Pretrain a chest X-ray foundation model from many datasets. Research use only.

    \b
    ark demo
    ark train --plugins ark-chestxray14 ark-rsna
    """
    if no_color:
        os.environ["NO_COLOR"] = "1"


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the documented code."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # one of several is ended by what started it
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    sys.exit(run(args))


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; a user's error is one line on stderr."""
    words = sys.argv[1:] if args is None else list(args)
    if "_ARK_COMPLETE" in os.environ:
        importlib.import_module("ark_framework.cli.completion")  # which tells click our shells
    try:
        with answers_alone() if "--json" in words else nullcontext():
            result: Any = ark.main(args=words, prog_name="ark", standalone_mode=False)
    except ArkError as error:
        echo(f"error: {' '.join(str(error).split())}", err=True)
        return error.exit_code
    except click.ClickException as error:
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
            error.show()  # a bare `ark`: its help, as it is
            return error.exit_code
        context = getattr(error, "ctx", None)
        see = f" (see: {context.command_path} --help)" if context else ""
        echo(f"error: {' '.join(error.format_message().split())}{see}", err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        echo("interrupted", err=True)
        return 130
    except BrokenPipeError:
        return 0
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        echo(f"error: {error.strerror}: {error.filename or 'no file named'}", err=True)
        return MachineError.exit_code
    return result if isinstance(result, int) else 0
