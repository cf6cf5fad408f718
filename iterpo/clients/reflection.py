"""Any RPC of a running server, found by server reflection: no stubs, JSON in and out. What `iterpo call` does.

Not implemented: methods that take a stream of requests.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, Parse, ParseError
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from iterpo.clients.channel import connect_at, connect_service, translated_errors
from iterpo.config import SERVICES, Settings
from iterpo.errors import InvalidInput, NotFound, Unavailable

CONNECT_SECONDS = 1.0
"""How long a server may take to answer the connection before it counts as away."""


class RemoteServices:
    """The methods of several servers as one list. Context manager: closes the channels."""

    def __init__(self, channels: Sequence[grpc.Channel]) -> None:
        self._channels = channels
        self._found: dict[str, tuple[grpc.Channel, MethodDescriptor]] = {}

    @classmethod
    def of(cls, settings: Settings, address: str = "") -> Self:
        """The configured services, or the one at `address`."""
        if address:
            return cls([connect_at(address, settings, settings.token("admin"))])
        return cls([connect_service(settings, name) for name in SERVICES])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for channel in self._channels:
            channel.close()

    def methods(self) -> list[str]:
        """`package.Service/Method` of every server that answers. Raises Unavailable when none does."""
        return sorted(self._discover())

    def call(self, name: str, request_json: str, timeout: float) -> Iterator[dict[str, Any]]:
        """The response, or each of a stream, as plain data. Raises NotFound, InvalidInput, and the server's errors."""
        channel, method = self._discover()[self._full_name(name)]
        if method.client_streaming:
            raise InvalidInput(f"{name} takes a stream of requests.", "Use a generated client for it.")
        request = _parse(request_json, method)
        path = f"/{method.containing_service.full_name}/{method.name}"
        make = channel.unary_stream if method.server_streaming else channel.unary_unary
        stub = make(
            path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        with translated_errors():
            answer: Any = stub(request, timeout=timeout)
            for response in answer if method.server_streaming else [answer]:
                yield MessageToDict(
                    response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
                )

    def _full_name(self, name: str) -> str:
        found = self._discover()
        matches = [full for full in found if full == name or full.rpartition(".")[2] == name]
        if matches:
            return matches[0]
        short = {full.rpartition(".")[2]: full for full in found}
        near = get_close_matches(name, short, n=3, cutoff=0.5)
        fix = f"Did you mean {' or '.join(near)}?" if near else "`iterpo call --list` shows what there is."
        raise NotFound(f"No running service has the method {name!r}.", fix, "UNKNOWN_METHOD")

    def _discover(self) -> dict[str, tuple[grpc.Channel, MethodDescriptor]]:
        if not self._found:
            for channel in self._channels:
                if _answers(channel):
                    self._found |= {_full(m): (channel, m) for m in _methods(channel)}
            if not self._found:
                raise Unavailable("No service answers.", "Start them with `iterpo up`, or name another --address.")
        return self._found


def _answers(channel: grpc.Channel) -> bool:
    """Whether the channel connects; False as soon as the connection is refused."""
    states: SimpleQueue[grpc.ChannelConnectivity] = SimpleQueue()
    channel.subscribe(states.put, try_to_connect=True)
    deadline = time.monotonic() + CONNECT_SECONDS
    try:
        while True:
            state = states.get(timeout=max(0.0, deadline - time.monotonic()))
            if state in (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE):
                return state is grpc.ChannelConnectivity.READY
    except Empty:
        return False
    finally:
        channel.unsubscribe(states.put)


def _methods(channel: grpc.Channel) -> Iterator[MethodDescriptor]:
    with translated_errors():
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        for service in database.get_services():
            yield from pool.FindServiceByName(service).methods


def _full(method: MethodDescriptor) -> str:
    return f"{method.containing_service.full_name}/{method.name}"


def _parse(request_json: str, method: MethodDescriptor) -> Any:
    try:
        json.loads(request_json)
        return Parse(request_json, GetMessageClass(method.input_type)())
    except json.JSONDecodeError as error:
        raise InvalidInput(f"The request is not JSON: {error}.", "Quote it for the shell: '{\"key\": 1}'.") from error
    except ParseError as error:
        fields = ", ".join(f.name for f in method.input_type.fields) or "none"
        raise InvalidInput(
            f"The request is not a {method.input_type.name}: {error}.", f"Its fields are: {fields}."
        ) from error
