"""One tool in one process: loads its model once, then answers requests, one JSON object per line.

Requests: ``{"do": "run", "workload": ..., "indices": [...]}`` and ``{"do": "trace", "repeats": n}``; each is answered
by one line, ``{"error": ...}`` on failure. Whatever libraries print goes to stderr, so that it cannot mix with answers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from pathlib import Path

#: tool -> (module, class); a new peer is one file and one line here
TOOLS = {
    "ours": ("ours", "Ours"),
    "naive": ("peers.naive", "Naive"),
    "nnsight": ("peers.nnsight_fast", "NNsight"),
    "nnsight+prefix": ("peers.nnsight_fast", "NNsightPrefix"),
}


def _answer(tool, request: dict, inputs: Path) -> dict:
    from workloads import read

    if request["do"] == "trace":
        plain, traced = tool.trace(read("E", inputs), request["repeats"])
        return {"plain": plain, "traced": traced}
    got = tool.run(read(request["workload"], inputs), request["indices"])
    return {"fixed_s": got.fixed_s, "patch_s": got.patch_s, "logits": [[float(x) for x in row] for row in got.logits]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tool", choices=TOOLS, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--inputs", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    from importlib import import_module

    import torch

    torch.set_num_threads(args.threads)
    module, name = TOOLS[args.tool]
    tool = getattr(import_module(module), name)(args.weights, args.model)

    def send(answer: dict) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    send({"ready": args.tool})
    for line in sys.stdin:
        try:
            send(_answer(tool, json.loads(line), args.inputs))
        except Exception:
            send({"error": traceback.format_exc()})


if __name__ == "__main__":
    main()
