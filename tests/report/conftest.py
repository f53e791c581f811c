"""One sample report for all tests of the report: painting it takes some seconds."""

from pathlib import Path

import pytest
from tests.report import sample


@pytest.fixture(scope="session")
def sample_run(tmp_path_factory) -> Path:
    """The run directory of the sample report."""
    folder = tmp_path_factory.mktemp("sample") / "run"
    sample.make(folder)
    return folder


@pytest.fixture(scope="session")
def page(sample_run) -> str:
    """The sample's report.html."""
    return (sample_run / "report.html").read_text(encoding="utf-8")
