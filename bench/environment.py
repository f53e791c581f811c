"""The environment of the peers: ``bench/.venv``, made once, remade when its requirements change.

It is separate from the project's own, because a peer may pin what we do not. Everything, ours included, is timed
inside it, so all tools share one torch and one transformers.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
VENV = BENCH / ".venv"
REQUIREMENTS = BENCH / "requirements.txt"
CONSTRAINTS = ROOT / "constraints.txt"
PROJECT = ROOT / "pyproject.toml"


def python() -> Path:
    """The interpreter of the environment (which may not exist yet)."""
    return VENV / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _fingerprint() -> str:
    files = [path.read_bytes() for path in (REQUIREMENTS, CONSTRAINTS, PROJECT) if path.exists()]
    return hashlib.sha256(b"\0".join([sys.version.encode(), *files])).hexdigest()


def ensure() -> Path:
    """Make or refresh the environment and return its interpreter.

    Raises ``subprocess.CalledProcessError`` when pip fails; its own message is already on stderr.
    """
    stamp = VENV / "otoscope-bench.sha256"
    wanted = _fingerprint()
    if python().exists() and stamp.exists() and stamp.read_text() == wanted:
        return python()
    print(f"setting up {VENV.relative_to(ROOT)} (torch, transformers, nnsight, SAELens)", file=sys.stderr)
    if not python().exists():
        venv.EnvBuilder(with_pip=True, clear=VENV.exists()).create(VENV)
    pip = [str(python()), "-m", "pip", "install", "--quiet"]
    constraints = ["-c", str(CONSTRAINTS)] if CONSTRAINTS.exists() else []
    # torch alone and first: asked for together with others, a resolver may prefer a CUDA build and its gigabytes.
    subprocess.run([*pip, *constraints, "torch==2.13.0"], check=True)
    subprocess.run([*pip, *constraints, "-r", str(REQUIREMENTS), "-e", str(ROOT)], check=True)
    stamp.write_text(wanted)
    return python()


if __name__ == "__main__":
    print(ensure())
