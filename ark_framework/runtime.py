"""Device, precision and seeds: the only place where torch's global generator is set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from ark_framework.config import RuntimeConfig
from ark_framework.errors import MachineError


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where tensors live and how matrix products are rounded."""

    device: torch.device
    precision: str

    def autocast(self) -> torch.autocast:
        """Return the autocast context of this precision."""
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"
        )


def open_runtime(config: RuntimeConfig) -> Runtime:
    """Choose the device.

    Raises:
        MachineError: the asked device is not here.
    """
    name = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise MachineError(f"runtime.device = {name!r}: {str(error).splitlines()[0]}") from error
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    return Runtime(device=device, precision=config.precision)


def generator(seed: int, purpose: int, *where: int) -> np.random.Generator:
    """Return a counter-based generator addressed by up to three indices.

    The stream is a function of its arguments alone (Philox, key = seed and purpose, counter =
    the indices), so no state has to be kept to resume.
    """
    counter = [0, *reversed([0] * (3 - len(where)) + list(where))]
    return np.random.Generator(np.random.Philox(counter=counter, key=[seed, purpose]))


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch's own draws, such as drop path, for one step."""
    state = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0] >> np.uint64(1)))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block with torch's CPU generator at ``seed``; the caller's state comes back."""
    before = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.random.set_rng_state(before)
