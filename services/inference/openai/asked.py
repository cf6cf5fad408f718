"""A request's JSON as a question: every field is checked, and what is not supported is refused, not ignored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from iterpo.errors import InvalidInput
from iterpo.types import Message, SamplingSettings
from services.json_body import json_object

MAX_BODY_BYTES = 4 * 1024 * 1024
MOST_STOPS = 4
MOST_LIKELIEST = 20
"""vLLM's own bound on alternatives of a place."""
MOST_ANSWERS = 128
DEFAULT_TEXT_TOKENS = 16
"""OpenAI's, of /v1/completions."""

NEUTRAL: Mapping[str, Sequence[Any]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "echo": (False,),
    "best_of": (1,),
    "suffix": ("",),
}
"""What OpenAI knows and this server does not do, with the values that ask for nothing."""
UNUSED = ("metadata", "store", "parallel_tool_calls", "service_tier", "safety_identifier", "prompt_cache_key")
"""What changes no answer."""


REST = 0
"""max_tokens when a chat gives none: the rest of the context."""


class BadField(InvalidInput):
    """A field of the request, named for `error.param`."""

    def __init__(self, field: str, message: str, fix: str, reason: str = "INVALID_FIELD") -> None:
        super().__init__(message, fix, reason)
        self.field = field


@dataclass(frozen=True, slots=True)
class Question:
    model: str
    settings: SamplingSettings
    n: int
    stream: bool
    usage_at_the_end: bool
    """Of a stream: a last chunk with the usage."""
    logprobs: bool
    likeliest: int
    """How many alternatives to show of each place."""
    user: str = ""
    """Whose requests go to the same part of a split."""


async def body_of(request: Request) -> dict[str, Any]:
    return await json_object(request, MAX_BODY_BYTES)


def chat_question(body: Mapping[str, Any]) -> tuple[list[Message], Question]:
    """Of /v1/chat/completions."""
    fields = Fields(body)
    messages = [_message(number, raw) for number, raw in enumerate(fields.of("messages", list, []))]
    if not messages:
        raise BadField("messages", "There are no messages.", "Send at least one.")
    logprobs, likeliest = fields.of("logprobs", bool, False), fields.whole("top_logprobs", 0, 0, MOST_LIKELIEST)
    if likeliest and not logprobs:
        raise BadField("top_logprobs", "top_logprobs is given without logprobs.", "Set logprobs to true.")
    most = [fields.whole(name, REST, 1) for name in ("max_completion_tokens", "max_tokens")]
    question = _question(fields, most[0] or most[1], logprobs, likeliest)
    fields.nothing_else()
    return messages, question


def text_question(body: Mapping[str, Any]) -> tuple[list[str | list[int]], Question]:
    """Of /v1/completions: the prompts are texts or token ids."""
    fields = Fields(body)
    prompts = _prompts(fields.of("prompt", (str, list), ""))
    likeliest = fields.whole("logprobs", -1, 0, MOST_LIKELIEST)
    question = _question(fields, fields.whole("max_tokens", DEFAULT_TEXT_TOKENS, 1), likeliest >= 0, max(likeliest, 0))
    fields.nothing_else()
    return prompts, question


def _question(fields: Fields, max_tokens: int, logprobs: bool, likeliest: int) -> Question:
    stream = fields.of("stream", bool, False)
    options = fields.of("stream_options", dict, {})
    if options and not stream:
        raise BadField("stream_options", "stream_options is given without stream.", "Set stream to true.")
    seed = fields.of("seed", int, None)
    settings = SamplingSettings(
        temperature=fields.number("temperature", 1.0, 0.0, 2.0),
        top_p=fields.number("top_p", 1.0, 0.0, 1.0, open_below=True),
        max_tokens=max_tokens,
        seed=None if seed is None else seed % 2**31,
        stop=_stops(fields.of("stop", (str, list), [])),
    )
    n = fields.whole("n", 1, 1, MOST_ANSWERS)
    usage = bool(options.get("include_usage"))
    model, user = fields.of("model", str, ""), fields.of("user", str, "")
    return Question(model, settings, n, stream, usage, logprobs, likeliest, user)


