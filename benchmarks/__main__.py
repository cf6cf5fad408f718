"""`python -m benchmarks`: measure on this machine, print, and write benchmarks/results/HARDWARE.json.

What is measured, in one run on the embedded model:
    tokens/s of the bare engine and of the same engine behind gRPC, and their ratio
    milliseconds of a swap (promotion and rollback), seconds of a load with its proof
    seconds of a learner update, with its tokens/s
    peak resident memory of each process (children included)
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

from benchmarks.bare_engine import bare_tokens_per_second
from benchmarks.learner import measure_learner
from benchmarks.machine import hardware_key, versions
from benchmarks.serving import measure_serving
from iterpo.embedded_model import prepare

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".iterpo"), help="where the model is kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    base = prepare(arguments.home / "models", print)
    started = time.monotonic()
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": hardware_key(),
        "python": platform.python_version(),
        "versions": versions(),
    }
    print("bare engine ...", flush=True)
    result["bare_engine"] = bare_tokens_per_second(base)
    print(result["bare_engine"], "\nserving through gRPC ...", flush=True)
    result["serving"] = measure_serving(base, arguments.home / "bench")
    result["grpc_over_bare"] = round(
        result["serving"]["tokens_per_second_p50"] / result["bare_engine"]["tokens_per_second_p50"], 3
    )
    print(result["serving"], "\nlearner ...", flush=True)
    result["learner"] = measure_learner(base)
    result["seconds"] = round(time.monotonic() - started, 1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{hardware_key()}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1), f"\nwritten to {path}", sep="")


if __name__ == "__main__":
    main()
