"""`python -m tests.page.served --config iterpo.toml`: the labeling service with its page, put together by hand."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from iterpo.config import Settings, load
from iterpo.store.database import FeedbackDatabase
from iterpo.v1.labeling_pb2_grpc import add_LabelingServiceServicer_to_server
from services.auth import Identity
from services.host import Host, ServerSettings, run_service
from services.labeling.assembly import labeling_desk
from services.labeling.metrics import LabelingMetrics
from services.labeling.page.app import page_app
from services.labeling.page.server import PageServer
from services.labeling.quality import watch_quality
from services.labeling.servicer import LabelingServicer


async def serve(settings: Settings) -> None:
    metrics = LabelingMetrics(CollectorRegistry())
    host = Host("labeling", ServerSettings.of(settings, "labeling"), CollectorRegistry())
    host.bind()
    database = FeedbackDatabase(settings.labeling.database or settings.data_dir / "feedback.db")
    desk = labeling_desk(settings, database, metrics.on_verdict)
    servicer = LabelingServicer(desk, metrics)
    add_LabelingServiceServicer_to_server(servicer, host.server)
    tokens = {token: Identity.of(text) for token, text in settings.tokens().items()}
    certificate, key = settings.auth.tls_certificate, settings.auth.tls_key
    app = page_app(desk.people, desk.leads, tokens, certificate is not None, metrics.on_receipt)
    page = PageServer(app, settings.labeling.page_address, certificate, key)
    page.bind()

    watching: list[asyncio.Task[None]] = []

    async def prepare() -> None:
        await asyncio.to_thread(desk.start)
        watching.append(asyncio.create_task(watch_quality(desk.leads, metrics)))
        await page.start()

    async def drain() -> None:
        for task in watching:
            task.cancel()
        await page.stop()
        await servicer.drain()

    try:
        await host.run(["iterpo.v1.LabelingService"], drain=drain, prepare=prepare)
    finally:
        await asyncio.to_thread(desk.close)
        await asyncio.to_thread(database.close)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path)
    path = parser.parse_args().config
    sys.exit(run_service(lambda: serve(load(path))))
