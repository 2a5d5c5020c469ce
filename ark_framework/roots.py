"""Where a dataset lies: four ways to say it, in order.

``--data NAME=PATH``, then the configuration, then ``ARK_DATA_<NAME>``, then the links that
``ark data link`` keeps in the user's config folder (``ARK_CONFIG_HOME`` overrides where).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import platformdirs

from ark_framework import jsonfile
from ark_framework.errors import ConfigError, DataError, did_you_mean
from ark_framework.registry import LIKE
from ark_framework.specs import DatasetSpec


def dataset_name(text: str) -> str:
    """Return ``rsna`` for ``rsna``, ``RSNA``, ``ark-rsna`` or ``ark-plugin-rsna``.

    Raises:
        ConfigError: it cannot be the name of a dataset.
    """
    name = re.sub(r"^ark[-_](plugin[-_])?", "", text.strip().lower())
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise ConfigError(f"{text!r} cannot be a dataset's name: letters, digits, '-' and '_' only")
    return name


def variable(name: str) -> str:
    """Return the environment variable of a dataset: ``ARK_DATA_VINDR_RIBCXR``."""
    return "ARK_DATA_" + name.upper().replace("-", "_")


def links_file() -> Path:
    """Return the file that links are kept in."""
    home = os.environ.get("ARK_CONFIG_HOME")
    return (Path(home) if home else platformdirs.user_config_path("ark")) / "links.json"


def links() -> dict[str, Path]:
    """Return the linked roots by dataset name.

    Raises:
        ConfigError: the file is not what ``ark data link`` writes.
    """
    path = links_file()
    if not path.is_file():
        return {}
    try:
        return {name: Path(root) for name, root in jsonfile.read(path).items()}
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is not a file of links; delete it and link again") from error


def link(name: str, path: Path) -> None:
    """Remember where a dataset lies.

    Raises:
        DataError: there is no such folder.
    """
    path = path.expanduser()
    if not path.is_dir():
        raise DataError(f"cannot link {name}: {path} is not a folder")
    known = {**links(), dataset_name(name): path.resolve()}
    file = links_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(".links.json.part")
    beside.write_text(json.dumps({n: str(p) for n, p in sorted(known.items())}, indent=1) + "\n")
    beside.replace(file)


def locate(
    name: str, *, given: Mapping[str, Path], configured: Mapping[str, Any]
) -> tuple[Path | None, str]:
    """Return a dataset's root and where it was said, or ``(None, "nowhere")``."""
    if name in given:
        return Path(given[name]).expanduser(), "--data"
    if configured.get("root") is not None:
        return Path(configured["root"]).expanduser(), "config"
    if os.environ.get(variable(name)):
        return Path(os.environ[variable(name)]).expanduser(), variable(name)
    linked = links()
    if dataset_name(name) in linked:
        return linked[dataset_name(name)], "link"
    return None, "nowhere"


def told() -> tuple[str, ...]:
    """Return the datasets whose root this machine knows, by link or by environment, sorted."""
    prefix = variable("")
    named = {key.removeprefix(prefix).lower().replace("_", "-") for key in os.environ
             if key.startswith(prefix) and os.environ[key]}  # fmt: skip
    return tuple(sorted({*links(), *named}))


def check_names(given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse roots of datasets that nobody provides: a typo would silently read other data.

    Raises:
        ConfigError: naming the first unknown dataset and the nearest known ones.
    """
    known = sorted(known)
    for name in given:
        if name not in known:
            raise ConfigError(
                f"--data {name}=...: no dataset {name!r}{did_you_mean(name, known)}; the named "
                f"plugins provide: {', '.join(known) or 'none'}"
            )


def resolve(
    spec: DatasetSpec, *, given: Mapping[str, Path], configured: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a dataset's option values with its root filled in.

    Raises:
        DataError: no root was said in any of the four ways, or it is not a folder.
    """
    values = {key: value for key, value in configured.items() if key != LIKE}
    if not spec.needs_root:
        return values
    root, where = locate(spec.name, given=given, configured=configured)
    if root is None:
        raise DataError(
            f"{spec.name}: no root; say --data {spec.name}=PATH, or data.{spec.name}.root in the "
            f"config, or set {variable(spec.name)}, or run: ark data link {spec.name} PATH"
        )
    if not root.is_dir():
        raise DataError(f"{spec.name}: its root {root} (from {where}) is not a folder")
    values["root"] = root
    return values
