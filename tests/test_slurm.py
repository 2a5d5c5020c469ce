"""The SLURM examples: what they would start is understood by what they start."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import click
import pytest

from ark_framework.cli import ark
from ark_framework.cli.data import pack
from ark_framework.cli.train import train

FOLDER = Path(__file__).parents[1] / "examples" / "slurm"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
# Stand-ins: srun starts what it is given; the others say how they were called.
SHIM = '#!/bin/bash\nprintf "%q " "${0##*/}" "$@" >> "$CALLS"\necho >> "$CALLS"\n'
SHIMS = {
    "srun": '#!/bin/bash\nexec "$@"\n',
    "ark": SHIM + 'exit "${CODE:-0}"\n',
    "torchrun": SHIM + 'eval "${ALSO:-}"\nexit "${CODE:-0}"\n',
    "scontrol": SHIM + 'if [ "$1" = show ]; then echo n1; echo n2; fi\n',
}


def calls(script: str, folder: Path, **environment: str) -> list[list[str]]:
    """Run a script with stand-ins and return the commands that it would have run."""
    shims = folder / "bin"
    shims.mkdir(exist_ok=True)
    for name, code in SHIMS.items():
        (shims / name).write_text(code)
        (shims / name).chmod(0o755)
    log = folder / "calls"
    log.write_text("")
    slurm = {
        "SLURM_JOB_ID": "7",
        "SLURM_NNODES": "2",
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_ARRAY_TASK_COUNT": "16",
    }
    places = {"PATH": f"{shims}{os.pathsep}{os.environ['PATH']}", "CALLS": str(log)}
    subprocess.run(
        ["bash", str(FOLDER / script)],
        env={**slurm, **places, "OUT": str(folder / "run"), "STORE": "/s", **environment},
        check=False,
        timeout=60,
    )
    return [shlex.split(line) for line in log.read_text().splitlines()]


def understood(command: click.Command, words: list[str]) -> dict[str, object]:
    """Parse a command line as ``ark`` does; an unknown option is an error."""
    # Below the group, whose -h every command has: click remembers the first help that it sees.
    parent = click.Context(ark, info_name="ark", **ark.context_settings)
    return command.make_context(command.name, list(words), parent=parent).params


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_it_is_a_script(script: Path) -> None:
    """Bash can read it."""
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_packing(tmp_path: Path) -> None:
    """A task of the array packs its part."""
    ((name, *words),) = calls("pack.sh", tmp_path)
    assert (name, words[:2]) == ("ark", ["data", "pack"])
    assert understood(pack, words[2:])["shard"] == "3/16"


def test_one_node(tmp_path: Path) -> None:
    """A job that was stopped is queued again, where the same command goes on."""
    ((name, *words),) = calls("one-node.sh", tmp_path)
    assert (name, words[0]) == ("ark", "train")
    given = understood(train, words[1:])
    assert (given["gpus"], given["resume"], given["out"]) == (8, False, tmp_path / "run")
    again, queued = calls("one-node.sh", tmp_path, CODE="75")
    assert again == [name, *words]
    assert queued == ["scontrol", "requeue", "7"]


def test_two_nodes(tmp_path: Path) -> None:
    """Each node starts its ranks, which meet at the first; a stopped job is queued again."""
    from torch.distributed.run import get_args_parser

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{\n "status": "interrupted"\n}\n')
    os.utime(tmp_path / "run" / "run.json", (1, 1))  # of an earlier job
    _, (name, *words) = calls("two-nodes.sh", tmp_path, CODE="1")
    assert name == "torchrun"
    given = get_args_parser().parse_args(words)
    assert (given.nnodes, given.nproc_per_node, given.rdzv_endpoint) == ("2", "8", "n1:29500")
    assert given.no_python
    assert given.training_script == "ark"
    assert given.training_script_args[0] == "train"
    assert understood(train, given.training_script_args[1:])["out"] == tmp_path / "run"
    later = calls("two-nodes.sh", tmp_path, CODE="1", ALSO='touch -d tomorrow "$OUT/run.json"')
    assert later[-1] == ["scontrol", "requeue", "7"]
