"""`ark doctor` recognizes a broken installation, with the fault planted, and says what mends it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ark_framework import cli
from ark_framework.cli import installed, libraries, machine
from ark_framework.cli.finding import Finding

ROOT = Path(__file__).parents[1]
Usage = namedtuple("Usage", "total used free")
# A torch that is quickly imported; what else is asked of it is what a test plants.
TORCH = """
import types
__version__ = "2.14.0+cu128"
get_num_threads = lambda: 4
zeros = lambda *shape: None
version = types.SimpleNamespace(cuda={cuda!r})
cuda = types.SimpleNamespace(is_available=lambda: False)
backends = types.SimpleNamespace(mps=types.SimpleNamespace(is_available=lambda: False))
"""


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARK_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("ARK_STORE", str(tmp_path / "stores"))
    monkeypatch.chdir(tmp_path)


def broken(tmp_path: Path, shims: dict[str, str], **changes: str) -> dict[str, dict[str, Any]]:
    """Return what a doctor finds for whom the import path begins with ``shims``, by name."""
    site = tmp_path / "shims"
    for name, code in shims.items():
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text(code, encoding="utf-8")
    path = os.pathsep.join([str(site), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "ark_framework.cli", "doctor", "--json"],
        env={**os.environ, "PYTHONPATH": path, **changes},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 5), done.stderr
    found = {each["name"]: each for each in json.loads(done.stdout)}
    assert (done.returncode == 5) == any(each["state"] == "broken" for each in found.values())
    assert all(each["mend"] for each in found.values() if each["state"] != "ok")
    return found


def smi(tmp_path: Path, says: str, *, code: int = 0) -> dict[str, str]:
    """Return an environment with an ``nvidia-smi`` that says this."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "nvidia-smi"
    script.write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n", encoding="utf-8")
    script.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def test_torch_that_cannot_be_imported(tmp_path: Path) -> None:
    """All else is still looked at, and what needs torch says that torch comes first."""
    shim = "raise OSError('libcudart.so.12: cannot open shared object file')"
    found = broken(tmp_path, {"torch": shim})
    assert found["torch"]["state"] == "broken"
    assert "libcudart.so.12" in found["torch"]["message"]
    assert found["torch"]["mend"] == libraries.BOTH
    for name in ("torchvision", "gpu"):
        assert "torch comes first" in found[name]["message"]
    assert {"numpy", "timm", "dicom", "store", "storage", "plugin ark-builtin"} <= set(found)


def test_torchvision_of_another_torch(tmp_path: Path) -> None:
    """The usual message of a mismatch is put into words."""
    vision = "raise RuntimeError('operator torchvision::nms does not exist')"
    found = broken(tmp_path, {"torch": TORCH.format(cuda=None), "torchvision": vision})
    told = found["torchvision"]
    assert told["state"] == "broken"
    assert told["message"].startswith("was built for another torch than 2.14.0+cu128")
    assert told["mend"] == libraries.BOTH
    assert found["torch"]["state"] == "ok"


def test_old_torch(tmp_path: Path) -> None:
    """A torch below what is needed is broken, whatever else it can do."""
    found = broken(tmp_path, {"torch": TORCH.format(cuda=None).replace("2.14.0", "2.1.0")})
    assert found["torch"]["state"] == "broken"
    assert "needs 2.11" in found["torch"]["message"]


@pytest.mark.parametrize(
    "message",
    [
        "numpy.dtype size changed, may indicate binary incompatibility. Expected 96, got 88",
        "A module that was compiled using NumPy 1.x cannot be run in NumPy 2.2",
    ],
)
def test_another_numpy(tmp_path: Path, message: str) -> None:
    """What is compiled for another NumPy is told from what is merely missing."""
    shims = {"torch": TORCH.format(cuda=None), "pandas": f"raise ValueError({message!r})"}
    told = broken(tmp_path, shims)["pandas"]
    assert (told["state"], told["message"].partition(":")[0]) == (
        "broken", "was built for another NumPy",
    )  # fmt: skip
    assert told["mend"] == "pip install --force-reinstall numpy pandas scipy"


@pytest.mark.parametrize(
    ("cuda", "says", "code", "more", "state", "message", "mend"),
    [
        (None, "550.54.14", 0, {}, "broken", "built for CPUs alone", libraries.BOTH),
        ("12.8", "470.82.01", 0, {}, "broken", "needs 525", "nvidia-driver-525"),
        ("13.0", "550.54.14", 0, {}, "broken", "needs 580", "nvidia-driver-580"),
        ("12.8", "550.54.14", 0, {}, "broken", "cannot use a GPU", "nvidia-smi"),
        ("12.8", "NVIDIA-SMI has failed", 9, {}, "broken", "cannot speak to", "sudo reboot"),
        ("12.8", "550.54", 0, {"CUDA_VISIBLE_DEVICES": ""}, "note", "hidden", "unset CUDA"),
    ],
)
def test_no_gpu_visible(
    tmp_path: Path,
    cuda: str | None,
    says: str,
    code: int,
    more: dict[str, str],
    state: str,
    message: str,
    mend: str,
) -> None:
    """Where there is a GPU and torch uses none, the reason is named."""
    surroundings = {**smi(tmp_path, says, code=code), **more}
    if not more:
        surroundings["CUDA_VISIBLE_DEVICES"] = "0"
    told = broken(tmp_path, {"torch": TORCH.format(cuda=cuda)}, **surroundings)["gpu"]
    assert told["state"] == state
    assert message in told["message"]
    assert mend in told["mend"]


