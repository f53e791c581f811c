"""Find the weights and write the inputs of the workloads; prints model -> folder of weights as one JSON object."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import weights
import workloads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--random", action="store_true")
    args = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # progress of downloads and of transformers belongs on stderr
    folders = {}
    for model in args.models:
        folder = weights.folder_of(model, random=args.random, cache=args.out)
        workloads.prepare(model, folder, args.out)
        folders[model] = str(folder)
    print(json.dumps(folders), file=answers)


if __name__ == "__main__":
    main()
