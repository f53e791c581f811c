"""Silence around calls of transformers, whose bars and advice to itself say nothing to our user."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and only errors from transformers inside the block; afterwards all is as the user had set it.

    Whisper's ``generate`` warns of arguments that it passes on its own, and loading draws a bar for a second's work.
    """
    from huggingface_hub import utils as hub
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_bars = not hub.are_progress_bars_disabled()
    logging.set_verbosity_error()
    with warnings.catch_warnings():
        # where the environment fixes the hub's bars, it says so at every change of transformers' own
        warnings.filterwarnings("ignore", message="Cannot (dis|en)able progress bars")
        if bars:
            logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()  # and the hub's with them
                if not hub_bars:
                    hub.disable_progress_bars()
