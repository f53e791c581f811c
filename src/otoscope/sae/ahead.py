"""Do the next piece of work in the background while the last one is being used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Results of ``jobs`` in their order. One job at a time runs in a thread, one job ahead of what was asked for.

    An error of a job is raised where its result is asked for. Closing the iterator waits for the job that runs.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[T] | None = None
        try:
            for job in jobs:
                following = pool.submit(job)
                if waiting is not None:
                    yield waiting.result()
                waiting = following
            if waiting is not None:
                yield waiting.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
