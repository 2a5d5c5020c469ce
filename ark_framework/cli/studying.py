"""The options that commands about models on datasets share, and how they become a study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ark_framework import config as configuration
from ark_framework.cli.settings import reading, roots
from ark_framework.cli.torchrun import divided, gpus
from ark_framework.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from ark_framework.config import RunConfig
    from ark_framework.transfer.outcome import Outcome
    from ark_framework.transfer.settings import StudyConfig

Command = TypeVar("Command", bound=Callable[..., Any])


def studying(command: Command) -> Command:
    """Add the options that say which models, datasets, seeds and splits, and where results go."""
    for option in (
        gpus,
        click.option("--json", "as_json", is_flag=True, help="Print the outcomes as JSON."),
        click.option("--repeats", type=click.IntRange(min=1), help="Dealings of the folds."),
        click.option(
            "--folds",
            type=click.IntRange(min=3),
            help="Folds by patient over all films, instead of the datasets' own splits.",
        ),
        click.option("--seeds", type=click.IntRange(min=1), help="How many: 0, 1, …"),
        click.option("--resize", type=click.IntRange(min=16), help="See --size."),
        click.option(
            "--size",
            type=click.IntRange(min=16),
            help="Side that random: and timm: models see, of films fitted to --resize; where masks "
            "are found, side of all films, whole.",
        ),
        click.option(
            "--out",
            type=click.Path(path_type=Path, file_okay=False),
            required=True,
            help="Folder of the results; what is finished there is not done again.",
        ),
    ):
        command = option(command)
    return reading(command)


def layers(
    models: Sequence[str],
    *,
    plugins: Sequence[str] = (),
    tasks: Sequence[str] = (),
    file: Path | None = None,
    assignments: Sequence[str] = (),
    store: Path | None = None,
    limit: int | None = None,
    max_bad: int | None = None,
    size: int | None = None,
    resize: int | None = None,
    seeds: int | None = None,
    folds: int | None = None,
    repeats: int | None = None,
) -> tuple[dict[str, Any], ...]:
    """Return file, flags and ``--set`` as mappings, later over earlier.

    Raises:
        ConfigError: the file or an assignment cannot be read.
    """
    flags: dict[str, Any] = {
        "models": _named(models, size=size, resize=resize),
        "plugins": list(plugins) or None,
        "datasets": list(tasks) or None,
        "limit": limit,
        "seeds": seeds,
        "folds": given(count=folds, repeats=repeats),
        "store": given(folder=None if store is None else str(store), max_bad=max_bad),
    }
    told = {key: value for key, value in flags.items() if value}
    assigned = [configuration.assignment(text) for text in assignments]
    return (configuration.load_yaml(file) if file else {}, told, *assigned)


def datasets_of(**given: Any) -> RunConfig:
    """Return the configuration that datasets are read with, for a command without a study.

    Raises:
        ConfigError: one line that names the key.
    """
    from ark_framework.transfer.settings import parse, reading

    return reading(parse(*layers((), **given), models=False))


def run(
    console: Console, config: StudyConfig, *, out: Path, roots: dict[str, Path]
) -> tuple[Outcome, ...]:
    """Run a study with a progress bar; Ctrl-C saves and stops."""
    from ark_framework.cli.packing import PackingBar
    from ark_framework.interruption import stoppable
    from ark_framework.transfer.study import Study

    with PackingBar(console) as progress:
        study = Study(
            config=config,
            out=out,
            roots=roots,
            progress=progress,
            embedding=progress.embedding,
            say=lambda line: console.print(line, highlight=False, soft_wrap=True),
        )
        with stoppable(study.stop):
            return study.run()


def study(
    config: StudyConfig, *, out: Path, data: Sequence[str], as_json: bool, processes: int | None
) -> int:
    """Run a study, in as many processes as asked, and compare; return the exit code."""
    from ark_framework.cli.comparison import finish

    def work(console: Console) -> None:
        outcomes = run(console, config, out=out, roots=roots(data))
        if not console.quiet:
            finish(console, outcomes, config, out, as_json=as_json)

    device = config.runtime.device
    return divided(work, processes=processes, device=device, as_json=as_json)


def _named(
    models: Sequence[str], *, size: int | None, resize: int | None
) -> dict[str, dict[str, Any] | str]:
    """Name models by what they are called on the command line: ``NAME=SOURCE`` or the source."""
    found: dict[str, dict[str, Any] | str] = {}
    for word in models:
        name, equals, source = word.partition("=")
        if not equals or ":" in name or "/" in name:  # timm:ARCH=FILE, or a path with a sign in it
            name, source = _called(word), word
        if name in found:
            raise ConfigError(f"two models are called {name!r}; write NAME={source}")
        fresh = source.startswith(("random:", "timm:")) and not Path(source.split(":")[1]).exists()
        sides = given(size=size, resize=resize) if fresh else {}
        found[name] = {"source": source, **sides} if sides else source
    return found


def _called(source: str) -> str:
    """Return what to call a model: the end of its path, which says nothing of whose disk it is."""
    scheme, colon, rest = source.partition(":")
    if not colon:
        return Path(source).absolute().name
    return f"{scheme}:{Path(rest.partition('=')[0]).name}"


def given(**values: Any) -> dict[str, Any]:
    """Return what is not ``None``."""
    return {name: value for name, value in values.items() if value is not None}
