"""Benchmarks against planted truth. Its commands take --json and --out DIR.

Example: otoscope bench causal --quick --out runs/causal
"""

#: subcommand -> what it is for
COMMANDS = {
    "causal": "score methods that look for the place of a fault",
    "corruptions": "audit which corruption changes which factor of speech, and nothing else",
    "distance": "ask whether unnatural states mislead a method",
}
