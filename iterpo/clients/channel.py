"""Channels to the three services, and the errors that come back through them.

Only UNAVAILABLE is retried, by gRPC itself; every mutation carries a request id, so a retry is never a second effect.
Streams are not: whoever reads one knows where to go on, and a stream that meets the death of its connection and then
runs out of retries is never ended by grpcio 1.85 (tests/services/test_labeling_process.py): its reader would wait on.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from iterpo import errors, tracing

MAX_MESSAGE_BYTES = 16 * 1024 * 1024

STREAMS = {
    "InferenceService": ("Generate", "Sample"),
    "PolicyService": ("WatchPolicies", "FetchPolicy"),
    "LabelingService": ("Annotate", "StreamFeedback"),
    "LearnerService": ("WatchRun",),
}
"""Methods whose answers are streams."""

_RETRY = {
    "methodConfig": [
        {"name": [{"service": f"iterpo.v1.{service}", "method": m} for service, ms in STREAMS.items() for m in ms]},
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.2s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        },
    ]
}

_SPREAD = _RETRY | {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}

OPTIONS: Sequence[tuple[str, int | str]] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # gRPC's own reconnect delay grows to two minutes: a service that was restarted should be found again at once.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)

_BY_CODE: dict[str, type[errors.IterpoError]] = {
    "INVALID_ARGUMENT": errors.InvalidInput,
    "NOT_FOUND": errors.NotFound,
    "ALREADY_EXISTS": errors.Conflict,
    "FAILED_PRECONDITION": errors.WrongState,
    "UNAUTHENTICATED": errors.Unauthenticated,
    "PERMISSION_DENIED": errors.PermissionDenied,
    "RESOURCE_EXHAUSTED": errors.ResourceExhausted,
    "UNAVAILABLE": errors.Unavailable,
    "DEADLINE_EXCEEDED": errors.Unavailable,
    "CANCELLED": errors.Unavailable,
    "UNIMPLEMENTED": errors.InvalidInput,
}
"""For statuses without ErrorInfo: those that gRPC itself, or a proxy on the way, gives."""

_FIXES = {
    "RESOURCE_EXHAUSTED": "Send less at a time: a message holds at most 16 MiB.",
    "UNAVAILABLE": "See that the service runs (`iterpo up`) and that the address is right.",
    "DEADLINE_EXCEEDED": "Try again, or allow the call more time.",
    "CANCELLED": "Try again: the server ended the call, as it does when it stops.",
    "UNIMPLEMENTED": "See that the address is the right service's and that both sides have the same version.",
}
_REASONS = {"RESOURCE_EXHAUSTED": "MESSAGE_TOO_LARGE", "UNIMPLEMENTED": "UNKNOWN_METHOD"}


def connect(
    address: str | Sequence[str],
    token: str | None = None,
    tls_ca: Path | None = None,
    *,
    retries: bool = True,
    certificate: tuple[Path, Path] | None = None,
    tls_name: str = "",
) -> grpc.Channel:
    """A synchronous channel. Connects when first used; `tls_ca` is a PEM file of the authority to trust, `certificate`
    the caller's own and its key, for servers that ask for one, `tls_name` what the server's certificate must name
    where the address is an IP address beyond loopback.

    A list of addresses is of servers of one service, which share the calls: each goes to the next that says it serves
    (gRPC's round_robin and health checks); one that is away is left out until it is back. Names are resolved once; in
    a list of one, whenever a connection breaks, as a headless Service of Kubernetes needs. With TLS their certificates
    hold one name in common: `tls_name`, or the first address's host.

    Raises InvalidConfig when a token would cross the network in the clear, a PEM file cannot be read, a list is empty,
    or a name of it cannot be resolved to an IPv4 address.
    """
    several = not isinstance(address, str)
    addresses = [*address] if several else [str(address)]
    if not addresses:
        raise errors.InvalidConfig("There is no address in the list.", "Name host:port of each server.")
    for each in addresses:
        if token and tls_ca is None and not is_loopback(each):
            raise errors.InvalidConfig(
                f"The token would reach {each} unencrypted.", "Set auth.tls_ca.", "INSECURE_ADDRESS"
            )
    target, calls = (_together(addresses), _SPREAD) if several else (addresses[0], _RETRY)
    options = [*OPTIONS, ("grpc.enable_retries", int(retries)), ("grpc.service_config", json.dumps(calls))]
    if tls_ca is None:
        channel = grpc.insecure_channel(target, options=options)
    else:
        host = host_of(addresses[0])
        if several:
            options.append(("grpc.ssl_target_name_override", tls_name or host))
        elif tls_name and is_ip(host) and not is_loopback(addresses[0]):
            options.append(("grpc.ssl_target_name_override", tls_name))
        chain, key = (_read(certificate[0]), _read(certificate[1])) if certificate else (None, None)
        credentials = grpc.ssl_channel_credentials(_read(tls_ca, "auth.tls_ca"), key, chain)
        channel = grpc.secure_channel(target, credentials, options=options)
    if token or tracing.active():
        return grpc.intercept_channel(channel, _Headers(token))
    return channel


def connect_service(
    settings: Any, service: str, role: str = "admin", *, person: str = "", retries: bool = True
) -> grpc.Channel:
    """A channel to `inference`, `labeling` or `learner` of iterpo.config.Settings, with the best token for `role`, to
    speak for `person`."""
    return connect_at(getattr(settings, service).address, settings, settings.token(role, person), retries=retries)


def connect_at(
    address: str | Sequence[str], settings: Any, token: str | None = None, *, retries: bool = True
) -> grpc.Channel:
    """A channel to any address, or several, with TLS as `settings.auth` says."""
    auth = settings.auth
    own = (auth.tls_client_certificate, auth.tls_client_key) if auth.tls_client_certificate else None
    return connect(address, token, auth.tls_ca, retries=retries, certificate=own, tls_name=auth.tls_name)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn grpc.RpcError into the IterpoError that the server raised, message, fix and reason included."""
    try:
        yield
    except grpc.RpcError as error:
        raise translate(error) from error


def translate(error: grpc.RpcError) -> errors.IterpoError:
    """The IterpoError of a failed call: from its ErrorInfo when it has one, else from its status code."""
    call: Any = error
    code, details = call.code().name, call.details() or ""
    info = _error_info(call)
    if info is None:
        kind = _BY_CODE.get(code, errors.IterpoError)
        return kind(_sentence(code, details), _FIXES.get(code, ""), _REASONS.get(code, code))
    fix = info.metadata.get("fix", "")
    kind = getattr(errors, info.metadata.get("error", ""), None) or _BY_CODE.get(code, errors.IterpoError)
    return kind(details.removesuffix(fix).strip(), fix, info.reason)


def host_of(address: str) -> str:
    """Of `host:port`; without the brackets of an IPv6 address."""
    return address.rpartition(":")[0].strip("[]")


def is_ip(host: str) -> bool:
    """Whether `host` is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(address: str) -> bool:
    """Whether `address` (`host:port`, or `unix:path`) is on this machine."""
    host = host_of(address)
    if address.startswith("unix:") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _together(addresses: Sequence[str]) -> str:
    """gRPC's name of several servers."""
    if len(addresses) == 1:
        return f"dns:///{addresses[0]}"
    return "ipv4:" + ",".join(map(_resolved, addresses))


def _resolved(address: str) -> str:
    host, _, port = address.rpartition(":")
    try:
        return f"{socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]}:{port}"
    except OSError as error:
        raise errors.InvalidConfig(
            f"{address} is no IPv4 address and no name of one: {error.strerror}.", "Name host:port of each server."
        ) from error


def _error_info(call: Any) -> error_details_pb2.ErrorInfo | None:
    try:
        status = rpc_status.from_call(call)
    except ValueError:
        # A proxy rewrote the code or the message: the plain status is all that can be trusted.
        return None
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info
    return None


def _sentence(code: str, details: str) -> str:
    text = details.strip() or "the call failed without a message"
    return f"{code}: {text}" + ("" if text.endswith((".", "!", "?")) else ".")


def _read(path: Path, key: str = "auth.tls_client_certificate or tls_client_key") -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise errors.InvalidConfig(
            f"{key} cannot be read: {error.strerror}: {path}.", "Name a readable PEM file."
        ) from error


class _CallDetails(NamedTuple):
    method: str
    timeout: float | None
    metadata: Sequence[tuple[str, str | bytes]] | None
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Headers(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Adds `authorization: Bearer TOKEN` (gRPC's own call credentials refuse channels without TLS, loopback too), and
    the trace that the call is made in."""

    def __init__(self, token: str | None) -> None:
        self._always = [("authorization", f"Bearer {token}")] if token else []

    def _intercept(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        metadata = [*(details.metadata or ()), *self._always, *tracing.headers().items()]
        return continuation(
            _CallDetails(
                details.method,
                details.timeout,
                metadata,
                details.credentials,
                details.wait_for_ready,
                details.compression,
            ),
            request,
        )

    intercept_unary_unary: Any = _intercept
    intercept_unary_stream: Any = _intercept
    intercept_stream_unary: Any = _intercept
    intercept_stream_stream: Any = _intercept
