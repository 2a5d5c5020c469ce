"""Work done ahead of a loop, by one thread, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def ahead(
    make: Callable[[Item], Made], items: Iterable[Item], *, depth: int
) -> Generator[Made, None, None]:
    """Yield ``make(item)`` of every item, made by a thread that is ``depth`` items ahead.

    With a depth of 0 there is no thread.  An error in the thread is raised where its item is due.
    The thread ends with the generator: close it where the loop may end early.
    """
    if not depth:
        yield from map(make, items)
        return
    pool = ThreadPoolExecutor(1, thread_name_prefix="ark-ahead")
    due: deque[Future[Made]] = deque()
    try:
        for item in items:
            due.append(pool.submit(make, item))
            if len(due) > depth:
                yield due.popleft().result()
        while due:
            yield due.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
