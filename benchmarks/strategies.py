"""Cyclic, concurrent and sequential pretraining, with and without consistency, compared.

Six arms on the phantom world, with equal optimizer steps and films.  Each arm takes its learning
rate from one grid on a seed of its own; then five paired seeds are reported.  What is finished is
kept in the folder given; the same command again does the rest, then writes
`benchmarks/results/strategies.json` and, from it alone, `docs/explanation/strategies.md`.

OMP_NUM_THREADS=1 python benchmarks/strategies.py --out FOLDER
python benchmarks/strategies.py --page-only
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from time import perf_counter

import numpy as np
from strategies_page import ARMS, MODELS, REFERENCE, Arm, Record, key, page

from ark_framework.builtin.phantom import VERSION, generator_hash
from ark_framework.errors import ArkError, RunError

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "strategies.json"
KEPT = "strategies.json"  # what is finished, in the folder given
PAGE = ROOT / "docs" / "explanation" / "strategies.md"

TASKS = ("phantom-north", "phantom-south", "phantom-east")
RATES = (0.01, 0.03, 0.1)
TUNING = 100
SEEDS = (0, 1, 2, 3, 4)
CYCLES, VISIT, BATCH = 16, 10, 24  # a visit's steps; a batch is three tasks' equal share
STEPS = CYCLES * VISIT * len(TASKS)
SHARE = 0.95  # the target: this much of the best that cyclic with consistency scored in tuning


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, help="folder for what is finished, and for films")
    parser.add_argument("--page-only", action="store_true", help="write the page from the results")
    given = parser.parse_args()
    if given.page_only == (given.out is not None):
        parser.error("give --out FOLDER to run, or --page-only")
    if given.out is not None:
        try:
            results = run_all(given.out)
        except ArkError as error:
            sys.exit(str(error))
        write(RESULTS, results)
    PAGE.write_text(page(json.loads(RESULTS.read_text("utf-8"))), "utf-8")
    print(f"written: {PAGE.relative_to(ROOT)}")


def run_all(out: Path) -> Record:
    """Do every run that `out` does not hold yet, the tuning first; the target lies between."""
    results = opened(out)
    for arm in ARMS:
        for rate in RATES:
            run_one(results, out, arm, rate, TUNING)
        results["rates"][arm.name] = best_rate(results["runs"], arm)
        print(f"{arm.name}: learning rate {results['rates'][arm.name]}", flush=True)
    results["target"] = target(results)
    for arm in ARMS:
        for seed in SEEDS:
            run_one(results, out, arm, results["rates"][arm.name], seed)
    results.setdefault("date", datetime.now(UTC).date().isoformat())
    write(out / KEPT, results)
    return results


def opened(out: Path) -> Record:
    """Return what is finished in `out`, or a beginning."""
    now: Record = {
        "generator": f"{VERSION}-{generator_hash()}",
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("ark-framework", "torch")},
        },
        "settings": json.loads(json.dumps(configuration(REFERENCE, RATES[0], TUNING))),
    }
    out.mkdir(parents=True, exist_ok=True)
    kept = out / KEPT
    known: Record = json.loads(kept.read_text("utf-8")) if kept.exists() else {**now, "runs": {}}
    for name, value in now.items():
        if known[name] != value:
            sys.exit(f"{out} holds runs of other {name}; give another folder")
    plan = {"grid": RATES, "tuning_seed": TUNING, "seeds": SEEDS, "share": SHARE}
    return {**known, **plan, "rates": {}}


def run_one(results: Record, out: Path, arm: Arm, rate: float, seed: int) -> None:
    from ark_framework.launch import train

    name = key(arm, rate, seed)
    if name in results["runs"]:
        return
    folder = out / "runs" / name.replace(", ", "-").replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)  # an interrupted one: its gradient norms are lost
    began = perf_counter()
    config = configuration(arm, rate, seed)
    config["store"]["folder"] = str(out / "store")
    try:
        with gradient_norms() as norms:
            train(config, out=folder)
    except RunError as error:
        if seed != TUNING:
            raise  # a rate that was chosen must hold
        results["runs"][name] = {"diverged": str(error).partition(" (")[0]}
        write(out / KEPT, results)
        print(f"{name}: {error}", flush=True)
        return
    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    record = summarize([json.loads(line) for line in lines], norms)
    shutil.rmtree(folder / "checkpoints")
    results["runs"][name] = record
    write(out / KEPT, results)
    scores = ", ".join(f"{model} {record[model]['last']:.3f}" for model in MODELS)
    print(f"{name}: {scores} ({perf_counter() - began:.0f} s)", flush=True)


def configuration(arm: Arm, rate: float, seed: int) -> Record:
    return {
        "plugins": ["ark-phantom"],
        "leaks": "drop",
        "strategy": arm.strategy,
        "cycles": CYCLES,
        "batch_size": BATCH,
        "seed": seed,
        # Fixed steps, not whole passes: every batch is full and every task has its equal share.
        "tasks": [{"dataset": name, "steps": VISIT} for name in TASKS],
        "data": {name: {"films": 1200, "size": 64} for name in TASKS},
        "store": {"size": 64, "workers": 1},
        "views": {"size": 56, "scale": [0.8, 1.0]},
        "model": {
            "backbone": "tiny",
            "options": {"width": 16},
            "projector": "linear",
            "features": 128,
        },
        "optim": {"name": "sgd", "lr": rate},
        "teacher": {"momentum": 0.5, "consistency_peak": 0.5 if arm.consistency else 0.0},
        "eval": {"every": 1, "forgetting_every": CYCLES // 4, "test": False},
        "log": {"tensorboard": False},
        "runtime": {"device": "cpu", "threads": 1},
    }


@contextmanager
def gradient_norms() -> Iterator[list[float]]:
    """Collect the norm of all gradients at every optimizer step."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    found: list[float] = []

    def note(optimizer: torch.optim.Optimizer, *_: object) -> None:
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        gradients = [each.grad for each in parameters if each.grad is not None]
        found.append(float(torch.nn.utils.get_total_norm(gradients)))

    handle = register_optimizer_step_pre_hook(note)
    try:
        yield found
    finally:
        handle.remove()


