"""`iterpo labels annotators | exclude | readmit | report`: who labels how well, and taking somebody out again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from iterpo.cli.options import config_option, json_option, print_json, print_table

if TYPE_CHECKING:
    from iterpo.config import Settings
    from iterpo.v1 import labeling_pb2, learner_pb2

MOST_IDS = 10_000
"""Event ids in one question to the learner."""


@click.command()
@click.argument("annotator", required=False, default="")
@config_option
@json_option
def annotators(annotator: str, config_path: Path | None, as_json: bool) -> None:
    """Everybody who labels, machines too, with the figures that their states rest on; or ANNOTATOR alone."""
    from iterpo.clients.channel import connect_service
    from iterpo.clients.labeling import LabelingClient
    from iterpo.config import load

    with connect_service(load(config_path), "labeling", "lead") as channel:
        found = LabelingClient(channel).annotators(annotator)
    if as_json:
        print_json([_plain(each) for each in found])
    elif not found:
        click.echo(
            f"{annotator or 'Nobody'} has {'not ' if annotator else ''}labelled yet. Start with: iterpo annotate"
        )
    else:
        print_table([_row(each) for each in found], folding="reasons")


@click.command()
@click.argument("annotator")
@click.option("--reason", default="", help="Stored with the decision.")
@config_option
@json_option
def exclude(annotator: str, reason: str, config_path: Path | None, as_json: bool) -> None:
    """Take ANNOTATOR out: no label of his counts any more, and he may not label.

    What his labels took part in is made anew without them. The policy versions that were trained on them are named;
    `iterpo run replay RUN --without ANNOTATOR` trains again from the version before.
    """
    from iterpo.config import load
    from iterpo.errors import Unavailable
    from iterpo.types import AnnotatorState

    settings = load(config_path)
    revised = set_state(settings, annotator, AnnotatorState.EXCLUDED, reason)
    if not as_json:
        click.echo(f"{annotator} is excluded; {revised} preferences were made anew without him.")
    try:
        touched = touched_by(settings, annotator)
    except Unavailable as error:
        # The decision stands; only the learner and inference know which versions it concerns.
        error.fix = f"He is excluded. Start learner and inference, then ask again: iterpo labels exclude {annotator}"
        raise
    if as_json:
        print_json({"annotator": annotator, "revised_preferences": revised, **touched.plain()})
    for line in () if as_json else touched.sentences(annotator):
        click.echo(line)


@click.command()
@click.argument("annotator")
@click.option("--reason", default="", help="Stored with the decision.")
@config_option
@json_option
def readmit(annotator: str, reason: str, config_path: Path | None, as_json: bool) -> None:
    """Let ANNOTATOR label again, judged from now on; after an exclusion or a quarantine."""
    from iterpo.config import load
    from iterpo.types import AnnotatorState

    revised = set_state(load(config_path), annotator, AnnotatorState.OK, reason)
    if as_json:
        print_json({"annotator": annotator, "revised_preferences": revised})
    else:
        click.echo(f"{annotator} may label again; {revised} preferences were made anew with him.")


@click.command()
@click.option("--run", "run_id", default="", help="Only this run.  [default: every run]")
@config_option
@json_option
def report(run_id: str, config_path: Path | None, as_json: bool) -> None:
    """The queue, how far people agree, and how the policies compare (Bradley-Terry over policy versions)."""
    from iterpo.clients.channel import connect_service
    from iterpo.clients.labeling import LabelingClient
    from iterpo.config import load

    with connect_service(load(config_path), "labeling", "lead") as channel:
        found = LabelingClient(channel).report(run_id)
    if as_json:
        print_json(_plain(found))
        return
    click.echo(
        f"Tasks: {found.open_tasks} open, {found.leased_tasks} leased, {found.complete_tasks} complete, "
        f"{found.held_tasks} waiting for the reward model, {found.gold_tasks} gold."
    )
    for name, counts in (("outcome", found.labels_by_outcome), ("source", found.labels_by_source)):
        click.echo(
            f"Labels by {name}: " + (", ".join(f"{k} {v}" for k, v in sorted(counts.items())) or "none yet") + "."
        )
    click.echo(f"Agreement (Krippendorff's alpha): {_agreement(found.agreement)}")
    for pair in found.machines:
        click.echo(f"Agreement of {pair.annotator} with people (Cohen's kappa): {_agreement(pair.kappa)}")
    if found.policies:
        print_table([_strength(row) for row in found.policies], folding="note")


def set_state(settings: Settings, annotator: str, state: Any, reason: str) -> int:
    """How many preferences were made anew."""
    import getpass

    from iterpo.clients.channel import connect_service
    from iterpo.clients.labeling import LabelingClient

    with connect_service(settings, "labeling", "lead") as channel:
        return LabelingClient(channel).set_state(annotator, state, reason, by=getpass.getuser())


@dataclass(frozen=True)
class Touched:
    """What was trained on somebody's feedback."""

    events: int
    """Labels and thumbs of his."""
    iterations: Sequence[learner_pb2.TouchedIteration]
    descendants: Sequence[int]
    """Versions that go on from a touched one."""

    def first_iteration(self, run_id: str) -> int:
        """0 when nothing of the run was trained on them."""
        return min((each.iteration for each in self.iterations if each.run_id == run_id), default=0)

    def versions(self) -> list[int]:
        return sorted({each.policy_version for each in self.iterations if each.policy_version})

    def plain(self) -> dict[str, Any]:
        return {
            "events": self.events,
            "iterations": [_plain(each) for each in self.iterations],
            "policy_versions": self.versions(),
            "descendants": list(self.descendants),
        }

    def sentences(self, annotator: str) -> list[str]:
        if not self.iterations:
            return [f"No policy was trained on his {self.events} labels."]
        runs = list(dict.fromkeys(each.run_id for each in self.iterations))
        lines = [f"Trained on his {self.events} labels: policy versions {_listed(self.versions())}."]
        if self.descendants:
            lines.append(f"Going on from those: versions {_listed(self.descendants)}.")
        return [*lines, *(f"Train again without him: iterpo run replay {run} --without {annotator}" for run in runs)]


