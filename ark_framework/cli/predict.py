"""``ark predict``: a table of probabilities for films, or masks of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ark_framework.cli import candidates
from ark_framework.cli.plain import echo
from ark_framework.cli.prediction import Output, may_fill
from ark_framework.errors import ConfigError

if TYPE_CHECKING:
    from ark_framework.pretrained import Pretrained
    from ark_framework.transfer.mask_files import MasksAs
    from ark_framework.transfer.saliency import Gallery

# Options by parameter that are of probabilities alone.
OF_LABELS = {
    "tasks": "--tasks",
    "scores": "--score",
    "saliency": "--saliency",
    "asked": "--for",
    "raw": "--raw-maps",
    "workers": "--workers",
}


@click.command("predict")
@click.argument("model", type=click.Path(path_type=Path), shell_complete=candidates.models)
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--list",
    "listed",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also the films in a text file, one a line, or in a CSV's column image or path.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The table to write; else to stdout.")
@click.option(
    "--overwrite", is_flag=True, help="Write over what is at --out, --saliency and --masks."
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON, an object a line, not CSV.")
@click.option("--tasks", multiple=True, metavar="TASK,...", help="Heads to show; all by default.")
@click.option(
    "--score",
    "scores",
    multiple=True,
    metavar="[NAME=]TASK:LABEL[+...]",
    help="Add a column: an output, or the mean of several. May be repeated.",
)
@click.option(
    "--saliency",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Also write where in each film an output comes from, as pictures.",
)
@click.option("--for", "asked", metavar="TASK:LABEL", help="The output for --saliency.")
@click.option("--raw-maps", "raw", is_flag=True, help="Beside each picture its map, as .npy.")
@click.option(
    "--masks",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Write masks and pictures of them; MODEL is then a network of ark segment --keep.",
)
@click.option(
    "--masks-as",
    type=click.Choice(["png", "npz"]),
    help="A PNG for each structure, as by default, or an NPZ for each film.",
)
@click.option(
    "--max-bad",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Unreadable films to put up with; more of them give exit code 3.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processes that decode; else all cores."
)
@click.option("--device", help="Where the model computes; else the GPU where there is one.")
def predict(
    model: Path,
    images: tuple[Path, ...],
    listed: Path | None,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    masks: Path | None,
    masks_as: MasksAs | None,
    max_bad: int,
    device: str | None,
    **of_labels: Any,
) -> None:
    """Write a table of probabilities for films, one row each; or masks, and a table of areas.

    MODEL is a run, a checkpoint, or the folder of an import or export; with --masks, a folder below
    OUT/models of ark segment --keep.  IMAGES are files (PNG, JPEG, TIFF, DICOM) and folders,
    searched with all that is below them.  A film that cannot be read keeps its row, without numbers
    and with the reason in the last column.  Research use only.

    \b
    ark predict runs/first films/ --out table.csv
    ark predict models/ark6 films/ --score tb=vindr:Tuberculosis+shenzhen:TB
    ark predict masks/jsrt/models/NETWORK films/ --masks found --out areas.csv
    """
    from ark_framework.transfer.films import find

    if not images and listed is None:
        raise ConfigError("name films, folders, or a --list of films")
    names = find(images, listed=listed)
    total = sum(1 for _ in find(images, listed=listed))  # a look at names alone
    output = Output(out=out, as_json=as_json, max_bad=max_bad, total=total)
    output.check(overwrite=overwrite)
    for option, folder in (("--saliency", of_labels["saliency"]), ("--masks", masks)):
        if folder is not None:
            may_fill(option, folder, images, overwrite=overwrite)
    _one_kind(model, masks, masks_as, of_labels)
    if masks is None:
        _probabilities(model, names, output, device, **of_labels)
    else:
        _masks(model, names, output, device, folder=masks, masks_as=masks_as or "png")


def _one_kind(
    model: Path, masks: Path | None, masks_as: MasksAs | None, of_labels: dict[str, Any]
) -> None:
    """Refuse what belongs to masks of a model with heads, and the other way round."""
    from ark_framework.transfer.segmenter import is_segmenter

    if masks is None:
        if masks_as:
            raise ConfigError("--masks FOLDER is missing, for --masks-as")
        if is_segmenter(model):
            raise ConfigError(f"{model} finds masks and has no heads; give --masks FOLDER")
        return
    wrong = [OF_LABELS[name] for name, value in of_labels.items() if value]
    if wrong:
        raise ConfigError(f"{wrong[0]} is of probabilities; leave it or --masks out")
    if not is_segmenter(model):
        raise ConfigError(
            f"--masks: {model} does not find masks; give a folder below OUT/models of: ark segment "
            "--keep"
        )


def _probabilities(
    model: Path,
    names: Iterable[str],
    output: Output,
    device: str | None,
    *,
    tasks: Sequence[str],
    scores: Sequence[str],
    saliency: Path | None,
    asked: str | None,
    raw: bool,
    workers: int | None,
) -> None:
    from ark_framework.pretrained import load
    from ark_framework.transfer.predict import Layout, choose
    from ark_framework.transfer.predict import predict as predicted
    from ark_framework.transfer.zeroshot import parse_score

    loaded = load(model, device=_device(device))
    layout = Layout(
        tasks=choose(loaded, [name for each in tasks for name in each.split(",") if name]),
        scores=tuple(parse_score(each, loaded.tasks) for each in scores),
        pictures=saliency is not None,
    )
    gallery = _gallery(loaded, saliency, asked, raw=raw)
    _say_unnamed(loaded)
    with output.opened() as file:
        for found in predicted(loaded, names, workers=workers):
            pictures = gallery.hang(found) if gallery else ()
            output.add(layout.rows(found, pictures), found.problems, file)
    output.close()


def _masks(
    model: Path,
    names: Iterable[str],
    output: Output,
    device: str | None,
    *,
    folder: Path,
    masks_as: MasksAs,
) -> None:
    import pandas as pd

    from ark_framework.transfer.mask_files import MaskFolder
    from ark_framework.transfer.segmenter import load

    masks = MaskFolder(folder, load(model, device=_device(device)), masks_as=masks_as)
    with output.opened() as file:
        for name in names:
            row = masks.add(name)
            problems = {name: row["problem"]} if row["problem"] else {}
            output.add(pd.DataFrame([row]), problems, file)
    output.close()


def _device(name: str | None) -> Any:
    from ark_framework.config import RuntimeConfig
    from ark_framework.runtime import open_runtime

    return open_runtime(RuntimeConfig(device=name)).device


def _gallery(
    model: Pretrained, folder: Path | None, asked: str | None, *, raw: bool
) -> Gallery | None:
    if (folder is None) != (asked is None) or (raw and folder is None):
        raise ConfigError("--saliency FOLDER and --for TASK:LABEL are given together")
    if folder is None or asked is None:
        return None
    from ark_framework.transfer.saliency import Gallery
    from ark_framework.transfer.zeroshot import parse_score

    parts = parse_score(asked, model.tasks).parts
    if len(parts) > 1:
        raise ConfigError(f"--for {asked}: one output, not a mean of several")
    return Gallery(folder, model, parts[0], raw=raw)


def _say_unnamed(model: Pretrained) -> None:
    unnamed = [task.name for task in model.tasks if not task.named]
    if unnamed:
        echo(f"names not known: heads {', '.join(unnamed)} and their labels", err=True)