def test_a_container_without_its_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's driver is seen, and nvidia-smi is not there."""
    monkeypatch.setattr(machine, "DRIVER", tmp_path / "version")
    (tmp_path / "version").write_text("NVRM version", encoding="utf-8")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = machine._unseen(None)
    assert (found.state, found.mend) == ("broken", "docker run --gpus all")
    (tmp_path / "version").unlink()
    assert machine._unseen(None).state == "ok"


@pytest.mark.parametrize(
    ("index", "name", "mend"),
    [(0, "store", "ARK_STORE"), (1, "runs", "--out"), (2, "tmp", "TMPDIR")],
)
def test_a_full_disk(index: int, name: str, mend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the three places is looked at for itself."""
    free = [1e12, 1e12, 1e12]
    free[index] = 1e8
    left = iter(free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1e12, 0, next(left)))
    found = {each.name: each for each in machine.disks()}
    assert [each.state for each in found.values()].count("broken") == 1
    assert "0.1 GB free, less than 2 GB" in found[name].message
    assert mend in str(found[name].mend)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store folder that is a file is broken, and its speed is not asked for."""
    (tmp_path / "stores").write_text("a file", encoding="utf-8")
    found = {each.name: each for each in machine.disks()}
    assert (found["store"].state, found["runs"].state) == ("broken", "ok")
    assert "cannot be written" in found["store"].message
    assert list(machine.storage()) == []


def test_slow_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk of the stores is measured; nothing is left there; a slow one is noted."""
    (tmp_path / "stores").mkdir()
    (told,) = machine.storage()
    assert told.message.count("MB/s") == 1
    assert list((tmp_path / "stores").iterdir()) == []
    ticks = iter(range(100))  # every reading of the clock is a second after the last
    monkeypatch.setattr(machine, "perf_counter", lambda: next(ticks))
    (slow,) = machine.storage()
    assert slow.state == "note"
    assert slow.message == "writes 17, reads 17, films at random 10 MB/s; a GPU wants 50"
    assert slow.mend == "export ARK_STORE=/a/faster/disk"


def one(check: Callable[[], Any]) -> Finding:
    (found,) = check()
    assert isinstance(found, Finding)
    return found


def test_small_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's 64 MB are noted."""
    monkeypatch.setattr(machine, "SHARED", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(64e6, 0, 64e6))
    found = one(machine.shared_memory)
    assert (found.state, found.mend) == ("note", "docker run --shm-size=8g")
    assert "0.06 GB" in found.message
    monkeypatch.setattr(machine, "SHARED", tmp_path / "none")
    assert list(machine.shared_memory()) == []


def test_few_open_files() -> None:
    """A low limit is noted, with the command of the shell."""
    code = (
        "import resource; hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1];"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard));"
        "from ark_framework.cli import machine; print(next(machine.files()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "state='note', message='at most 256', mend='ulimit -n 4096'" in done.stdout


@pytest.mark.parametrize(
    ("told", "cores", "state"),
    [("1", 8, "note"), ("64", 8, "note"), ("many", 8, "note"), ("4", 8, "ok"), ("1", 1, "ok")],
)
def test_threads(told: str, cores: int, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """OMP_NUM_THREADS is noted where it wastes the machine or asks for more than it has."""
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert one(machine.threads).state == state


def test_codecs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codecs that are missing are named."""
    base = pytest.importorskip("pydicom.pixels.decoders.base")
    from pydicom import uid

    class Decoder:
        def __init__(self, syntax: str) -> None:
            self.is_available = syntax != uid.JPEG2000Lossless

    monkeypatch.setattr(base, "get_decoder", Decoder)
    found = one(libraries.dicom)
    assert found.state == "note"
    assert found.message.endswith("cannot decode JPEG 2000")
    assert "pylibjpeg-openjpeg" in str(found.mend)


def test_a_plugin_of_another_api(install: Callable[..., str]) -> None:
    """A plugin that was built for another major of the API is broken and says which it wants."""
    install("old", "raise SystemExit", group="ark_framework.v9")
    found = {each.name: each for each in installed.plugins()}
    told = found["plugin ark-old"]
    assert told.state == "broken"
    assert "plugin API v9" in told.message
    assert told.mend == "pip install --upgrade ark-plugin-old"


def test_installed_twice(install: Callable[..., str], tmp_path: Path) -> None:
    """A distribution in two folders of the import path is named with both."""
    install("new", "")
    assert not [each for each in installed.twice() if "ark-new" in each.name]
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "site", other)
    sys.path.append(str(other))
    try:
        (found,) = (each for each in installed.twice() if "ark-new" in each.name)
    finally:
        sys.path.remove(str(other))
    assert found.state == "broken"
    assert "is installed 2 times" in found.message
    assert str(other) in found.message


def test_a_check_that_fails_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever a check raises, the doctor goes on and says so."""

    def odd() -> Any:
        raise ZeroDivisionError("a\nb")

    monkeypatch.setattr("ark_framework.cli.doctor.CHECKS", (odd, libraries.python))
    assert cli.run(["doctor"]) == 5
    said = capfd.readouterr().out
    assert "broken  odd: could not be checked: ZeroDivisionError: a b" in said
    assert "ok      python: " in said
