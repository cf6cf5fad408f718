"""Domain types <-> protobuf: the one place where they meet. What people and labelers say is in `feedback_wire`.

`x_to_proto` never fails on a valid domain object; `x_from_proto` raises InvalidInput for what the domain cannot hold.
"""

from __future__ import annotations

from iterpo.errors import InvalidInput
from iterpo.policies.canary import Arm
from iterpo.policies.replicas import Report, View
from iterpo.types import (
    Completion,
    Example,
    FinishReason,
    GateDecision,
    Group,
    IterationRow,
    Message,
    PolicyState,
    PolicyVersion,
    Prompt,
    Proof,
    SamplingSettings,
)
from iterpo.v1 import inference_pb2, learner_pb2, policy_pb2, types_pb2

ROLES = ("system", "user", "assistant")


def message_to_proto(message: Message) -> types_pb2.Message:
    return types_pb2.Message(role=message.role, content=message.content)


def message_from_proto(message: types_pb2.Message) -> Message:
    if message.role not in ROLES:
        raise InvalidInput(f"Unknown role {message.role!r} of a message.", f"Use one of {', '.join(ROLES)}.")
    return Message(message.role, message.content)


def prompt_to_proto(prompt: Prompt) -> types_pb2.Prompt:
    return types_pb2.Prompt(
        prompt_id=prompt.prompt_id,
        messages=[message_to_proto(m) for m in prompt.messages],
        reference_answer=prompt.reference_answer,
    )


def prompt_from_proto(prompt: types_pb2.Prompt) -> Prompt:
    if not any(m.content.strip() for m in prompt.messages):
        raise InvalidInput(
            f"Prompt {prompt.prompt_id!r} is empty.", "Give it at least one message with text.", "EMPTY_PROMPT"
        )
    return Prompt(prompt.prompt_id, tuple(message_from_proto(m) for m in prompt.messages), prompt.reference_answer)


def example_to_proto(example: Example) -> learner_pb2.Example:
    return learner_pb2.Example(
        prompt=prompt_to_proto(example.prompt),
        answers=example.answers,
        p_first_wins=example.p_first_wins,
        difficulty=example.difficulty,
    )


def example_from_proto(example: learner_pb2.Example) -> Example:
    p = example.p_first_wins if example.HasField("p_first_wins") else None
    if (p is not None and (len(example.answers) != 2 or not 0 <= p <= 1)) or len(example.answers) > 2:
        raise InvalidInput(
            f"Example {example.prompt.prompt_id!r} has {len(example.answers)} answers and p_first_wins {p}.",
            "Give no answer, one demonstration, or two answers with p_first_wins in [0, 1].",
        )
    difficulty = example.difficulty if example.HasField("difficulty") else None
    return Example(prompt_from_proto(example.prompt), tuple(example.answers), p, difficulty)


def sampling_to_proto(settings: SamplingSettings) -> types_pb2.SamplingSettings:
    return types_pb2.SamplingSettings(
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        top_p=settings.top_p,
        top_k=settings.top_k,
        seed=settings.seed,
        stop=settings.stop,
    )


def sampling_from_proto(settings: types_pb2.SamplingSettings) -> SamplingSettings:
    default = SamplingSettings()
    temperature = settings.temperature if settings.HasField("temperature") else default.temperature
    top_p = settings.top_p or default.top_p
    if not 0 <= temperature <= 10 or not 0 < top_p <= 1 or settings.top_k < 0 or settings.max_tokens < 0:
        raise InvalidInput(
            f"Sampling settings out of range: temperature {temperature}, top_p {top_p}, top_k {settings.top_k}, "
            f"max_tokens {settings.max_tokens}.",
            "Use temperature in [0, 10], top_p in (0, 1], top_k >= 0 and max_tokens >= 0 (0 is the default).",
        )
    if not all(settings.stop):
        raise InvalidInput("A stop string is empty.", "Leave it out: an empty string would stop every answer at once.")
    return SamplingSettings(
        temperature=temperature,
        max_tokens=settings.max_tokens or default.max_tokens,
        top_p=top_p,
        top_k=settings.top_k,
        seed=settings.seed if settings.HasField("seed") else None,
        stop=tuple(settings.stop),
    )


def finish_reason_to_proto(reason: FinishReason) -> types_pb2.FinishReason:
    return getattr(types_pb2, f"FINISH_REASON_{reason.name}")  # type: ignore[no-any-return]  # an enum value


