"""The pages as the labeling service serves them: from its settings, beside gRPC."""

from __future__ import annotations

from iterpo.clients.channel import is_loopback
from iterpo.config import Settings
from iterpo.errors import InvalidConfig
from iterpo.labeling.desk import LabelingDesk
from services.auth import Identity
from services.labeling.metrics import LabelingMetrics
from services.labeling.page.app import page_app
from services.labeling.page.server import PageServer


def check_page(settings: Settings) -> None:
    """Raises InvalidConfig (INSECURE_ADDRESS) when the pages would be open to others without TLS and tokens."""
    address = settings.labeling.page_address
    if address and not is_loopback(address) and not (settings.auth.tls_certificate and settings.tokens()):
        raise InvalidConfig(
            f"The annotators' page on {address} can be reached by other machines, and TLS or tokens are missing.",
            "Bind labeling.page_address to 127.0.0.1, or set auth.tokens_file, auth.tls_certificate and auth.tls_key.",
            "INSECURE_ADDRESS",
        )


def labeling_page(settings: Settings, desk: LabelingDesk, metrics: LabelingMetrics) -> PageServer | None:
    """None when labeling.page_address is empty."""
    if not settings.labeling.page_address:
        return None
    auth = settings.auth
    tokens = {token: Identity.of(text) for token, text in settings.tokens().items()}
    app = page_app(desk.people, desk.leads, tokens, auth.tls_certificate is not None, metrics.on_receipt)
    return PageServer(app, settings.labeling.page_address, auth.tls_certificate, auth.tls_key)
