"""Which structures of a mask dataset a network is to find, and which of them are one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ark_framework.errors import ConfigError, did_you_mean
from ark_framework.specs import LabelSchema

NAMES, UNION, TITLE, PLACE = ",", "+", "=", ":"


@dataclass(frozen=True, kw_only=True)
class Structures:
    """What one network finds.

    Attributes:
        title: Empty where it is everything that the dataset has, each by itself.
        names: Of its ``J`` masks.
        parts: By mask, the dataset's structures whose union it is, as indexes.
    """

    title: str
    names: tuple[str, ...]
    parts: tuple[tuple[int, ...], ...]

    def of(self, masks: np.ndarray) -> np.ndarray:
        """Unite masks ``(n, K, S, S)`` bool into ``(n, J, S, S)``."""
        return np.stack([masks[:, list(each)].any(axis=1) for each in self.parts], axis=1)

    def drawn(self, drawn: np.ndarray) -> np.ndarray:
        """Return ``(n, J)`` of ``(n, K)``: a union is drawn where all of its parts are."""
        return np.stack([drawn[:, list(each)].all(axis=1) for each in self.parts], axis=1)


def choose(given: Sequence[str], dataset: str, schema: LabelSchema) -> tuple[Structures, ...]:
    """Return the networks that are asked for on a dataset, every structure in one by default.

    Args:
        given: ``[DATASET:][NAME=]A+B,[NAME=]C``, a network each: structures joined by ``+`` are
            one mask, which may be named; ``,`` separates the masks of one network.
        dataset: Whose structures; those given for another are left out.
        schema: Its structures.

    Raises:
        ConfigError: an unknown structure, one that is named twice, or nothing at all.
    """
    texts = [own for text in given if (own := _own(text, dataset)) is not None]
    if not texts:
        whole = tuple((index,) for index in range(len(schema.labels)))
        return (Structures(title="", names=schema.labels, parts=whole),)
    return tuple(_network(text, schema, f"--structures {text!r}, {dataset}") for text in texts)


def check(given: Sequence[str], datasets: Sequence[str]) -> None:
    """Refuse structures that are given for a dataset which is not among these.

    Raises:
        ConfigError: naming it.
    """
    for text in given:
        name, colon, _ = text.partition(PLACE)
        if colon and name not in datasets:
            raise ConfigError(
                f"--structures {text!r}: no mask dataset {name!r}; there are {', '.join(datasets)}"
            )


def _own(text: str, dataset: str) -> str | None:
    name, colon, rest = text.partition(PLACE)
    if not colon:
        return text
    return rest if name == dataset else None


def _network(text: str, schema: LabelSchema, where: str) -> Structures:
    names, parts = [], []
    for mask in text.split(NAMES):
        name, _, union = mask.rpartition(TITLE)
        members = [each.strip() for each in union.split(UNION)]
        for each in members:
            if each not in schema.labels:
                near = (
                    did_you_mean(each, schema.labels) or f"; there are {', '.join(schema.labels)}"
                )
                raise ConfigError(f"{where}: no structure {each!r}{near}")
        names.append(name.strip() or UNION.join(members))
        parts.append(tuple(schema.labels.index(each) for each in members))
    if len(set(names)) < len(names):
        raise ConfigError(f"{where}: two masks are called alike; name one, as in NAME=A+B")
    return Structures(title=NAMES.join(names), names=tuple(names), parts=tuple(parts))
