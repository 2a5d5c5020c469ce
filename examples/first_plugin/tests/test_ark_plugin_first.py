"""The conformance kit, and what is particular to this dataset."""

from __future__ import annotations

from pathlib import Path

import pytest
from ark_plugin_first import LABELS, SPEC

from ark_framework.testing import conformance

test_conformance = conformance("ark-first")


def test_marks(tmp_path: Path) -> None:
    """Yes, no, perhaps and empty are 1, 0, uncertain and not annotated."""
    frame = SPEC.read(SPEC.fixture(tmp_path))
    assert frame[LABELS[0]].iloc[:4].tolist()[:3] == [1.0, 0.0, -1.0]
    assert frame[LABELS[0]].isna().sum() == 6
    with pytest.raises(FileNotFoundError):
        SPEC.read(SPEC.options(root=tmp_path / "elsewhere"))
