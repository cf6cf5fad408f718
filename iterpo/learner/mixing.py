"""A merge of policy versions, measured like any other policy and published as the next version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from iterpo.algorithms import find
from iterpo.embedded_model import model_directory
from iterpo.errors import WrongState
from iterpo.learner.learner import LoraLearner
from iterpo.policies import adapter as adapters
from iterpo.policies import manifest, soup
from iterpo.run_config import LoraConfig, RunConfig

MOST = 2**31
"""Any rank may be read: what may be served is checked when the merge is loaded."""


@dataclass(frozen=True)
class PublishedMerge:
    version: int
    digest: str
    rank: int
    error: float
    """See soup.Merge."""


def publish_merge(
    model_path: Path | None, data_dir: Path, weights: Mapping[int, float], max_rank: int, highest: int
) -> PublishedMerge:
    """Merge published versions by weight (version 0, the base, is the zero update) and publish the sum.

    `highest` is the highest version that inference knows. Raises WrongState (BASE_MISMATCH) for versions of another
    base, and what `manifest.read` and `soup.merge` raise.
    """
    root = data_dir / "policies"
    parts, parents = [], [v for v in weights if v]
    for version in parents:
        made, files = manifest.read(root, version, "")
        parts.append((adapters.parse(files, MOST), weights[version], made.base_digest))
    merged = soup.merge([(adapter, weight) for adapter, weight, _ in parts], max_rank)
    config = RunConfig(lora=LoraConfig(r=merged.rank, alpha=merged.rank))
    learner = LoraLearner(model_directory(model_path, data_dir), find("sft"), config)
    if {base for _, _, base in parts} != {learner.base_digest}:
        raise WrongState(
            "A version to be merged was trained on another base.", "Merge versions of model.path's.", "BASE_MISMATCH"
        )
    learner.method = "merge"
    learner.model.load_adapter(dict(merged.tensors))
    version = 1 + max(highest, manifest.latest_version(root))
    numbers = {f"weight_v{v}": float(w) for v, w in weights.items()} | {"cut_error": merged.error}
    digest = learner.publish(root, version, {"parent": max(parents), "run_id": "merge"}, numbers)
    return PublishedMerge(version, digest, merged.rank, merged.error)
