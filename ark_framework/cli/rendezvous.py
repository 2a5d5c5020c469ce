"""Where the processes of one machine meet: on an address that no other machine reaches.

torch's own rendezvous listens on every interface and asks nobody who they are; what its clients
store, the ranks read.
"""

from __future__ import annotations

import socket

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # it is documented
from torch.distributed.elastic.rendezvous import RendezvousParameters, rendezvous_handler_registry
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

NAME = "ark-here"
HERE = "127.0.0.1"
# Seconds that torch gives a process to come.
PATIENCE = 600


class Here(StaticTCPRendezvous):
    """A rendezvous of the ranks that this process starts."""

    def __init__(self, run_id: str) -> None:
        listener = socket.create_server((HERE, 0))
        port = listener.getsockname()[1]
        super().__init__(HERE, port, rank=0, world_size=1, run_id=run_id, timeout=PATIENCE)
        self._store = TCPStore(
            HERE,
            port,
            is_master=True,
            timeout=self.timeout,
            wait_for_workers=False,
            master_listen_fd=listener.detach(),
        )

    def get_backend(self) -> str:
        """Return its name."""
        return NAME


def register() -> str:
    """Make it known to torch, and return its name."""
    rendezvous_handler_registry.register(NAME, _made)
    return NAME


def loopback() -> str | None:
    """Return the name of the interface that only this machine reaches."""
    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in ("lo", "lo0") if name in names), None)


def _made(params: RendezvousParameters) -> Here:
    return Here(params.run_id)
