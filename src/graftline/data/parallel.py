"""Threads over many images with flat memory: Pillow and hashing release the interpreter's lock."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from joblib import cpu_count

A = TypeVar("A")
B = TypeVar("B")
_MOST_WORKERS = 8  # each holds images at their full size, and where one stream feeds another there are twice as many
_AHEAD = 2  # so that a thread that is ready never waits for the reader


def map_threads(function: Callable[[A], B], items: Iterable[A], workers: int = 0) -> Iterator[B]:
    """Yields `function(item)` in the order of `items`, computed by several threads.

    Unlike `ThreadPoolExecutor.map` it takes only a few items ahead, so that a stream of images never piles up.

    Args:
        function: What is done.
        items: With what.
        workers: Number of threads; 0: one per processor that this process may use (of a container only its share), at
            most 8.
    """
    workers = workers or min(cpu_count(), _MOST_WORKERS)
    waiting: deque[Future[B]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= workers + _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
