"""The pages as the labeling service serves them: from its settings, beside gRPC."""

from __future__ import annotations

from iterpo.clients.channel import connect_service
from iterpo.clients.inference import PolicyClient
from iterpo.clients.learner import LearnerClient
from iterpo.config import Settings
from iterpo.labeling.desk import LabelingDesk
from services.audit import Audit
from services.http_server import HttpServer
from services.labeling.metrics import LabelingMetrics
from services.labeling.page.app import page_app
from services.labeling.page.sessions import session_key
from services.tokens import Tokens


def labeling_page(
    settings: Settings, desk: LabelingDesk, metrics: LabelingMetrics, tokens: Tokens, audit: Audit
) -> HttpServer | None:
    """None when labeling.page_address is empty."""
    if not settings.labeling.page_address:
        return None
    auth = settings.auth
    key = session_key(auth.session_key_file or settings.data_dir / "session.key")
    # Channels connect when they are first used, and again whenever the other side was away.
    learner = LearnerClient(connect_service(settings, "learner", "lead", retries=False))
    policies = PolicyClient(connect_service(settings, "inference", "lead", retries=False))
    secure = auth.tls_certificate is not None
    app = page_app(desk.people, desk.leads, tokens, key, secure, metrics.on_receipt, learner, policies, audit)
    return HttpServer(app, "labeling.page_address", settings.labeling.page_address, auth.tls_certificate, auth.tls_key)
