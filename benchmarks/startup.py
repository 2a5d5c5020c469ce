"""Seconds of `ark train` from its call to its first step, on a packed store of a million films.

The store is real in format and sparse on the disk; its files are a thousand small ones under a
thousand folder links, so that every film's path leads to a file.  A plugin that is written for
this reads the table from a CSV, and its hook on the start of the run ends the process.  `import
torch, torchvision, timm` is measured before, in the same process, and left out.

python benchmarks/startup.py --rows 1000000
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
from measuring import parser, report, rounded

from ark_framework import prints, registry, store, twins
from ark_framework.annotations import validate

FOLDER = 1000  # films in each
SIDE = 16
GOAL = 3.0
LABELS = ("left", "right")
PLUGIN = f"""
import json, os, time
from pathlib import Path
import pandas as pd
from pydantic import BaseModel, ConfigDict
from ark_framework import DatasetCard, DatasetSpec, LabelSchema, hookimpl

class Options(BaseModel):
    model_config = ConfigDict(frozen=True)
    root: Path

spent = [0.0, 0.0]

def read(options):
    began = time.perf_counter(), time.process_time()
    frame = pd.read_csv(options.root / "labels.csv")
    spent[:] = time.perf_counter() - began[0], time.process_time() - began[1]
    return frame

SPEC = DatasetSpec(
    name="million", schema=LabelSchema(name="million", kind="multilabel", labels={LABELS!r}),
    options=Options, read=read, fixture=lambda folder: Options(root=folder),
    card=DatasetCard(title="Million", home="none", licence="none", access="open", citation="none"),
)

@hookimpl
def ark_datasets():
    return [SPEC]

@hookimpl
def ark_run_started(event):
    began = json.loads(os.environ["BEGAN"])
    clock, processor = time.perf_counter() - began[0], time.process_time() - began[1]
    print(json.dumps({{"clock": clock, "processor": processor, "read": spent}}), flush=True)
    if "profile" in os.environ:
        import __main__
        __main__.stop()
    os._exit(0)