class Fields:
    """Takes fields out of a body one by one; `null` is absent, as with OpenAI."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._left = {name: value for name, value in body.items() if value is not None}

    def of(self, name: str, kinds: type | tuple[type, ...], default: Any) -> Any:
        value = self._left.pop(name, default)
        wanted = kinds if isinstance(kinds, tuple) else (kinds,)
        if value is default or (isinstance(value, wanted) and isinstance(value, bool) == (bool in wanted)):
            return value
        names = " or ".join(_NAMES[kind] for kind in wanted)
        raise BadField(name, f"{name} is not {names}.", f"Send {names}.")

    def number(self, name: str, default: float, low: float, high: float, open_below: bool = False) -> float:
        value = float(self.of(name, (int, float), default))
        if not (low < value if open_below else low <= value) or not value <= high or not math.isfinite(value):
            least = f"above {low:g}, up to" if open_below else f"from {low:g} to"
            raise BadField(name, f"{name} is {value:g}.", f"Use a number {least} {high:g}.")
        return value

    def whole(self, name: str, default: int, low: int, high: int = 2**31) -> int:
        value: int = self.of(name, int, default)
        if value != default and not low <= value <= high:
            raise BadField(name, f"{name} is {value}.", f"Use a whole number from {low} to {high}.")
        return value

    def nothing_else(self) -> None:
        """Raises BadField for what nobody took, unless it asks for nothing."""
        for name, value in self._left.items():
            if name in UNUSED or value in NEUTRAL.get(name, ()):
                continue
            known = name in NEUTRAL
            what = f"{name} is not supported" if known else f"There is no field {name!r}"
            raise BadField(name, f"{what}.", "Leave it out.", "NOT_SUPPORTED" if known else "UNKNOWN_FIELD")


_NAMES = {
    str: "a text",
    list: "a list",
    dict: "an object",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
}


def _message(number: int, raw: Any) -> Message:
    """Content is a text, or a list of text parts."""
    field = f"messages[{number}]"
    if not isinstance(raw, dict) or not isinstance(raw.get("role"), str):
        raise BadField(field, f"{field} has no role.", "Send objects with role and content.")
    content = raw.get("content")
    if isinstance(content, list):
        if not all(isinstance(p, dict) and p.get("type") == "text" and isinstance(p.get("text"), str) for p in content):
            raise BadField(f"{field}.content", f"{field}.content has a part that is no text.", "Send text parts only.")
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise BadField(f"{field}.content", f"{field}.content is no text.", "Send a text.")
    role = {"developer": "system"}.get(raw["role"], raw["role"])
    if role not in ("system", "user", "assistant"):
        raise BadField(f"{field}.role", f"{field}.role is {role!r}.", "Use system, user or assistant.")
    return Message(role, content)


def _prompts(raw: str | list[Any]) -> list[str | list[int]]:
    if isinstance(raw, str):
        return [raw]
    if raw and all(isinstance(token, int) and not isinstance(token, bool) for token in raw):
        return [raw]
    for prompt in raw:
        tokens = isinstance(prompt, list) and all(isinstance(t, int) and not isinstance(t, bool) for t in prompt)
        if not isinstance(prompt, str) and not (tokens and prompt):
            raise BadField("prompt", "A prompt is neither a text nor token ids.", "Send texts, or lists of token ids.")
    if not raw:
        raise BadField("prompt", "There is no prompt.", "Send at least one.")
    return raw


def _stops(raw: str | list[Any]) -> tuple[str, ...]:
    stops = [raw] if isinstance(raw, str) else raw
    if not all(isinstance(stop, str) and stop for stop in stops) or len(stops) > MOST_STOPS:
        raise BadField("stop", "stop is not usable.", f"Send at most {MOST_STOPS} texts, none of them empty.")
    return tuple(stops)
