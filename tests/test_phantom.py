"""The phantom world: deterministic, labelled as drawn, and no film's pixels give it away."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ark_framework.annotations import AnnotationTable, validate
from ark_framework.builtin import phantom
from ark_framework.builtin.phantom import PhantomOptions, ark_datasets
from ark_framework.builtin.phantom.case import FINDINGS, HOSPITALS, Case, make_case, split_of
from ark_framework.builtin.phantom.film import STRUCTURES, draw, masks
from ark_framework.builtin.phantom.ribs import RIBS, ribs

SPECS = {spec.name: spec for spec in ark_datasets()}
NORTH = HOSPITALS["north"]


def table(name: str, films: int = 600) -> AnnotationTable:
    spec = SPECS[name]
    return validate(spec.read(PhantomOptions(films=films)), dataset=name, schema=spec.schema)


def test_a_film_is_a_function_of_hospital_and_index() -> None:
    """The same film in another process, after other draws, has the same bytes."""
    np.random.default_rng(5).random(9)
    code = (
        "from ark_framework.builtin.phantom.case import *;"
        "from ark_framework.builtin.phantom.film import draw;"
        "import sys; sys.stdout.buffer.write(draw(make_case(HOSPITALS['south'], 17), 64).tobytes())"
    )
    other = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
    assert other == draw(make_case(HOSPITALS["south"], 17), 64).tobytes()
    assert other != draw(make_case(HOSPITALS["south"], 18), 64).tobytes()


def test_labels_disagree_in_kind() -> None:
    """Multilabel with doubtful and missing entries, exclusive classes, and one binary label."""
    north, south, east = (table(f"phantom-{name}").targets() for name in ("north", "south", "east"))
    assert north.shape == (600, 6)
    assert np.isnan(north).mean() == pytest.approx(0.12, abs=0.03)
    assert (north == -1).mean() == pytest.approx(0.05 * 0.88, abs=0.02)
    assert (south.sum(axis=1) == 1).all()
    assert set(np.unique(east)) == {0.0, 1.0}
    for targets in (north, south, east):
        share = (targets == 1).mean(axis=0)
        assert ((share > 0.1) & (share < 0.8)).all()


def test_no_patient_is_in_two_splits() -> None:
    """Splits are of patients, in each hospital, and all of them are used."""
    for name in SPECS:
        frame = table(name, films=900).frame
        assert set(frame["split"]) == {"train", "val", "test"}
        own = frame[frame["patient"].str.startswith(name.removeprefix("phantom-"))]
        assert (own.groupby("patient")["split"].nunique() == 1).all()
    assert [split_of(patient) for patient in range(3)] == [split_of(p) for p in range(3)]


def test_some_films_of_the_north_are_in_the_south() -> None:
    """The leak on purpose: six test films of the north train the south, under the same identity."""
    north, south = table("phantom-north").frame, table("phantom-south").frame
    both = south.merge(north, on="source_id", suffixes=("", "_north"))
    assert both["split"].tolist() == ["train"] * 12
    assert both["split_north"].value_counts().to_dict() == {"train": 6, "test": 6}
    for image in both["image"]:
        assert (
            phantom._read_image(both[both["image"] == image].iloc[0], PhantomOptions()) > 0
        ).any()


def test_patients_have_several_films_of_one_anatomy() -> None:
    """Films of one patient share sex and source; sexes and ages both occur."""
    frame = table("phantom-north").frame
    assert frame["patient"].value_counts().max() >= 4
    assert (frame.groupby("patient")["sex"].nunique() == 1).all()
    assert frame["sex"].value_counts().min() > 200
    assert frame["age"].between(18, 95).all()


def _with(case: Case, *findings: str) -> Case:
    from dataclasses import replace

    return replace(case, findings=frozenset(findings))


@pytest.mark.parametrize("finding", [name for name in FINDINGS if name != "enlarged heart"])
def test_a_finding_changes_the_lungs_alone(finding: str) -> None:
    """What a label says is drawn, and outside the lungs the film stays as it is."""
    case = make_case(NORTH, 4)
    plain, ill = draw(_with(case), 128).astype(float), draw(_with(case, finding), 128).astype(float)
    lungs = masks(_with(case), 128)[:2].any(axis=0)
    changed = np.abs(plain - ill) > 8
    assert changed.sum() > 20
    # Soft edges reach a little beyond the hard mask.
    assert changed[lungs].sum() > 0.8 * changed.sum()


def test_an_enlarged_heart_is_larger() -> None:
    """The mask grows with the finding, and the table's label is the drawing's."""
    case = make_case(NORTH, 4)
    areas = [masks(_with(case, *f), 128)[2].sum() for f in ((), ("enlarged heart",))]
    assert areas[1] > 1.15 * areas[0]


def test_masks_follow_the_film() -> None:
    """Structures in the declared order, at any size; the left lung is to the viewer's right."""
    small, large = masks(make_case(NORTH, 3), 64), masks(make_case(NORTH, 3), 256)
    assert small.shape == (len(STRUCTURES), 64, 64)
    assert small.dtype == bool
    np.testing.assert_allclose(small.mean(axis=(1, 2)), large.mean(axis=(1, 2)), atol=0.01)
    columns = [np.flatnonzero(mask.any(axis=0)).mean() for mask in large]
    assert columns[0] > columns[1]
    assert columns[3] > columns[4]


def test_no_pixel_has_a_fixed_meaning() -> None:
    """Over films, every pixel's spread is large: position, scale and exposure all vary."""
    films = np.stack([draw(make_case(NORTH, film), 64) for film in range(80)]).astype(float)
    assert films[:, 8:56, 8:56].std(axis=0).min() > 20
    means = [films[i : i + 40].mean() for i in (0, 40)]
    assert 60 < min(means) < max(means) < 200


def test_the_generator_names_itself() -> None:
    """Version and hash of the generator are part of every store's and run's record."""
    for name, spec in SPECS.items():
        own = ("ribs.py",) if name == "phantom-ribs" else ()
        assert spec.reader_version == f"{phantom.VERSION}-{phantom.generator_hash(*own)}"


def test_ribs_are_the_bright_stripes() -> None:
    """Twenty ribs, none over another; the film is brighter along each than beside it."""
    gaps = []
    for film in range(30):
        case = make_case(NORTH, 10_000_000 + film)
        found, picture = ribs(case, 128), draw(case, 128).astype(float)
        assert found.shape == (len(RIBS), 128, 128)
        assert found.sum(axis=0).max() == 1
        bone = found.any(axis=0)
        # Some pixels above and below a rib, where no other one is.
        beside = (np.roll(bone, 4, axis=0) | np.roll(bone, -4, axis=0)) & ~bone
        gaps.append(picture[bone].mean() - picture[beside].mean())
        left = np.flatnonzero(found[: len(RIBS) // 2].any(axis=(0, 1))).mean()
        right = np.flatnonzero(found[len(RIBS) // 2 :].any(axis=(0, 1))).mean()
        assert right < left  # the patient's left is on the right of the film
    assert min(gaps) > 1
    assert np.mean(gaps) > 4
