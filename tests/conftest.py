"""Every test has its own stores, links and data roots: a user's are never touched."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import configuration, settings

from ark_framework.registry import GROUP

# hypothesis would keep a folder beside the tests.
_HOME = tempfile.TemporaryDirectory(prefix="ark-hypothesis-")
configuration.set_hypothesis_home_dir(_HOME.name)
settings.register_profile("ark", database=None)
settings.load_profile("ark")


@pytest.fixture(autouse=True, scope="session")
def _nothing_of_the_users(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    os.environ["ARK_CONFIG_HOME"] = str(home / "config")
    os.environ["ARK_STORE"] = str(home / "stores")
    for name in [name for name in os.environ if name.startswith("ARK_DATA_")]:
        del os.environ[name]


@pytest.fixture(scope="session")
def shared_stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of stores that the tests of one worker share, so that films are packed once."""
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="session")
def small(shared_stores: Path) -> Callable[..., dict[str, Any]]:
    """Return ``small(**changes)``: a run over the phantom world that takes a second or two."""
    from ark_framework import config

    def make(**changes: Any) -> dict[str, Any]:
        films = {"films": 120, "size": 32}
        base = {
            "plugins": ["ark-phantom"],
            "leaks": "drop",  # two of its hospitals share patients on purpose
            "data": {f"phantom-{name}": films for name in ("north", "south", "east")},
            "cycles": 3,
            "batch_size": 16,
            "store": {"size": 32, "folder": str(shared_stores), "workers": 1},
            "views": {"size": 24},
            "model": {
                "backbone": "tiny",
                "options": {"width": 4},
                "features": 8,
                "init": "random",
            },
            "optim": {"name": "sgd", "lr": 0.05},
            "teacher": {"momentum": 0.5},
            "log": {"every": 4, "tensorboard": False},
            "runtime": {"threads": 1, "device": "cpu"},
        }
        return config.merge(base, changes)

    return make


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Write a distribution and its module where Python finds them; forget them afterwards."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    monkeypatch.delenv("ARK_DISABLE_PLUGINS", raising=False)
    before = set(sys.modules)

    def write(name: str, code: str, *, group: str = GROUP, distribution: str | None = None) -> str:
        package = distribution or f"ark-plugin-{name}"
        module = package.replace("-", "_")
        (site / f"{module}.py").write_text(code.replace("{name}", name), encoding="utf-8")
        info = site / f"{module}-1.5.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n"
        (info / "METADATA").write_text(metadata, encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[{group}]\nark-{name} = {module}\n", "utf-8")
        importlib.invalidate_caches()
        return module

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("ark_plugin_"):
            del sys.modules[name]
