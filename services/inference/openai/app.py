"""Routes of the OpenAI-compatible door: who may, what is asked, the answer; and errors in OpenAI's shape."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from iterpo.errors import InvalidInput, IterpoError, NotFound, PermissionDenied, ResourceExhausted, Unavailable
from iterpo.types import BASE_VERSION, RUN, Completion, Group, Message, PolicyVersion, Prompt
from services.audit import Audit
from services.auth import TokenGuard, caller, caller_key, forget_caller
from services.calls import Method
from services.http_server import STATUS, is_loopback_name
from services.inference.admission import Quota
from services.inference.answering import TOO_LATE, Answering, too_late
from services.inference.engine import Chunk
from services.inference.metrics import InferenceMetrics
from services.inference.openai.asked import REST, BadField, Question, body_of, chat_question, text_question
from services.inference.openai.feedback import Feedback
from services.inference.openai.said import Choice, Form, model_id
from services.inference.openai.served import Served
from services.inference.registry import PolicyRegistry
from services.inference.roster import ALIASES

logger = logging.getLogger(__name__)

TYPES: Mapping[str, str] = {
    "INVALID_ARGUMENT": "invalid_request_error",
    "UNAUTHENTICATED": "authentication_error",
    "PERMISSION_DENIED": "permission_error",
    "NOT_FOUND": "not_found_error",
    "ALREADY_EXISTS": "conflict_error",
    "FAILED_PRECONDITION": "conflict_error",
    "RESOURCE_EXHAUSTED": "rate_limit_error",
    "UNAVAILABLE": "service_unavailable_error",
}
"""IterpoError.code -> error.type."""
GRACE_SECONDS = 1.0
"""Beyond the deadline, for the answers' own clock to end them."""
GENERATE = Method("iterpo.v1.InferenceService", "Generate", "unary")
FEEDBACK = Method("iterpo.v1.LabelingService", "SubmitFeedback", "unary")
LIST = Method("iterpo.v1.PolicyService", "ListPolicies", "unary")

Handler = Callable[[Request], Awaitable[Response]]


