"""Whether the libraries that ark needs can be used, for ``ark doctor``."""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Iterator
from importlib import import_module, metadata

from ark_framework.cli.finding import Finding, unusable

# As pyproject.toml asks.
LEAST_TORCH = (2, 11)
BOTH = "pip install --force-reinstall torch torchvision"
# What compiled libraries say that were built for another NumPy.
OTHER_NUMPY = ("binary incompatibility", "compiled using NumPy", "numpy.core.multiarray")


def python() -> Iterator[Finding]:
    """The interpreter."""
    yield Finding(
        name="python", state="ok", message=f"{platform.python_version()} at {sys.executable}"
    )


def arrays() -> Iterator[Finding]:
    """NumPy, and what is compiled against it."""
    for name in ("numpy", "pandas", "scipy"):
        try:
            found = import_module(name)
        except Exception as error:  # ABI trouble comes as ValueError, ImportError or others
            other = any(text in str(error) for text in OTHER_NUMPY)
            said = "was built for another NumPy" if other else "cannot be used"
            packages = "numpy pandas scipy" if other else name
            yield unusable(name, error, said=said, mend=f"pip install --force-reinstall {packages}")
        else:
            yield Finding(name=name, state="ok", message=str(found.__version__))


def torch() -> Iterator[Finding]:
    """Torch itself; GPUs are the machine's."""
    try:
        import torch as library
    except Exception as error:  # a library that does not load raises OSError
        yield unusable("torch", error, mend=BOTH)
        return
    version = library.__version__
    old = tuple(int(part) for part in version.split("+")[0].split(".")[:2]) < LEAST_TORCH
    needs = f", needs {'.'.join(map(str, LEAST_TORCH))}" if old else ""
    yield Finding(
        name="torch",
        state="broken" if old else "ok",
        message=f"{version}, {library.get_num_threads()} threads{needs}",
        mend="pip install --upgrade torch torchvision" if old else None,
    )


def torchvision() -> Iterator[Finding]:
    """Torchvision's compiled part, which loads only beside the very torch it was built for."""
    try:
        import torch as library
    except Exception:
        message = "not looked at: torch comes first"
        yield Finding(name="torchvision", state="note", message=message, mend=BOTH)
        return
    try:
        import torchvision as vision

        vision.ops.nms(library.zeros(1, 4), library.zeros(1), 0.5)
    except Exception as error:
        other = "torchvision::nms" in str(error)
        said = f"was built for another torch than {library.__version__}"
        yield unusable("torchvision", error, mend=BOTH, said=said if other else "cannot be used")
        return
    yield Finding(name="torchvision", state="ok", message=f"{vision.__version__}, nms runs")


def timm() -> Iterator[Finding]:
    """Timm, which is not imported."""
    if importlib.util.find_spec("timm") is None:
        yield Finding(name="timm", state="broken", message="not installed", mend="pip install timm")
        return
    yield Finding(name="timm", state="ok", message=metadata.version("timm"))


def dicom() -> Iterator[Finding]:
    """Pydicom and its codecs."""
    if importlib.util.find_spec("pydicom") is None:
        yield Finding(
            name="dicom",
            state="note",
            message="pydicom is not installed; only datasets in DICOM need it",
            mend="pip install 'ark-framework[dicom]'",
        )
        return
    version = f"pydicom {metadata.version('pydicom')}"
    if lacking := _lacking():
        yield Finding(
            name="dicom",
            state="note",
            message=f"{version} cannot decode {', '.join(lacking)}",
            # Not pylibjpeg-libjpeg, which is under the GPL.
            mend="pip install python-gdcm pylibjpeg-openjpeg",
        )
        return
    yield Finding(name="dicom", state="ok", message=f"{version}, every usual codec")


def _lacking() -> list[str]:
    from pydicom import uid
    from pydicom.pixels.decoders import base

    usual = {
        "JPEG": uid.JPEGBaseline8Bit,
        "JPEG lossless": uid.JPEGLosslessSV1,
        "JPEG-LS": uid.JPEGLSLossless,
        "JPEG 2000": uid.JPEG2000Lossless,
        "RLE": uid.RLELossless,
    }
    return [name for name, syntax in usual.items() if not base.get_decoder(syntax).is_available]
