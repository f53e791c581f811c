"""The ``otoscope`` command. One file per subcommand; modules are imported when their command runs."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import click
import typer
from typer.core import TyperGroup

#: subcommand -> module with a function ``command``; the order is that of the help
COMMANDS = {
    "demo": "see the main job run on the embedded model",
    "models": "list what can be loaded here and now",
    "fetch": "download embedded weights ahead of time",
    "sites": "list the places inside a model",
    "transcribe": "transcribe recordings and score them",
    "corrupt": "corrupt a recording in one named way, keeping its length",
    "patch": "find where inside the model two sounds are told apart",
    "lens": "read a model's layers as they are being computed",
}


class _Lazy(TyperGroup):
    """Loads a command's module only when that command is asked for, so that ``--help`` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        app = typer.Typer(
            add_completion=False, rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]}
        )
        module = import_module(f"otoscope.cli.{cmd_name}")
        app.command(name=cmd_name, help=module.__doc__)(module.command)
        return typer.main.get_command(app)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _version(value: bool) -> None:
    if value:
        from otoscope import __version__

        typer.echo(f"otoscope {__version__}")
        raise typer.Exit


app = typer.Typer(cls=_Lazy, add_completion=False, rich_markup_mode=None, no_args_is_help=True,
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
    """Run the command line; returns the exit code instead of a traceback unless ``--debug`` is given.

    Exit codes: 0 done, 1 a bug of ours, 2 bad input (one sentence on stderr), 130 interrupted (what is done is kept).
    """
    from otoscope.errors import OtoscopeError

    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="otoscope", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except (click.exceptions.Abort, KeyboardInterrupt):
        _say("interrupted; what was finished is kept, and the same command with the same --out goes on from there.")
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except OtoscopeError as error:
        if debug:
            raise
        _say(str(error))
        return error.exit_code
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # the reader is gone; nothing left to say
        return 0
    except OSError as error:
        if debug:
            raise
        _say(
            f"{error.filename or 'the system'}: {error.strerror or error}; free space or choose another place with --out."
        )
        return 2
    except Exception as error:
        if debug:
            raise
        _say(f"otoscope failed ({type(error).__name__}: {error}); run it again with --debug and report what it prints.")
        return 1


def _say(sentence: str) -> None:
    sys.stderr.write(f"error: {sentence}\n")


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run())


if __name__ == "__main__":
    main()