class OpenAiDoor:
    def __init__(
        self,
        answering: Answering,
        registry: PolicyRegistry,
        base_name: str,
        guard: TokenGuard,
        quota: Quota,
        metrics: InferenceMetrics,
        deadline_seconds: float,
        feedback: Feedback,
        ready: Callable[[], bool],
        audit: Audit,
    ) -> None:
        self._answering, self._registry, self._base_name = answering, registry, base_name
        self._guard, self._quota, self._metrics = guard, quota, metrics
        self._deadline, self._feedback, self._ready = deadline_seconds, feedback, ready
        self._served: Served = feedback.served
        self._audit = audit
        self._created = int(time.time())

    def app(self) -> Starlette:
        routes = [
            self._route("/v1/chat/completions", GENERATE, self.chat, "POST"),
            self._route("/v1/completions", GENERATE, self.text, "POST"),
            self._route("/v1/models", LIST, self.models, "GET"),
            self._route("/v1/models/{model:path}", LIST, self.model, "GET"),
            self._route("/v1/feedback", FEEDBACK, self.feedback, "POST"),
        ]
        return Starlette(routes=routes, exception_handlers={404: _no_such_page, 405: _no_such_page})

    async def chat(self, request: Request) -> Response:
        messages, question = chat_question(await body_of(request))
        ids = await asyncio.to_thread(self._answering.encode, messages, question.settings)
        if question.settings.max_tokens == REST:
            question = replace(question, settings=replace(question.settings, max_tokens=self._answering.room(ids)))
        return await self._answer(request, [ids], [Prompt("", tuple(messages))], question, chat=True)

    async def text(self, request: Request) -> Response:
        asked, question = text_question(await body_of(request))
        settings = question.settings
        ids = [
            await asyncio.to_thread(self._answering.encode_text, prompt, settings)
            if isinstance(prompt, str)
            else self._answering.fitting(prompt, settings)
            for prompt in asked
        ]
        prompts = [
            Prompt("", (Message("user", each if isinstance(each, str) else self._answering.text_of(each)),))
            for each in asked
        ]
        return await self._answer(request, ids, prompts, question, chat=False)

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._model(name) for name in self._names()]})

    async def model(self, request: Request) -> Response:
        return JSONResponse(self._model(str(request.path_params["model"])))

    async def feedback(self, request: Request) -> Response:
        return JSONResponse(await self._feedback.take(await body_of(request)))

    async def _answer(
        self, request: Request, ids: list[tuple[int, ...]], prompts: list[Prompt], question: Question, chat: bool
    ) -> Response:
        key = caller_key()
        self._quota.check(key)
        form = Form(uuid.uuid4().hex, question, chat, self._answering.token_text)
        prompt_tokens = sum(len(each) for each in ids)
        chunks = self._chunks(ids, question)
        # The first chunk is waited for here: until then, whatever is wrong is an error with its own status.
        first = await self._first(chunks)
        version = first[0]
        self._quota.use(key, prompt_tokens)
        choices = [Choice() for _ in range(len(ids) * question.n)]

        async def growing() -> AsyncGenerator[tuple[PolicyVersion, int, Chunk], None]:
            try:
                async with aclosing(chunks):
                    by, number, chunk = first
                    while True:
                        self._quota.use(key, len(chunk.token_ids))
                        choices[number].add(chunk, by)
                        yield by, number, chunk
                        try:
                            by, number, chunk = await anext(chunks)
                        except StopAsyncIteration:
                            break
            finally:
                self._remember(form, version, prompts, ids, question, choices)

        if question.stream:
            events = self._events(form, version, growing(), choices, question, prompt_tokens, chat)
            return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        async with aclosing(growing()) as parts:
            async for _ in parts:
                if await request.is_disconnected():
                    return Response(status_code=499)
        return JSONResponse(form.whole(version, choices, prompt_tokens))

    async def _chunks(
        self, ids: list[tuple[int, ...]], question: Question
    ) -> AsyncGenerator[tuple[PolicyVersion, int, Chunk], None]:
        """Raises Unavailable (DEADLINE_EXCEEDED) when all answers together, and the wait for a place, take too long."""
        policy, user = self._policy(question.model), question.user or uuid.uuid4().hex
        ends = time.monotonic() + self._deadline
        answers = self._answering.answers(ids, question.n, question.settings, policy, user, question.likeliest, ends)
        async with aclosing(answers):
            try:
                async with asyncio.timeout(self._deadline + GRACE_SECONDS):
                    first = await anext(answers)
            except TimeoutError:  # in the queue: once it is in the engine, the answers' own clock ends it
                raise too_late() from None
            yield first
            async for news in answers:
                yield news

    @staticmethod
    async def _first(
        chunks: AsyncGenerator[tuple[PolicyVersion, int, Chunk], None],
    ) -> tuple[PolicyVersion, int, Chunk]:
        try:
            return await anext(chunks)
        except BaseException:  # refused or cancelled, whichever it was: the engine must not go on for nobody
            await chunks.aclose()
            raise

    async def _events(
        self,
        form: Form,
        version: PolicyVersion,
        growing: AsyncGenerator[tuple[PolicyVersion, int, Chunk], None],
        choices: Sequence[Choice],
        question: Question,
        prompt_tokens: int,
        chat: bool,
    ) -> AsyncIterator[str]:
        """Server-sent events; an error in the middle is an event of its own, and the stream ends without [DONE]."""
        started: set[int] = set()
        try:
            # Closed with the stream: whoever hangs up while an event goes out must not leave the engine at work.
            async with aclosing(growing):
                async for by, number, chunk in growing:
                    if chat and number not in started:
                        started.add(number)
                        yield _event(form.first(by, number))
                    yield _event(form.part(by, number, chunk))
        except IterpoError as error:
            yield _event(error_body(error)[1])
            return
        if question.usage_at_the_end:
            yield _event(form.usage(version, choices, prompt_tokens))
        yield "data: [DONE]\n\n"

    def _remember(
        self,
        form: Form,
        version: PolicyVersion,
        prompts: Sequence[Prompt],
        ids: Sequence[tuple[int, ...]],
        question: Question,
        choices: Sequence[Choice],
    ) -> None:
        """Each prompt's finished answers are a group that feedback can name. Of an answer that more than one version
        gave the text alone is kept, as of one that somebody else wrote: a completion has one policy."""
        for p, prompt in enumerate(prompts):
            group_id = f"{form.name}-{p}"
            answers: list[Completion] = []
            for number in range(p * question.n, (p + 1) * question.n):
                choice = choices[number]
                if choice.finish_reason is None:
                    continue
                whole = len(choice.spans) == 1
                answers.append(
                    Completion(
                        completion_id=form.completion_id(number),
                        prompt_id=group_id,
                        group_id=group_id,
                        text=choice.text,
                        prompt_token_ids=ids[p] if whole else (),
                        token_ids=tuple(choice.token_ids) if whole else (),
                        logprobs=tuple(choice.logprobs) if whole else (),
                        finish_reason=choice.finish_reason,
                        policy_version=version.version if whole else BASE_VERSION,
                        policy_digest=version.digest if whole else "",
                        temperature=question.settings.temperature,
                        top_p=question.settings.top_p,
                        top_k=question.settings.top_k,
                    )
                )
            if answers:
                self._served.remember(Group(group_id, Prompt(group_id, prompt.messages), tuple(answers)))

    def _refuse_foreign_sites(self, request: Request) -> None:
        """A foreign site can make a browser on this machine post here, as plain text without asking first. Raises
        PermissionDenied, InvalidInput."""
        host = request.headers.get("host", "")
        if self._guard.open_to_all and not is_loopback_name(host):
            raise PermissionDenied(
                f"This server has no tokens and does not answer to the name {host[:100]!r}.",
                "Use http://127.0.0.1, or set auth.tokens_file.",
                "FOREIGN_HOST",
            )
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        if request.method == "POST" and kind != "application/json":
            raise InvalidInput(
                f"The content-type is {kind or 'missing'}.", "Send content-type application/json.", "NOT_JSON"
            )

    def _policy(self, model: str) -> str:
        """The registry's words for a model's name: a version, an alias, a run's, a split of such, or the base model's
        own name (what serves)."""
        if "=" in model:
            parts = [part.partition("=") for part in model.split(",")]
            names = [self._policy(name.strip()) if name.strip() else "" for name, _, _ in parts]
            return ",".join(f"{name}={weight}" for name, (_, _, weight) in zip(names, parts, strict=True))
        if model in ("", self._base_name):
            return "serving"
        if model.startswith("v") and model[1:].isdecimal():
            return model[1:]
        if model not in ALIASES and not model.startswith(RUN):
            raise NotFound(
                f"There is no model {model!r}.",
                f"Use {self._base_name}, {', '.join(ALIASES)}, a version (v12), or run/NAME; see /v1/models.",
                "MODEL_NOT_FOUND",
            )
        return model

    def _names(self) -> list[str]:
        """Of all that can answer now."""
        versions = [p.version for p, _ in self._registry.listed() if self._registry.can_answer(p.version)]
        return [self._base_name, *self._registry.names(), *map(model_id, versions)]

    def _model(self, name: str) -> dict[str, Any]:
        policy = self._registry.get(self._registry.resolve(self._policy(name)))
        about = {"policy_version": policy.version, "policy_digest": policy.digest, "state": policy.state.value}
        return {"id": name, "object": "model", "created": self._created, "owned_by": "iterpo", **about}

    def _route(self, path: str, method: Method, handler: Handler, verb: str) -> Route:
        async def answered(request: Request) -> Response:
            forget_caller()
            started, status = time.perf_counter(), ""
            try:
                response = await refusing(request)
                status = str(response.status_code)
                return response
            finally:
                seconds = time.perf_counter() - started
                if status:
                    self._metrics.http.labels(path, status).inc()
                    self._metrics.http_seconds.labels(path).observe(seconds)
                if self._audit.may_change(method):  # labeling's own log names this service, not whom it spoke for
                    peer = f"{request.client.host}:{request.client.port}" if request.client else ""
                    outcome = status or "CANCELLED"
                    self._audit.record(caller(), f"http {path}", outcome, peer=peer, seconds=round(seconds, 3))

        async def refusing(request: Request) -> Response:
            try:
                if not self._ready():
                    raise Unavailable("The inference service is starting.", "Try again in a moment.", "STARTING")
                self._refuse_foreign_sites(request)
                self._guard.admit(request.headers.get("authorization", ""), method)
                return await handler(request)
            except IterpoError as error:
                return _refusal(error)
            except Exception as error:  # noqa: BLE001  # whatever slipped through: the caller gets an id, the log the traceback
                return _incident(request, error)

        return Route(path, answered, methods=[verb])


