"""The ``otoscope`` command. One file per subcommand; modules are imported when their command runs."""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from otoscope.cli.usage import ABORT, USAGE, near, sentence
from otoscope.errors import OtoscopeError

#: subcommand -> what it is for; the order is that of the help. A module of that name has a function ``command``, or is a
#: package with its own ``COMMANDS`` (and perhaps ``DEFAULT``, the one that runs where none is named)
COMMANDS = {
    "demo": "see the main job run on the embedded model",
    "listen": "find out whether an audio-LLM listens or guesses",
    "models": "list what can be loaded here and now",
    "fetch": "download embedded weights ahead of time",
    "sites": "list the places inside a model",
    "transcribe": "transcribe recordings and score them",
    "explain": "say why a recogniser got a word wrong, and what mends it",
    "corrupt": "corrupt a recording in one named way, keeping its length",
    "patch": "find where inside the model two sounds are told apart",
    "lens": "read a model's layers as they are being computed",
    "fix": "keep a model from writing words where nobody speaks",
    "probe": "read a label from every layer, with nulls",
    "atlas": "map what every neuron and head of a Whisper responds to",
    "tasks": "list the benchmark's tasks, and show one",
    "bench": "benchmark methods and corruptions against planted truth",
    "sae": "harvest activations, and train sparse dictionaries on them",
}

INTERRUPTED = 130


class _Lazy(TyperGroup):
    """Loads a command's module only when that command is asked for, so that ``--help`` is quick."""

    package = "otoscope.cli"
    known = COMMANDS
    #: the command that is meant where none is named
    default: str | None = None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # `otoscope tasks --json` is `otoscope tasks list --json`
        first = args[0] if args else "-"
        if self.default and first.startswith("-") and first not in ("-h", "--help"):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.known)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.known:
            raise OtoscopeError(
                f"there is no command '{cmd_name}'{near(cmd_name, self.known)}: commands are {', '.join(self.known)}."
            )
        module = import_module(f"{self.package}.{cmd_name}")
        if hasattr(module, "COMMANDS"):
            return _group(cmd_name, module)
        app = typer.Typer(
            add_completion=False, rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]}
        )
        app.command(name=cmd_name, help=module.__doc__)(module.command)
        return typer.main.get_command(app)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self.known.items()))


def _group(name: str, package: Any) -> Any:
    """The commands of a package as one command, ``otoscope bench causal``."""
    attributes = {
        "package": package.__name__, "known": package.COMMANDS, "default": getattr(package, "DEFAULT", None),
    }  # fmt: skip
    inner = type("_Inner", (_Lazy,), attributes)
    app = typer.Typer(cls=inner, add_completion=False, rich_markup_mode=None,
                      context_settings={"help_option_names": ["-h", "--help"]})  # fmt: skip

    @app.callback(help=package.__doc__)
    def _run() -> None:
        """Nothing of its own: the commands do the work."""

    made = typer.main.get_command(app)
    made.name = name
    return made


def _version(value: bool) -> None:
    if value:
        from otoscope import __version__

        typer.echo(f"otoscope {__version__}")
        raise typer.Exit


app = typer.Typer(cls=_Lazy, add_completion=False, rich_markup_mode=None,
                  context_settings={"help_option_names": ["-h", "--help"]})  # fmt: skip


@app.callback()
def _main(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
) -> None:
    """Otoscope looks inside models that listen.

    Example: otoscope patch --clean clean.wav --corrupt noisy.wav --out runs/first
    """


def run(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code. Errors are one sentence on stderr, after the traceback with ``--debug``.

    Exit codes: 0 done, 1 a bug of ours, 2 bad input, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    # without a command there is nothing to do but to say what there is
    arguments = [a for a in arguments if a != "--debug"] or ["--help"]
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    known: dict[str, Any] = {}  # what the command noted while its options were read
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="otoscope", standalone_mode=False, obj=known)
        sys.stdout.flush()
        code = code if isinstance(code, int) else 0
        if code == INTERRUPTED:  # some versions of typer turn Ctrl-C into an exit code
            _say(_interrupted(known))
        return code
    except BaseException as error:
        code, said = _explained(error, known)
        if debug and said:
            traceback.print_exc()
        if said:
            _say(said)
        return code


def _explained(error: BaseException, known: dict[str, Any]) -> tuple[int, str]:
    """Exit code of an error, and its sentence (empty where nobody is left to read it)."""
    if isinstance(error, (*ABORT, KeyboardInterrupt)):
        return INTERRUPTED, _interrupted(known)
    if isinstance(error, USAGE):
        return 2, sentence(error)
    if isinstance(error, OtoscopeError):
        return error.exit_code, str(error)
    if isinstance(error, SystemExit):  # how some versions of typer end on a closed pipe
        closed = isinstance(error.__context__, BrokenPipeError)
        return (0 if closed or not error.code else int(error.code) if isinstance(error.code, int) else 1), ""
    if isinstance(error, OSError):
        _drop_output()
        if isinstance(error, BrokenPipeError):
            return 0, ""
        what = error.filename or "the output"
        return 2, f"{what} cannot be used ({error.strerror or error}): free space, or choose another place."
    what = f"otoscope failed ({type(error).__name__}: {error})"
    return 1, f"{what}; run it again with --debug and report what it prints."


def _interrupted(known: dict[str, Any]) -> str:
    if known.get("out") is None:
        return (
            "interrupted before anything was kept: with --out DIR, the same command goes on from where it was stopped."
        )
    return f"interrupted; what was finished is kept in {known['out']}, and the same command goes on from there."


def _drop_output() -> None:
    """Point stdout at nothing: what is left in its buffer would fail again when the interpreter flushes it at exit."""
    try:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())
    except (OSError, ValueError):  # stdout is no file (a test's, a notebook's)
        return


def _say(sentence: str) -> None:
    sys.stderr.write(f"error: {sentence}\n")


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run())


if __name__ == "__main__":
    main()
