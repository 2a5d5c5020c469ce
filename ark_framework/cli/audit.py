"""``ark data audit``: the same film, or the same patient, in two places."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ark_framework.cli.choice import Chosen, choose, choosing
from ark_framework.cli.console import console as open_console
from ark_framework.cli.console import sheet
from ark_framework.cli.packing import PackingBar
from ark_framework.cli.plain import echo
from ark_framework.cli.words import WordsCommand
from ark_framework.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from ark_framework.audit import Audit, Audited


@click.command("audit", cls=WordsCommand)
@choosing
@click.option(
    "--declared", is_flag=True, help="Compare declared identities alone; no film is read."
)
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Also write the table as a page, to a new file.",
)  # fmt: skip
@click.option(
    "--pairs", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Also write every shared film's rows as CSV; it names films, so keep it to yourself.",
)  # fmt: skip
def audit(
    data: tuple[str, ...],
    as_json: bool,
    declared: bool,
    html: Path | None,
    pairs: Path | None,
    **given: Any,
) -> None:
    """Find films and patients that two datasets or two splits share.

    Films are one where the datasets say so or where their pixels do: re-encoded, resized, of
    another exposure, or cropped by up to 4 %.

    \b
    ark data audit --plugins ark-chestxray14 ark-rsna --html audit.html
    """
    from ark_framework import audit as auditing
    from ark_framework.report import page

    if given["limit"] is not None:
        raise ConfigError("--limit is not for data audit, which takes all films")
    if html is not None:
        page.check(html)
    if pairs is not None and pairs.exists():
        raise ConfigError(f"{pairs} exists and is not overwritten; choose another --pairs")
    console = open_console(stderr=as_json)
    with PackingBar(console) as report:
        chosen = choose(data, **given)
        found = auditing.audit(
            [_open(chosen, name, report, declared=declared) for name in _names(chosen)],
            progress=lambda done, total: report.show("comparing stores", done, total),
        )
    summary = _summary(chosen, found)
    if html is not None:
        page.write(html, page.render("audit.html", **summary))
    if pairs is not None:
        _shared(found).to_csv(pairs, index=False)
    if as_json:
        echo(json.dumps(summary, indent=1))
    else:
        _show(console, summary)


def _names(chosen: Chosen) -> list[str]:
    return [spec.name for spec in chosen.specs]


def _open(chosen: Chosen, name: str, report: PackingBar, *, declared: bool) -> Audited:
    from ark_framework.audit import Audited

    spec = chosen.registry.dataset(name)
    table, options = chosen.read(spec)
    if declared:
        return Audited(table=table)
    store = chosen.pack(spec, options, table, report=lambda done, total: report(name, done, total))
    return Audited(table=table, store=store, index=store.rows(table.frame["image"].tolist()))


def _summary(chosen: Chosen, found: Audit) -> dict[str, Any]:
    """Return what an audit found as plain data, without a film's or a patient's name."""
    from ark_framework.audit import OVERLAP

    used = found.frame[found.frame["split"].notna()]
    sizes = used.groupby(["dataset", "split"], sort=False).agg(
        films=("film", "size"), patients=("patient", "nunique")
    )
    trained = {
        spec.name: found.frame.loc[
            (found.frame["dataset"] == spec.name) & (found.frame["split"] == "train"), "row"
        ].to_numpy()
        for spec in chosen.specs
    }
    leaks = found.leaks(trained)
    return {
        "datasets": {spec.name: spec.card.title for spec in chosen.specs},
        "cells": sizes.reset_index().to_dict("records"),
        "overlaps": found.overlaps()[list(OVERLAP)].to_dict("records"),
        "declared_pairs": found.declared,
        "pixel_pairs": found.pixels,
        "declared_only": list(found.unseen),
        "narrow": [" and ".join(pair) for pair in found.narrow],
        "training_films_held_out": leaks.film_count,
        "training_films_of_held_out_patients": leaks.patient_count,
    }


def _shared(found: Audit) -> pd.DataFrame:
    """Return the rows of every film that stands in more than one place, film by film."""
    frame = found.frame[found.frame["film"].duplicated(keep=False)]
    return frame.sort_values(["film", "dataset", "row"])[["film", "dataset", "split", "image"]]


def _show(console: Console, found: dict[str, Any]) -> None:
    table = sheet("dataset", "split", "is also in", "split", "films", "patients")
    for row in found["overlaps"]:
        cells = [row[name] for name in ("dataset", "split", "other_dataset", "other_split")]
        table.add_row(*cells, f"{row['films']:,}", f"{row['patients']:,}")
    if found["overlaps"]:
        console.print(table)
    said = [
        f"{found['declared_pairs']:,} pairs of one film by what the datasets declare, "
        f"{found['pixel_pairs']:,} more by pixels",
        f"{found['training_films_held_out']:,} training films are in a val or test split, "
        f"{found['training_films_of_held_out_patients']:,} are of patients who are",
    ]
    said += [f"{name}: known by what it declares alone" for name in found["declared_only"]]
    said += [
        f"{pair}: so large that only re-encoded films were searched for" for pair in found["narrow"]
    ]
    for line in said:
        console.print(line, highlight=False, soft_wrap=True)
