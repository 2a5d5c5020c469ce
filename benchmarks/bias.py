"""Whether the audit by sex finds bias that was planted, and is silent where there is none.

A small network is pretrained on a drawn hospital and frozen.  Each seed draws patients of its own;
each kind of planting is then an audit as ``ark fairness`` does it: a linear probe on the training
films' embeddings, cuts from validation films, gaps between the sexes on test films, Holm over all
labels.  Null audits deal the sexes out anew among the patients of predictions where nothing is
planted.  What is done already under ``--out`` is not done again.

python benchmarks/bias.py --out runs/bias
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import bias_page
import numpy as np
import pandas as pd
import torch
from planted import FINDING, KINDS, NOTHING, PREVALENCE, SIDE, make, picture, planted_hash, sex

from ark_framework import LabelSchema, launch, pretrained
from ark_framework.builtin.phantom import VERSION, generator_hash
from ark_framework.builtin.phantom.case import FINDINGS, Case
from ark_framework.config import RuntimeConfig
from ark_framework.exposure import NO
from ark_framework.fairness.audit import audit
from ark_framework.fairness.predictions import SCORE, Predictions
from ark_framework.fairness.settings import FairnessConfig
from ark_framework.pretrained import Pretrained
from ark_framework.runtime import open_runtime
from ark_framework.statistics import TESTED
from ark_framework.transfer.linear import Problems, solve
from ark_framework.transfer.probe import probabilities, standardized

RESULT = Path(__file__).parent / "results" / "bias.json"
PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "bias.md"
# Whole turns of the generator's visits, 15 films of 8 patients, so no patient is in two splits.
# 1,500 test films have some 200 with the planted finding of each sex: a gap in FNR then has a
# standard error of about 0.045, and Holm over 18 tests asks for three of them.
FILMS = {"train": 600, "val": 300, "test": 1500}
FIRST_KEY = 2_000_000  # of the seeds' hospitals; what is planted was chosen on those from 1_000_000
SEEDS, DEALINGS = 100, 2
C = 0.01
PRETRAINING: Mapping[str, Any] = {
    "plugins": ["ark-phantom"],
    "tasks": [{"dataset": "phantom-north", "steps": 50}],
    "data": {"phantom-north": {"films": 6000, "size": SIDE}},
    "leaks": "allow",
    "cycles": 20,
    "batch_size": 32,
    "seed": 0,
    "store": {"size": SIDE},
    "views": {"size": SIDE, "scale": [0.8, 1.0]},
    "model": {
        "backbone": "tiny",
        "options": {"width": 16},
        "projector": "linear",
        "features": 128,
        "init": "random",
    },
    "optim": {"name": "adamw", "lr": 0.002, "weight_decay": 0.02},
    "teacher": {"momentum": 0.5},
    "eval": {"every": 0},
}
ASKED = FairnessConfig(models={}, by=("sex",))
SCHEMA = LabelSchema(name="phantom-findings", kind="multilabel", labels=FINDINGS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the network and every audit")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="audits of each kind")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    given = parser.parse_args()
    pretrain(given.out)
    with ProcessPoolExecutor(given.workers, multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(partial(measured, given.out), range(given.seeds)))
        clear = list(pool.map(partial(measured_without, given.out), range(given.seeds)))
    result = summary(given.out, found, clear)
    write(RESULT, bias_page.lines(result))
    write(PAGE, bias_page.page(result))
    print(bias_page.tables(result))


def world() -> dict[str, str]:
    """Return what names the drawings."""
    return {"generator": f"{VERSION}-{generator_hash()}", "planted": planted_hash()}


def settings() -> dict[str, Any]:
    """Return what an audit depends on beside its seed."""
    asked = {"cuts": ASKED.cuts.model_dump(), "replicates": ASKED.replicates}
    films = {"films": FILMS, "first key": FIRST_KEY, "dealings": DEALINGS, "C": C}
    return {**world(), **films, **asked, "pretraining": dict(PRETRAINING)}


def folder(out: Path) -> Path:
    """Return where work with these settings lies."""
    digest = hashlib.sha256(json.dumps(settings(), sort_keys=True).encode())
    return out / digest.hexdigest()[:12]


def pretrain(out: Path) -> None:
    """Pretrain the network, once; a run that was cut short begins again."""
    kept = folder(out)
    if (kept / "network.json").is_file():
        return
    shutil.rmtree(kept / "network", ignore_errors=True)
    machine = {
        "store": {**PRETRAINING["store"], "folder": str(out / "stores"), "workers": 1},
        "log": {"tensorboard": False},
        "runtime": {"threads": 1, "device": "cpu"},
    }
    began = process_time()
    result = launch.train({**PRETRAINING, **machine}, out=kept / "network")
    areas = next(each.labels for each in result.scores if each.model == "teacher")
    told = {"CPU seconds": round(process_time() - began, 1), "auroc": areas}
    write(kept / "network.json", json.dumps(told))


def measured(out: Path, seed: int) -> dict[str, Any]:
    """Return what the audits of one seed found, by kind, and those of dealt-out sexes."""
    path = folder(out) / "audits" / f"{seed:03d}.json"
    if not path.is_file():
        began = process_time()
        open_runtime(RuntimeConfig(device="cpu", threads=1))
        embed = Embedder(network=pretrained.load(folder(out) / "network"))
        made = {kind: predictions(kind, seed, embed) for kind in KINDS}
        found = {
            "audits": {kind: audited(each) for kind, each in made.items()},
            "dealt": [audited(each) for each in dealt(made[NOTHING], seed)],
            "CPU seconds": round(process_time() - began, 1),
        }
        write(path, json.dumps(found))
        print(f"seed {seed}: {found['CPU seconds']:.0f} CPU s", flush=True)
    kept: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return kept


def measured_without(out: Path, seed: int) -> dict[str, Any]:
    """Return what the audit of one seed finds on other labels where their mix is the same.

    A finding that is more frequent in women is so among the negative films of every other label.
    """
    path = folder(out) / "without" / f"{seed:03d}.json"
    if not path.is_file():
        began = process_time()
        open_runtime(RuntimeConfig(device="cpu", threads=1))
        embed = Embedder(network=pretrained.load(folder(out) / "network"))
        audit = audited(without(predictions(PREVALENCE, seed, embed), FINDING[PREVALENCE]))
        found = {"audit": audit, "CPU seconds": round(process_time() - began, 1)}
        write(path, json.dumps(found))
        print(f"seed {seed}: {found['CPU seconds']:.0f} CPU s", flush=True)
    kept: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return kept


def without(films: Predictions, finding: str) -> Predictions:
    """Return the films that do not show a finding, and the other labels."""
    frame = films.frame[films.frame[finding] == 0].reset_index(drop=True)
    return replace(
        films, frame=frame, labels=tuple(each for each in films.labels if each != finding)
    )


@dataclass(kw_only=True)
class Embedder:
    """The network, which embeds a film once: the kinds of a seed share most of theirs."""

    network: Pretrained
    known: dict[bytes, np.ndarray] = field(default_factory=dict)

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """Return pooled features ``(n, D)`` of films ``(n, S, S)`` uint8."""
        names = [each.tobytes() for each in pictures]
        pairs = zip(names, pictures, strict=True)
        new = {name: each for name, each in pairs if name not in self.known}
        if new:
            views = np.stack([*new.values()])[:, None].astype(np.float32) / 255
            self.known |= dict(zip(new, self.network.embed(views, projected=False), strict=True))
        return np.stack([self.known[name] for name in names])


def predictions(
    kind: str,
    seed: int,
    embed: Callable[[np.ndarray], np.ndarray],
    *,
    films: Mapping[str, int] = FILMS,
) -> Predictions:
    """Fit probes to the training films and let them answer the others.

    Args:
        kind: What is planted.
        seed: Of the patients.
        embed: Films ``(n, S, S)`` uint8 to features ``(n, D)``.
        films: How many each split has.
    """
    cases = [make(kind, FIRST_KEY + seed, film) for film in range(sum(films.values()))]
    embeddings = embed(np.stack([picture(kind, case) for case in cases]))
    x = standardized(embeddings, np.arange(films["train"]), torch.device("cpu"))
    targets = np.array([[name in case.findings for name in FINDINGS] for case in cases], np.float32)
    train = slice(films["train"])
    fitted = solve(Problems.grid(x[train], torch.from_numpy(targets[train]), c=(C,)))
    scores = probabilities(x, fitted.coef, fitted.intercept, exclusive=False)
    frame = pd.DataFrame(_facts(cases)).assign(split=np.repeat([*films], [*films.values()]))
    for number, name in enumerate(FINDINGS):
        frame[name], frame[f"{SCORE}{name}"] = targets[:, number], scores[:, number]
    return Predictions(
        model="probe",
        dataset=kind,
        schema=SCHEMA,
        labels=FINDINGS,
        frame=frame[films["train"] :].reset_index(drop=True),
        answers="probe",
    )


def _facts(cases: Sequence[Case]) -> Iterator[dict[str, Any]]:
    for case in cases:
        yield {
            "image": f"{case.film:06d}",
            "patient": str(case.patient),
            "sex": sex(case),
            "age": float(case.age),
            "view": case.view,
            "trained_on": NO,
        }


def dealt(films: Predictions, seed: int) -> Iterator[Predictions]:
    """Yield the predictions with the sexes dealt out anew among the patients of each split."""
    for number in range(DEALINGS):
        rng = np.random.default_rng([seed, number])
        frame = films.frame.copy()
        for _, rows in frame.groupby("split").groups.items():
            sexes = frame.loc[rows].groupby("patient")["sex"].first()
            anew = pd.Series(rng.permutation(sexes.to_numpy()), index=sexes.index)
            frame.loc[rows, "sex"] = frame.loc[rows, "patient"].map(anew)
        yield replace(films, frame=frame)


def audited(films: Predictions) -> dict[str, dict[str, Any]]:
    """Return each label's tested gaps and rates by sex, and its films of each sex."""
    found = audit(films, ASKED)
    of = found.scores[found.scores["attribute"] == "sex"]
    told: dict[str, dict[str, Any]] = {}
    for label in films.labels:
        rows = found.gaps[found.gaps["label"] == label].set_index("measure")
        gaps = rows.loc[[*TESTED], ["value", "low", "high", "p_holm"]]
        rates = of[of["label"] == label].pivot(index="group", columns="measure", values="value")
        told[label] = {
            "gaps": dict(zip(TESTED, _rounded(gaps.to_numpy()), strict=True)),
            "rates": dict(zip("FM", _rounded(rates.loc[["F", "M"], [*TESTED]]), strict=True)),
            "positives": [int(rows[f"{side}_positives"].iloc[0]) for side in ("first", "second")],
        }
    return told


