"""Planted errors of many sentences, computed in several processes: each has its own model, and rows come in their order.

A sentence takes seconds and shares nothing with the next, so processes with one thread each use the cores better than one
process whose small matrices are split among threads. The rows do not depend on the number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from otoscope.audio.clip import Clip
from otoscope.engine.model import Model, load

#: clip, clips that words are taken from, number of the sentence, seed
Asked = tuple[Clip, Sequence[Clip], int, int]
Work = Callable[[Model, Clip, Sequence[Clip], int, int], dict[str, Any]]
_own: list[Any] = []


@contextmanager
def sentence_workers(
    work: Work, model: Model, loading: dict[str, Any], n: int, ask: Callable[[int], Asked], last: int
) -> Iterator[Callable[[int], dict[str, Any]]]:
    """Gives a function from the number of a sentence to its rows; the next ``n - 1`` are computed at the same time.

    Args:
        work: from the model and what is asked to rows; a function of a module.
        model: a Whisper; it computes itself where there is to be one process.
        loading: how other processes load it, by its name.
        n: processes.
        ask: what is asked of a sentence.
        last: number of sentences.
    """
    if n == 1:
        yield lambda number: work(model, *ask(number))
        return
    running: dict[int, Any] = {}
    # leaving the block, by an error or Ctrl-C as well, ends the processes
    with get_context("spawn").Pool(n, _begin, (model.name, loading)) as pool:

        def rows(number: int) -> dict[str, Any]:
            for k in range(number, min(number + n, last)):
                if k not in running:
                    running[k] = pool.apply_async(_rows, (work, *ask(k)))
            return running.pop(number).get()

        yield rows


def _begin(name: str, loading: dict[str, Any]) -> None:
    import torch

    torch.set_num_threads(1)
    _own[:] = [load(name, **loading)]


def _rows(work: Work, clip: Clip, nearby: Sequence[Clip], number: int, seed: int) -> dict[str, Any]:
    return work(_own[0], clip, nearby, number, seed)