"""
CALL = """
import json, os, sys, time
began = time.perf_counter()
import torch, torchvision, timm
print(json.dumps({"imports": time.perf_counter() - began}), flush=True)
os.environ["BEGAN"] = json.dumps([time.perf_counter(), time.process_time()])
if "profile" in os.environ:
    import cProfile, pstats
    profiler = cProfile.Profile()
    profiler.enable()
    def stop():
        profiler.disable()
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(40)
from ark_framework.cli import run
sys.exit(run(sys.argv[1:]))
"""


def main() -> None:
    given_parser = parser(__doc__)
    given_parser.add_argument("--rows", type=int, default=1_000_000)
    given_parser.add_argument("--profile", action="store_true", help="say where the time goes")
    given = given_parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        make_world(folder, given.rows)
        start(folder, -1)  # compiles
        runs = [start(folder, turn) for turn in range(given.turns)]
        if given.profile:
            start(folder, given.turns, profile="1")
    found = {key: median(each[key] for each in runs) for key in runs[0]}
    report(
        "startup",
        given,
        {
            "rows": given.rows,
            "import torch, torchvision, timm": rounded(found["imports"]),
            "seconds beyond it": rounded(found["clock"]),
            "of them in the plugin's own read": rounded(found["read"]),
            "processor seconds beyond it": rounded(found["processor"]),
            "of those in the plugin's own read": rounded(found["read processor"]),
            "goal": GOAL,
            "met": found["clock"] < GOAL,
            "met in processor seconds": found["processor"] < GOAL,
        },
    )


def make_world(folder: Path, rows: int) -> None:
    """Write the plugin, the files, the CSV and the packed store."""
    site, films = folder / "site", folder / "films"
    info = site / "ark_million-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ark-million\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\nark-million = ark_million\n")
    (site / "ark_million.py").write_text(PLUGIN)
    (films / "00000").mkdir(parents=True)
    for film in range(min(FOLDER, rows)):
        (films / "00000" / f"{film:05d}.png").write_bytes(b"film")
    for number in range(1, -(-rows // FOLDER)):
        (films / f"{number:05d}").symlink_to("00000")
    labels = np.random.default_rng(0).integers(0, 2, (rows, len(LABELS)))
    with (films / "labels.csv").open("w") as file:
        file.write(f"image,patient,split,{','.join(LABELS)}\n")
        for row, (left, right) in enumerate(labels.tolist()):
            split = "val" if row % 100 < 2 else "train"  # a patient has two films
            image = f"{row // FOLDER:05d}/{row % FOLDER:05d}.png"
            file.write(f"{image},p{row // 2},{split},{left},{right}\n")
    pack(folder)


def pack(folder: Path) -> None:
    """Write the store of the plugin's films, its hashes, and an audit that found nothing."""
    sys.path.insert(0, str(folder / "site"))
    plugins = registry.load(["ark-million"])
    spec = plugins.dataset("million")
    options = spec.options.model_validate({"root": folder / "films"})
    table = validate(spec.read(options), dataset=spec.name, schema=plugins.schema_of(spec, options))
    source = store.Source(
        spec=spec, options=options, images=tuple(table.films), size=SIDE, fit="squash"
    )
    path = make_store(source, folder / "stores", *source.stats())
    shape = (len(table), len(prints.WINDOWS), prints.BITS // 8)
    hashes = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.save(path / f"prints-{prints.VERSION}.npy", hashes)
    opened = store.open_store(path)
    nothing = np.zeros((0, 2), dtype=np.int64)
    with patch.object(twins, "_twins", return_value=nothing):
        twins.twins(opened, opened)


def make_store(source: store.Source, folder: Path, sizes: np.ndarray, times: np.ndarray) -> Path:
    """Write the store that packing would, of black films that take no room on the disk."""
    fingerprint = source.fingerprint(sizes)
    path = folder / f"{source.spec.name}-{fingerprint}"
    path.mkdir(parents=True)
    shape = (len(sizes), 1, source.size, source.size)
    np.lib.format.open_memmap(path / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    store.write_table(path, source, sizes, times)
    manifest = {
        "version": store.STORE_VERSION,
        "dataset": source.spec.name,
        "reader": source.spec.reader_version,
        "fingerprint": fingerprint,
        "key": source.key(),
        "films": len(sizes),
        "size": source.size,
        "channels": 1,
        "fit": source.fit,
        "bad": {},
        "sha256": "",
    }
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def start(folder: Path, turn: int, **more: str) -> dict[str, Any]:
    """Start a run and return what it said when its first step was next."""
    environment = {
        **os.environ,
        **more,
        "PYTHONPATH": os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")]),
        "ARK_CONFIG_HOME": str(folder / "config"),
        "PYTHONPYCACHEPREFIX": str(folder / "compiled"),  # as pip compiles what it installs
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    words = [
        "train", "--plugins", "ark-million", "--data", f"million={folder / 'films'}",
        "--store", str(folder / "stores"), "--out", str(folder / f"run-{turn}"),
        "--set", f"store.size={SIDE}", "--set", f"views.size={SIDE}",
        "--set", "model.backbone=tiny", "--set", "model.options={width: 4}",
        "--set", "model.init=random", "--set", "log.tensorboard=false",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", CALL, *words],
        env=environment, check=False, text=True, capture_output=True,
    )  # fmt: skip
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if len(said) < 2:
        raise SystemExit(f"the run ended before its first step:\n{done.stdout}\n{done.stderr}")
    if more:
        print(done.stderr, file=sys.stderr)
    return {
        **{key: value for each in said for key, value in each.items() if key != "read"},
        "read": said[1]["read"][0],
        "read processor": said[1]["read"][1],
    }


if __name__ == "__main__":
    main()
