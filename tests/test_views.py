"""Views: shared geometry, photometry on the student alone, nothing that depends on state."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ark_framework.config import ViewsConfig
from ark_framework.runtime import generator
from ark_framework.views import center, draw, make_views, part, whole

PLAIN = ViewsConfig(size=32, photometry_p=0.0)


def _films(count: int = 8, size: int = 40) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, 1, size, size), dtype=np.uint8))


def test_identity_geometry_gives_the_film_back() -> None:
    """With the whole film as crop and no shift, a view is the film, to rounding."""
    films = _films(size=32)
    config = ViewsConfig(
        size=32, scale=(1.0, 1.0), ratio=(1.0, 1.0), affine_p=0.0, photometry_p=0.0
    )
    student, teacher = make_views(films, draw(8, config, np.random.default_rng(0)), config)
    expected = films.float() / 255
    torch.testing.assert_close(student, expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(teacher, expected, atol=2e-5, rtol=0)


def test_without_photometry_both_views_are_equal() -> None:
    """Geometry is shared."""
    student, teacher = make_views(_films(), draw(8, PLAIN, np.random.default_rng(1)), PLAIN)
    assert torch.equal(student, teacher)


def test_photometry_touches_the_student_alone() -> None:
    """With photometry certain, every student view differs and the teacher's does not."""
    config = PLAIN.model_copy(update={"photometry_p": 1.0})
    student, teacher = make_views(_films(), draw(8, config, np.random.default_rng(2)), config)
    plain = draw(8, config, np.random.default_rng(2))
    _, untouched = make_views(_films(), plain, PLAIN)
    assert torch.equal(teacher, untouched)
    assert (student != teacher).flatten(1).any(1).all()
    assert student.min() >= 0
    assert student.max() <= 1


def test_crops_cover_the_asked_areas() -> None:
    """Over many draws the crop's area spans the asked range and never leaves the film."""
    config = ViewsConfig(size=32, scale=(0.2, 0.8), affine_p=0.0)
    matrices = draw(4000, config, np.random.default_rng(3)).geometry
    width, height = matrices[:, 0, 0], matrices[:, 1, 1]
    area = width * height
    assert 0.19 < area.min() < 0.25
    assert 0.75 < area.max() <= 0.81
    assert (np.abs(matrices[:, 0, 2]) + width <= 1 + 1e-6).all()
    assert (np.abs(matrices[:, 1, 2]) + height <= 1 + 1e-6).all()


def test_rotation_stays_within_bounds() -> None:
    """The rotation of the affine part is at most ten degrees, and half the films have none."""
    config = ViewsConfig(size=32, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    geometry = draw(4000, config, np.random.default_rng(4)).geometry
    angle = np.degrees(np.arctan2(geometry[:, 1, 0], geometry[:, 0, 0]))
    assert 9 < np.abs(angle).max() <= 10.001
    assert 0.45 < (angle == 0).mean() < 0.55


def test_nearest_teacher_holds_only_stored_values() -> None:
    """As released, the teacher's view is sampled without blending."""
    config = PLAIN.model_copy(update={"teacher_sampling": "nearest"})
    student, teacher = make_views(_films(), draw(8, config, np.random.default_rng(5)), config)
    stored = torch.arange(256) / 255
    assert torch.isin((teacher * 255).round(), torch.arange(256)).all()
    assert (teacher[..., None] - stored).abs().amin(-1).max() < 1e-6
    assert not torch.equal(student, teacher)


def test_whole_teacher_sees_the_whole_film() -> None:
    """As in Ark+, the teacher's view is the film resized."""
    config = PLAIN.model_copy(update={"teacher": "whole"})
    _, teacher = make_views(_films(), draw(8, config, np.random.default_rng(6)), config)
    assert torch.equal(teacher, whole(_films(), 32))


def test_center_is_the_middle() -> None:
    """The scoring view cuts the same margin on every side."""
    films = torch.arange(36, dtype=torch.uint8).reshape(1, 1, 6, 6)
    assert center(films, 2).mul(255).round().int().flatten().tolist() == [14, 15, 20, 21]


def test_generator_is_a_function_of_its_address() -> None:
    """Equal addresses give equal streams; each index and the purpose change them."""

    def first(*address: int) -> float:
        return float(generator(*address).random())

    assert first(1, 2, 3, 4, 5) == first(1, 2, 3, 4, 5)
    addresses = [
        (1, 2, 3, 4, 5),
        (2, 2, 3, 4, 5),
        (1, 3, 3, 4, 5),
        (1, 2, 4, 4, 5),
        (1, 2, 3, 5, 5),
        (1, 2, 3, 4, 6),
    ]
    assert len({first(*address) for address in addresses}) == len(addresses)


@pytest.mark.parametrize(
    ("rows", "entries", "full"),
    [
        ([[1.0, 0.0], [float("nan"), 1.0]], 3, 1),
        ([[float("nan"), float("nan")]], 0, 0),
    ],
)
def test_part_counts_what_is_annotated(rows: list[list[float]], entries: int, full: int) -> None:
    """Entries and full rows are counted apart."""
    made = part("x", torch.tensor(rows))
    assert (made.annotated, made.annotated_rows) == (entries, full)
