"""Guidelines: what annotators are asked to go by, named in the configuration, with a version that labels record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from iterpo.config import GuidelineSettings
from iterpo.errors import InvalidConfig

VERSION_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Guideline:
    name: str
    """Empty when the task brought its own instruction."""
    text: str
    """Markdown."""
    aspects: tuple[str, ...] = ()
    """What may be rated apart from the whole."""
    version: str = field(init=False)
    """SHA-256 of text and aspects, the first 12 digits; empty for no text."""

    def __post_init__(self) -> None:
        content = "\n".join((self.text, *self.aspects)).encode()
        digest = hashlib.sha256(content).hexdigest()[:VERSION_DIGITS] if self.text or self.aspects else ""
        object.__setattr__(self, "version", digest)


class Guidelines:
    """By name. What is no name is an instruction of its own."""

    def __init__(self, guidelines: Sequence[Guideline] = ()) -> None:
        self._by_name = {guideline.name: guideline for guideline in guidelines}

    @classmethod
    def of(cls, configured: Mapping[str, GuidelineSettings]) -> Guidelines:
        """Raises InvalidConfig when a file cannot be read, or a guideline has neither or both of text and file."""
        return cls([_read(name, settings) for name, settings in configured.items()])

    def __getitem__(self, guideline: str) -> Guideline:
        return self._by_name.get(guideline) or Guideline("", guideline)

    def version(self, guideline: str) -> str:
        return self[guideline].version if guideline else ""

    def names(self) -> list[str]:
        return list(self._by_name)


def _read(name: str, settings: GuidelineSettings) -> Guideline:
    if bool(settings.text) == bool(settings.file):
        raise InvalidConfig(f"[guidelines.{name}] must have a text.", "Set either `text` or `file`.")
    if settings.file is None:
        return Guideline(name, settings.text, tuple(settings.aspects))
    try:
        return Guideline(name, settings.file.read_text(encoding="utf-8"), tuple(settings.aspects))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(
            f"[guidelines.{name}]: {settings.file} cannot be read: {error}.", "Name a text file."
        ) from error
