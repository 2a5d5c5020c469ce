"""The folder of one training: where it stands, then what came out; it holds one or the other."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from ark_framework import jsonfile, tensors
from ark_framework.errors import CheckpointError, ConfigError, MachineError
from ark_framework.run import write_text

RESULT, PROBABILITIES, WEIGHTS, LAST = (
    "result.json",
    "probabilities.npy",
    "model.safetensors",
    "last.pt",
)


@dataclass(frozen=True, kw_only=True)
class WorkFolder:
    """``asked`` is plain data: all that the result depends on, by name."""

    path: Path
    asked: Mapping[str, Any]

    def result(self) -> tuple[dict[str, Any], np.ndarray] | None:
        """Return what :meth:`finish` was given, or ``None`` before that.

        Raises:
            ConfigError: it came out of something else than ``asked``.
            CheckpointError: a file is damaged.
        """
        path = self.path / RESULT
        if not path.is_file():
            return None
        try:
            content = jsonfile.read(path)
            values, asked = dict(content["values"]), dict(content["asked"])
            with (self.path / PROBABILITIES).open("rb") as file:
                probabilities = np.load(file, allow_pickle=False)
            if not isinstance(probabilities, np.ndarray) or probabilities.dtype.hasobject:
                raise TypeError("no array of numbers")
        except Exception as error:  # a damaged array raises many kinds
            raise CheckpointError(f"{self.path} is damaged; delete it to train again") from error
        self._must_match(asked)
        return values, probabilities

    def finish(
        self,
        values: Mapping[str, Any],
        probabilities: np.ndarray,
        weights: Mapping[str, Tensor] | None,
    ) -> None:
        """Write the result, its last file last, and forget where the training stood.

        Raises:
            MachineError: the disk refuses.
        """
        if weights is not None:
            plain = {name: each.cpu().contiguous() for name, each in weights.items()}
            self._write(WEIGHTS, safetensors.torch.save(plain))
        array = io.BytesIO()
        np.save(array, probabilities, allow_pickle=False)
        self._write(PROBABILITIES, array.getbuffer())
        text = json.dumps({"asked": self.asked, "values": values}, indent=1)
        write_text(self.path / RESULT, text + "\n")
        (self.path / LAST).unlink(missing_ok=True)

    def save(self, state: Mapping[str, Any]) -> None:
        """Write where the training stands: tensors and plain data, whole or not at all.

        Raises:
            MachineError: the disk refuses; what was saved before is untouched.
        """
        content = io.BytesIO()
        torch.save({"asked": dict(self.asked), "state": dict(state)}, content)
        self._write(LAST, content.getbuffer())

    def load(self) -> dict[str, Any] | None:
        """Return what :meth:`save` was given last, on the CPU, or ``None``.

        Raises:
            ConfigError: it was saved by something else than ``asked``.
            CheckpointError: the file is damaged.
        """
        path = self.path / LAST
        if not path.is_file():
            return None
        try:
            content = tensors.load(path)
            asked, state = dict(content["asked"]), dict(content["state"])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} is damaged; delete it to begin anew") from error
        except CheckpointError as error:
            raise CheckpointError(f"{error}; delete it to begin anew") from error
        self._must_match(asked)
        found: dict[str, Any] = state
        return found

    def _must_match(self, asked: Mapping[str, Any]) -> None:
        other = [name for name in self.asked if asked.get(name) != self.asked[name]]
        if other:
            raise ConfigError(
                f"{self.path} was begun with other {', '.join(other)}; "
                "give another folder, or delete it"
            )

    def _write(self, name: str, content: bytes | memoryview) -> None:
        path = self.path / name
        beside = path.with_name(f".{name}.part")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with beside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError as error:
            raise MachineError(f"cannot write {path}: {error.strerror}; free some space") from error
        finally:
            with suppress(OSError):  # it is gone, unless this was interrupted
                beside.unlink()
