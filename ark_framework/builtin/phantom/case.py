"""Who is on a phantom film and what is wrong with them: pure functions of (hospital, film).

Nothing here draws; labels come from these facts alone, so a table of thousands of films is read
in a moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

FINDINGS = ("opacity", "nodule", "effusion", "enlarged heart", "pneumothorax", "edema")
# Films per patient, over and over: most have one or two.
VISITS = (1, 2, 1, 3, 1, 2, 4, 1)


@dataclass(frozen=True, kw_only=True)
class Hospital:
    """How a hospital's films look, and who comes there.

    ``rates`` are the findings' frequencies; ``gamma``, ``blur`` (pixels at 128), ``noise`` and
    ``border`` (share of films with a dark frame) are its equipment.
    """

    name: str
    key: int
    rates: Mapping[str, float]
    gamma: tuple[float, float]
    noise: float
    blur: int
    border: float
    upper: float = 0.3  # share of opacities in the upper zone


HOSPITALS = {
    each.name: each
    for each in (
        Hospital(
            name="north",
            key=11,
            gamma=(0.75, 1.35),
            noise=0.030,
            blur=0,
            border=0.0,
            rates={
                "opacity": 0.32,
                "nodule": 0.25,
                "effusion": 0.28,
                "enlarged heart": 0.28,
                "pneumothorax": 0.22,
                "edema": 0.22,
            },
        ),
        Hospital(
            name="south",
            key=12,
            gamma=(0.6, 1.1),
            noise=0.045,
            blur=1,
            border=0.4,
            rates={
                "opacity": 0.36,
                "nodule": 0.14,
                "effusion": 0.2,
                "enlarged heart": 0.18,
                "pneumothorax": 0.1,
                "edema": 0.1,
            },
        ),
        Hospital(
            name="east",
            key=13,
            gamma=(0.9, 1.7),
            noise=0.055,
            blur=1,
            border=0.15,
            rates={
                "opacity": 0.55,
                "nodule": 0.12,
                "effusion": 0.12,
                "enlarged heart": 0.15,
                "pneumothorax": 0.08,
                "edema": 0.08,
            },
            upper=0.6,
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One film: the patient, the findings and how it was taken."""

    hospital: Hospital
    film: int
    patient: int
    female: bool
    age: int
    view: str
    findings: frozenset[str]
    upper: bool
    uncertain: frozenset[str] = field(default_factory=frozenset)
    missing: frozenset[str] = field(default_factory=frozenset)


def stream(hospital: Hospital, purpose: int, index: int) -> np.random.Generator:
    """Return the generator of one film or patient; no global state is touched."""
    philox = np.random.Philox(counter=[0, 0, 0, index], key=[hospital.key, purpose])
    return np.random.Generator(philox)


def patient_of(film: int) -> int:
    """Return the patient of a film; :data:`VISITS` says how many each has."""
    turn, rest = divmod(film, sum(VISITS))
    return turn * len(VISITS) + int(np.searchsorted(np.cumsum(VISITS), rest, side="right"))


def make_case(hospital: Hospital, film: int) -> Case:
    """Return the facts of one film."""
    patient = patient_of(film)
    person = stream(hospital, 1, patient)
    female = bool(person.random() < 0.48)
    age = int(np.clip(person.normal(55, 17), 18, 92))
    rng = stream(hospital, 2, film)
    older = 1.0 + (age - 55) / 120.0
    findings = frozenset(
        name
        for name, draw in zip(FINDINGS, rng.random(6), strict=True)
        if draw < hospital.rates[name] * older
    )
    doubt, blank = rng.random(6), rng.random(6)
    return Case(
        hospital=hospital,
        film=film,
        patient=patient,
        female=female,
        age=min(age + film % 3, 92),
        view="PA" if rng.random() < 0.7 else "AP",
        findings=findings,
        upper=bool(rng.random() < hospital.upper),
        uncertain=frozenset(n for n, d in zip(FINDINGS, doubt, strict=True) if d < 0.05),
        missing=frozenset(n for n, d in zip(FINDINGS, blank, strict=True) if d < 0.12),
    )


def split_of(patient: int) -> str:
    """Return a patient's split: about 7 in 10 train, 1 val, 2 test."""
    # Knuth's multiplicative hash spreads neighbours; no table has to be kept.
    bucket = (patient * 2654435761 % 2**32) * 20 // 2**32
    return "train" if bucket < 14 else "val" if bucket < 16 else "test"
