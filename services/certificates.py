"""Certificates that are replaced on the disk, as authorities with short lives do: new connections get the new one."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Any

import grpc

from iterpo.errors import InvalidConfig
from services.stamp import stamp

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0


class GrpcCertificate:
    """What a gRPC server shows, and whose certificates it asks for; looked at with every handshake."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        self._files = {"auth.tls_key": key, "auth.tls_certificate": certificate}
        if client_ca is not None:
            self._files["auth.tls_client_ca"] = client_ca
        self._stamp = stamp(*self._files.values())
        self._asks = client_ca is not None

    def credentials(self) -> grpc.ServerCredentials:
        """Raises InvalidConfig for files that cannot be read."""
        return grpc.dynamic_ssl_server_credentials(self._read(), self._fetch, self._asks)

    def _fetch(self) -> Any:
        """None: as it was. Files that are being replaced, or do not fit, leave what there was."""
        now = stamp(*self._files.values())
        if now == self._stamp:
            return None
        try:
            found = self._read()
        except InvalidConfig as error:
            logger.error("the certificate changed and cannot be used, the one before is shown: %s", error)
            return None
        self._stamp = now
        logger.info("the certificate has changed")
        return found

    def _read(self) -> Any:
        content = {key: _bytes(path, key) for key, path in self._files.items()}
        pair = (content["auth.tls_key"], content["auth.tls_certificate"])
        return grpc.ssl_server_certificate_configuration([pair], content.get("auth.tls_client_ca"))


async def keep_fresh(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Of an HTTP server, until it is cancelled."""
    known = stamp(certificate, key)
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        now = stamp(certificate, key)
        if now != known:
            try:
                context.load_cert_chain(certificate, key)
            except OSError as error:  # ssl.SSLError is one
                logger.error("the certificate changed and cannot be used, the one before is shown: %s", error)
                continue
            known = now


def _bytes(path: Path, key: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidConfig(f"{key} cannot be read: {error.strerror}: {path}.", "Name a readable PEM file.") from error
