"""Threads over many images with flat memory: Pillow and hashing release the interpreter's lock."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def map_threads(function: Callable[[A], B], items: Iterable[A], workers: int = 0) -> Iterator[B]:
    """Yields `function(item)` in the order of `items`, computed by several threads.

    Unlike `ThreadPoolExecutor.map` it takes only a few items ahead, so that a stream of images never piles up.

    Args:
        function: What is done.
        items: With what.
        workers: Number of threads; 0: one per processor.
    """
    workers = workers or os.cpu_count() or 1
    waiting: deque[Future[B]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
