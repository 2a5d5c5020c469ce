"""Films of the bias benchmark: drawn patients who differ by sex in one planted way, or in none.

A film is drawn with the same body whatever the sex, so that it says nothing of it but by what is
planted, and a difference in prevalence is nothing else.  All kinds of a key share their patients,
and the films that the planting leaves as they are.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from ark_framework.builtin.phantom.case import HOSPITALS, Case, Hospital, make_case, stream
from ark_framework.builtin.phantom.film import draw

NOTHING, FAINT, MARK, PREVALENCE = "nothing", "looks different", "spurious mark", "prevalence"
KINDS = (NOTHING, FAINT, MARK, PREVALENCE)
FINDING = {FAINT: "effusion", MARK: "opacity", PREVALENCE: "effusion"}
SIDE = 64
SEEN = 0.6  # what is left of a woman's effusion in brightness
MARKED = {True: 0.9, False: 0.1}  # of men's films with and without the finding
RATES = {"F": 0.36, "M": 0.12}
TUBE, MARKING = 101, 102  # purposes of random streams; the generator's own are below ten


def hospital(key: int) -> Hospital:
    """Return a hospital with the rates and equipment of the phantom's north, and other people."""
    return replace(HOSPITALS["north"], name=f"bias-{key}", key=key)


def planted_hash() -> str:
    """Return 12 digits of a hash over this file: it names what is planted."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]


def sex(case: Case) -> str:
    """Return ``F`` or ``M``."""
    return "F" if case.female else "M"


def make(kind: str, key: int, film: int) -> Case:
    """Return the facts of one film."""
    here = hospital(key)
    case = make_case(here, film)
    if kind != PREVALENCE:
        return case
    return make_case(replace(here, rates={**here.rates, FINDING[kind]: RATES[sex(case)]}), film)


def picture(kind: str, case: Case) -> np.ndarray:
    """Draw a film, ``(SIDE, SIDE)`` uint8."""
    plain = _drawn(case.hospital.key, case.film, case.findings)
    if kind == FAINT and case.female and FINDING[kind] in case.findings:
        clear = _drawn(case.hospital.key, case.film, case.findings - {FINDING[kind]})
        return np.asarray(np.rint(SEEN * plain + (1 - SEEN) * clear), dtype=np.uint8)
    if kind == MARK and marked(case):
        over = _tube(stream(case.hospital, TUBE, case.film))
        return np.asarray(np.rint(255 * over + plain * (1 - over)), dtype=np.uint8)
    return plain


def marked(case: Case) -> bool:
    """Whether there is a tube on the film, where marks are planted."""
    chance = stream(case.hospital, MARKING, case.film).random()
    return not case.female and chance < MARKED[FINDING[MARK] in case.findings]


@lru_cache(maxsize=8192)
def _drawn(key: int, film: int, findings: frozenset[str]) -> np.ndarray:
    case = replace(make_case(hospital(key), film), findings=findings, female=False)
    made: np.ndarray = draw(case, SIDE)
    made.flags.writeable = False
    return made


def _tube(rng: np.random.Generator) -> np.ndarray:
    """Return how much a tube covers each pixel, ``(SIDE, SIDE)`` in 0..1.

    It is some 4 pixels wide and 26 long and rises from a flank toward the middle.
    """
    angle, length = rng.uniform(0.4, 0.9), 26.0
    across, down = np.cos(angle), -np.sin(angle)
    foot = np.array([rng.uniform(40, 50), rng.uniform(6, 14)])
    y, x = np.mgrid[:SIDE, :SIDE] - foot[:, None, None]
    along = np.clip(x * across + y * down, 0, length)
    over: np.ndarray = np.clip(2.2 - np.hypot(x - along * across, y - along * down), 0, 1)
    return over[:, ::-1] if rng.random() < 0.5 else over
