"""The domain's nouns. Frozen; shapes and units stand on the fields.

Letters used in names: P prompts, G completions of a group, T tokens of one completion, B packed tokens of a batch.
This module imports nothing but the standard library, so that every other module may import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

BASE_VERSION = 0
"""`policy_version` of the untouched base model."""
BEGINS = "begins"
"""The number of a decision that only says where a run begins."""
RUN = "run/"
"""Before a run's name: the policy of a run that is served beside what serves."""


class FinishReason(StrEnum):
    STOP = "stop"
    """The policy chose an end-of-sequence token (or hit a stop string)."""
    LENGTH = "length"
    """Truncated at `max_tokens`: the text is not the policy's whole answer."""
    ABORTED = "aborted"


DOCUMENT = "document"
"""Role of the one message of a text that answers nothing: it is learned from its first token on."""


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    """`system`, `user` or `assistant`; in data for pretraining `document`."""
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the policy is asked. `prompt_id` is stable across runs: it keys curricula and held-out splits."""

    prompt_id: str
    messages: tuple[Message, ...]
    reference_answer: str = ""
    """Ground truth for verifiers that need one (exact numbers, for example); empty when there is none."""

    @property
    def text(self) -> str:
        """The last user message: what verifiers and people are shown."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")


@dataclass(frozen=True, slots=True)
class Example:
    """One line of a run's data: a prompt, and for offline methods the answers that were given."""

    prompt: Prompt
    answers: tuple[str, ...] = ()
    """Empty (online), one demonstration, or two answers of which the first is preferred with `p_first_wins`."""
    p_first_wins: float | None = None
    difficulty: float | None = None
    """How hard the prompt is, on any scale: what a static curriculum sorts by."""
    values: Mapping[str, float] = field(default_factory=dict)
    """By how much the first answer is better than the second in each named value (iterpo/values.py). Used when a run's
    data is read; not sent to the learner."""


@dataclass(frozen=True, slots=True)
class Seen:
    """How a prompt's last group went: what adaptive prompt samplers remember."""

    reward: float | None
    """Mean over its answers; None where none has one (people compare, labelers abstain)."""
    spread: float | None
    """Standard deviation over its answers; None for fewer than two."""
    entropy: float
    """Minus the mean log-prob of its answers' tokens, nats: how unsure the policy was."""
    iteration: int
    """The iteration that saw it, from 1."""


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How tokens are drawn. Top-p and top-k renormalise the kept set, so training rollouts leave them off."""

    temperature: float = 1.0
    """0 is greedy."""
    max_tokens: int = 64
    top_p: float = 1.0
    top_k: int = 0
    """0 is off."""
    seed: int | None = None
    """Sample i of prompt j is drawn with its own seed, derived from this one; None draws fresh ones."""
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer, as token ids. `token_ids` include the end-of-sequence token when the policy chose one."""

    completion_id: str
    prompt_id: str
    group_id: str
    """Completions of one prompt drawn together; advantages and pairs never cross groups."""
    text: str
    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    """[T]"""
    logprobs: tuple[float, ...]
    """[T], nats, of the sampled distribution (after temperature): the behaviour policy's."""
    finish_reason: FinishReason
    policy_version: int
    policy_digest: str
    """Digest of the manifest of the policy that drew every token; the base model's digest for version 0."""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0 is off."""
    author: str = ""
    """Who wrote the text, when a person did (an edited answer): it has no token ids then. Empty: the policy."""

    @property
    def truncated(self) -> bool:
        return self.finish_reason is not FinishReason.STOP


USER = "user:"
"""Begins the labeler of a thumb."""


@dataclass(frozen=True, slots=True)
class Reward:
    """A labeler's number for one completion. Rewards of verifiers lie in [0, 1]; reward models are unbounded."""

    completion_id: str
    value: float
    labeler: str
    """The labeler's name; of a thumb that an application's user gave `user:NAME`."""

    @property
    def user(self) -> str:
        """Whose thumb it is; empty for a labeler's reward."""
        return self.labeler.removeprefix(USER) if self.labeler.startswith(USER) else ""


@dataclass(frozen=True, slots=True)
class Abstention:
    """A labeler that could not tell (timeout, exception, unparseable). Never a reward of zero."""

    completion_id: str
    labeler: str
    reason: str


class Outcome(StrEnum):
    FIRST = "first"
    SECOND = "second"
    TIE = "tie"
    BOTH_BAD = "both_bad"
    SKIP = "skip"


class TaskKind(StrEnum):
    COMPARISON = "comparison"
    """Its labels become a preference."""
    GOLD = "gold"
    """The right answer is known: it measures the annotator, and is shown like any other task."""
    REPEAT = "repeat"
    """A pair that the same person labelled before: it measures whether he agrees with himself."""
    AUDIT = "audit"
    """A machine's second opinion on a pair: it measures agreement, and decides nothing."""


