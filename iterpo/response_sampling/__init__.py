"""Axis 2, which y: how many completions to draw of a prompt, and which of them the update may see.

A response sampler is a frozen dataclass. `provides` names what its selections contain; `size` is the completions to
draw of each prompt (0: none, the data is fixed). What it leaves out is counted with a reason, never silently dropped.
"""

from iterpo.response_sampling.group import GroupSampler
from iterpo.response_sampling.offline import OfflineCompletions, OfflinePairs
from iterpo.response_sampling.pair import BestWorst, RandomPair
from iterpo.response_sampling.rejection import Rejection
from iterpo.response_sampling.selection import Pair, ResponseSampler, Selection

RESPONSE_SAMPLERS: dict[str, type[ResponseSampler]] = {
    s.name: s for s in (GroupSampler, BestWorst, RandomPair, Rejection, OfflinePairs, OfflineCompletions)
}

__all__ = [
    "RESPONSE_SAMPLERS",
    "BestWorst",
    "GroupSampler",
    "OfflineCompletions",
    "OfflinePairs",
    "Pair",
    "RandomPair",
    "Rejection",
    "ResponseSampler",
    "Selection",
]
