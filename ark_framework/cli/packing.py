"""A progress bar for whatever takes a while: packing, embedding, scoring, comparing films."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.progress import TimeRemainingColumn as Remaining

from ark_framework.durations import left
from ark_framework.text import printable

if TYPE_CHECKING:
    from ark_framework.store import Store

Thing = TypeVar("Thing")
# Seconds between plain lines where there is no terminal.
QUIET = 10.0


class PackingBar:
    """A bar on a terminal, else a line now and then; both say how long it may take.

    Called as ``bar(dataset, done, total)`` it shows packing; :meth:`show` shows anything.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._ids: dict[str, TaskID] = {}
        self._began: dict[str, tuple[float, int]] = {}  # when, and what was done by then
        self._spoke = 0.0

    def embedding(self, dataset: str, done: int, total: int) -> None:
        """Show ``done`` of ``total`` films that a model has seen."""
        self.show(f"embedding {dataset}", done, total)

    def scoring(self, dataset: str, done: int, total: int) -> None:
        """Show ``done`` of ``total`` films scored."""
        self.show(f"scoring {dataset}", done, total)

    def __enter__(self) -> PackingBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def __call__(self, dataset: str, done: int, total: int) -> None:
        """Show ``done`` of ``total`` films packed."""
        self.show(f"packing {dataset}", done, total)

    def show(self, doing: str, done: int, total: int) -> None:
        """Show ``done`` of ``total`` of what is being done."""
        began, before = self._began.setdefault(doing, (monotonic(), done))
        if self._console.is_terminal:
            self._draw(doing, done, total)
        elif done == total or monotonic() - self._spoke > QUIET:
            self._spoke = monotonic()
            remains = left(done - before, total - before, seconds=self._spoke - began)
            line = f"{doing}: {done}/{total}{remains}"
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def each(self, things: Sequence[Thing], doing: str) -> Iterator[Thing]:
        """Yield things, and show how many are done; of one alone nothing is said."""
        for done, thing in enumerate(things):
            if len(things) > 1:
                self.show(doing, done, len(things))
            yield thing
        if len(things) > 1 and self._console.is_terminal:
            self.show(doing, len(things), len(things))

    def _draw(self, doing: str, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                Remaining(),
                console=self._console,
            )
            self._bar.start()
        if doing not in self._ids:
            self._ids[doing] = self._bar.add_task(printable(doing), total=total)
        self._bar.update(self._ids[doing], completed=done, total=total)
        if done == total:
            self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar, self._ids = None, {}


def packed(name: str, store: Store) -> dict[str, Any]:
    """Return what there is to say of a packed dataset."""
    return {
        "dataset": name,
        "films": len(store.images),
        "bytes": int(store.images.nbytes + store.masks.nbytes),
        "size": store.size,
        "fit": store.fit,
        "structures": store.structures,
        "store": str(store.folder),
        "unreadable": dict(store.bad),
    }


def summary(name: str, store: Store) -> str:
    """Say it in a line."""
    bad = f", {len(store.bad)} unreadable left black" if store.bad else ""
    many = f"{store.structures} structure{'s' * (store.structures > 1)}"
    drawn = f" with masks of {many}" if store.structures else ""
    count = int(store.images.nbytes + store.masks.nbytes)
    return (
        f"{name}: {len(store.images)} films of {store.size} x {store.size}"
        f"{drawn}, {count / 1e6:.0f} MB{bad}, in {store.folder}"
    )
