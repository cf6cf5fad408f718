"""The pages as the labeling service serves them: from its settings, beside gRPC."""

from __future__ import annotations

from iterpo.config import Settings
from iterpo.labeling.desk import LabelingDesk
from services.auth import Identity
from services.http_server import HttpServer
from services.labeling.metrics import LabelingMetrics
from services.labeling.page.app import page_app


def labeling_page(settings: Settings, desk: LabelingDesk, metrics: LabelingMetrics) -> HttpServer | None:
    """None when labeling.page_address is empty."""
    if not settings.labeling.page_address:
        return None
    auth = settings.auth
    tokens = {token: Identity.of(text) for token, text in settings.tokens().items()}
    app = page_app(desk.people, desk.leads, tokens, auth.tls_certificate is not None, metrics.on_receipt)
    return HttpServer(app, "labeling.page_address", settings.labeling.page_address, auth.tls_certificate, auth.tls_key)