@dataclass(frozen=True, slots=True)
class Side:
    """Which policy wrote an answer, and how it was sampled. Annotators never see it."""

    policy_version: int = BASE_VERSION
    policy_digest: str = ""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    @classmethod
    def of(cls, completion: Completion) -> Side:
        return cls(
            completion.policy_version,
            completion.policy_digest,
            completion.temperature,
            completion.top_p,
            completion.top_k,
        )


@dataclass(frozen=True, slots=True)
class Label:
    """One person's (or machine's) judgement of two completions, in the task's own order, not the presented one."""

    label_id: str
    task_id: str
    group_id: str
    first_id: str
    second_id: str
    outcome: Outcome
    annotator: str
    strength: int = 0
    """0 (not said) to 3 (much better)."""
    rationale: str = ""
    presented_swapped: bool = False
    """True when the screen showed `second` first; `outcome` is already swapped back."""
    duration_seconds: float = 0.0
    kind: TaskKind = TaskKind.COMPARISON
    aspects: Mapping[str, Outcome] = field(default_factory=dict)
    """Aspect of the guideline -> which answer is better in it (FIRST, SECOND or TIE), in the task's own order."""
    presented_at: float = 0.0
    """When the task was leased (seconds since the epoch, server clock); the event says when the label came."""
    guideline_version: str = ""
    propensity: float = 1.0
    """Probability with which the task selection gave this task, of those open, to this person: in (0, 1]."""
    first_side: Side = Side()
    second_side: Side = Side()

    @property
    def p_first_wins(self) -> float | None:
        """In [0, 1]; None when the label says nothing about the order (skip, both bad)."""
        return {Outcome.FIRST: 1.0, Outcome.SECOND: 0.0, Outcome.TIE: 0.5}.get(self.outcome)


@dataclass(frozen=True, slots=True)
class Retraction:
    """A person takes a label of his own back; the task is open for him again."""

    label_id: str
    task_id: str
    group_id: str
    annotator: str


@dataclass(frozen=True, slots=True)
class Preference:
    """What the learner reads of one or more labels of the same pair: never raw votes."""

    group_id: str
    first_id: str
    second_id: str
    p_first_wins: float
    """[0, 1]."""
    weight: float = 1.0
    """0 when nobody who counts said anything about the order."""
    strength: float = 1.0
    """How much better the winner is: the mean of the labels' strengths, a label without one counting 1."""
    p_both_bad: float = 0.0
    """[0, 1]: the share of the votes that found neither answer acceptable."""
    task_id: str = ""
    """The task whose labels it was made of; a later one of the same task takes its place. Empty: not from people."""


class AnnotatorState(StrEnum):
    OK = "ok"
    WARNED = "warned"
    QUARANTINED = "quarantined"
    """Found to be unreliable: labels count nothing until a lead readmits the person."""
    EXCLUDED = "excluded"
    """Taken out by a lead: may not label any more, and no label counts."""


@dataclass(frozen=True, slots=True)
class Standing:
    """An annotator's state changed, and why."""

    annotator: str
    state: AnnotatorState
    reason: str = ""
    by: str = ""
    """The lead who decided; empty when the figures did."""


@dataclass(frozen=True, slots=True)
class Release:
    """A person gave a task back, with the reason."""

    task_id: str
    annotator: str
    reason: str


