"""A language model as a judge: two answers, asked in both orders, one more labeler whose agreement with people is
tracked.

The question and the verdict's form are MT-bench's (Zheng et al., arXiv:2306.05685): an explanation, then `[[A]]`,
`[[B]]` or `[[C]]` for a tie. Judges prefer the first place, so a judge that changes its mind with the order has said a
tie. What cannot be read is an abstention, never a preference. Not implemented: reference-guided and multi-turn judging.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iterpo.errors import InvalidConfig, InvalidInput
from iterpo.labeling.labeler import Abstain
from iterpo.types import Completion, Message, Outcome, Prompt, SamplingSettings

Chat = Callable[[Sequence[Message]], str]
"""Asks a language model, greedily; raises whatever its connection raises."""

INSTRUCTION = (
    "Act as an impartial judge of two answers to the question below. Decide which one serves the person who asks "
    "better. Neither the order of the answers nor their length may count. Explain briefly, then end with exactly one "
    "of [[A]] (answer A is better), [[B]] (answer B is better) or [[C]] (they are equally good)."
)
_VERDICT = re.compile(r"\[\[([ABC])\]\]")
_OUTCOMES = {"A": Outcome.FIRST, "B": Outcome.SECOND, "C": Outcome.TIE}
_OPTIONS = ("endpoint", "model", "api_key_file", "instruction", "max_tokens", "timeout_seconds", "inference")


@dataclass(frozen=True, slots=True)
class JudgeModel:
    """What is configured as `kind = "judge"`."""

    name: str
    description: str
    chat: Chat
    instruction: str = INSTRUCTION
    kind: str = "judge"

    def score(self, prompt: Prompt, completion: Completion) -> float:
        raise InvalidInput(
            f"{self.name!r} compares two answers and cannot score one.",
            "Set run.gate.labeler to a verifier or a reward model, or to `none`.",
            "JUDGE_COMPARES",
        )

    def compare(self, prompt: Prompt, first: Completion, second: Completion) -> Outcome:
        """FIRST, SECOND or TIE. Raises Abstain when a verdict cannot be read, and what the connection raises."""
        forth = self._ask(prompt, first, second)
        back = _turned(self._ask(prompt, second, first))
        return forth if forth is back else Outcome.TIE

    def _ask(self, prompt: Prompt, a: Completion, b: Completion) -> Outcome:
        asked = "\n\n".join(f"{message.role}: {message.content}" for message in prompt.messages)
        text = (
            f"{self.instruction}\n\n[Question]\n{asked}\n\n[Answer A]\n{a.text}\n\n[Answer B]\n{b.text}\n\n[Verdict]\n"
        )
        return read_verdict(self.chat([Message("user", text)]))


def read_verdict(text: str) -> Outcome:
    """The last verdict in the text. Raises Abstain (UNPARSEABLE) when there is none."""
    found = _VERDICT.findall(text)
    if not found:
        raise Abstain(f"UNPARSEABLE: the judge wrote {text[-80:]!r} and no [[A]], [[B]] or [[C]]")
    return _OUTCOMES[found[-1]]


def judge_model(name: str, options: Mapping[str, Any]) -> JudgeModel:
    """From [labelers.NAME]: `endpoint` and `model` of an OpenAI-compatible server, or `inference`, the address of an
    iterpo inference service. Raises InvalidConfig; connects to nothing yet."""
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown or bool(options.get("endpoint")) == bool(options.get("inference")):
        raise InvalidConfig(
            f"[labelers.{name}] is a judge with options that do not fit: {', '.join(unknown) or 'no model to ask'}.",
            "Set options.endpoint and options.model, or options.inference; beside them "
            "api_key_file, instruction, max_tokens and timeout_seconds.",
        )
    max_tokens, seconds = int(options.get("max_tokens", 256)), float(options.get("timeout_seconds", 60.0))
    instruction = str(options.get("instruction", INSTRUCTION))
    if options.get("inference"):
        address = str(options["inference"])
        return JudgeModel(name, f"The policy that {address} serves", _served(address, max_tokens), instruction)
    endpoint, model = str(options["endpoint"]).rstrip("/"), str(options.get("model", ""))
    key = _key(name, options.get("api_key_file"))
    return JudgeModel(name, f"{model} at {endpoint}", _openai(endpoint, model, key, max_tokens, seconds), instruction)


def _openai(endpoint: str, model: str, key: str, max_tokens: int, seconds: float) -> Chat:
    """POST ENDPOINT/chat/completions, as any OpenAI-compatible server answers it."""

    def chat(messages: Sequence[Message]) -> str:
        import httpx

        answer = httpx.post(
            f"{endpoint}/chat/completions",
            json={
                "model": model,
                "messages": [{"role": m.role, "content": m.content} for m in messages],
                "temperature": 0,
                "max_tokens": max_tokens,
            },
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=seconds,
        )
        answer.raise_for_status()
        return str(answer.json()["choices"][0]["message"]["content"])

    return chat


def _served(address: str, max_tokens: int) -> Chat:
    """Generate of an iterpo inference service. Not implemented: TLS and tokens."""

    def chat(messages: Sequence[Message]) -> str:
        from iterpo.clients.channel import connect
        from iterpo.clients.inference import InferenceClient

        settings = SamplingSettings(temperature=0.0, max_tokens=max_tokens)
        with connect(address) as channel:
            parts = InferenceClient(channel).generate(tuple(messages), settings)
            return "".join(part.text_delta for part in parts)

    return chat


def _key(name: str, path: Any) -> str:
    if not path:
        return ""
    try:
        return Path(str(path)).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InvalidConfig(
            f"[labelers.{name}]: {path} cannot be read: {error.strerror}.", "Name the key's file."
        ) from error


def _turned(outcome: Outcome) -> Outcome:
    return {Outcome.FIRST: Outcome.SECOND, Outcome.SECOND: Outcome.FIRST}.get(outcome, outcome)