def finish_reason_from_proto(reason: types_pb2.FinishReason) -> FinishReason:
    if reason == types_pb2.FINISH_REASON_UNSPECIFIED or reason not in types_pb2.FinishReason.values():
        raise InvalidInput(
            f"A completion has no finish reason that is known ({int(reason)}).", "Set it to STOP, LENGTH or ABORTED."
        )
    return FinishReason[types_pb2.FinishReason.Name(reason).removeprefix("FINISH_REASON_")]


def completion_to_proto(completion: Completion) -> types_pb2.Completion:
    return types_pb2.Completion(
        completion_id=completion.completion_id,
        prompt_id=completion.prompt_id,
        group_id=completion.group_id,
        text=completion.text,
        prompt_token_ids=completion.prompt_token_ids,
        token_ids=completion.token_ids,
        logprobs=completion.logprobs,
        finish_reason=finish_reason_to_proto(completion.finish_reason),
        policy_version=completion.policy_version,
        policy_digest=completion.policy_digest,
        temperature=completion.temperature,
        top_p=completion.top_p,
        top_k=completion.top_k,
        author=completion.author,
    )


def completion_from_proto(completion: types_pb2.Completion) -> Completion:
    if not completion.completion_id:
        raise InvalidInput("A completion has no completion_id.", "Give every completion a unique id.")
    if completion.logprobs and len(completion.logprobs) != len(completion.token_ids):
        raise InvalidInput(
            f"Completion {completion.completion_id!r} has {len(completion.token_ids)} tokens "
            f"but {len(completion.logprobs)} log-probs.",
            "Send one log-prob a token, or none.",
        )
    return Completion(
        completion_id=completion.completion_id,
        prompt_id=completion.prompt_id,
        group_id=completion.group_id,
        text=completion.text,
        prompt_token_ids=tuple(completion.prompt_token_ids),
        token_ids=tuple(completion.token_ids),
        logprobs=tuple(completion.logprobs),
        finish_reason=finish_reason_from_proto(completion.finish_reason),
        policy_version=completion.policy_version,
        policy_digest=completion.policy_digest,
        temperature=completion.temperature,
        top_p=completion.top_p or 1.0,
        top_k=completion.top_k,
        author=completion.author,
    )


def group_to_proto(group: Group) -> types_pb2.Group:
    """Rewards and preferences are events of their own and do not travel with the group."""
    return types_pb2.Group(
        group_id=group.group_id,
        prompt=prompt_to_proto(group.prompt),
        completions=[completion_to_proto(c) for c in group.completions],
        trace=group.trace,
    )


def group_from_proto(group: types_pb2.Group) -> Group:
    if not group.group_id or not group.completions:
        raise InvalidInput(
            f"Group {group.group_id!r} has {len(group.completions)} completions.",
            "Give every group an id and at least one completion.",
        )
    completions = tuple(completion_from_proto(c) for c in group.completions)
    strangers = [c.completion_id for c in completions if c.group_id != group.group_id]
    if strangers:
        raise InvalidInput(
            f"Completions {strangers} do not name group {group.group_id!r} as theirs.",
            "Set group_id of every completion to its group's.",
        )
    return Group(group.group_id, prompt_from_proto(group.prompt), completions, trace=group.trace)


def decision_to_proto(decision: GateDecision) -> types_pb2.GateDecision:
    return types_pb2.GateDecision(
        promote=decision.promote, reasons=decision.reasons, numbers={k: float(v) for k, v in decision.numbers.items()}
    )


def decision_from_proto(decision: types_pb2.GateDecision) -> GateDecision:
    return GateDecision(decision.promote, tuple(decision.reasons), dict(decision.numbers))


def proof_to_proto(proof: Proof) -> policy_pb2.Proof:
    return policy_pb2.Proof(
        proved=proof.proved,
        reason=proof.reason,
        error=proof.error,
        noise_floor=proof.noise_floor,
        shift=proof.shift,
        tokens=proof.tokens,
    )


def proof_from_proto(proof: policy_pb2.Proof) -> Proof:
    return Proof(proof.proved, proof.reason, proof.error, proof.noise_floor, proof.shift, proof.tokens)


