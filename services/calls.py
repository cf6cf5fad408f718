"""What stands around every call, of whatever shape: writing, guards, parsing.

A guard is an async context manager made per call. Handlers that stream responses must be async generators; the
standard health service alone is written with `context.write`, and is wrapped as the coroutine that it is.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from iterpo.errors import InvalidInput
from services.logs import about, named

Guard = Callable[["Method", "grpc.aio.ServicerContext[Any, Any]"], AbstractAsyncContextManager[None]]
Handler = Any
"""A servicer's method: coroutine or async generator of (request or request iterator, context)."""
Parser = Callable[[bytes], Any]


@dataclass(frozen=True, slots=True)
class Method:
    service: str
    """Fully qualified, `iterpo.v1.InferenceService`."""
    name: str
    call_type: str
    """`unary`, `client_stream`, `server_stream` or `bidi_stream`: the label values that dashboards know."""

    @property
    def short(self) -> str:
        """`InferenceService/Generate`, as tables name it."""
        return f"{self.service.rpartition('.')[2]}/{self.name}"


class _Interceptor(grpc.aio.ServerInterceptor):
    """Puts `around(behaviour)` in each method's place. Methods that do not exist are left to gRPC (UNIMPLEMENTED)."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None
        kind, attribute, factory = _shape(handler)
        service, _, name = str(handler_call_details.method).lstrip("/").partition("/")
        wrapped: grpc.RpcMethodHandler[Any, Any] = factory(
            self.around(getattr(handler, attribute), Method(service, name, kind)),
            request_deserializer=self.parser(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )
        return wrapped

    def around(self, behaviour: Handler, method: Method) -> Handler:
        raise NotImplementedError

    def parser(self, parse: Parser | None) -> Parser | None:
        return parse


class Writing(_Interceptor):
    """The outermost: streams by `context.write`, so that cleanup runs while the call is there, whatever ends it.

    gRPC leaves an async generator whose call broke off to the garbage collector. By then the call is freed, and whoever
    asks it for anything (its peer, a status) kills the process: seen with grpcio 1.85 when connections are reset.
    """

    def around(self, behaviour: Handler, method: Method) -> Handler:
        if not inspect.isasyncgenfunction(behaviour):
            return behaviour

        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            async with aclosing(behaviour(request, context)) as responses:
                async for response in responses:
                    await context.write(response)

        return call


class GuardInterceptor(_Interceptor):
    """Runs each call inside `guard`."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def around(self, behaviour: Handler, method: Method) -> Handler:
        wrap = _stream if inspect.isasyncgenfunction(behaviour) else _unary
        return wrap(behaviour, method, self._guard)


class Parsing(_Interceptor):
    """The innermost: bytes that are no message are refused as such, in words. gRPC's own answer is INTERNAL."""

    def parser(self, parse: Parser | None) -> Parser | None:
        return None if parse is None else _tolerant(parse)

    def around(self, behaviour: Handler, method: Method) -> Handler:
        checked = _each if method.call_type in ("client_stream", "bidi_stream") else _message

        async def one(request: Any, context: Any) -> Any:
            return await behaviour(checked(request), context)

        async def many(request: Any, context: Any) -> AsyncIterator[Any]:
            async with aclosing(behaviour(checked(request), context)) as responses:
                async for response in responses:
                    yield response

        return many if inspect.isasyncgenfunction(behaviour) else one


class _NoMessage:
    """Stands for bytes that are none, on their way through the guards to where they are refused."""


def _tolerant(parse: Parser) -> Parser:
    def parsed(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return _NoMessage()

    return parsed


async def _each(requests: Any) -> AsyncIterator[Any]:
    async for request in requests:
        yield _message(request)


def _message(request: Any) -> Any:
    if isinstance(request, _NoMessage):
        raise InvalidInput(
            "The request is no message of this method.", "Send what protos/iterpo/v1 says.", "NOT_A_MESSAGE"
        )
    return request


def _shape(handler: Any) -> tuple[str, str, Callable[..., Any]]:
    if handler.request_streaming and handler.response_streaming:
        return "bidi_stream", "stream_stream", grpc.stream_stream_rpc_method_handler
    if handler.response_streaming:
        return "server_stream", "unary_stream", grpc.unary_stream_rpc_method_handler
    if handler.request_streaming:
        return "client_stream", "stream_unary", grpc.stream_unary_rpc_method_handler
    return "unary", "unary_unary", grpc.unary_unary_rpc_method_handler


def _unary(behaviour: Handler, method: Method, guard: Guard) -> Handler:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        with about(**named(request)):
            async with guard(method, context):
                return await behaviour(request, context)

    return call


def _stream(behaviour: Handler, method: Method, guard: Guard) -> Handler:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        # aclosing: a cancelled call must run the handler's own cleanup now, not when the garbage collector comes by.
        with about(**named(request)):
            async with guard(method, context), aclosing(behaviour(request, context)) as responses:
                async for response in responses:
                    yield response

    return call
