"""The labelers of a server: every built-in verifier that needs no options, and those of the configuration."""

from __future__ import annotations

from collections.abc import Mapping

from iterpo.config import LabelerSettings
from iterpo.errors import InvalidConfig, InvalidInput
from iterpo.labeling.judge import judge_model
from iterpo.labeling.labeler import Labeler
from iterpo.labeling.reward_model import RewardModel
from iterpo.labeling.verifier_labeler import built_in_verifier, needs_options, own_verifier
from iterpo.labeling.verifiers import VERIFIERS

PEOPLE = "people"
"""The name that asks people: groups recorded for it become tasks."""
NOBODY = "none"
"""The name that asks nobody: groups are stored, for gold tasks or to be compared later."""
JUDGE = "judge"
"""The kind of labelers that compare two answers, as people do."""


def machine_name(kind: str, name: str) -> str:
    """As which annotator a machine's labels are stored: `judge/llm`. People's names hold no slash."""
    return f"{kind}/{name}"


def labelers_of(configured: Mapping[str, LabelerSettings]) -> dict[str, Labeler]:
    """Name -> labeler; a configured one takes a built-in's place. Raises InvalidConfig; loads no model yet."""
    for taken in (PEOPLE, NOBODY):
        if taken in configured:
            raise InvalidConfig(f"[labelers.{taken}] cannot be configured: the name is taken.", "Choose another name.")
    labelers: dict[str, Labeler] = {
        name: built_in_verifier(name, name, {}) for name, function in VERIFIERS.items() if not needs_options(function)
    }
    return labelers | {name: _build(name, settings) for name, settings in configured.items()}


def find(labelers: Mapping[str, Labeler], name: str) -> Labeler:
    """Raises InvalidInput UNKNOWN_LABELER, naming the known ones."""
    if name not in labelers:
        raise unknown_labeler(labelers, name)
    return labelers[name]


def unknown_labeler(labelers: Mapping[str, Labeler], name: str) -> InvalidInput:
    return InvalidInput(
        f"There is no labeler {name!r}.",
        f"Use one of {', '.join(sorted([*labelers, PEOPLE]))}, or add [labelers.{name or 'NAME'}] to iterpo.toml.",
        "UNKNOWN_LABELER",
    )


def _build(name: str, settings: LabelerSettings) -> Labeler:
    if settings.kind == JUDGE:
        return judge_model(name, settings.options)
    if settings.kind == "reward_model":
        if settings.path is None:
            raise InvalidConfig(f"[labelers.{name}] is a reward model without a path.", "Set path to its directory.")
        return RewardModel(name, settings.path, **settings.options)
    if bool(settings.verifier) == bool(settings.function):
        raise InvalidConfig(f"[labelers.{name}] must name one verifier.", "Set either `verifier` or `function`.")
    if settings.verifier:
        return built_in_verifier(name, settings.verifier, settings.options)
    return own_verifier(name, settings.function, settings.options)