def _rounded(values: Any) -> list[list[float | None]]:
    """Return rows of numbers for JSON: six digits, nothing where nothing is claimed."""
    return [
        [float(f"{number:.6g}") if np.isfinite(number) else None for number in row]
        for row in np.asarray(values, dtype=np.float64)
    ]


def summary(
    out: Path, found: Sequence[Mapping[str, Any]], clear: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return how it was made and, of each audit, what :mod:`bias_page` counts."""
    network = json.loads((folder(out) / "network.json").read_text("utf-8"))
    spent = network["CPU seconds"] + sum(each["CPU seconds"] for each in [*found, *clear])
    return {
        **settings(),
        "seeds": len(found),
        "network": network["auroc"],
        "CPU seconds": round(spent),
        "audits": {
            kind: [bias_page.kept(each["audits"][kind], kind) for each in found] for kind in KINDS
        },
        "mean gaps": {
            **{kind: bias_page.mean_gaps([e["audits"][kind] for e in found]) for kind in KINDS},
            "without": bias_page.mean_gaps([each["audit"] for each in clear]),
        },
        "without": [bias_page.kept(each["audit"], NOTHING) for each in clear],
        "dealt": [bias_page.kept(each, NOTHING) for seed in found for each in seed["dealt"]],
    }


def write(path: Path, text: str) -> None:
    """Write text beside and put it in place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


if __name__ == "__main__":
    main()
