"""A verifier as a labeler: a built-in one by name, or a function of the user's own, with its options bound."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from iterpo.errors import InvalidConfig
from iterpo.labeling.verifiers import VERIFIERS
from iterpo.types import Completion, Prompt


@dataclass(frozen=True, slots=True)
class VerifierLabeler:
    name: str
    description: str
    function: Callable[[Prompt, Completion], float]
    kind: str = "verifier"

    def score(self, prompt: Prompt, completion: Completion) -> float:
        return self.function(prompt, completion)


def built_in_verifier(name: str, verifier: str, options: Mapping[str, Any]) -> VerifierLabeler:
    """Raises InvalidConfig for an unknown verifier, unknown or missing options, or a pattern that does not compile."""
    if verifier not in VERIFIERS:
        raise InvalidConfig(
            f"[labelers.{name}] names the verifier {verifier!r}, which does not exist.",
            f"Use one of {', '.join(sorted(VERIFIERS))}, or set `function` to your own.",
        )
    function = VERIFIERS[verifier]
    _check_options(name, function, options)
    _check_pattern(name, options)

    def bound(prompt: Prompt, completion: Completion) -> float:
        return function(prompt, completion, **options)

    return VerifierLabeler(name, _first_line(function), bound)


def own_verifier(name: str, reference: str, options: Mapping[str, Any]) -> VerifierLabeler:
    """A user's function, named `module:function` in the configuration (never in a request).

    It is called with two strings, the prompt's last user message and the answer. When its first parameter is annotated
    `Prompt`, it is called with the `Prompt` and the `Completion` instead. Options follow as keyword arguments.
    Raises InvalidConfig when it cannot be imported or called like that.
    """
    function = _import(name, reference)
    _check_options(name, function, options)
    if _wants_prompt(function):

        def whole(prompt: Prompt, completion: Completion) -> float:
            answer: float = function(prompt, completion, **options)
            return answer

        return VerifierLabeler(name, _first_line(function) or reference, whole)

    def texts(prompt: Prompt, completion: Completion) -> float:
        answer: float = function(prompt.text, completion.text, **options)
        return answer

    return VerifierLabeler(name, _first_line(function) or reference, texts)


def needs_options(function: Callable[..., float]) -> bool:
    """True when a verifier cannot run on its defaults alone (regex without a pattern)."""
    parameters = list(inspect.signature(function).parameters.values())[2:]
    return any(parameter.default is inspect.Parameter.empty for parameter in parameters)


def _import(name: str, reference: str) -> Callable[..., Any]:
    module_name, colon, attribute = reference.partition(":")
    if not (module_name and colon and attribute):
        raise InvalidConfig(
            f"[labelers.{name}] has the function {reference!r}.",
            "Write it as `module:function`, my_rules:polite for one.",
        )
    try:
        function = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # importing runs the user's code, which may raise anything
        raise InvalidConfig(
            f"[labelers.{name}]: {reference} cannot be imported: {type(error).__name__}: {error}.",
            "Check the spelling, and start the server where Python finds the module (or set PYTHONPATH).",
        ) from error
    if not callable(function):
        raise InvalidConfig(f"[labelers.{name}]: {reference} is not a function.", "Name a function of two arguments.")
    return function  # type: ignore[no-any-return]  # getattr of a module is Any; callable() was checked


def _check_options(name: str, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    try:
        inspect.signature(function).bind(object(), object(), **options)
    except TypeError as error:
        allowed = [*inspect.signature(function).parameters][2:]
        raise InvalidConfig(
            f"[labelers.{name}] has options that do not fit: {error}.",
            f"Its options are: {', '.join(allowed)}." if allowed else "It takes (prompt, completion) and no options.",
        ) from error


def _check_pattern(name: str, options: Mapping[str, Any]) -> None:
    if "pattern" in options:
        try:
            re.compile(str(options["pattern"]))
        except re.error as error:
            raise InvalidConfig(
                f"[labelers.{name}] has a pattern that is no regular expression: {error}.", "Mend the pattern."
            ) from error


def _wants_prompt(function: Callable[..., Any]) -> bool:
    first = next(iter(inspect.signature(function).parameters.values()))
    return first.annotation is Prompt or first.annotation in ("Prompt", "types.Prompt", "iterpo.types.Prompt")


def _first_line(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]
