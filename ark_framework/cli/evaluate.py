"""``ark eval``: a model's own heads on datasets, label by label, with intervals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ark_framework.cli import candidates
from ark_framework.cli.console import console as open_console
from ark_framework.cli.console import sheet
from ark_framework.cli.packing import PackingBar
from ark_framework.cli.plain import echo
from ark_framework.cli.settings import reading, roots
from ark_framework.cli.studying import datasets_of
from ark_framework.cli.words import WordsCommand
from ark_framework.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from ark_framework.transfer.evaluate import Evaluation


@click.command("eval", cls=WordsCommand)
@click.argument("model", shell_complete=candidates.models)
@reading
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of the tables and every film's predictions.",
)
@click.option(
    "--split",
    type=click.Choice(["test", "val", "train"]),
    default="test",
    show_default=True,
    help="Which films of each dataset.",
)
@click.option("--head", help="The head to score; the dataset's own by default.")
@click.option(
    "--score",
    "scores",
    multiple=True,
    metavar="LABEL=TASK:LABEL",
    help="Outputs whose mean answers a label: 'TB=vindr:Tuberculosis+shenzhen:TB'.",
)
@click.option("--tencrop", is_flag=True, help="Mean over ten crops of each film.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def evaluate(
    model: str,
    data: tuple[str, ...],
    out: Path,
    split: str,
    head: str | None,
    scores: tuple[str, ...],
    tencrop: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Score MODEL, a run, an import or an export, on a split of each dataset.

    Says which of the films the model was trained on.  Nothing is trained, and nothing chosen.

    \b
    ark eval runs/first --plugins ark-rsna --tasks rsna --out scores/rsna
    """
    from ark_framework.runtime import open_runtime
    from ark_framework.transfer import evaluate as evaluating
    from ark_framework.transfer.candidate import open_candidate
    from ark_framework.transfer.datasets import Datasets

    console = open_console(stderr=as_json)
    config = datasets_of(**given)
    candidate = open_candidate(model)
    if not candidate.plan.tasks:
        raise ConfigError(f"{model} has no heads to score; see: ark probe, ark finetune")
    runtime = open_runtime(config.runtime)
    found = {}
    with PackingBar(console) as progress:
        datasets = Datasets(config=config, roots=roots(data), progress=progress, say=console.print)
        for name in datasets.names():
            corpus = datasets.open(name, candidate)
            result = evaluating.evaluate(
                candidate,
                corpus,
                split,
                evaluating.answers(candidate.plan.tasks, corpus, head=head, given=scores),
                runtime=runtime,
                tencrop=tencrop,
                limit=config.limit,
                progress=progress.scoring,
            )
            _write(out, f"{name}-{split}", result)
            found[name] = result
            if not as_json:
                _show(console, result)
    if as_json:
        echo(json.dumps({name: _plain(each) for name, each in found.items()}, indent=1))
    console.print(f"tables and predictions: {out}", highlight=False, soft_wrap=True)


def _write(out: Path, name: str, result: Evaluation) -> None:
    from ark_framework.run import write_text

    (out / "predictions").mkdir(parents=True, exist_ok=True)
    write_text(out / f"{name}.csv", result.table.to_csv(index=False))
    write_text(out / f"{name}.json", json.dumps(_plain(result), indent=1) + "\n")
    write_text(out / "predictions" / f"{name}.csv", result.predictions.to_csv(index=False))


def _plain(result: Evaluation) -> dict[str, Any]:
    unseen = result.unseen
    return {**result.outcome.to_json(), "unseen": None if unseen is None else unseen.to_json()}


COUNTS = ("positives", "negatives")


def _show(console: Console, result: Evaluation) -> None:
    from ark_framework.statistics import FEW

    found = result.outcome
    about = f"{found.model} on {found.dataset}, {found.setting['split']}: {found.films} films"
    table = sheet("label", "positives", "negatives", "AUROC", "average precision", title=about)
    by_label = result.table.set_index(["label", "metric"])
    for label in result.table["label"].unique():
        area = by_label.loc[(label, "auroc")]
        counts = ["" if area[name] != area[name] else f"{area[name]:.0f}" for name in COUNTS]
        table.add_row(
            label, *counts, _number(area), _number(by_label.loc[(label, "average_precision")])
        )
    console.print(table)
    if ("mean", "accuracy") in by_label.index:
        console.print(f"accuracy {_number(by_label.loc[('mean', 'accuracy')])}", highlight=False)
    methods = ", ".join(dict.fromkeys(result.table["method"]))
    console.print(f"95 % intervals: {methods}; none below {FEW} of a class", highlight=False)
    films = found.trained_on["films"]
    console.print(
        f"trained on: {films['yes']} of these films, not on {films['no']}, unknown for "
        f"{films['unknown']}",
        highlight=False,
    )
    if result.unseen is not None:
        console.print(
            f"mean AUROC on the {result.unseen.films} films of patients it was not trained on: "
            f"{result.unseen.auroc:.3f}",
            highlight=False,
        )


def _number(row: Any) -> str:
    if row["value"] != row["value"]:
        return "-"
    if row["low"] != row["low"]:
        why = str(row["note"]).removeprefix("not estimable: ").partition(",")[0]
        return f"{row['value']:.3f} ({why})"
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