def touched_by(settings: Settings, annotator: str) -> Touched:
    """Reads the feedback store, asks the learner which iterations consumed the person's events, and inference which
    versions go on from theirs. Raises Unavailable when one of the services is not there."""
    from iterpo.cli.stored import stored_events
    from iterpo.clients.channel import connect_service
    from iterpo.clients.inference import PolicyClient
    from iterpo.clients.learner import LearnerClient

    ids = [
        event.event_id
        for event in stored_events(settings, "")
        if (event.label and event.label.annotator == annotator) or (event.reward and event.reward.user == annotator)
    ]
    with connect_service(settings, "learner", "lead") as channel:
        learner = LearnerClient(channel)
        parts = [ids[start : start + MOST_IDS] for start in range(0, len(ids), MOST_IDS)]
        by_iteration = {
            (each.run_id, each.iteration): each for part in parts for each in learner.touched(part, annotator)
        }
        found = [by_iteration[each] for each in sorted(by_iteration)]
    with connect_service(settings, "inference", "lead") as channel:
        parents = {policy.version: policy.parent for policy in PolicyClient(channel).versions()}
    return Touched(len(ids), found, descendants({each.policy_version for each in found} - {0}, parents))


def descendants(versions: set[int], parents: dict[int, int]) -> list[int]:
    """The versions that go on from `versions`, those themselves left out."""
    known = set(versions)
    for version in sorted(parents):
        if parents[version] in known:
            known.add(version)
    return sorted(known - versions)


def _row(annotator: labeling_pb2.Annotator) -> dict[str, object]:
    accuracy, left = annotator.accuracy, annotator.left_share
    return {
        "annotator": annotator.annotator,
        "state": _state(annotator.state),
        "labels": annotator.labels,
        "accuracy": f"{accuracy.mean:.2f} ({accuracy.low:.2f}-{accuracy.high:.2f})",
        "gold": f"{annotator.gold.right}/{annotator.gold.total}",
        "self": f"{annotator.self_consistency.right}/{annotator.self_consistency.total}",
        "left": f"{left.mean:.2f}",
        "seconds": f"{annotator.median_seconds:.1f}",
        "weight": f"{annotator.weight:g}",
        "reasons": " ".join(annotator.reasons),
    }


def _strength(row: labeling_pb2.PolicyStrength) -> dict[str, object]:
    return {
        "version": row.policy_version,
        "strength": f"{row.strength:+.2f} ({row.low:+.2f} to {row.high:+.2f})",
        "win_rate": f"{row.win_rate:.2f}",
        "comparisons": f"{row.comparisons:g}",
        "note": row.note,
    }


def _agreement(agreement: labeling_pb2.Agreement) -> str:
    if agreement.HasField("value"):
        return f"{agreement.value:.3f} over {agreement.items} items."
    return agreement.undefined_because


def _state(state: Any) -> str:
    from iterpo import feedback_wire

    return feedback_wire.state_from_proto(state).value


def _listed(versions: Sequence[int]) -> str:
    return ", ".join(map(str, versions)) or "none"


def _plain(message: Any) -> dict[str, Any]:
    from google.protobuf import json_format

    return json_format.MessageToDict(message, preserving_proto_field_name=True)
