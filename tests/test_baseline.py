"""The pixel baseline is a real one: it finds what pixels show and nothing else."""

from __future__ import annotations

import numpy as np

from ark_framework.baseline import pixel_logistic
from ark_framework.metrics import auroc
from ark_framework.specs import LabelSchema


def test_pixels() -> None:
    """A bright corner is found, noise is not, and a label with one class scores 0."""
    rng = np.random.default_rng(0)
    films = rng.integers(0, 120, (900, 1, 64, 64), dtype=np.uint8)
    targets = rng.integers(0, 2, (900, 3)).astype(np.float32)
    targets[:, 2] = 0
    films[targets[:, 0] == 1, :, :16, :16] += 60
    targets[::7, 0] = np.nan
    parts = [slice(0, 500), slice(500, 650), slice(650, 900)]
    schema = LabelSchema(name="three", kind="multilabel", labels=("corner", "noise", "never"))
    scores = pixel_logistic(
        films[parts[0]], targets[parts[0]], films[parts[1]], targets[parts[1]], films[parts[2]],
        schema=schema,
    )  # fmt: skip
    areas = auroc(scores, targets[parts[2]])
    assert areas[0] > 0.99
    assert abs(areas[1] - 0.5) < 0.12
    assert (scores[:, 2] == 0).all()
