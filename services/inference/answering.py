"""From prompts to completions: chat template, limits, seeds, and n samples of P prompts in flight together."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any

from iterpo.errors import InvalidInput, Unavailable
from iterpo.types import Completion, FinishReason, Message, PolicyVersion, Prompt, SamplingSettings
from services.inference.admission import Admission
from services.inference.attestation import Answer, Attestation
from services.inference.delivery import Source
from services.inference.engine import Chunk
from services.inference.lease import Lease
from services.inference.metrics import InferenceMetrics
from services.inference.registry import PolicyRegistry

MAX_SAMPLES = 4096
"""Completions of one Sample call."""
TOO_LATE = "DEADLINE_EXCEEDED"
CHARACTERS_A_TOKEN = 64
"""Longer texts are refused unread: tokenizing 16 MiB to find that they do not fit would take seconds."""


class Answering:
    def __init__(
        self,
        registry: PolicyRegistry,
        tokenizer: Any,
        max_model_len: int,
        metrics: InferenceMetrics,
        admission: Admission | None = None,
        attestation: Attestation | None = None,
        continues: bool = False,
    ) -> None:
        """`continues`: answers under way go on with the version that is promoted meanwhile (inference.in_flight)."""
        self._continues = continues
        self._registry, self._tokenizer, self._metrics = registry, tokenizer, metrics
        self._max_model_len = max_model_len
        self._admission = admission or Admission(MAX_SAMPLES, 0)
        self._attestation = attestation or Attestation(registry, metrics, 0.0)

    def encode(self, messages: Sequence[Message], settings: SamplingSettings) -> tuple[int, ...]:
        """Token ids of a chat, ready for the answer. Raises InvalidInput (EMPTY_PROMPT, CONTEXT_EXCEEDED)."""
        if not any(m.content.strip() for m in messages):
            raise InvalidInput("The prompt is empty.", "Send at least one message with text.", "EMPTY_PROMPT")
        self._readable(sum(len(m.content) for m in messages))
        chat = [{"role": m.role, "content": m.content} for m in messages]
        ids = self._tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        return self.fitting(ids, settings)

    def encode_text(self, text: str, settings: SamplingSettings) -> tuple[int, ...]:
        """Token ids of a text to be gone on with, as it stands: no chat template."""
        if not text:
            raise InvalidInput("The prompt is empty.", "Send a text.", "EMPTY_PROMPT")
        self._readable(len(text))
        return self.fitting(self._tokenizer(text).input_ids, settings)

    def fitting(self, ids: Sequence[int], settings: SamplingSettings) -> tuple[int, ...]:
        """The same ids. Raises InvalidInput (CONTEXT_EXCEEDED, UNKNOWN_TOKEN) unless they and the answer fit."""
        if ids and not 0 <= min(ids) <= max(ids) < len(self._tokenizer):
            raise InvalidInput(
                "The prompt has a token id outside of the vocabulary.",
                f"Use ids from 0 to {len(self._tokenizer) - 1}.",
                "UNKNOWN_TOKEN",
            )
        room = self.room(ids)
        if room < max(1, settings.max_tokens):
            raise InvalidInput(
                f"The prompt has {len(ids)} tokens and max_tokens is {settings.max_tokens}, "
                f"more than the context of {self._max_model_len}.",
                f"Lower max_tokens to {room}." if room > 0 else "Shorten the prompt, or raise inference.max_model_len.",
                "CONTEXT_EXCEEDED",
            )
        return tuple(ids)

    def room(self, ids: Sequence[int]) -> int:
        """Tokens that an answer may have."""
        return self._max_model_len - len(ids)

    def _readable(self, characters: int) -> None:
        if characters > CHARACTERS_A_TOKEN * self._max_model_len:
            raise InvalidInput(
                f"The prompt has {characters} characters, far more than the context of {self._max_model_len} tokens.",
                "Shorten the prompt, or raise inference.max_model_len.",
                "CONTEXT_EXCEEDED",
            )

    def token_text(self, token: int) -> str:
        return self.text_of([token])

    def text_of(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids)))

    async def generate(
        self, messages: Sequence[Message], settings: SamplingSettings, policy: str, user: str
    ) -> AsyncGenerator[tuple[PolicyVersion, int, Chunk], None]:
        """(version, prompt tokens, chunk), the last chunk with its finish reason. `user`: see PolicyRegistry.lease."""
        ids = await asyncio.to_thread(self.encode, messages, settings)
        async with self._admission.enter():
            answer = self._follow(self._registry.lease(policy, user), user, ids, settings, settings.seed)
            async with aclosing(answer) as chunks:
                async for version, chunk in chunks:
                    self._metrics.tokens.labels("generate").inc(len(chunk.token_ids))
                    yield version, len(ids), chunk

    async def answers(
        self,
        prompts: Sequence[tuple[int, ...]],
        n: int,
        settings: SamplingSettings,
        policy: str,
        user: str,
        likeliest: int = 0,
        ends: float = math.inf,
    ) -> AsyncGenerator[tuple[PolicyVersion, int, Chunk], None]:
        """n answers to each prompt, all begun with one version, their chunks as they come: (version, number of the
        answer, prompt by prompt, chunk). Leaving the iterator aborts what is in flight.

        Raises Unavailable (DEADLINE_EXCEEDED) when they are not complete at `ends`, seconds of the monotonic clock.
        """
        news: asyncio.Queue[tuple[int, PolicyVersion | None, Chunk | BaseException | None]] = asyncio.Queue()
        count = len(prompts) * n
        async with self._admission.enter(count):
            leases = [self._registry.lease(policy, user).hold() for _ in range(count)]

            async def one(number: int) -> None:
                seed = settings.seed if settings.seed is None or count == 1 else sample_seed(settings.seed, 0, number)
                answer = self._follow(leases[number], user, prompts[number // n], settings, seed, likeliest)
                try:
                    async with aclosing(answer) as chunks:
                        async for version, chunk in chunks:
                            news.put_nowait((number, version, chunk))
                    news.put_nowait((number, None, None))
                except Exception as error:  # noqa: BLE001 - it is raised where the chunks are waited for
                    news.put_nowait((number, None, error))

            left = count
            tasks = [asyncio.create_task(one(number)) for number in range(count)]
            try:
                while left:
                    try:
                        async with asyncio.timeout(None if ends == math.inf else max(0.0, ends - time.monotonic())):
                            number, version, chunk = await news.get()
                    except TimeoutError:
                        for lease in leases:
                            lease.release(failed=True)
                        raise too_late() from None
                    if isinstance(chunk, BaseException):
                        raise chunk
                    if version is None or chunk is None:
                        left -= 1
                        continue
                    self._metrics.tokens.labels("http").inc(len(chunk.token_ids))
                    yield version, number, chunk
            finally:
                for task in tasks:
                    task.cancel()
                try:
                    await asyncio.gather(*tasks, return_exceptions=True)
                finally:
                    for lease in leases:  # those of tasks that never began
                        lease.release()

    async def _follow(
        self,
        lease: Lease,
        user: str,
        ids: tuple[int, ...],
        settings: SamplingSettings,
        seed: int | None,
        likeliest: int = 0,
    ) -> AsyncGenerator[tuple[PolicyVersion, Chunk], None]:
        """One answer's chunks, each with the version that drew it. With `continues`, an answer whose version serves no
        longer is taken up by the one that does: prompt and answer so far are read by the new weights, so that every
        further token is drawn from the new policy alone.

        Answers with stop words finish where they began: half a stop word may be held back there.
        """
        drawn = Drawn()
        while True:
            rest = replace(settings, max_tokens=settings.max_tokens - len(drawn.token_ids))
            with lease:
                so_far = (*ids, *drawn.token_ids)
                stream = lease.source.engine.generate(so_far, rest, seed, lease.source.lora, True, likeliest)
                async with aclosing(stream) as chunks:
                    async for chunk in chunks:
                        drawn.add(lease.version, chunk)
                        lease.spoiled = chunk.finish_reason is FinishReason.ABORTED
                        yield lease.version, chunk
                        # A chunk without text: half a character is held back by the engine.
                        if chunk.finish_reason is None and chunk.text and self._is_left_behind(lease, settings):
                            break
                    else:
                        self._attestation.offer(settings, drawn.answer(ids))
                        return
            self._metrics.continued.inc()
            lease = self._registry.lease("serving", user)

    def _is_left_behind(self, lease: Lease, settings: SamplingSettings) -> bool:
        return (
            self._continues and lease.live and not settings.stop and not self._registry.is_live(lease.version.version)
        )

    async def sample(
        self, prompts: Sequence[Prompt], n: int, settings: SamplingSettings, policy: str, first: int = 0
    ) -> AsyncGenerator[tuple[int, int, Completion], None]:
        """(prompt index, sample index, completion) as they finish. Leaving the iterator aborts what is in flight.
        `first`: the place of the first prompt in the larger call that this is a part of."""
        if not prompts or not n >= 1 or len(prompts) * n > MAX_SAMPLES:
            raise InvalidInput(
                f"{len(prompts)} prompts x {n} samples.", f"Ask for 1 to {MAX_SAMPLES} completions a call."
            )
        if first < 0:
            raise InvalidInput(f"first_prompt is {first}.", "Give the first prompt's place, from 0.", "OUT_OF_RANGE")
        encoded = await asyncio.to_thread(lambda: [self.encode(p.messages, settings) for p in prompts])
        groups = [uuid.uuid4().hex for _ in prompts]
        async with self._registry.using(policy, fetch_base=True) as lease:
            version, source = lease.version, lease.source

            async def one(p: int, i: int) -> tuple[int, int, Completion]:
                seed = None if settings.seed is None else sample_seed(settings.seed, first + p, i)
                chunk = await self._whole(encoded[p], settings, seed, source)
                return p, i, _completion(prompts[p], groups[p], encoded[p], settings, version, chunk)

            tasks = [asyncio.create_task(one(p, i)) for p in range(len(prompts)) for i in range(n)]
            try:
                for done in asyncio.as_completed(tasks):
                    yield await done
            finally:
                for task in tasks:
                    task.cancel()
                with suppress(asyncio.CancelledError):
                    await asyncio.gather(*tasks, return_exceptions=True)

    async def _whole(self, ids: Sequence[int], settings: SamplingSettings, seed: int | None, source: Source) -> Chunk:
        async with aclosing(source.engine.generate(ids, settings, seed, source.lora, stream=False)) as chunks:
            async for chunk in chunks:
                if chunk.finish_reason is not None:
                    self._metrics.tokens.labels("sample").inc(len(chunk.token_ids))
                    return chunk
        return Chunk("", (), (), FinishReason.ABORTED)

    async def score(self, sequences: Sequence[Sequence[int]], policy: str) -> tuple[PolicyVersion, list[list[float]]]:
        """Log-probs of every token but the first of each sequence, at temperature 1."""
        for ids in sequences:
            if not 2 <= len(ids) < self._max_model_len or min(ids) < 0 or max(ids) >= len(self._tokenizer):
                raise InvalidInput(
                    f"A sequence of {len(ids)} tokens cannot be scored.",
                    f"Send 2 to {self._max_model_len - 1} ids of the vocabulary (0 to {len(self._tokenizer) - 1}).",
                )
        async with self._registry.using(policy) as lease:
            scores = [lease.source.engine.score(ids, lease.source.lora) for ids in sequences]
            return lease.version, list(await asyncio.gather(*scores))


class Drawn:
    """The tokens of an answer, as they come."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self._logprobs: list[float] = []
        self._versions: set[int] = set()

    def add(self, version: PolicyVersion, chunk: Chunk) -> None:
        self.token_ids += chunk.token_ids
        self._logprobs += chunk.logprobs
        self._versions.add(version.version)

    def answer(self, prompt_ids: tuple[int, ...]) -> Answer | None:
        """None for one that more than one version gave."""
        if len(self._versions) != 1:
            return None
        (version,) = self._versions
        return Answer(version, prompt_ids, tuple(self.token_ids), tuple(self._logprobs))


def too_late() -> Unavailable:
    return Unavailable(
        "The answer took longer than allowed.", "Ask for fewer tokens, or raise inference.deadline_seconds.", TOO_LATE
    )


def sample_seed(seed: int, prompt_index: int, sample_index: int) -> int:
    """Every sample its own seed, so that a group's members differ and a call can be repeated."""
    return (seed * 1_000_003 + prompt_index * 4099 + sample_index) % 2**31


def _completion(
    prompt: Prompt,
    group_id: str,
    prompt_ids: tuple[int, ...],
    settings: SamplingSettings,
    version: PolicyVersion,
    chunk: Chunk,
) -> Completion:
    return Completion(
        completion_id=uuid.uuid4().hex,
        prompt_id=prompt.prompt_id,
        group_id=group_id,
        text=chunk.text,
        prompt_token_ids=prompt_ids,
        token_ids=chunk.token_ids,
        logprobs=chunk.logprobs,
        finish_reason=chunk.finish_reason or FinishReason.ABORTED,
        policy_version=version.version,
        policy_digest=version.digest,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
    )
