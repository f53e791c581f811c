"""`make truth`: measure every number that a document quotes, write truth.json, and rewrite the documents' tables from it.

A row is measured again only when the package, the benchmark or the rows have changed since; a run that was stopped goes
on where it was. Rows whose data is not here stay unmeasured and say so.

    python truth/run.py [ROW ...] [--tables]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from rows import ROOT, ROWS, Row, fingerprint

LEDGER = ROOT / "truth.json"
#: documents and the rows their table shows; "all" is every row, "mini" those of the embedded audio-LLM
TABLES = {
    "README.md": "readme",
    "docs/truth.md": "all",
    "src/otoscope/weights/mini_qwen2_audio/MODEL_CARD.md": "mini",
}
_MINI = ("accuracy_", "gc_plain", "gc_listener", "gc_guesser", "listen_rate_")


def write(entries: dict[str, dict[str, Any]]) -> None:
    """Write the ledger whole or not at all."""
    ordered = [entries[row.id] for row in ROWS if row.id in entries]
    fresh = LEDGER.with_suffix(".tmp")
    fresh.write_text(json.dumps(ordered, indent=2) + "\n", "utf-8")
    os.replace(fresh, LEDGER)


def measure(row: Row, state: str) -> dict[str, Any]:
    """One entry of the ledger."""
    start = time.perf_counter()
    value, interval = row.measure()
    ok = None if value is None or row.bar is None else row.met(value)
    return {
        "id": row.id, "statement": row.statement, "bar": row.bar, "value": value, "interval": interval, "ok": ok,
        "command": row.command, "seconds": round(time.perf_counter() - start, 1), "state": state,
    }  # fmt: skip


def table(entries: dict[str, dict[str, Any]], rows: list[Row]) -> str:
    """The Markdown table of some rows."""
    lines = ["| what | bar | measured | 95% interval | command |", "|---|---|---|---|---|"]
    for row in rows:
        e = entries.get(row.id)
        value = "not measured" if e is None or e["value"] is None else f"{e['value']:.4g}{row.unit}"
        mark = {True: " ✓", False: " ✕", None: ""}[e["ok"] if e else None]
        interval = f"{e['interval'][0]:.4g} to {e['interval'][1]:.4g}" if e and e["interval"] else ""
        lines.append(f"| {row.statement} | {row.bar or ''} | {value}{mark} | {interval} | `{row.command}` |")
    return "\n".join(lines)


def rewrite(entries: dict[str, dict[str, Any]]) -> None:
    """Put the tables between the markers ``<!-- truth:NAME -->`` and ``<!-- /truth -->``."""
    for document, name in TABLES.items():
        path = ROOT / document
        head, marker, rest = path.read_text("utf-8").partition(f"<!-- truth:{name} -->")
        _, end, tail = rest.partition("<!-- /truth -->")
        if not marker or not end:
            raise SystemExit(f"error: {document} has no markers <!-- truth:{name} --> and <!-- /truth -->.")
        rows = [r for r in ROWS if name == "all" or (r.readme if name == "readme" else r.id.startswith(_MINI))]
        path.write_text(f"{head}{marker}\n{table(entries, rows)}\n{end}{tail}", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help="ids of rows to measure; all that need it by default")
    parser.add_argument("--tables", action="store_true", help="only rewrite the tables from truth.json")
    options = parser.parse_args()
    entries = {e["id"]: e for e in json.loads(LEDGER.read_text("utf-8"))} if LEDGER.exists() else {}
    unknown = set(options.rows) - {row.id for row in ROWS}
    if unknown:
        raise SystemExit(f"error: no row {', '.join(sorted(unknown))}; the rows are {', '.join(r.id for r in ROWS)}.")
    state = fingerprint()
    if not options.tables:
        due = [
            r
            for r in ROWS
            if r.id in options.rows or (not options.rows and entries.get(r.id, {}).get("state") != state)
        ]
        for i, row in enumerate(due):
            left = sum(entries.get(r.id, {}).get("seconds", r.seconds) for r in due[i:])
            print(f"{row.id} ({i + 1} of {len(due)}, about {left / 60:.0f} min left)", file=sys.stderr, flush=True)
            entries[row.id] = measure(row, state)
            write(entries)
            e = entries[row.id]
            print(f"  {e['value']} {e['interval'] or ''} bar {row.bar} ok {e['ok']}", file=sys.stderr, flush=True)
    rewrite(entries)
    missed = [e["id"] for e in entries.values() if e["ok"] is False]
    if missed:
        print(f"missed: {', '.join(missed)}", file=sys.stderr)


if __name__ == "__main__":
    main()
