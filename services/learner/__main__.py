"""`python -m services.learner --config iterpo.toml`: reads the configuration, waits for runs."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry

from iterpo.config import Settings, load
from iterpo.learner.ledger import Ledger
from iterpo.v1 import learner_pb2_grpc
from services import logs
from services.host import Host, ServerSettings, run_service
from services.instruments import watch_disk
from services.learner.assembly import Assembly
from services.learner.metrics import LearnerMetrics
from services.learner.runs import RunManager
from services.learner.servicer import LearnerServicer
from services.learner.sinks import check, no_sinks, open_sinks
from services.torch_environment import set_defaults


async def serve(settings: Settings) -> None:
    logs.start("learner", settings.log_format)
    check(settings.learner.sinks)
    registry = CollectorRegistry()
    host = Host("learner", ServerSettings.of(settings, "learner"), registry)
    host.traces.start("learner", settings.trace)
    host.bind()
    ledger = Ledger(settings.data_dir / "learner.db")
    metrics = LearnerMetrics(registry)
    watch_disk(metrics.made, settings.data_dir)
    sinks = partial(open_sinks, settings.learner.sinks, settings.data_dir) if settings.learner.sinks else no_sinks
    runs = RunManager(ledger, Assembly(settings), metrics, settings.learner.runs, sinks)
    learner_pb2_grpc.add_LearnerServiceServicer_to_server(LearnerServicer(runs), host.server)
    await host.run(("iterpo.v1.LearnerService",), drain=runs.drain)
    ledger.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m services.learner", description=__doc__)
    parser.add_argument("--config", type=Path, default=None, help="iterpo.toml; without it, the defaults")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="instead of the file's")
    arguments = parser.parse_args()
    set_defaults()
    return run_service(lambda: serve(load(arguments.config, arguments.set)))


if __name__ == "__main__":
    sys.exit(main())
