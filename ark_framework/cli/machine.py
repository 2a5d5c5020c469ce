"""GPUs, disks and limits of this machine, for ``ark doctor``."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from ark_framework.cli.finding import Finding

# Below this there is no room for even a small store at the default side, or for a checkpoint.
LEAST_FREE = 2e9
# The first driver of each CUDA that torch is built for.
DRIVERS = {"11": 450, "12": 525, "13": 580}
DRIVER = Path("/proc/driver/nvidia/version")
SHARED = Path("/dev") / "shm"
# What a first look at a disk writes, in bytes and pieces, and the films that it reads at random.
PIECE, PIECES, FILM, READS = 2**20, 16, 224 * 224, 200
LEAP = 7_368_787  # prime, so that one film is far from the next
# MB a second: a GPU takes some thousand films of 224 x 224 a second, a CPU a tenth of them.
NEEDED = 50.0
# Bytes; containers are given 64 MB where nobody asks for more, and NCCL takes hundreds.
LEAST_SHARED = 1e9
LEAST_FILES = 1024


def gpu() -> Iterator[Finding]:
    """Every GPU that torch can use; where it can use none, why."""
    try:
        import torch
    except Exception:
        message = "not looked at: torch comes first"
        mend = "pip install --force-reinstall torch torchvision"
        yield Finding(name="gpu", state="note", message=message, mend=mend)
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            one = torch.cuda.get_device_properties(index)
            size = f"{one.total_memory / 2**30:.0f} GiB"
            message = f"{one.name}, {size}, torch for {torch.version.cuda}"
            yield Finding(name=f"gpu {index}", state="ok", message=message)
    elif torch.backends.mps.is_available():
        yield Finding(name="gpu", state="ok", message="Apple's, through Metal")
    else:
        yield _unseen(torch)


def _unseen(torch: Any) -> Finding:
    """Say why no GPU can be used."""
    command = shutil.which("nvidia-smi")
    if command is None and not DRIVER.is_file():
        cores = f"none; {os.cpu_count()} CPU cores will do the work"
        return Finding(name="gpu", state="ok", message=cores)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        message = f"hidden: CUDA_VISIBLE_DEVICES is {hidden!r}"
        return Finding(name="gpu", state="note", message=message, mend="unset CUDA_VISIBLE_DEVICES")
    if command is None:
        message = "the machine has an NVIDIA driver, but this container was given no GPU"
        return Finding(name="gpu", state="broken", message=message, mend="docker run --gpus all")
    driver, trouble = _driver(command)
    if trouble:
        message = f"nvidia-smi cannot speak to the driver: {trouble}"
        return Finding(name="gpu", state="broken", message=message, mend="sudo reboot")
    return _unfit(torch, driver)


def _driver(command: str) -> tuple[str, str]:
    """Return the driver's version, or why there is none."""
    words = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", " ".join(str(error).split())
    lines = done.stdout.split() or [""]
    trouble = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
    return lines[0], trouble if done.returncode else ""


def _unfit(torch: Any, driver: str) -> Finding:
    """Say what keeps torch from a driver that works."""
    again = "pip install --force-reinstall torch torchvision"
    built = torch.version.cuda
    if built is None:
        message = f"driver {driver}, but torch {torch.__version__} is built for CPUs alone"
        return Finding(name="gpu", state="broken", message=message, mend=again)
    needed = DRIVERS.get(built.partition(".")[0], 0)
    if driver.partition(".")[0].isdigit() and int(driver.partition(".")[0]) < needed:
        message = f"driver {driver} is too old: torch for CUDA {built} needs {needed} or newer"
        mend = f"sudo apt-get install nvidia-driver-{needed}; sudo reboot"
        return Finding(name="gpu", state="broken", message=message, mend=mend)
    message = f"driver {driver} is here, but torch {torch.__version__} cannot use a GPU"
    return Finding(name="gpu", state="broken", message=message, mend=f"nvidia-smi; {again}")


