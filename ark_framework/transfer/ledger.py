"""Finished work, a file for each piece: the same command goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ark_framework.errors import MachineError, RunError
from ark_framework.run import write_text


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """A folder of pieces, each named by all that it depends on.

    A piece that is there is read, never computed again: to change a result, change what it
    depends on, or delete its file.  Of several processes one ``writes``.
    """

    folder: Path
    writes: bool = True

    def get(self, key: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
        """Return the JSON-able value of ``key``; compute and keep it where it is not there.

        Raises:
            RunError: a file of the folder is damaged.
            MachineError: the disk refuses.
        """
        path = self.path(key, ".json")
        if path.is_file():
            try:
                return json.loads(path.read_text("utf-8"))["value"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise RunError(f"{path} is damaged; delete it and it is computed again") from error
        value = compute()
        if not self.writes:
            return value
        self._make()
        write_text(path, json.dumps({"key": key, "value": value}, indent=1) + "\n")
        return value

    def path(self, key: Mapping[str, Any], suffix: str = "") -> Path:
        """Return where a piece lies, or a file or folder beside it."""
        text = json.dumps(key, sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}{suffix}"

    def _make(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MachineError(f"cannot make {self.folder}: {error.strerror}") from error
