"""``ark embed``: a dataset's embeddings, with the films' names, into one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ark_framework.cli.console import console as open_console
from ark_framework.cli.packing import PackingBar
from ark_framework.cli.settings import reading, roots
from ark_framework.cli.studying import datasets_of
from ark_framework.cli.words import WordsCommand
from ark_framework.errors import ConfigError


@click.command("embed", cls=WordsCommand)
@click.argument("model")
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
    data: tuple[str, ...],
    out: Path,
    features: str,
    size: int | None,
    resize: int | None,
    **given: Any,
) -> None:
    """Write MODEL's embedding of every readable film of one dataset.

    The file holds each film's name, split and vector; ark probe and ark compare take it as a
    model, and so does whatever reads NumPy or CSV.

    \b
    ark embed runs/first --plugins ark-rsna --tasks rsna --out rsna.npz
    """
    from ark_framework.interruption import stoppable
    from ark_framework.runtime import open_runtime
    from ark_framework.transfer.candidate import open_candidate
    from ark_framework.transfer.datasets import Datasets
    from ark_framework.transfer.embed import Extractor, folder_of, write

    if out.suffix.lower() not in (".npz", ".csv") or out.exists():
        raise ConfigError(f"--out {out}: name a new .npz or .csv file")
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
