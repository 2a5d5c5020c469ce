"""The films of a batch: from the stores' memory maps, or from copies that stay on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ark_framework.corpus import Corpus
from ark_framework.errors import MachineError
from ark_framework.runtime import sent

# Films that are copied to the device at once.
FEW = 1024
# Datasets and rows of their tables, in the order of the batch.
Wanted = Sequence[tuple[str, np.ndarray]]


class Films(Protocol):
    """Where films come from, in two halves: a thread may do the first, the loop does the second."""

    def read(self, wanted: Wanted) -> Callable[[], Tensor]:
        """Read films; what comes back puts them on the device, ``(B, C, S, S)`` uint8."""
        ...


class Mapped:
    """Films from memory maps.

    Args:
        corpora: By dataset name.
        device: Where they go; on the way to a GPU they are read into pinned memory, which it
            fetches by itself while the CPU goes on.
        reuse: Read every batch into the same memory, which saves the system from clearing as much
            for each; what was read before is then lost.
    """

    def __init__(
        self, corpora: Mapping[str, Corpus], device: torch.device, *, reuse: bool = False
    ) -> None:
        self._corpora, self._device, self._reuse = corpora, device, reuse
        self._last: Tensor | None = None

    def read(self, wanted: Wanted) -> Callable[[], Tensor]:
        """Read films from disk, in its order, each to its place in the batch."""
        shape = self._corpora[wanted[0][0]].store.images.shape[1:]
        host = self._host((sum(len(rows) for _, rows in wanted), *shape))
        batch, start = host.numpy(), 0
        for name, rows in wanted:
            corpus = self._corpora[name]
            stored, index = np.asarray(corpus.store.images), corpus.index[rows]
            for each in np.argsort(index):
                batch[start + each] = stored[index[each]]
            start += len(rows)
        return lambda: host.to(self._device, non_blocking=True)

    def _host(self, shape: tuple[int, ...]) -> Tensor:
        if not self._reuse:
            # Torch keeps pinned memory, and gives it out again once the GPU has fetched from it.
            pin = self._device.type == "cuda"
            return torch.empty(shape, dtype=torch.uint8, pin_memory=pin)
        last = self._last
        if last is None or last.shape[1:] != shape[1:] or len(last) < shape[0]:
            self._last = last = torch.empty(shape, dtype=torch.uint8)
        return last[: shape[0]]


class Resident:
    """Films copied to the device once, one tensor per dataset, and taken there.

    Args:
        corpora: By dataset name.
        rows: The table rows that will be asked for, by dataset name; each once, ascending.
        device: Where they stay.

    Raises:
        MachineError: they do not fit.
    """

    def __init__(
        self, corpora: Mapping[str, Corpus], rows: Mapping[str, np.ndarray], device: torch.device
    ) -> None:
        self._rows, self._device = rows, device
        try:
            self._films = {name: _copied(corpora[name], rows[name], device) for name in rows}
        except torch.OutOfMemoryError as error:
            raise MachineError(
                f"store.resident: {needed(corpora, rows) / 2**30:.1f} GB of films do not fit on "
                f"{device}; leave it out or set it to false"
            ) from error

    def read(self, wanted: Wanted) -> Callable[[], Tensor]:
        """Look up where films lie on the device."""
        places = [
            (name, torch.from_numpy(np.searchsorted(self._rows[name], rows)))
            for name, rows in wanted
        ]
        return lambda: torch.cat(
            [self._films[name][sent(place, self._device)] for name, place in places]
        )


def needed(corpora: Mapping[str, Corpus], rows: Mapping[str, np.ndarray]) -> int:
    """Return the bytes of some films of each dataset."""
    return sum(
        len(some) * int(np.prod(corpora[name].store.images.shape[1:]))
        for name, some in rows.items()
    )


def fit(
    corpora: Mapping[str, Corpus], rows: Mapping[str, np.ndarray], device: torch.device
) -> bool:
    """Whether films fit into half of a GPU's free memory; the rest is for the model's work."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return 2 * needed(corpora, rows) <= free


def _copied(corpus: Corpus, rows: np.ndarray, device: torch.device) -> Tensor:
    shape = corpus.store.images.shape[1:]
    films = torch.empty((len(rows), *shape), dtype=torch.uint8, device=device)
    source = Mapped({corpus.name: corpus}, device)
    for start in range(0, len(rows), FEW):
        some = rows[start : start + FEW]
        films[start : start + len(some)] = source.read([(corpus.name, some)])()
    return films
