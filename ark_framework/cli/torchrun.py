"""One command, several processes: ``--gpus N`` starts itself N times under torchrun.

A process that ends makes torchrun end the others.  So one that fails because another did must not
be the first to end, and what all would say is said by the first of them.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ark_framework.cli.console import console as open_console
from ark_framework.cli.plain import echo
from ark_framework.errors import ArkError, Interrupted, MachineError

if TYPE_CHECKING:
    from rich.console import Console
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

Command = TypeVar("Command", bound=Callable[..., Any])
# Seconds that a rank keeps an error to itself, which the first may be about to say as well.
HOLD = 5.0
# Seconds that a rank which lost the others waits to be ended; on another machine nobody may.
LOST = 15.0
# Seconds that ranks have, when torchrun is asked to stop, to finish scoring and to save.
GRACE = "900"


def gpus(command: Command) -> Command:
    """Add ``--gpus`` to a click command."""
    return click.option(
        "--gpus",
        type=click.IntRange(min=1),
        metavar="N",
        help="Train in N processes, one for each GPU; of CPUs where runtime.device is cpu.",
    )(command)


def relaunch(count: int, *, device: str | None) -> int:
    """Run this very command in ``count`` processes of this machine; return its exit code.

    Raises:
        MachineError: there are fewer GPUs.
    """
    import torch
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from ark_framework.cli import rendezvous

    here = torch.cuda.device_count()
    if device != "cpu" and here < count:
        raise MachineError(
            f"--gpus {count}: {here} here; ask for fewer, or set runtime.device to cpu"
        )
    _prepare_environment(count)
    with TemporaryDirectory(prefix="ark-ranks-") as logs:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            rdzv_backend=rendezvous.register(),
            rdzv_endpoint=rendezvous.HERE,
            local_addr=rendezvous.HERE,
            run_id="ark",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
        )
        try:
            elastic_launch(config, sys.executable)("-m", "ark_framework.cli", *sys.argv[1:])
        except ChildFailedError as error:
            return _ended(error)
        except SignalException:
            if _saved(Path(logs)):
                return Interrupted.exit_code
            echo("interrupted", err=True)
            return 130
    return 0


def _prepare_environment(count: int) -> None:
    from ark_framework.cli.rendezvous import loopback

    # As torchrun does: processes that share cores must not each take them all.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", GRACE)
    if (only := loopback()) is not None:  # what CPUs tell one another stays on this machine
        os.environ.setdefault("GLOO_SOCKET_IFNAME", only)
    # What the ranks say is enough: nobody need know which socket closed, or what was passed on.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    noise = logging.getLogger("torch.distributed.elastic")
    noise.addHandler(logging.NullHandler())
    noise.propagate = False


def _ended(error: ChildFailedError) -> int:
    """Return the exit code of the rank that failed first; say so for one that could not."""
    rank, failure = error.get_first_failure()
    if failure.exitcode >= 0:
        return failure.exitcode or ArkError.exit_code
    echo(
        f"error: rank {rank} was ended by {failure.signal_name()}, for want of memory perhaps, and "
        "the others with it; --resume goes on from the last checkpoint",
        err=True,
    )
    return 128 - failure.exitcode


def _saved(logs: Path) -> bool:
    """Whether the ranks stopped with a checkpoint, and said so."""
    return any(Interrupted.__name__ in file.read_text("utf-8") for file in logs.rglob("error.json"))


def divided(
    work: Callable[[Console], None], *, processes: int | None, device: str | None, as_json: bool
) -> int:
    """Do work in as many processes as asked; return the exit code.

    Args:
        work: Given a console, which is quiet in all processes but the first.
        processes: How many; this one alone when ``None``.
        device: Of the configuration.
        as_json: Whether standard output is for JSON.
    """
    from ark_framework.ranks import open_ranks

    if processes is not None and not inside():
        return relaunch(processes, device=device)
    with one_voice():
        work(open_console(stderr=as_json, quiet=not open_ranks().first))
    return 0


def inside() -> bool:
    """Whether this process is one of several already."""
    return "TORCHELASTIC_RUN_ID" in os.environ  # asked without torch, which takes seconds


@contextmanager
def one_voice() -> Iterator[None]:
    """Let one of several processes say what went wrong in all of them, or in it alone."""
    if not inside():
        yield
        return
    from ark_framework.ranks import RanksLost, close_ranks

    try:
        yield
    except RanksLost:
        time.sleep(LOST)
        raise
    except (Exception, KeyboardInterrupt) as error:
        _record(error)
        if os.environ["RANK"] != "0":
            time.sleep(HOLD)
            if isinstance(error, Interrupted):  # all are, and the first says so
                raise SystemExit(error.exit_code) from error
            if isinstance(error, KeyboardInterrupt):
                raise SystemExit(130) from error
        raise
    close_ranks()


def _record(error: BaseException) -> None:
    """Leave the error where torchrun looks for the reason of an exit code."""
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    get_error_handler().record_exception(error)