@dataclass(frozen=True, slots=True)
class Task:
    """Two completions of one prompt, to be compared by a person."""

    task_id: str
    run_id: str
    group_id: str
    prompt: Prompt
    first: Completion
    second: Completion
    guideline: str = ""
    """A guideline's name in the configuration, or the instruction itself."""
    required_labels: int = 1
    kind: TaskKind = TaskKind.COMPARISON
    gold: Outcome | None = None
    """The right answer of a GOLD task; annotators never see it."""
    only_for: str = ""
    """The one annotator who may label it; empty: everybody."""
    priority: int = 0
    """Higher comes first."""
    language: str = ""
    """BCP 47, `en` or `pt-BR`; empty: for everybody."""
    uncertainty: float = 1.0
    """[0, 1]: how unsure the reward model or the policy is about the pair; 1 when neither was asked."""
    p_policy: float | None = None
    """What the policy's implicit reward makes of the pair: p_first_wins; None when nobody asked it."""

    @property
    def item(self) -> str:
        """The pair, in either order: nobody gets it twice."""
        return "|".join(sorted((self.first.completion_id, self.second.completion_id)))


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to label one task until `expires_at` (server clock, seconds since the epoch), read when used."""

    lease_id: str
    task: Task
    annotator: str
    expires_at: float
    swapped: bool
    """Whether to show `second` first; drawn by the server so that left bias can be measured."""


@dataclass(frozen=True, slots=True)
class Group:
    """One prompt, its completions and everything known about them: what the response-sampling axis selects from."""

    group_id: str
    prompt: Prompt
    completions: tuple[Completion, ...]
    """[G]"""
    rewards: Mapping[str, float] = field(default_factory=dict)
    """completion_id -> reward. A completion whose labeler abstained is absent."""
    preferences: tuple[Preference, ...] = ()
    event_ids: tuple[str, ...] = ()
    """The feedback events this group was assembled from: the ledger of what was consumed."""
    recorded_at: float | None = None
    """When it was stored, seconds since the epoch; None: not yet, or given."""
    labelled_at: float | None = None
    """When the last of its feedback was stored; None: not labelled yet, or given."""
    trace: str = ""
    """The trace that it was sampled in, as a W3C traceparent; empty: none."""


@dataclass(frozen=True, slots=True)
class FeedbackEvent:
    """One row of the append-only feedback store. `cursor` is its position; exactly one of the bodies is set."""

    cursor: int
    event_id: str
    run_id: str
    created_at: float
    """Seconds since the epoch, server clock."""
    group: Group | None = None
    """A recorded group: the prompt and its completions, no rewards yet."""
    reward: Reward | None = None
    abstention: Abstention | None = None
    task: Task | None = None
    label: Label | None = None
    retraction: Retraction | None = None
    preference: Preference | None = None
    standing: Standing | None = None
    release: Release | None = None

    @property
    def kind(self) -> str:
        for name in EVENT_BODIES:
            if getattr(self, name) is not None:
                return name
        raise ValueError(f"feedback event {self.event_id} has no body")


EVENT_BODIES: Mapping[str, type] = {
    "group": Group,
    "reward": Reward,
    "abstention": Abstention,
    "task": Task,
    "label": Label,
    "retraction": Retraction,
    "preference": Preference,
    "standing": Standing,
    "release": Release,
}
"""Field of FeedbackEvent -> what it holds."""


class PolicyState(StrEnum):
    """Life of a policy version inside inference. REJECTED is final; RETIRED may be loaded again."""

    LOADING = "loading"
    PROVED = "proved"
    CANARY = "canary"
    """Answers a share of the live traffic until its sequential test decides."""
    SERVING = "serving"
    PREVIOUS = "previous"
    RETIRED = "retired"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Proof:
    """What the probe measured when a policy was loaded: mean absolute log-prob differences, nats a token."""

    proved: bool
    reason: str
    """Empty when proved; otherwise a stable reason such as PROBE_DISAGREES."""
    error: float
    """Engine against the learner's own numbers, new weights."""
    noise_floor: float
    """Engine against the learner's own numbers, base weights: what identical weights measure."""
    shift: float
    """Engine's new weights against engine's base weights: zero means that nothing arrived."""
    tokens: int


@dataclass(frozen=True, slots=True)
class GateDecision:
    """The recorded answer to "may this candidate serve?", with the numbers it was taken on."""

    promote: bool
    reasons: tuple[str, ...]
    """Every check that failed, in words; empty when promoted, or, for a promotion by hand, who and why."""
    numbers: Mapping[str, float]
    """What the gate measured; `by_hand` is 1 for a promotion that a person decided on instead."""


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    version: int
    digest: str
    state: PolicyState
    parent: int = BASE_VERSION
    run_id: str = ""
    method: str = ""
    proof: Proof | None = None
    reason: str = ""
    """Why it was rejected or rolled back; empty otherwise."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    decision: GateDecision | None = None


@dataclass(frozen=True, slots=True)
class IterationRow:
    """What one iteration did: the row the demo prints, WatchRun streams and the plot shows."""

    run_id: str
    iteration: int
    """Counts from 1."""
    policy_version: int
    """Version serving when the iteration ended."""
    promoted: bool
    proved: bool
    train_reward: float
    heldout_reward: float
    kl: float
    """Nats a token to the base, exact over the vocabulary, at the candidate's own held-out answers."""
    swap_ms: float
    load_ms: float
    tokens_per_second: float
    """Sampled tokens a second, through gRPC."""
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    decision: GateDecision | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands after its last committed iteration."""

    iteration: int = 0
    drawn: int = 0
    """Prompts drawn so far."""
    cursor: int = 0
    """Where to read feedback on from."""
    version: int = BASE_VERSION
    """The policy version whose weights the checkpoint holds."""
    heldout_before: float = float("nan")
    heldout_serving: float = float("nan")
    seen: Mapping[str, Seen] = field(default_factory=dict)
    """By prompt id; empty for prompt samplers that remember nothing. With `drawn`, their whole state."""