def _event(content: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


def error_body(error: IterpoError) -> tuple[int, dict[str, Any]]:
    status, kind = STATUS.get(error.code, 500), TYPES.get(error.code, "server_error")
    if error.reason == TOO_LATE:
        status, kind = 504, "timeout_error"
    param = error.field if isinstance(error, BadField) else None
    return status, {"error": {"message": str(error), "type": kind, "param": param, "code": error.reason.lower()}}


def _refusal(error: IterpoError) -> JSONResponse:
    status, body = error_body(error)
    wait = error.retry_seconds if isinstance(error, ResourceExhausted) else 0
    return JSONResponse(body, status, headers={"Retry-After": str(wait)} if wait else None)


def _incident(request: Request, error: Exception) -> JSONResponse:
    incident = uuid.uuid4().hex[:12]
    logger.error("incident %s in %s", incident, request.url.path, exc_info=error)
    return _refusal(
        IterpoError(f"Something unexpected happened (incident {incident}).", "The server's log has the details.")
    )


async def _no_such_page(request: Request, _error: Exception) -> JSONResponse:
    return _refusal(
        NotFound(
            f"There is no {request.method} {request.url.path} here.",
            "There are /v1/chat/completions, /v1/completions, /v1/models and /v1/feedback.",
            "UNKNOWN_URL",
        )
    )
