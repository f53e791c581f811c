"""The benchmark's tasks: pairs of sounds whose difference is known. Its commands take --json and --out DIR.

Example: otoscope tasks show digits --out runs/digits
"""

#: subcommand -> what it is for
COMMANDS = {
    "list": "list the tasks",
    "show": "play and draw examples of a task",
}
DEFAULT = "list"
