"""``ark embed``: embeddings of a dataset or of files, with the films' names, into one file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import click

from ark_framework.cli import candidates
from ark_framework.cli.console import console as open_console
from ark_framework.cli.packing import PackingBar
from ark_framework.cli.plain import echo
from ark_framework.cli.prediction import QUIET
from ark_framework.cli.settings import reading, roots
from ark_framework.cli.studying import datasets_of
from ark_framework.cli.words import WordsCommand
from ark_framework.durations import left
from ark_framework.errors import ConfigError, DataError


@click.command("embed", cls=WordsCommand)
@click.argument("model", shell_complete=candidates.models)
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@reading
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="A new .npz or .csv file.",
)
@click.option(
    "--features",
    type=click.Choice(["projected", "pooled"]),
    default="projected",
    show_default=True,
    help="The projection, or the features before it.",
)
@click.option("--size", type=click.IntRange(min=16), help="Side that random: and timm: see.")
@click.option("--resize", type=click.IntRange(min=16), help="Side that films are fitted to.")
def embed(
    model: str,
    images: tuple[Path, ...],
    data: tuple[str, ...],
    out: Path,
    features: str,
    size: int | None,
    resize: int | None,
    **given: Any,
) -> None:
    """Write MODEL's embedding of every readable film of one dataset, or of IMAGES.

    IMAGES are files (PNG, JPEG, TIFF, DICOM) and folders, searched with all that is below them;
    MODEL is then a run, a checkpoint, or the folder of an import or export.  The file holds each
    film's name and vector, and of a dataset the split; ark probe and ark compare take it as a
    model, and so does whatever reads NumPy or CSV.

    \b
    ark embed runs/first --plugins ark-rsna --tasks rsna --out rsna.npz
    ark embed models/ark6 films/ --out films.npz
    """
    if out.suffix.lower() not in (".npz", ".csv") or out.exists():
        raise ConfigError(f"--out {out}: name a new .npz or .csv file")
    if images:
        _of_films(Path(model), images, out, projected=features == "projected", size=size, **given)
        return
    _of_dataset(model, data, out, features, size=size, resize=resize, **given)


def _of_dataset(
    model: str,
    data: tuple[str, ...],
    out: Path,
    features: str,
    *,
    size: int | None,
    resize: int | None,
    **given: Any,
) -> None:
    from ark_framework.interruption import stoppable
    from ark_framework.runtime import open_runtime
    from ark_framework.transfer.candidate import open_candidate
    from ark_framework.transfer.datasets import Datasets
    from ark_framework.transfer.embed import Extractor, folder_of, write

    console = open_console()
    config = datasets_of(**given)
    candidate = open_candidate(model, size=size, resize=resize)
    with PackingBar(console) as progress:
        datasets = Datasets(config=config, roots=roots(data), progress=progress, say=console.print)
        names = datasets.names()
        if len(names) > 1:
            raise ConfigError(f"one dataset a file: --tasks NAME, of {', '.join(names)}")
        corpus = datasets.open(names[0], candidate)
        extractor = Extractor(
            folder=folder_of(config.store.folder),
            runtime=open_runtime(config.runtime),
            features="projected" if features == "projected" else "pooled",
            progress=progress.embedding,
        )
        rows = (corpus.index >= 0).nonzero()[0]
        with stoppable(extractor.stop):
            vectors = extractor.embed(candidate, corpus, rows)
    write(out, corpus, rows, vectors)
    console.print(f"{len(rows)} films, {vectors.shape[1]} numbers each: {out}", highlight=False)


def _of_films(
    model: Path,
    images: tuple[Path, ...],
    out: Path,
    *,
    projected: bool,
    size: int | None,
    plugins: tuple[str, ...],
    tasks: tuple[str, ...],
    max_bad: int | None,
    **given: Any,
) -> None:
    import numpy as np

    from ark_framework.pretrained import load
    from ark_framework.runtime import open_runtime
    from ark_framework.transfer.embed import write_table
    from ark_framework.transfer.embed_films import embed_films
    from ark_framework.transfer.films import find

    if plugins or tasks or given["file"]:
        raise ConfigError("films are of no dataset: leave --plugins, --tasks and -c out, or them")
    if size is not None:
        raise ConfigError("--size is of random: and timm: models on a dataset")
    config = datasets_of(plugins=plugins, tasks=tasks, max_bad=max_bad, **given)
    device = open_runtime(config.runtime).device
    found = embed_films(
        load(model, device=device),
        find(images),
        projected=projected,
        report=_spoken(sum(1 for _ in find(images))),
    )
    allowed = config.store.max_bad
    if found.problems:
        first = ": ".join(next(iter(found.problems.items())))
        said = f"{len(found.problems)} films cannot be read, the first {first}"
        if len(found.problems) > allowed:
            raise DataError(f"{said} (--max-bad {allowed}); nothing is written")
        echo(said, err=True)
    write_table(out, np.array(found.ids, dtype=str), found.features)
    echo(f"{len(found.ids)} films, {found.features.shape[1]} numbers each: {out}")


def _spoken(total: int) -> Callable[[int], None]:
    """Return what says how far it has come, a line now and then."""
    began = spoke = monotonic()

    def report(done: int) -> None:
        nonlocal spoke
        if monotonic() - spoke > QUIET:
            spoke = monotonic()
            remains = left(done, total, seconds=spoke - began)
            echo(f"embedded {done:,} of {total:,} films{remains}", err=True)

    return report
