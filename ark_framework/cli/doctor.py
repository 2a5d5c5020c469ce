"""``ark doctor``: what this machine can do, and the command that mends what it cannot."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import click

from ark_framework.cli.plain import echo
from ark_framework.errors import ConfigError, MachineError

# Below this there is no room for even a small store at the default side.
LEAST_FREE = 2e9


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at; ``mend`` is a command, for all that is not ``ok``."""

    name: str
    state: Literal["ok", "note", "broken"]
    message: str
    mend: str | None = None


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(as_json: bool) -> int:
    """Check this machine and say what mends it; exit 5 if something is broken.

    No plugin is imported.
    """
    findings = [found for look in CHECKS for found in _look(look)]
    if as_json:
        echo(json.dumps([asdict(found) for found in findings], indent=1))
    else:
        for found in findings:
            echo(f"{found.state:<7} {found.name}: {found.message}")
            if found.mend:
                echo(f"        mend it with: {found.mend}")
    broken = any(found.state == "broken" for found in findings)
    return MachineError.exit_code if broken else 0


def _look(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:  # a doctor must not die of what he finds
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        name = check.__name__.strip("_")
        yield Finding(
            name=name, state="broken", message=f"could not be checked: {reason}",
            mend="pip install --force-reinstall ark-framework",
        )  # fmt: skip


def _python() -> Iterator[Finding]:
    yield Finding(
        name="python", state="ok", message=f"{platform.python_version()} at {sys.executable}"
    )


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except Exception as error:  # a library that does not load raises OSError
        yield _unusable("torch", error, mend="pip install --force-reinstall torch torchvision")
        return
    version = torch.__version__
    old = tuple(int(part) for part in version.split("+")[0].split(".")[:2]) < (2, 11)
    yield Finding(
        name="torch",
        state="broken" if old else "ok",
        message=f"{version}, {torch.get_num_threads()} threads" + ", needs 2.11" * old,
        mend="pip install --upgrade torch torchvision" if old else None,
    )
    yield from _accelerator()


def _torchvision() -> Iterator[Finding]:
    try:
        import torch
        import torchvision

        # Its compiled part loads only beside the very torch it was built for.
        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except Exception as error:
        yield _unusable(
            "torchvision", error, mend="pip install --force-reinstall torch torchvision"
        )
        return
    yield Finding(name="torchvision", state="ok", message=f"{torchvision.__version__}, nms runs")


def _accelerator() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            one = torch.cuda.get_device_properties(index)
            message = (
                f"{one.name}, {one.total_memory / 2**30:.0f} GiB, torch for {torch.version.cuda}"
            )
            yield Finding(name=f"gpu {index}", state="ok", message=message)
    elif torch.backends.mps.is_available():
        yield Finding(name="gpu", state="ok", message="Apple's, through Metal")
    elif shutil.which("nvidia-smi"):
        yield Finding(
            name="gpu",
            state="broken",
            message=f"nvidia-smi is here, but torch {torch.__version__} cannot use a GPU",
            mend="nvidia-smi; then pip install --force-reinstall torch torchvision, for its driver",
        )
    else:
        yield Finding(
            name="gpu", state="ok", message=f"none; {os.cpu_count()} CPU cores will do the work"
        )


def _timm() -> Iterator[Finding]:
    if importlib.util.find_spec("timm") is None:
        yield Finding(name="timm", state="broken", message="not installed", mend="pip install timm")
        return
    yield Finding(name="timm", state="ok", message=metadata.version("timm"))


def _dicom() -> Iterator[Finding]:
    mend = "pip install 'ark-framework[dicom]'"
    if importlib.util.find_spec("pydicom") is None:
        message = "pydicom is not installed; only datasets in DICOM need it"
        yield Finding(name="dicom", state="note", message=message, mend=mend)
        return
    from pydicom import uid
    from pydicom.pixels.decoders.base import get_decoder

    lacking = [
        name
        for name, syntax in (
            ("JPEG", uid.JPEGBaseline8Bit),
            ("JPEG lossless", uid.JPEGLosslessSV1),
            ("JPEG-LS", uid.JPEGLSLossless),
            ("JPEG 2000", uid.JPEG2000Lossless),
            ("RLE", uid.RLELossless),
        )
        if not get_decoder(syntax).is_available
    ]
    version = f"pydicom {metadata.version('pydicom')}"
    if lacking:
        message = f"{version} cannot decode {', '.join(lacking)}"
        yield Finding(
            name="dicom", state="note", message=message,
            # Not pylibjpeg-libjpeg, which is under the GPL.
            mend="pip install python-gdcm pylibjpeg-openjpeg",
        )  # fmt: skip
    else:
        yield Finding(name="dicom", state="ok", message=f"{version}, every usual codec")


def _store() -> Iterator[Finding]:
    from ark_framework.store import default_folder

    folder = default_folder()
    there: Path = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(there).free
    writable = os.access(there, os.W_OK) and there.is_dir()
    message = f"{folder}, {free / 1e9:.1f} GB free" + ", but it cannot be written" * (not writable)
    good = writable and free > LEAST_FREE
    yield Finding(
        name="store",
        state="ok" if good else "broken",
        message=message,
        mend=None if good else "export ARK_STORE=/a/folder/with/room",
    )


def _links() -> Iterator[Finding]:
    from ark_framework.roots import links, links_file

    try:
        linked = links()
    except ConfigError as error:
        yield Finding(name="links", state="broken", message=str(error), mend=f"rm {links_file()}")
        return
    for name, root in linked.items():
        there = root.is_dir()
        yield Finding(
            name=f"data {name}",
            state="ok" if there else "note",
            message=str(root) + (", which is gone" if not there else ""),
            mend=None if there else f"ark data link {name} PATH",
        )


def _plugins() -> Iterator[Finding]:
    from ark_framework.registry import discover

    for record in discover():
        problem, mend = record.problem, f"pip install --upgrade {record.distribution}"
        package = record.module.partition(":")[0].partition(".")[0]
        if problem is None and importlib.util.find_spec(package) is None:
            problem, mend = (
                f"its module {package!r} is not there",
                mend.replace("upgrade", "force-reinstall"),
            )
        if problem and "ARK_DISABLE_PLUGINS" in problem:
            mend = "unset ARK_DISABLE_PLUGINS"
        elif problem and "uninstall all but one" in problem:
            mend = f"pip uninstall {record.distribution}"
        disabled = mend.startswith("unset")
        yield Finding(
            name=f"plugin {record.name}",
            state="ok" if problem is None else "note" if disabled else "broken",
            message=f"{record.distribution} {record.version}" + (f": {problem}" if problem else ""),
            mend=mend if problem else None,
        )


def _unusable(name: str, error: Exception, *, mend: str) -> Finding:
    reason = " ".join(str(error).split())
    return Finding(
        name=name, state="broken", message=f"cannot be used: {type(error).__name__}: {reason}",
        mend=mend,
    )  # fmt: skip


CHECKS = (_python, _torch, _torchvision, _timm, _dicom, _store, _links, _plugins)
