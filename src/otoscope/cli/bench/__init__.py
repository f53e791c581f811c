"""Benchmarks against planted truth."""

#: subcommand -> what it is for
COMMANDS = {
    "causal": "score methods that look for the place of a fault",
    "corruptions": "audit which corruption isolates which factor",
    "distance": "ask whether unnatural states mislead a method",
}
