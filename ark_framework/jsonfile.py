"""JSON files: read as keys and values, whatever a damaged one holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read(path: Path) -> dict[str, Any]:
    """Read a file of keys and values.

    Raises:
        OSError: it is absent or cannot be read.
        ValueError: it is no JSON, or holds something else.
    """
    if path.exists() and not path.is_file():  # a pipe would never end
        raise ValueError(f"{path.name} is no file")
    try:
        values = json.loads(path.read_text("utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path.name} is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{path.name} is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path.name} holds a {type(values).__name__}, not keys and values")
    return values
