"""Work done ahead in a thread, only so far that memory stays bounded."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")
TICK = 0.2  # seconds of each wait, so that Ctrl-C is heard
PATIENCE = 2.0  # seconds for the thread to end; a network that does not answer must not keep us


class Ahead(Generic[Item]):
    """The items of a slow iterable, made by a thread while others are at work. Use as a context, and iterate once.

    depth      so many items wait at most
    droppable  of a live source, which items may be dropped when none fits any more; the oldest of them is, and counted
    close      called in the end, unless the thread still waits in the iterable: closing that under it would crash

    An error of the iterable is raised where the items are taken, after those before it.
    """

    def __init__(self, items: Iterable[Item], depth: int, droppable: Callable[[Item], bool] | None = None,
                 close: Callable[[], None] = lambda: None):
        self.dropped, self._close = 0, close
        self._items, self._depth, self._droppable = items, depth, droppable
        self._waiting: deque[Item] = deque()
        self._change = threading.Condition()
        self._stopped = self._finished = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="winnow-ahead", daemon=True)

    def __enter__(self) -> Ahead[Item]:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        with self._change:
            self._stopped = True
            self._change.notify_all()
        self._thread.join(PATIENCE)
        if not self._thread.is_alive():
            self._close()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._change:
                while not self._waiting and not self._finished:
                    self._change.wait(TICK)
                if not self._waiting:
                    break
                item = self._waiting.popleft()
                self._change.notify_all()
            yield item
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            for item in self._items:
                with self._change:
                    self._put(item)
                    if self._stopped:
                        break
        except BaseException as error:
            self._error = error
        finally:
            with self._change:
                self._finished = True
                self._change.notify_all()

    def _put(self, item: Item) -> None:
        while len(self._waiting) >= self._depth and not self._stopped:
            if self._droppable is None:
                self._change.wait(TICK)
            else:
                self._drop(self._droppable)
        self._waiting.append(item)
        self._change.notify_all()

    def _drop(self, droppable: Callable[[Item], bool]) -> None:
        place = next((i for i, item in enumerate(self._waiting) if droppable(item)), 0)
        del self._waiting[place]
        self.dropped += 1
