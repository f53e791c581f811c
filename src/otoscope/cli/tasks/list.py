"""List the benchmark's tasks: what differs between the two sounds of a pair, who can be asked, and where sounds come from.

Example: otoscope tasks list --json
"""

from __future__ import annotations

from otoscope.cli.common import JsonOption, OutOption, print_json, print_table


def command(out: OutOption = None, json: JsonOption = False) -> None:
    from otoscope.studies.tasks import COLUMNS, list_tasks

    results, rows = list_tasks(out)
    if json:
        print_json({**results, "tasks": rows})
        return
    print_table([column.replace("_", " ") for column in COLUMNS], [[row[column] for column in COLUMNS] for row in rows])
