"""Where the twenty ribs of a phantom film are: the bright stripes that ``film.draw`` paints.

In a file of its own, because the generator's hash, which names the drawn world, covers what a
film looks like and not what is said of it.
"""

from __future__ import annotations

import numpy as np

from ark_framework.builtin.phantom.case import Case
from ark_framework.builtin.phantom.film import Array, _pose, anatomy

COUNT = 10  # on either side
RIBS = tuple(f"{side} rib {number}" for side in ("left", "right") for number in range(1, COUNT + 1))
# Of the stripes, which count from the middle of the film; the first is above the clavicles.
HIGHEST = -5
# Half of a rib's width, as a share of the gap from rib to rib: there a stripe is at half its
# brightness.
HALF = 1 / 6
# Ribs begin beside the spine and end where the stripes do.
INNER, OUTER = 0.07, 0.72


def ribs(case: Case, size: int) -> Array:
    """Return the ribs of a film, ``(20, size, size)`` bool, in the order of RIBS.

    A rib that the film does not reach is empty.
    """
    x, y, _ = _pose(case, size)
    place = (y + 0.22 * x * x) / anatomy(case).rib_gap
    number = np.rint(place)
    near = np.abs(place - number) <= HALF
    found = []
    for side in (1.0, -1.0):  # the patient's left is on the right of the film
        there = near & (x * side > INNER) & (x * side < OUTER)
        found += [there & (number == HIGHEST + rib) for rib in range(COUNT)]
    return np.stack(found)
