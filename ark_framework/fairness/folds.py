"""Which films train and test one sex at a time: dealings of pairs (Larrazabal et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ark_framework.audit import patient_keys
from ark_framework.corpus import Corpus, scored_targets
from ark_framework.errors import DataError
from ark_framework.fairness.pairs import Pairs, pairs

LEAST = 30  # pairs: 21 to train on, 3 to validate, 6 to test
PURPOSE = 0x5E  # sets these draws apart from others of the same seed


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Rows of a corpus, ascending, one film per patient; no patient is in two parts.

    Attributes:
        number: From 1.
        train: By the share of women among them, 0 to 1; all of one size where they were dealt.
        val: Likewise.  A published fold has them; nothing is chosen by them here.
        test: By sex, ``F`` and ``M``.
    """

    number: int
    train: Mapping[float, np.ndarray]
    val: Mapping[float, np.ndarray]
    test: Mapping[str, np.ndarray]

    @property
    def rows(self) -> np.ndarray:
        """Rows that are trained or tested on, ``(n,)`` ascending."""
        return np.unique(np.concatenate([*self.train.values(), *self.test.values()]))

    def mixed(self, patient: np.ndarray) -> int:
        """Return how many patients, of codes ``(N,)``, are in more than one part."""
        parts = [
            np.unique(patient[np.concatenate(list(part.values()))])
            for part in (self.train, self.val, self.test)
        ]
        return int((np.unique(np.concatenate(parts), return_counts=True)[1] > 1).sum())


def dealt(
    corpus: Corpus,
    rows: np.ndarray,
    *,
    folds: int = 20,
    shares: Sequence[float] = (0.0, 1.0),
    seed: int = 0,
) -> tuple[Fold, ...]:
    """Deal rows anew for each fold: a film per patient, partners, and 70/10/20 % of the pairs.

    Partners agree in every label as it is scored, so that a blank that counts as 0 is a 0.  Both
    films of a pair are in one part, so that women and men have equal case counts in each.

    Raises:
        DataError: one sex is absent, or there are fewer than 30 pairs.
    """
    sex = corpus.table.frame["sex"].to_numpy(dtype=object)
    targets = scored_targets(corpus.table.targets(), corpus.schema)
    patient = patients(corpus)
    found = []
    for number in range(1, folds + 1):
        rng = np.random.default_rng([seed, PURPOSE, number])
        drawn = pairs(sex, patient, targets, rows, rng=rng)
        if len(drawn) < LEAST:
            women, men = (len(drawn) + drawn.unpaired[each] for each in ("F", "M"))
            raise DataError(
                f"{corpus.name}: {women} women and {men} men make {len(drawn)} pairs with the "
                f"same labels; training on one sex at a time needs {LEAST}"
            )
        found.append(_deal(drawn, number, shares, rng))
    return tuple(found)


def patients(corpus: Corpus) -> np.ndarray:
    """Return each row's patient as a code ``(N,)``; one of another dataset's name is one."""
    return np.unique(patient_keys(corpus.table).to_numpy(dtype=str), return_inverse=True)[1]


def _deal(drawn: Pairs, number: int, shares: Sequence[float], rng: np.random.Generator) -> Fold:
    count = len(drawn)
    # Rounded as published: 27,147 are 19,004, 2,714 and 5,429.
    ends = [count // 5, count // 5 + count // 10]
    test, val, train = np.split(rng.permutation(count), ends)
    return Fold(
        number=number,
        train={share: _share(drawn, train, share) for share in shares},
        val={share: _share(drawn, val, share) for share in shares},
        test={"F": np.sort(drawn.female[test]), "M": np.sort(drawn.male[test])},
    )


def _share(drawn: Pairs, part: np.ndarray, share: float) -> np.ndarray:
    """Return the women of the first pairs and the men of the others, so that shares are nested."""
    women = round(share * len(part))
    return np.sort(np.concatenate([drawn.female[part[:women]], drawn.male[part[women:]]]))
