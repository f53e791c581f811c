"""The benchmark's tasks: pairs of sounds whose difference is known."""

#: subcommand -> what it is for
COMMANDS = {
    "list": "list the tasks",
    "show": "play and draw examples of a task",
}
DEFAULT = "list"
