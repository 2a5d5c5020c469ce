"""Several processes that train one model: which of them this is, and what they tell one another.

Started by torchrun, which sets ``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK``; without it there is one
process, and every call is free.  Every rank sees the same global batches and takes its own films
of them, so that what is computed does not depend on how many there are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
from torch import Tensor, distributed, nn

from ark_framework.errors import MachineError

# Numbers that are added at once; fewer would leave the wires idle, more would wait for the last.
BUCKET = 2**23
# torchrun ends every rank when one dies, so no wait has to end by itself; packing takes hours.
PATIENCE = timedelta(days=2)


class RanksLost(MachineError):
    """Another rank has ended, or failed; what it said is the reason."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among all.

    Attributes:
        rank: From 0.
        world: How many there are.
        local: From 0 on this machine: the number of its GPU.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def mine(self, count: int) -> np.ndarray:
        """Return which of ``count`` films of a global batch are this rank's: r, r + W, …."""
        return np.arange(self.rank, count, self.world)

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors, which all ranks have alike, by their sums over ranks."""
        if self.world == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([each.reshape(-1) for each in bucket])
            with _reaching():
                distributed.all_reduce(flat)
            sizes = [each.numel() for each in bucket]
            for each, part in zip(bucket, torch.split(flat, sizes), strict=True):
                each.copy_(part.view_as(each))

    def add_gradients(
        self, parameters: Sequence[nn.Parameter], *values: Tensor, scarce: bool
    ) -> None:
        """Replace gradients, of what is in use, and further values by their sums over ranks.

        Args:
            parameters: All that are trained, the same on every rank.
            values: Tensors that are added up beside.
            scarce: Whether some rank may have had no film that uses what others used.
        """
        if self.world == 1:
            return
        if scarce:  # a rank without a film of a task learns here what the others moved
            used = self.any([each.grad is not None for each in parameters])
            for each, flag in zip(parameters, used, strict=True):
                if flag and each.grad is None:
                    each.grad = torch.zeros_like(each)
        self.add([*(each.grad for each in parameters if each.grad is not None), *values])

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """Return for each of some flags whether any rank raised it; the CPUs talk alone."""
        if self.world == 1:
            return list(flags)
        told = torch.tensor(flags, dtype=torch.int32)
        with _reaching():
            distributed.all_reduce(told, op=distributed.ReduceOp.MAX)
        return [bool(each) for each in told.tolist()]

    def gather(self, pieces: Sequence[np.ndarray]) -> np.ndarray:
        """Return the rows ``(n, …)`` of which rank r has r, r + W, …, in pieces, in their order."""
        mine = np.concatenate(pieces) if len(pieces) else None
        if self.world == 1:
            assert mine is not None, "nothing to gather"
            return mine
        told: list[np.ndarray | None] = [mine] * self.world
        with _reaching():
            distributed.all_gather_object(told, mine)
        parts = [each for each in told if each is not None]  # a rank may have no rows
        shape = (sum(map(len, parts)), *parts[0].shape[1:])
        whole = np.empty(shape, dtype=parts[0].dtype)
        for rank, part in enumerate(parts):
            whole[rank :: self.world] = part
        return whole

    def tell(self, what: str) -> str:
        """Return what the first rank says."""
        if self.world == 1:
            return what
        told = [what]
        with _reaching():
            distributed.broadcast_object_list(told)
        return told[0]

    def wait(self) -> None:
        """Wait until every rank is here."""
        self.any([False])

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Run a block on the first rank, then on the others: they find what it made.

        Raises:
            RanksLost: on the others, when the block raised on the first.
        """
        if not self.first:
            if self.any([False])[0]:
                raise RanksLost("the first rank failed; it says why")
            yield
            return
        try:
            yield
        except BaseException:
            with suppress(RanksLost):
                self.any([True])
            raise
        self.any([False])


SINGLE = Ranks()  # the one process that there is without torchrun


def open_ranks() -> Ranks:
    """Return this process among those that torchrun started, and join them.

    Raises:
        MachineError: they cannot be reached.
    """
    if not (distributed.is_available() and distributed.is_torchelastic_launched()):
        return Ranks()
    found = Ranks(
        rank=int(os.environ["RANK"]),
        world=int(os.environ["WORLD_SIZE"]),
        local=int(os.environ["LOCAL_RANK"]),
    )
    if found.world > 1 and not distributed.is_initialized():
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(found.local % torch.cuda.device_count())
        # What is said between CPUs never waits for a GPU.
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        try:
            distributed.init_process_group(backend, timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            why = str(error).splitlines()[0]
            raise MachineError(f"rank {found.rank} of {found.world}: {why}") from error
    return found


def close_ranks() -> None:
    """Leave the other processes, when all is done."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        why = str(error).splitlines()[0]
        raise RanksLost(f"another rank has ended; it says why ({why})") from error


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for each in tensors:
        if bucket and (size + each.numel() > BUCKET or each.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(each)
        size += each.numel()
    if bucket:
        yield bucket
