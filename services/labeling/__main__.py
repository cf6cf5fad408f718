"""`python -m services.labeling --config iterpo.toml`: serve until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry

from iterpo.config import Settings, load
from iterpo.labeling.catalog import labelers_of
from iterpo.labeling.desk import LabelingDesk
from iterpo.labeling.labeler import Labeler
from iterpo.labeling.queue import QueueSettings
from iterpo.labeling.reward_model import RewardModel
from iterpo.store.database import FeedbackDatabase
from iterpo.v1.labeling_pb2_grpc import add_LabelingServiceServicer_to_server
from services.host import Host, ServerSettings, run_service
from services.labeling.metrics import LabelingMetrics, StoreState
from services.labeling.servicer import LabelingServicer

SERVICE = "iterpo.v1.LabelingService"


async def serve(settings: Settings) -> None:
    labelers = labelers_of(settings.labelers)
    registry = CollectorRegistry()
    metrics = LabelingMetrics(registry)
    host = Host("labeling", ServerSettings.of(settings, "labeling"), registry)
    host.bind()
    database = FeedbackDatabase(settings.labeling.database or settings.data_dir / "feedback.db")
    desk = LabelingDesk(database, labelers, _queue_settings(settings), on_verdict=metrics.on_verdict)
    try:
        database.subscribe(metrics.on_commit)
        registry.register(StoreState(database))
        servicer = LabelingServicer(desk, metrics, settings.labeling.lease_seconds)
        add_LabelingServiceServicer_to_server(servicer, host.server)

        async def prepare() -> None:
            await _load_models(labelers.values())
            desk.start()

        await host.run([SERVICE], drain=servicer.drain, prepare=prepare)
    finally:
        await asyncio.to_thread(desk.close)
        await asyncio.to_thread(database.close)


async def _load_models(labelers: Iterable[Labeler]) -> None:
    """Before anything is labelled: seconds of loading must not count as a labeler's first timeout."""
    for labeler in labelers:
        if isinstance(labeler, RewardModel):
            await asyncio.to_thread(labeler.load)


def _queue_settings(settings: Settings) -> QueueSettings:
    labeling = settings.labeling
    return QueueSettings(labeling.max_attempts, labeling.labeler_timeout_seconds, labeling.workers)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m services.labeling", description=__doc__)
    parser.add_argument("--config", type=Path, default=None, help="iterpo.toml (default: ./iterpo.toml if it exists)")
    path = parser.parse_args().config
    return run_service(lambda: _serve_from(path))


async def _serve_from(path: Path | None) -> None:
    await serve(load(path))


if __name__ == "__main__":
    sys.exit(main())
