"""Device, precision and seeds: the only place where torch's global generator is set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ark_framework.config import RuntimeConfig
from ark_framework.errors import MachineError
from ark_framework.ranks import SINGLE, Ranks, open_ranks


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where tensors live, how matrix products are rounded, and which process this is.

    ``piece``: films that go through the model at once, a step's gradients being added up.
    ``compiled``: whether what can be compiled is.
    """

    device: torch.device
    precision: str
    ranks: Ranks = SINGLE
    piece: int | None = None
    compiled: bool = False

    def share_batch_norm(self, model: nn.Module, say: Callable[[str], None]) -> None:
        """Let batch norm see the global batch where there are GPUs; say so where it cannot."""
        kind = nn.modules.batchnorm._BatchNorm
        if self.ranks.world == 1 or not any(isinstance(each, kind) for each in model.modules()):
            return
        if self.device.type == "cuda":
            convert: Callable[..., nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
            convert(model)  # in place, for the model is no bare layer
            return
        say(
            "warning: on CPUs batch norm sees each rank's films alone, so that the result depends "
            "on how many ranks there are"
        )

    def hardware(self) -> str:
        """Return what a reader of a report calls the machine: the GPUs, or the CPU's threads."""
        count, threads = self.ranks.world, torch.get_num_threads()
        if self.device.type == "cuda":
            return f"{count} x {torch.cuda.get_device_name(self.device)}"
        several = f"{count} processes, each of " if count > 1 else ""
        return f"{self.device.type}, {several}{threads} thread{'s' if threads > 1 else ''}"

    def seed_step(self, seed: int, step: int) -> None:
        """Seed torch's own draws, such as drop path, for one step on this rank."""
        state = np.random.SeedSequence([seed, step, self.ranks.rank]).generate_state(1, np.uint64)
        drawn = int(state[0] >> np.uint64(1))
        if self.device.type == "cpu":
            # torch's would also format a traceback for each kind of device that is not in use.
            torch.default_generator.manual_seed(drawn)
        else:
            torch.manual_seed(drawn)

    def autocast(self) -> torch.autocast:
        """Return the autocast context of this precision."""
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"
        )


def open_runtime(config: RuntimeConfig) -> Runtime:
    """Choose the device; of several processes, each has its own GPU where there are GPUs.

    How torch rounds 32-bit products on GPUs is set for the whole process.

    Raises:
        MachineError: the asked device is not here, or nothing can be compiled for it.
    """
    ranks = open_ranks()
    name = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and ranks.world > 1:
        name = f"cuda:{ranks.local}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise MachineError(f"runtime.device = {name!r}: {str(error).splitlines()[0]}") from error
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = config.tf32  # torch's own default is to round
    if config.compile:
        _try_compiler(device)
    return Runtime(
        device=device,
        precision=config.precision,
        ranks=ranks,
        piece=config.piece,
        compiled=config.compile,
    )


def _try_compiler(device: torch.device) -> None:
    """Compile something small, so that a missing compiler is known before data are read."""
    try:
        torch.compile(torch.sin)(torch.ones(8, device=device))
    except (RuntimeError, OSError, ImportError) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise MachineError(
            f"runtime.compile: nothing can be compiled for {device} here ({why}); install a C++ "
            "compiler, and Triton for a GPU, or leave it off"
        ) from error


def sent(tensor: Tensor, device: torch.device | None) -> Tensor:
    """Return a tensor of the CPU on the device, without waiting until it is there."""
    if device is None or device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def generator(seed: int, purpose: int, *where: int) -> np.random.Generator:
    """Return a counter-based generator addressed by up to three indices.

    The stream is a function of its arguments alone (Philox, key = seed and purpose, counter =
    the indices), so no state has to be kept to resume.
    """
    counter = [0, *reversed([0] * (3 - len(where)) + list(where))]
    return np.random.Generator(np.random.Philox(counter=counter, key=[seed, purpose]))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block with torch's CPU generator at ``seed``; the caller's state comes back."""
    before = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.random.set_rng_state(before)
