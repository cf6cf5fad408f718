"""From prompts to completions: chat template, limits, seeds, and n samples of P prompts in flight together."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any

from iterpo.errors import InvalidInput
from iterpo.types import Completion, FinishReason, Message, PolicyVersion, Prompt, SamplingSettings
from services.inference.admission import Admission
from services.inference.attestation import Answer, Attestation
from services.inference.delivery import Source
from services.inference.engine import Chunk
from services.inference.metrics import InferenceMetrics
from services.inference.registry import PolicyRegistry

MAX_SAMPLES = 4096
"""Completions of one Sample call."""
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
    ) -> None:
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
        self, messages: Sequence[Message], settings: SamplingSettings, policy: str
    ) -> AsyncGenerator[tuple[PolicyVersion, int, Chunk], None]:
        """(version, prompt tokens, chunk), the last chunk with its finish reason."""
        ids = await asyncio.to_thread(self.encode, messages, settings)
        drawn = Drawn()
        async with self._admission.enter(), self._registry.using(policy) as (version, source):
            stream = source.engine.generate(ids, settings, settings.seed, source.lora, stream=True)
            async with aclosing(stream) as chunks:
                async for chunk in chunks:
                    self._metrics.tokens.labels("generate").inc(len(chunk.token_ids))
                    drawn.add(chunk)
                    yield version, len(ids), chunk
        self._attestation.offer(settings, drawn.answer(version, ids))

    async def answers(
        self, prompts: Sequence[tuple[int, ...]], n: int, settings: SamplingSettings, policy: str, likeliest: int = 0
    ) -> AsyncGenerator[tuple[PolicyVersion, int, Chunk], None]:
        """n answers to each prompt, all from one version, their chunks as they come: (version, number of the answer,
        prompt by prompt, chunk). Leaving the iterator aborts what is in flight."""
        news: asyncio.Queue[tuple[int, Chunk | BaseException | None]] = asyncio.Queue()
        count = len(prompts) * n
        async with self._admission.enter(count), self._registry.using(policy) as (version, source):

            async def one(number: int) -> None:
                seed = settings.seed if settings.seed is None or count == 1 else sample_seed(settings.seed, 0, number)
                stream = source.engine.generate(prompts[number // n], settings, seed, source.lora, True, likeliest)
                try:
                    async with aclosing(stream) as chunks:
                        async for chunk in chunks:
                            news.put_nowait((number, chunk))
                    news.put_nowait((number, None))
                except Exception as error:  # noqa: BLE001 - it is raised where the chunks are waited for
                    news.put_nowait((number, error))

            drawn = [Drawn() for _ in range(count)]
            tasks = [asyncio.create_task(one(number)) for number in range(count)]
            try:
                while count:
                    number, chunk = await news.get()
                    if isinstance(chunk, BaseException):
                        raise chunk
                    if chunk is None:
                        count -= 1
                        self._attestation.offer(settings, drawn[number].answer(version, prompts[number // n]))
                        continue
                    self._metrics.tokens.labels("http").inc(len(chunk.token_ids))
                    drawn[number].add(chunk)
                    yield version, number, chunk
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def sample(
        self, prompts: Sequence[Prompt], n: int, settings: SamplingSettings, policy: str
    ) -> AsyncGenerator[tuple[int, int, Completion], None]:
        """(prompt index, sample index, completion) as they finish. Leaving the iterator aborts what is in flight."""
        if not prompts or not n >= 1 or len(prompts) * n > MAX_SAMPLES:
            raise InvalidInput(
                f"{len(prompts)} prompts x {n} samples.", f"Ask for 1 to {MAX_SAMPLES} completions a call."
            )
        encoded = await asyncio.to_thread(lambda: [self.encode(p.messages, settings) for p in prompts])
        groups = [uuid.uuid4().hex for _ in prompts]
        async with self._registry.using(policy, fetch_base=True) as (version, source):

            async def one(p: int, i: int) -> tuple[int, int, Completion]:
                seed = None if settings.seed is None else sample_seed(settings.seed, p, i)
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
        async with self._registry.using(policy) as (version, source):
            scores = [source.engine.score(ids, source.lora) for ids in sequences]
            return version, list(await asyncio.gather(*scores))


class Drawn:
    """The tokens of an answer, as they come."""

    def __init__(self) -> None:
        self._token_ids: list[int] = []
        self._logprobs: list[float] = []

    def add(self, chunk: Chunk) -> None:
        self._token_ids += chunk.token_ids
        self._logprobs += chunk.logprobs

    def answer(self, version: PolicyVersion, prompt_ids: tuple[int, ...]) -> Answer:
        return Answer(version.version, prompt_ids, tuple(self._token_ids), tuple(self._logprobs))


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
