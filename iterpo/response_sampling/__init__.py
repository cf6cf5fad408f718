"""Axis 2, which y: what to draw of a prompt, and which of the answers the update may see.

A response sampler is a frozen dataclass. `provides` names what its selections contain; `draws` says how many answers to
ask of which policy (none: the data is fixed). What it leaves out is counted with a reason, never silently dropped.
"""

from iterpo.response_sampling.active import ActivePair, Dueling, Narrowing
from iterpo.response_sampling.baseline import GreedyBaseline, ReferenceBaseline
from iterpo.response_sampling.binary import Binary
from iterpo.response_sampling.group import GroupSampler
from iterpo.response_sampling.offline import OfflineCompletions, OfflinePairs
from iterpo.response_sampling.pair import BestWorst, GeometricRival, Mixture, OneFromEach, RandomPair, RightWrong
from iterpo.response_sampling.rejection import Rationalise, Rejection
from iterpo.response_sampling.replay import Replay
from iterpo.response_sampling.selection import Draw, Pair, ResponseSampler, Selection, drawn, own

_ALL: tuple[type[ResponseSampler], ...] = (
    *(GroupSampler, BestWorst, RandomPair, RightWrong, OneFromEach, GeometricRival, Mixture, ActivePair, Dueling),
    *(GreedyBaseline, ReferenceBaseline, Binary, Rejection, Rationalise, OfflinePairs, OfflineCompletions),
)
RESPONSE_SAMPLERS: dict[str, type[ResponseSampler]] = {s.name: s for s in _ALL}

__all__ = [
    "RESPONSE_SAMPLERS",
    "ActivePair",
    "BestWorst",
    "Binary",
    "Draw",
    "Dueling",
    "GeometricRival",
    "GreedyBaseline",
    "GroupSampler",
    "Mixture",
    "Narrowing",
    "OfflineCompletions",
    "OfflinePairs",
    "OneFromEach",
    "Pair",
    "RandomPair",
    "Rationalise",
    "ReferenceBaseline",
    "Rejection",
    "Replay",
    "ResponseSampler",
    "RightWrong",
    "Selection",
    "drawn",
    "own",
]
