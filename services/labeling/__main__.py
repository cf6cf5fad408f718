"""`python -m services.labeling --config iterpo.toml`: serve until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from prometheus_client import CollectorRegistry

from iterpo.config import Settings, load
from iterpo.labeling.desk import LabelingDesk
from iterpo.labeling.labeler import Labeler
from iterpo.labeling.reward_model import RewardModel
from iterpo.store.address import use_password
from iterpo.store.database import open_database
from iterpo.v1.labeling_pb2_grpc import add_LabelingServiceServicer_to_server
from services import logs
from services.host import Host, ServerSettings, run_service
from services.http_server import check_address
from services.instruments import watch_disk
from services.labeling.assembly import labeling_desk
from services.labeling.metrics import LabelingMetrics, StoreState
from services.labeling.page.mount import labeling_page
from services.labeling.quality import watch_quality
from services.labeling.retraining import retrain
from services.labeling.servicer import LabelingServicer
from services.torch_environment import set_defaults

SERVICE = "iterpo.v1.LabelingService"


async def serve(settings: Settings, config: Path | None = None) -> None:
    """`config` is the file that `settings` came from."""
    logs.start("labeling", settings.log_format)
    registry = CollectorRegistry()
    metrics = LabelingMetrics(registry)
    host = Host("labeling", ServerSettings.of(settings, "labeling"), registry)
    host.traces.start("labeling", settings.trace)
    check_address("labeling.page_address", settings.labeling.page_address, settings)
    host.bind()
    use_password(settings.labeling.store_password_file)
    database = await asyncio.to_thread(open_database, settings.labeling.store)
    try:
        desk = labeling_desk(settings, database, metrics.on_verdict)
        await _serve(settings, host, desk, metrics, registry, config)
    finally:
        await asyncio.to_thread(database.close)


async def _serve(
    settings: Settings,
    host: Host,
    desk: LabelingDesk,
    metrics: LabelingMetrics,
    registry: CollectorRegistry,
    config: Path | None,
) -> None:
    watch_disk(metrics.made, desk.database.path.parent if desk.database.path else settings.data_dir)
    desk.database.subscribe(metrics.on_commit)
    registry.register(StoreState(desk.database))
    servicer = LabelingServicer(desk, metrics)
    add_LabelingServiceServicer_to_server(servicer, host.server)
    async with AsyncExitStack() as running:
        running.push_async_callback(asyncio.to_thread, desk.close)
        page = labeling_page(settings, desk, metrics, host.settings.tokens, host.audit)
        if page is not None:
            page.bind()

        async def prepare() -> None:
            await _load_models(desk.labelers.values())
            await asyncio.to_thread(desk.start)
            if page is not None:
                await page.start()
                running.push_async_callback(page.stop)
            running.push_async_callback(_end, asyncio.create_task(watch_quality(desk.leads, metrics)))
            if desk.budget is not None:
                training = retrain(desk.database, desk.budget, settings.labeling.budget, config)
                running.push_async_callback(_end, asyncio.create_task(training))

        await host.run([SERVICE], drain=servicer.drain, prepare=prepare)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _load_models(labelers: Iterable[Labeler]) -> None:
    """Before anything is labelled: seconds of loading must not count as a labeler's first timeout."""
    for labeler in labelers:
        if isinstance(labeler, RewardModel):
            await asyncio.to_thread(labeler.load)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m services.labeling", description=__doc__)
    parser.add_argument("--config", type=Path, default=None, help="iterpo.toml (default: ./iterpo.toml if it exists)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="instead of the file's")
    arguments = parser.parse_args()
    set_defaults()
    return run_service(lambda: _serve_from(arguments.config, arguments.set))


async def _serve_from(path: Path | None, changes: Sequence[str]) -> None:
    await serve(load(path, changes), path)


if __name__ == "__main__":
    sys.exit(main())