def summarize(events: Sequence[Record], norms: Sequence[float]) -> Record:
    """Return the numbers of a run; that it kept to the budget is checked here.

    Raises:
        RuntimeError: steps or films of a task are not those of every other arm.
    """
    steps = [each for each in events if each["event"] == "step"]
    films: Counter[str] = Counter()
    for each in steps:
        names = each["task"].split("+")
        films.update({name: each["images"] // len(names) for name in names})
    share = STEPS * BATCH // len(TASKS)
    if not len(steps) == len(norms) == STEPS or films != dict.fromkeys(TASKS, share):
        raise RuntimeError(f"not the budget: {len(steps)} steps, {len(norms)} norms, {films}")
    cycles = [each for each in events if each["event"] == "cycle" and each["scores"]]
    lost = [each for event in events if event["event"] == "task" for each in event["forgetting"]]
    quarters = np.array(norms).reshape(4, -1).mean(axis=1)
    record: Record = {"gradient": [round(float(each), 5) for each in quarters]}
    for model in MODELS:
        gone = [each["best"] - each["now"] for each in lost if each["model"] == model]
        record[model] = {
            **of_cycles(cycles, model),
            "between": round(float(np.mean(gone)), 5),
        }
    return record


def of_cycles(cycles: Sequence[Record], model: str) -> Record:
    """Return a model's scores at the ends of cycles: the curve of means, and how it ended."""
    scores = np.array(
        [[each["auroc"] for each in cycle["scores"] if each["model"] == model] for cycle in cycles]
    )
    means = scores.mean(axis=1)
    return {
        "curve": [
            [cycle["step"], round(float(mean), 5)]
            for cycle, mean in zip(cycles, means, strict=True)
        ],
        "last": round(float(means[-1]), 5),
        "tasks": [round(float(each), 5) for each in scores[-1]],
        "forgetting": round(float((scores.max(axis=0) - scores[-1]).mean()), 5),
    }


def best_rate(runs: Mapping[str, Record], arm: Arm) -> float:
    """Return the rate of the highest last score, the mean of student and teacher."""
    return max(RATES, key=lambda rate: tuned(runs, arm, rate))


def tuned(runs: Mapping[str, Record], arm: Arm, rate: float) -> float:
    run = runs[key(arm, rate, TUNING)]
    if "diverged" in run:
        return -math.inf
    return float(np.mean([run[model]["last"] for model in MODELS]))


def target(results: Record) -> float:
    run = results["runs"][key(REFERENCE, results["rates"][REFERENCE.name], TUNING)]
    best: float = max(mean for _, mean in run["student"]["curve"])
    return round(SHARE * best, 3)


def write(path: Path, results: Record) -> None:
    """Write results with one run a line, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {name: value for name, value in results.items() if name != "runs"}
    runs = ",\n".join(f"  {json.dumps(n)}: {json.dumps(run)}" for n, run in results["runs"].items())
    head = json.dumps(about, indent=1).removesuffix("\n}")
    beside = path.with_suffix(".part")
    beside.write_text(f'{head},\n "runs": {{\n{runs}\n }}\n}}\n', "utf-8")
    beside.replace(path)


if __name__ == "__main__":
    main()
