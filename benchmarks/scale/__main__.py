"""`python -m benchmarks.scale` (`make bench-scale`): how many replicas, labelers and learner ranks, until which part is
the bottleneck; by simulation.

With --measure first what each part takes, on the real services (ten minutes, and nothing beside it). Then the
simulation is held against what benchmarks.pipeline recorded on the same machine, and ends with an error where it is off
by more than a tenth. Then it is asked.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import hardware_key, versions
from benchmarks.pipeline import LABELERS, RESULTS
from benchmarks.scale.costs import read_costs
from benchmarks.scale.figure import draw
from benchmarks.scale.questions import TEAM, against, curves, grown, settings, told

MOST_OFF = 0.10


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measure", action="store_true", help="measure the costs first; otherwise the recorded ones")
    parser.add_argument("--home", type=Path, default=Path(".iterpo"), help="where the model is kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    measured = arguments.out / f"scale-costs-{hardware_key()}.json"
    if arguments.measure:
        _measure(arguments.home, measured)
    real = arguments.out / f"pipeline-{hardware_key()}.json"
    if missing := [file for file in (measured, real) if not file.exists()]:
        print(f"{missing[0]} is not there. Run with --measure, and `make bench-pipeline`.", file=sys.stderr)
        return 2
    costs = read_costs(measured)
    checked = against(json.loads(real.read_text()), costs)
    path = grown(costs)
    around = curves(costs, path[-1].plan)
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "against_real_runs": checked,
        "asked": settings(TEAM),
        "grown": [told(step) for step in path],
        "around_the_last": {part: [[n, round(o.seconds, 1)] for n, o in line] for part, line in around.items()},
    }
    (arguments.out / f"scale-{hardware_key()}.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(path, around, arguments.out / f"scale-{hardware_key()}.png")
    print(json.dumps(found, indent=1))
    worst = max(abs(row["off"]) for row in checked)
    if worst > MOST_OFF:
        print(f"The simulation is off by {worst:.0%}: do not believe it. Measure anew (--measure).", file=sys.stderr)
    return int(worst > MOST_OFF)


def _measure(home: Path, file: Path) -> None:
    from benchmarks.learner_services import Services
    from benchmarks.scale.measure import measure
    from iterpo.embedded_model import prepare

    folder = home.absolute() / "bench-scale" / time.strftime("%H%M%S")
    services = Services(folder, prepare(home / "models", print), LABELERS)
    try:
        costs, points = measure(services, folder)
    finally:
        services.shutdown()
    file.parent.mkdir(parents=True, exist_ok=True)
    costs.write(file, {"date": time.strftime("%Y-%m-%d"), "versions": versions(), "measured": points})


if __name__ == "__main__":
    sys.exit(main())
