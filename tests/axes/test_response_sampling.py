from __future__ import annotations

import pytest

from iterpo.errors import InvalidConfig
from iterpo.response_sampling import BestWorst, GroupSampler, OfflineCompletions, OfflinePairs, RandomPair, Rejection
from iterpo.types import FinishReason
from tests.axes.builders import group


def names(selection) -> list[str]:
    return [c.completion_id for c in selection.completions]


def pairs(selection) -> list[tuple[str, str]]:
    found = names(selection)
    return [(found[p.chosen], found[p.rejected]) for p in selection.pairs]


def test_a_group_whose_rewards_are_equal_teaches_nothing_and_is_counted():
    selection = GroupSampler(2).select([group({"a": 0.5, "b": 0.5}), group({"c": 0.0, "d": 1.0}, "h")], seed=0)
    assert names(selection) == ["h/c", "h/d"]
    assert selection.rewards == [0.0, 1.0]
    assert selection.dropped["uniform_group"] == 2


def test_a_completion_whose_labeler_abstained_is_left_out_not_scored_zero():
    selection = GroupSampler(3).select([group({"a": 0.0, "b": 1.0}, absent=("c",))], seed=0)
    assert names(selection) == ["g/a", "g/b"]
    assert selection.dropped["abstained"] == 1


def test_truncated_completions_can_be_dropped():
    cut = group({"a": 0.0, "b": 1.0}, reason=FinishReason.LENGTH)
    assert names(GroupSampler(2).select([cut], 0)) == ["g/a", "g/b"]
    assert GroupSampler(2, truncated="drop").select([cut], 0).dropped["truncated"] == 2


def test_best_and_worst_make_the_pair():
    assert pairs(BestWorst(3).select([group({"a": 0.2, "b": 0.9, "c": 0.1})], 0)) == [("g/b", "g/c")]


def test_tied_pairs_are_dropped_and_counted():
    selection = BestWorst(2).select([group({"a": 0.5, "b": 0.5})], 0)
    assert selection.completions == []
    assert selection.dropped["tied_pair"] == 2


def test_what_people_said_outweighs_rewards():
    labelled = group({"a": 1.0, "b": 0.0}, preferences=[("a", "b", 0.25)])
    selection = BestWorst(2).select([labelled], 0)
    assert pairs(selection) == [("g/b", "g/a")]
    assert selection.pairs[0].p_chosen == 0.75


def test_random_pairs_are_disjoint_and_ordered_by_reward():
    selection = RandomPair(4).select([group({"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4})], seed=3)
    members = [name for pair in pairs(selection) for name in pair]
    assert sorted(members) == ["g/a", "g/b", "g/c", "g/d"]
    assert all(chosen > rejected for chosen, rejected in pairs(selection))


def test_random_pairs_depend_on_the_seed_alone():
    eight = group({str(i): i / 8 for i in range(8)})
    drawn = {tuple(pairs(RandomPair(8).select([eight], seed))) for seed in (1, 1, 2, 3)}
    assert 1 < len(drawn) <= 3


def test_rejection_keeps_what_is_above_the_threshold_and_each_text_once():
    twice = group({"a": 0.9, "b": 0.6, "c": 0.2})
    selection = Rejection(3, threshold=0.5).select([twice], 0)
    assert names(selection) == ["g/a", "g/b"]
    assert selection.dropped["rejected"] == 1
    assert names(Rejection(3, keep="best").select([twice], 0)) == ["g/a"]


def test_offline_data_passes_through():
    given = group({}, absent=("good", "bad"), preferences=[("good", "bad", 1.0)])
    assert pairs(OfflinePairs().select([given], 0)) == [("g/good", "g/bad")]
    assert len(OfflineCompletions().select([given], 0).completions) == 2


@pytest.mark.parametrize("make", [lambda: GroupSampler(1), lambda: BestWorst(1), lambda: Rejection(4, "some")])
def test_impossible_sizes_are_refused(make):
    with pytest.raises(InvalidConfig, match="Use"):
        make()
