"""A command line that typer could not read, as one sentence; whether typer uses the click package or brings its own."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib import import_module
from typing import Any


def _of(name: str) -> tuple[Any, ...]:
    """The exception called ``name`` wherever this typer may raise it from: click itself, or the copy inside typer >= 0.27."""
    found = []
    for module in ("click.exceptions", "typer._click.exceptions", "typer.exceptions"):
        try:
            found.append(getattr(import_module(module), name))
        except (ImportError, AttributeError):
            continue
    return tuple(dict.fromkeys(found))


#: a command line that cannot be read
USAGE = _of("ClickException")
#: an interruption, as some versions rename it
ABORT = _of("Abort")
_MISSING, _NO_OPTION, _BAD_VALUE = _of("MissingParameter"), _of("NoSuchOption"), _of("BadParameter")


def sentence(error: Any) -> str:
    """What is wrong with the command line, and the cure, in one sentence."""
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    command = context.command_path if context is not None else "otoscope"
    cure = f"see `{command} --help` for an example"
    if isinstance(error, _MISSING) and parameter is not None:
        meaning = (getattr(parameter, "help", None) or "").rstrip(".")
        return f"{command} needs {_name(parameter)}{f' ({_lower(meaning)})' if meaning else ''}: {cure}."
    if isinstance(error, _NO_OPTION):
        known = [name for p in context.command.params for name in p.opts] if context is not None else []
        return f"{command} has no option '{error.option_name}'{near(error.option_name, known)}: {cure}."
    if isinstance(error, _BAD_VALUE) and parameter is not None:
        return f"{_name(parameter)} of {command} cannot be used ({_reason(error.message)}): {cure}."
    return f"{command}: {_lower(error.format_message().rstrip('.'))}; {cure}."


def near(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'patch'?)"`` where something known is near, else nothing."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{match[0]}'?)" if match else ""


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "option":
        return max(parameter.opts, key=len)
    return str(parameter.metavar or parameter.name).upper()


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _reason(message: str) -> str:
    """Why a value is refused; newer typers put the words of their validator before it."""
    return _lower(message.rstrip(".").removeprefix("Value error, "))