def policy_to_proto(policy: PolicyVersion, in_flight: int = 0) -> policy_pb2.PolicyVersion:
    return policy_pb2.PolicyVersion(
        version=policy.version,
        digest=policy.digest,
        state=f"POLICY_STATE_{policy.state.name}",
        parent=policy.parent,
        run_id=policy.run_id,
        method=policy.method,
        proof=proof_to_proto(policy.proof) if policy.proof else None,
        reason=policy.reason,
        metrics={k: float(v) for k, v in policy.metrics.items()},
        decision=decision_to_proto(policy.decision) if policy.decision else None,
        in_flight_requests=in_flight,
    )


def policy_from_proto(policy: policy_pb2.PolicyVersion) -> PolicyVersion:
    return PolicyVersion(
        version=policy.version,
        digest=policy.digest,
        state=PolicyState[policy_pb2.PolicyState.Name(policy.state).removeprefix("POLICY_STATE_")],
        parent=policy.parent,
        run_id=policy.run_id,
        method=policy.method,
        proof=proof_from_proto(policy.proof) if policy.HasField("proof") else None,
        reason=policy.reason,
        metrics=dict(policy.metrics),
        decision=decision_from_proto(policy.decision) if policy.HasField("decision") else None,
    )


def view_to_proto(view: View) -> policy_pb2.WatchPoliciesResponse:
    return policy_pb2.WatchPoliciesResponse(
        base_digest=view.base_digest,
        policies=[policy_to_proto(policy) for policy in view.policies],
        serving_version=view.serving,
        previous_version=view.previous,
        canary_version=view.canary,
        canary_share=view.canary_share,
        candidate_version=view.candidate,
        run_heads=view.heads,
    )


def view_from_proto(view: policy_pb2.WatchPoliciesResponse) -> View:
    return View(
        view.base_digest,
        tuple(policy_from_proto(policy) for policy in view.policies),
        view.serving_version,
        view.previous_version,
        view.candidate_version,
        view.canary_version,
        view.canary_share,
        dict(view.run_heads),
    )


def replica_to_proto(report: Report, connected: bool = True) -> policy_pb2.Replica:
    return policy_pb2.Replica(
        name=report.replica,
        connected=connected,
        serving_version=report.serving,
        proved=report.proved,
        refused=report.refused,
        address=report.address,
    )


def report_to_proto(report: Report) -> policy_pb2.ReportReplicaRequest:
    counts = [
        policy_pb2.CanaryCounts(answered=arm.answered, failed=arm.failed) for arm in (report.canary, report.others)
    ]
    return policy_pb2.ReportReplicaRequest(
        replica=replica_to_proto(report), canary=counts[0], serving=counts[1], canary_version=report.canary_version
    )


def report_from_proto(report: policy_pb2.ReportReplicaRequest) -> Report:
    replica = report.replica
    return Report(
        replica.name,
        replica.serving_version,
        dict(replica.proved),
        dict(replica.refused),
        report.canary_version,
        Arm(report.canary.answered, report.canary.failed),
        Arm(report.serving.answered, report.serving.failed),
        replica.address,
    )


def row_to_proto(row: IterationRow) -> learner_pb2.IterationRow:
    return learner_pb2.IterationRow(
        iteration=row.iteration,
        policy_version=row.policy_version,
        promoted=row.promoted,
        proved=row.proved,
        train_reward=row.train_reward,
        heldout_reward=row.heldout_reward,
        kl_nats=row.kl,
        swap_seconds=row.swap_ms / 1000,
        load_seconds=row.load_ms / 1000,
        tokens_per_second=row.tokens_per_second,
        seconds=row.seconds,
        metrics={k: float(v) for k, v in row.metrics.items()},
        decision=decision_to_proto(row.decision) if row.decision else None,
    )


def row_from_proto(run_id: str, row: learner_pb2.IterationRow) -> IterationRow:
    return IterationRow(
        run_id=run_id,
        iteration=row.iteration,
        policy_version=row.policy_version,
        promoted=row.promoted,
        proved=row.proved,
        train_reward=row.train_reward,
        heldout_reward=row.heldout_reward,
        kl=row.kl_nats,
        swap_ms=row.swap_seconds * 1000,
        load_ms=row.load_seconds * 1000,
        tokens_per_second=row.tokens_per_second,
        seconds=row.seconds,
        metrics=dict(row.metrics),
        decision=decision_from_proto(row.decision) if row.HasField("decision") else None,
    )


def score_request(sequences: list[tuple[int, ...]], policy: str) -> inference_pb2.ScoreRequest:
    return inference_pb2.ScoreRequest(
        sequences=[inference_pb2.TokenSequence(token_ids=s) for s in sequences], policy=policy
    )
