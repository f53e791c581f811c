"""A long table in the page: all rows are there as data that cannot break out, and the first can be read without scripts."""

import json
import re

from otoscope.report.index import SHOWN, Index
from otoscope.report.page import Report


def page(columns: dict) -> str:
    return Report("Units").add(Index(columns, name="units", hint="vowel")).html()


def test_all_rows_are_in_the_page_and_the_first_are_shown():
    html = page({"unit": [f"encoder.0.mlp_post.{i}" for i in range(500)], "AUC": [0.5 + i / 1000 for i in range(500)]})
    rows = json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.S)[1])  # type: ignore[index]
    assert len(rows) == 500
    assert rows[499] == ["encoder.0.mlp_post.499", 0.999]
    assert html.count("<tr>") == SHOWN + 1
    assert 'type="search"' in html


def test_text_cannot_end_the_script_and_nothing_is_a_dash():
    html = page({"label": ["</script><b>&", "x"], "value": [float("nan"), 1]})
    found = re.search(r'<script type="application/json">(.*?)</script>', html, re.S)
    assert json.loads(found[1]) == [["</script><b>&", None], ["x", 1]]  # type: ignore[index]
    assert "<b>&" not in html
