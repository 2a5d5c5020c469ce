"""What a run does about training films that are held out somewhere: refuse, drop or allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ark_framework.audit import Audited, Leaks, audit
from ark_framework.corpus import Corpus
from ark_framework.errors import DataError
from ark_framework.linked import audited
from ark_framework.text import counted

# From here on the comparison takes long enough to say so.
MANY = 20_000


@dataclass(frozen=True, kw_only=True)
class LeakRecord:
    """What was found and done; it is kept with the run and given again when it is resumed.

    Attributes:
        policy: ``refuse``, ``drop``, ``drop-patients`` or ``allow``.
        films: Training films that are held out somewhere, before anything was dropped.
        patients: Training films whose patient is held out somewhere.
        told: The films by training dataset, held-out dataset and split.
        dropped: By dataset, the images that were taken out of the training split.
        compared: Every dataset that was looked at, those of the run first.
        unseen: Datasets known by their declared identities alone.
        narrow: Pairs of datasets whose pixels were searched for re-encoded films only.
    """

    policy: str
    films: int
    patients: int
    told: Mapping[str, int]
    dropped: Mapping[str, tuple[str, ...]]
    compared: tuple[str, ...]
    unseen: tuple[str, ...]
    narrow: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain data that :meth:`from_json` reads back."""
        dropped = {name: list(images) for name, images in self.dropped.items()}
        return {**vars(self), "told": dict(self.told), "dropped": dropped}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LeakRecord:
        """Read what :meth:`to_json` wrote."""
        dropped = {name: tuple(images) for name, images in values["dropped"].items()}
        listed = {name: tuple(values[name]) for name in ("compared", "unseen", "narrow")}
        return cls(**{**values, **listed, "dropped": dropped})

    def summary(self) -> dict[str, Any]:
        """Return the record without a film's name, for what is shared."""
        counts = {name: len(images) for name, images in self.dropped.items()}
        return {**self.to_json(), "dropped": counts}


def settle(
    corpora: Mapping[str, Corpus],
    others: Sequence[Audited],
    policy: str,
    *,
    say: Callable[[str], None],
) -> tuple[dict[str, Corpus], LeakRecord]:
    """Audit the datasets of a run and what is linked beside them, and act on it.

    Only training rows are ever dropped.

    Raises:
        DataError: ``policy`` is ``refuse`` and a training film is held out somewhere.
    """
    datasets = [*map(audited, corpora.values()), *others]
    films = sum(len(each.table) for each in datasets)
    if films > MANY:
        say(f"leaks: comparing {films} films by pixels; it takes minutes once, and is kept")
    found = audit(datasets)
    leaks = found.leaks({name: corpus.rows("train") for name, corpus in corpora.items()})
    if policy == "refuse" and leaks.film_count:
        raise DataError(_refusal(leaks))
    chosen = {"drop": leaks.films, "drop-patients": leaks.patients}.get(policy, {})
    record = LeakRecord(
        policy=policy,
        films=leaks.film_count,
        patients=leaks.patient_count,
        told={" > ".join(where): count for where, count in leaks.told.items()},
        dropped={
            name: tuple(corpora[name].table.frame["image"].iloc[rows])
            for name, rows in chosen.items()
            if len(rows)
        },
        compared=tuple(found.frame["dataset"].unique()),
        unseen=found.unseen,
        narrow=tuple(" and ".join(pair) for pair in found.narrow),
    )
    _tell(leaks, record, say)
    return {
        name: corpus.without(chosen.get(name, np.zeros(0, dtype=np.int64)))
        for name, corpus in corpora.items()
    }, record


def repeat(corpora: Mapping[str, Corpus], record: LeakRecord) -> dict[str, Corpus]:
    """Drop what a run dropped when it began, whatever has been linked since."""
    return {
        name: corpus.without(
            np.flatnonzero(corpus.table.frame["image"].isin(record.dropped.get(name, ())))
        )
        for name, corpus in corpora.items()
    }


def _refusal(leaks: Leaks) -> str:
    films, patients = (counted(n, "film") for n in (leaks.film_count, leaks.patient_count))
    return (
        f"{leaks.describe()}: a score there would be of films seen in training; --leaks drop "
        f"leaves {films} out, --leaks drop-patients all {patients} of held-out patients, --leaks "
        "allow trains on all of them"
    )


def _tell(leaks: Leaks, record: LeakRecord, say: Callable[[str], None]) -> None:
    if leaks.film_count:
        why = "scores there are of films seen in training; a published list may hold them too"
        say(f"leaks: {leaks.describe()}" + (f" ({why})" if record.policy == "allow" else ""))
    for name, images in record.dropped.items():
        say(f"leaks: {record.policy}: left out: {counted(len(images), 'training film')} of {name}")
    if leaks.patient_count > leaks.film_count and record.policy != "drop-patients":
        say(
            f"leaks: {counted(leaks.patient_count, 'training film')} of patients who are held out "
            "somewhere; --leaks drop-patients leaves out all of them"
        )
    for pair in record.narrow:
        say(f"leaks: {pair} are so large that only re-encoded films were searched for")
