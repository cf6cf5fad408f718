"""The proof of delivery (invariant 1): the right bytes, for this base, and an engine that computes what was trained."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from iterpo.errors import PolicyRejected
from iterpo.policies import adapter as adapters
from iterpo.policies import manifest, probe
from iterpo.policies.adapter import Adapter
from iterpo.policies.folder import PolicyFolder
from iterpo.types import Proof
from services.inference.delivery import Source

Logprobs = list[list[float]]


@dataclass(frozen=True)
class Published:
    """A version's verified content."""

    manifest: manifest.Manifest
    files: dict[str, bytes]
    adapter: Adapter


class Prover:
    def __init__(
        self, folder: PolicyFolder, base_digest: str, sequences: Sequence[tuple[int, ...]], max_rank: int
    ) -> None:
        """`sequences`: the probe's; `folder`: where versions lie."""
        self.folder, self.base_digest, self.max_rank = folder, base_digest, max_rank
        self._sequences = tuple(sequences)

    async def read(self, version: int, manifest_digest: str) -> Published:
        """Raises PolicyRejected: digests, base, probe, rank, numbers; Unavailable."""
        made, files = await asyncio.to_thread(self.folder.read, version, manifest_digest)
        self._check_origin(made)
        return Published(made, files, await asyncio.to_thread(adapters.parse, files, self.max_rank))

    async def measure(self, source: Source) -> Logprobs:
        """Log-probs of the probe's tokens, nats, one list a sequence."""
        scores = [source.engine.score(ids, source.lora) for ids in self._sequences]
        return list(await asyncio.gather(*scores))

    @staticmethod
    def judge(made: manifest.Manifest, form: str, base: Logprobs, measured: Logprobs) -> Proof:
        """`form`: how it is delivered, `adapter` or `merged`; `base`: what the same engine measured of the base."""
        return probe.compare(made.probe.base_logprobs, made.probe.delivered(form), base, measured)

    def _check_origin(self, made: manifest.Manifest) -> None:
        if made.base_digest != self.base_digest:
            raise PolicyRejected(
                f"Version {made.version} was trained on base {made.base_digest[:12]}, "
                f"this server holds {self.base_digest[:12]}.",
                "Serve the base that the learner trains on: the same model.path for both.",
                "BASE_MISMATCH",
            )
        if made.probe.sequences != self._sequences:
            raise PolicyRejected(
                f"Version {made.version} carries another probe than this server's.",
                "Run learner and inference from the same release of iterpo.",
                "PROBE_MISMATCH",
            )


def disproved(version: int, proof: Proof) -> PolicyRejected:
    return PolicyRejected(
        f"The probe of version {version} failed: engine against learner {proof.error:.4f} nats a token "
        f"(noise {proof.noise_floor:.4f}), engine against its base {proof.shift:.4f}.",
        "The engine does not compute what the learner trained: publish again; if it persists, compare their versions.",
        proof.reason,
    )
