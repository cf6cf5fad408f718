"""What an iteration was trained on, kept for people to look at: `runs/RUN/batches/000012.json.gz`.

    {"iteration": 12, "method": "grpo", "settings": {"kl.beta": "0.0"},
     "batch": {"sequences": [...], "pairs": null, "normalizer_constant": 48},
     "answers": [{"completion_id": "...", "prompt_id": "...", "prompt": "...", "text": "...", "policy_version": 3,
                  "finish_reason": "stop"}, ...]}

`batch` is what `iterpo.explain.explain(method, batch, settings)` takes (iterpo/batch_json.py): of the iteration as a
whole, as its first step began; later steps of several (`minibatches`, `epochs`) see the log-probs move. Of methods that
look at whole distributions (tdpo, kto), it is the first step's part. `answers` are those of its sequences, in order;
stand-ins for answers to other prompts (KTO) come after them and have none.
"""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from iterpo.algorithms import Algorithm
from iterpo.batch_json import recorded
from iterpo.errors import NotFound
from iterpo.gradient_coefficient import TokenBatch
from iterpo.run_config import RunConfig
from iterpo.types import Completion

logger = logging.getLogger(__name__)


def batch_record(
    algorithm: Algorithm,
    config: RunConfig,
    completions: Sequence[Completion],
    batch: TokenBatch,
    decode: Callable[[list[int]], str],
) -> dict[str, Any]:
    """All but the iteration's number. `decode`: token ids as text."""
    known: dict[int, str] = {}

    def text(token: int) -> str:
        if token not in known:
            known[token] = decode([token])
        return known[token]

    answers = [
        {
            "completion_id": c.completion_id,
            "prompt_id": c.prompt_id,
            "prompt": decode(list(c.prompt_token_ids)),
            "text": c.text,
            "policy_version": c.policy_version,
            "finish_reason": c.finish_reason.value,
        }
        for c in completions
    ]
    return {
        "method": algorithm.name,
        "settings": settings_of(config),
        "batch": recorded(batch, [[text(t) for t in c.token_ids] for c in completions]),
        "answers": answers,
    }


def settings_of(config: RunConfig) -> dict[str, str]:
    """A run's own parameters, as `explain` takes them."""
    own = {f"gradient_coefficient.{k}": v for k, v in config.gradient_coefficient.items()}
    kl = {f"kl.{k}": v for k, v in config.kl.items()}
    single = {"normalizer": config.normalizer.get("name"), "mismatch": config.mismatch}
    single |= {"off_policy_mask": config.off_policy_mask}
    return {name: str(value) for name, value in (own | kl | single).items() if value is not None}


class BatchFiles:
    """Of one run; the newest `kept` stay."""

    def __init__(self, directory: Path, kept: int) -> None:
        self._directory, self._kept = directory, kept

    def write(self, iteration: int, make: Callable[[], Mapping[str, Any]]) -> None:
        """In place of an earlier attempt at the same iteration. It is kept for people to look at: whatever goes wrong
        with it is logged, and the run goes on."""
        if not self._kept:
            return
        try:
            self._write(iteration, make())
        except OSError as error:
            logger.warning("the batch of iteration %d is not kept: %s", iteration, error)
        except Exception:  # rendering may fail in any way, and the update is made already
            logger.exception("the batch of iteration %d is not kept", iteration)

    def _write(self, iteration: int, record: Mapping[str, Any]) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._path(iteration)
        content = gzip.compress(json.dumps({"iteration": iteration, **record}).encode(), compresslevel=1)
        unfinished = path.with_suffix(".tmp")
        unfinished.write_bytes(content)
        unfinished.replace(path)
        for old in sorted(self._directory.glob("*.json.gz"))[: -self._kept]:
            old.unlink(missing_ok=True)

    def iterations(self) -> list[int]:
        return sorted(int(path.name.partition(".")[0]) for path in self._directory.glob("*.json.gz"))

    def read(self, iteration: int) -> dict[str, Any]:
        """Raises NotFound (BATCH_NOT_KEPT)."""
        try:
            found: dict[str, Any] = json.loads(gzip.decompress(self._path(iteration).read_bytes()))
        except FileNotFoundError as error:
            kept = self.iterations()
            there = f"Those of iterations {kept[0]} to {kept[-1]} are." if kept else "None is."
            raise NotFound(
                f"The batch of iteration {iteration} is not kept. {there}",
                "Raise learner.kept_batches for runs to come.",
                "BATCH_NOT_KEPT",
            ) from error
        return found

    def _path(self, iteration: int) -> Path:
        return self._directory / f"{iteration:06d}.json.gz"
