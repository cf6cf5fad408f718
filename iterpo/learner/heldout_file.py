"""A run's held-out answers, before and now, kept for its report: `runs/RUN/heldout.json`."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iterpo.policies.gate import Judged

logger = logging.getLogger(__name__)


class HeldoutFile:
    """`before`: of what served when the run began; `after`: of what it made serve last."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def show(self, version: int, answers: Sequence[Judged]) -> None:
        """What serves now answers so; the first time is `before`. A disk that cannot take it is logged, and the run
        goes on."""
        shown = {
            "version": version,
            "answers": [
                {
                    "prompt": [{"role": m.role, "content": m.content} for m in judged.prompt.messages],
                    "text": judged.completion.text,
                    "reward": judged.reward,
                }
                for judged in answers
            ],
        }
        try:
            self._write(shown)
        except OSError as error:
            logger.warning("held-out answers of version %d are not kept: %s", version, error)

    def _write(self, shown: dict[str, Any]) -> None:
        known = self.read()
        content = {"before": known.get("before", shown), "after": shown}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(".tmp")
        unfinished.write_text(json.dumps(content), encoding="utf-8")
        unfinished.replace(self._path)

    def read(self) -> dict[str, Any]:
        """Empty before anything was shown, and for a file that a power cut left half-written."""
        try:
            found: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            logger.warning("%s cannot be read: %s", self._path, error)
            return {}
        return found