def disks() -> Iterator[Finding]:
    """Room for stores, for runs and for what is passing."""
    from ark_framework.store import default_folder

    for name, folder, mend in (
        ("store", default_folder(), "export ARK_STORE=/a/folder/with/room"),
        ("runs", Path("runs").absolute(), "ark train --out /a/folder/with/room"),
        ("tmp", Path(tempfile.gettempdir()), "export TMPDIR=/a/folder/with/room"),
    ):
        there = _there(folder)
        free = shutil.disk_usage(there).free
        writable = os.access(there, os.W_OK) and there.is_dir()
        wrong = "" if writable else ", but it cannot be written"
        wrong += "" if free > LEAST_FREE else f", less than {LEAST_FREE / 1e9:.0f} GB"
        yield Finding(
            name=name,
            state="broken" if wrong else "ok",
            message=f"{folder}, {free / 1e9:.1f} GB free{wrong}",
            mend=mend if wrong else None,
        )


def storage() -> Iterator[Finding]:
    """How fast the disk of the stores is, in one piece and in films here and there."""
    from ark_framework.store import default_folder

    folder = _there(default_folder())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return  # said already
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        written = _write(file)
        _forget(file)
        read = _read(file)
        _forget(file)
        drawn = _draw(file)
    message = f"writes {written:,.0f}, reads {read:,.0f}, films at random {drawn:,.0f} MB/s"
    slow = drawn < NEEDED
    yield Finding(
        name="storage",
        state="note" if slow else "ok",
        message=message + (f"; a GPU wants {NEEDED:.0f}" if slow else ""),
        mend="export ARK_STORE=/a/faster/disk" if slow else None,
    )


def _write(file: Any) -> float:
    began, piece = perf_counter(), os.urandom(PIECE)  # which no disk can compress
    for _ in range(PIECES):
        file.write(piece)
    os.fsync(file.fileno())
    return _rate(PIECES * PIECE, began)


def _read(file: Any) -> float:
    file.seek(0)
    began = perf_counter()
    while file.read(PIECE):
        pass
    return _rate(PIECES * PIECE, began)


def _draw(file: Any) -> float:
    began = perf_counter()
    for turn in range(READS):
        file.seek(turn * LEAP % (PIECES * PIECE - FILM))
        file.read(FILM)
    return _rate(READS * FILM, began)


def _rate(count: int, began: float) -> float:
    return count / 1e6 / max(perf_counter() - began, 1e-9)


def _forget(file: Any) -> None:
    """Let the system drop what it remembers of the file, where it can be asked to."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def shared_memory() -> Iterator[Finding]:
    """Shared memory, through which the processes of ``--gpus`` speak."""
    if not SHARED.is_dir():
        return  # macOS, where it is not a folder
    size = shutil.disk_usage(SHARED).total
    small = size < LEAST_SHARED
    yield Finding(
        name="shared memory",
        state="note" if small else "ok",
        message=f"{size / 1e9:.2f} GB" + (", too small for --gpus" if small else ""),
        mend="docker run --shm-size=8g" if small else None,
    )


def files() -> Iterator[Finding]:
    """How many files may be open at once."""
    try:
        import resource
    except ImportError:
        return  # Windows
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    few = 0 <= limit < LEAST_FILES
    yield Finding(
        name="open files",
        state="note" if few else "ok",
        message=f"at most {limit:,}" if limit >= 0 else "without a limit",
        mend=f"ulimit -n {4 * LEAST_FILES}" if few else None,
    )


def threads() -> Iterator[Finding]:
    """What ``OMP_NUM_THREADS`` allows, where it is set."""
    told, cores = os.environ.get("OMP_NUM_THREADS", ""), os.cpu_count() or 1
    if not told:
        return
    good = told.isdigit() and (int(told) > 1 or cores == 1) and int(told) <= cores
    yield Finding(
        name="threads",
        state="ok" if good else "note",
        message=f"OMP_NUM_THREADS is {told!r}, of {cores} cores",
        mend=None if good else "unset OMP_NUM_THREADS",
    )


def _there(folder: Path) -> Path:
    """Return the folder, or what is there of the way to it."""
    return next(each for each in (folder, *folder.parents) if each.exists())
