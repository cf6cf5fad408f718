"""`python -m benchmarks`: what serving and learning cost on this machine, one after the other (some 20 minutes).

Results go to benchmarks/results/, one file a benchmark, keyed by the hardware. The others, each with `--help`:
benchmarks.labels, benchmarks.people, benchmarks.methods, benchmarks.label_quality, benchmarks.gate, benchmarks.soak,
benchmarks.pipeline.
"""

from __future__ import annotations

import argparse

from benchmarks import learner, serving

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--home", default=".iterpo", help="where the model is kept")
    arguments = parser.parse_args()
    for benchmark in (serving, learner):
        only = ["--only", "memory"] if benchmark is learner else []  # beside TRL it takes hours: make bench-learner
        benchmark.main(["--home", arguments.home, *only])
