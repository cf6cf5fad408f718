"""Answers as OpenAI writes them: whole, in chunks, and what every one of them says about its policy."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from iterpo.types import FinishReason, PolicyVersion
from services.inference.engine import Chunk
from services.inference.openai.asked import Question

FINISHED = {FinishReason.STOP: "stop", FinishReason.LENGTH: "length", FinishReason.ABORTED: "stop"}


@dataclass(slots=True)
class Choice:
    """One answer as it grows."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    likeliest: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    spans: list[list[int]] = field(default_factory=list)
    """[policy version, tokens], in order: more than one when another version took the answer up."""

    def add(self, chunk: Chunk, by: PolicyVersion) -> None:
        if not self.spans or self.spans[-1][0] != by.version:
            self.spans.append([by.version, 0])
        self.spans[-1][1] += len(chunk.token_ids)
        self.text += chunk.text
        self.token_ids += chunk.token_ids
        self.logprobs += chunk.logprobs
        self.likeliest += chunk.likeliest or ((),) * len(chunk.token_ids)
        self.finish_reason = chunk.finish_reason or self.finish_reason


class Form:
    """Writes the answers to one request; `chat` or text."""

    def __init__(self, name: str, question: Question, chat: bool, token_text: Callable[[int], str]) -> None:
        self.name, self._question, self._chat, self._token_text = name, question, chat, token_text
        self._prefix = "chatcmpl" if chat else "cmpl"
        self._created = int(time.time())

    def whole(self, version: PolicyVersion, choices: Sequence[Choice], prompt_tokens: int) -> dict[str, Any]:
        shown = []
        for number, choice in enumerate(choices):
            message = {"message": {"role": "assistant", "content": choice.text, "refusal": None}}
            part: dict[str, Any] = message if self._chat else {"text": choice.text}
            spans = [{"policy_version": version, "tokens": tokens} for version, tokens in choice.spans]
            shown.append(self._choice(number, choice, part, choice) | {"policy_spans": spans})
        kind = "chat.completion" if self._chat else "text_completion"
        return {**self._head(version, kind), "choices": shown, "usage": usage(choices, prompt_tokens)}

    def first(self, version: PolicyVersion, number: int) -> dict[str, Any]:
        """Of a chat: whose turn it is, before the first token."""
        return self._chunk(version, number, {"delta": {"role": "assistant", "content": ""}}, Choice())

    def part(self, version: PolicyVersion, number: int, chunk: Chunk) -> dict[str, Any]:
        new = Choice()
        new.add(chunk, version)
        shown: dict[str, Any] = {"delta": {"content": chunk.text}} if self._chat else {"text": chunk.text}
        return self._chunk(version, number, shown, new)

    def usage(self, version: PolicyVersion, choices: Sequence[Choice], prompt_tokens: int) -> dict[str, Any]:
        """The last chunk of a stream, when it was asked for."""
        return {**self._head(version, self._stream_kind), "choices": [], "usage": usage(choices, prompt_tokens)}

    def completion_id(self, number: int) -> str:
        """What feedback refers to."""
        return f"{self._prefix}-{self.name}-{number}"

    @property
    def _stream_kind(self) -> str:
        return "chat.completion.chunk" if self._chat else "text_completion"

    def _chunk(self, version: PolicyVersion, number: int, shown: dict[str, Any], new: Choice) -> dict[str, Any]:
        return {**self._head(version, self._stream_kind), "choices": [self._choice(number, new, shown, new)]}

    def _head(self, version: PolicyVersion, kind: str) -> dict[str, Any]:
        return {
            "id": f"{self._prefix}-{self.name}",
            "object": kind,
            "created": self._created,
            "model": model_id(version.version),
            "system_fingerprint": f"{model_id(version.version)}-{version.digest[:12]}",
            "policy_version": version.version,
            "policy_digest": version.digest,
        }

    def _choice(self, number: int, choice: Choice, shown: dict[str, Any], new: Choice) -> dict[str, Any]:
        finished = FINISHED[choice.finish_reason] if choice.finish_reason else None
        logprobs = self._logprobs(new) if self._question.logprobs else None
        name = {"completion_id": self.completion_id(number)}
        return {"index": number, **shown, "logprobs": logprobs, "finish_reason": finished, **name}

    def _logprobs(self, choice: Choice) -> dict[str, Any]:
        places = list(zip(choice.token_ids, choice.logprobs, choice.likeliest, strict=True))
        if not self._chat:
            tokens = [self._token_text(token) for token, _, _ in places]
            top = [{self._token_text(t): p for t, p in likely} for _, _, likely in places]
            offsets = [sum(map(len, tokens[:n])) for n in range(len(tokens))]
            return {
                "tokens": tokens,
                "token_logprobs": [p for _, p, _ in places],
                "top_logprobs": top if self._question.likeliest else None,
                "text_offset": offsets,
            }
        return {
            "content": [
                {**self._token(token, p), "top_logprobs": [self._token(*each) for each in likely]}
                for token, p, likely in places
            ],
            "refusal": None,
        }

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._token_text(token)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def usage(choices: Sequence[Choice], prompt_tokens: int) -> dict[str, int]:
    written = sum(len(choice.token_ids) for choice in choices)
    return {"prompt_tokens": prompt_tokens, "completion_tokens": written, "total_tokens": prompt_tokens + written}


def model_id(version: int) -> str:
    """`v12`; the base is version 0."""
    return f"v{version}"
