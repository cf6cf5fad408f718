from __future__ import annotations

import math
from dataclasses import replace

import pytest

from iterpo.errors import InvalidConfig
from iterpo.response_sampling import (
    ActivePair,
    BestWorst,
    Binary,
    Dueling,
    GreedyBaseline,
    GroupSampler,
    Mixture,
    OfflineCompletions,
    OfflinePairs,
    OneFromEach,
    RandomPair,
    Rationalise,
    ReferenceBaseline,
    Rejection,
    Replay,
    RightWrong,
    own,
)
from iterpo.types import FinishReason, Preference
from tests.axes.builders import completion, group


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


def test_the_rival_of_the_best_is_the_worst_the_second_or_any_other():
    rewards = group({"a": 0.2, "b": 0.9, "c": 0.1, "d": 0.8})
    assert pairs(BestWorst(4).select([rewards], 0)) == [("g/b", "g/c")]
    assert pairs(BestWorst(4, rival="second").select([rewards], 0)) == [("g/b", "g/d")]
    rivals = {pairs(BestWorst(4, rival="random").select([rewards], seed))[0][1] for seed in range(30)}
    assert rivals == {"g/a", "g/c", "g/d"}


def test_a_length_penalty_can_turn_a_pair_round():
    """b is a little better and much longer: 0.6 - 9 x 0.1 against 0.5 - 2 x 0.1."""
    long = replace(completion("g/b", "g", (5,) * 9), completion_id="g/b")
    made = group({"a": 0.5, "b": 0.6})
    made = replace(made, completions=(made.completions[0], long))
    selection = BestWorst(2, length_penalty=0.1).select([made], 0)
    assert pairs(selection) == [("g/a", "g/b")]
    assert pairs(BestWorst(2).select([made], 0)) == [("g/b", "g/a")]


def test_small_margins_are_left_out_and_counted():
    close, clear = group({"a": 0.5, "b": 0.6}), group({"a": 0.1, "b": 0.9}, "h")
    selection = BestWorst(2, min_margin=0.25).select([close, clear], 0)
    assert pairs(selection) == [("h/b", "h/a")]
    assert selection.dropped["small_margin"] == 2
    assert selection.pairs[0].strength == pytest.approx(0.8)


def test_right_answers_meet_wrong_ones_as_long_as_there_are_both():
    made = group({"a": 1.0, "b": 0.0, "c": 0.2, "d": 0.9, "e": 0.1})
    selection = RightWrong(5).select([made], 0)
    assert {chosen for chosen, _ in pairs(selection)} == {"g/a", "g/d"}
    assert {rejected for _, rejected in pairs(selection)} <= {"g/b", "g/c", "g/e"}
    assert selection.dropped["no_pair"] == 1


def test_one_from_each_says_which_answer_the_reference_drew():
    """The second draw is the base's, whoever wins."""
    assert [d.policy for d in OneFromEach().draws] == ["serving", "base"]
    better, worse = group({"own": 0.9, "ref": 0.1}), group({"own": 0.1, "ref": 0.9}, "h")
    selection = OneFromEach().select([better, worse], 0)
    assert pairs(selection) == [("g/own", "g/ref"), ("h/ref", "h/own")]
    assert selection.from_reference == [False, True, True, False]


def test_people_decide_between_policy_and_reference_too():
    labelled = group({}, absent=("own", "ref"), preferences=[("ref", "own", 0.25)])
    selection = OneFromEach().select([labelled], 0)
    assert pairs(selection) == [("g/own", "g/ref")]
    assert selection.from_reference == [False, True]
    assert selection.pairs[0].p_chosen == 0.75
    mixed = group({}, absent=("a", "b", "c", "ref"), preferences=[("a", "ref", 0.0)])
    assert Mixture(4, 0.25).select([mixed], 0).from_reference == [True, False]


def test_own_answers_are_those_that_the_serving_policy_sampled():
    made = group({"own": 1.0, "x": 0.0, "y": 0.0})
    assert [c.text for c in own(ReferenceBaseline(2), made)] == ["g/own"]
    assert [c.text for c in own(GreedyBaseline(2), made)] == ["g/own", "g/x"]
    assert len(own(GroupSampler(3), made)) == 3


def test_a_mixture_draws_its_share_from_the_reference():
    sampler = Mixture(4, 0.25)
    assert [(d.n, d.policy) for d in sampler.draws] == [(3, "serving"), (1, "base")]
    selection = sampler.select([group({"a": 0.1, "b": 0.2, "c": 0.3, "ref": 0.4})], 0)
    marked = {c.completion_id for c, r in zip(selection.completions, selection.from_reference, strict=True) if r}
    assert marked == {"g/ref"}


def test_the_greedy_answers_reward_is_the_baseline_and_it_is_not_trained_on():
    selection = GreedyBaseline(1).select([group({"sample": 0.2, "greedy": 0.7})], 0)
    assert (names(selection), selection.rewards, selection.baselines) == (["g/sample"], [0.2], [0.7])
    without = group({"sample": 0.2}, absent=("greedy",))
    assert GreedyBaseline(1).select([without], 0).dropped["no_baseline"] == 1


def test_the_references_soft_maximum_is_the_baseline():
    """beta log mean exp(r/beta) of rewards 0 and 1 with beta 1/2: (1/2) log((1 + e^2) / 2)."""
    selection = ReferenceBaseline(2, beta1=0.5).select([group({"own": 0.3, "x": 0.0, "y": 1.0})], 0)
    assert names(selection) == ["g/own"]
    assert selection.baselines == pytest.approx([0.5 * math.log((1 + math.exp(2)) / 2)])


def test_answers_are_good_or_bad_by_a_line_or_by_their_groups_mean():
    made = group({"a": 0.9, "b": 0.4, "c": 0.65})
    assert Binary(3).select([made], 0).roles == [1, -1, 1]
    relative = Binary(3, relative=True).select([made], 0)
    assert (names(relative), relative.roles) == (["g/a", "g/b"], [1, -1])
    assert relative.dropped["average"] == 1


def test_what_people_compared_is_good_when_it_wins_more_than_half_and_bad_when_it_wins_less():
    """a beats b (0.9), c ties with d, e and f were both found bad: good, bad, left out twice, bad twice."""
    from iterpo.labeling.feedback import rewards_from_preferences

    pairs = (
        Preference("g", "g/a", "g/b", 0.9),
        Preference("g", "g/c", "g/d", 0.5),
        Preference("g", "g/e", "g/f", 0.5, weight=0.0, p_both_bad=1.0),
    )
    made = group(dict.fromkeys("abcdef", 0.0))
    made = replace(made, rewards=rewards_from_preferences(pairs), preferences=pairs[:2])
    selection = Binary(6).select([made], 0)
    assert list(zip(names(selection), selection.roles, strict=True)) == [
        ("g/a", 1),
        ("g/b", -1),
        ("g/e", -1),
        ("g/f", -1),
    ]
    assert selection.dropped["average"] == 2


def test_the_best_meets_the_worst_where_people_compared_every_answer_more_than_once():
    """a > b, b > c, a > c, 0.9 each: of the orders abc 0.729, acb and bac 0.081, bca and cab 0.009 and cba 0.001, those
    with a above c weigh 0.891 of 0.91."""
    from iterpo.labeling.feedback import rewards_from_preferences

    pairs = (Preference("g", "g/a", "g/b", 0.9), Preference("g", "g/b", "g/c", 0.9), Preference("g", "g/c", "g/a", 0.1))
    made = replace(group(dict.fromkeys("abc", 0.0)), rewards=rewards_from_preferences(pairs), preferences=pairs)
    selection = BestWorst(3).select([made], 0)
    assert names(selection) == ["g/a", "g/c"]
    assert [pair.p_chosen for pair in selection.pairs] == [pytest.approx(0.891 / 0.91)]
    once = replace(made, preferences=pairs[:1])
    assert names(BestWorst(3).select([once], 0)) == ["g/a", "g/b"], "a pair compared once is used as it is"


def test_answers_that_win_equally_often_are_no_pair():
    from iterpo.labeling.feedback import rewards_from_preferences

    ring = (Preference("g", "g/a", "g/b", 0.9), Preference("g", "g/b", "g/c", 0.9), Preference("g", "g/c", "g/a", 0.9))
    made = replace(group(dict.fromkeys("abc", 0.0)), rewards=rewards_from_preferences(ring), preferences=ring)
    selection = BestWorst(3).select([made], 0)
    assert (names(selection), selection.dropped["tied_pair"]) == ([], 2)


def test_a_group_of_comparisons_is_a_group_of_rewards_for_a_policy_gradient():
    """Wins of 0.75 and 0.25 in a ring of three are rewards whose advantages GRPO takes as any others."""
    from iterpo.labeling.feedback import rewards_from_preferences

    ring = (Preference("g", "g/a", "g/b", 1.0), Preference("g", "g/b", "g/c", 0.5), Preference("g", "g/c", "g/a", 0.0))
    made = replace(group(dict.fromkeys("abc", 0.0)), rewards=rewards_from_preferences(ring), preferences=ring)
    assert made.rewards == {"g/a": 1.0, "g/b": 0.25, "g/c": 0.25}
    assert GroupSampler(3).select([made], 0).rewards == [1.0, 0.25, 0.25]


def test_single_answers_are_kept_where_the_group_is_not_the_baseline():
    alone = group({"a": 0.5})
    assert names(GroupSampler(1, uniform="keep").select([alone], 0)) == ["g/a"]
    assert GroupSampler(2).select([alone], 0).dropped["uniform_group"] == 1


def test_the_active_pair_is_the_one_whose_implicit_rewards_are_farthest_apart():
    made = group({"a": 0.1, "b": 0.9, "c": 0.5})
    narrowed = ActivePair(3).narrow(made, {"g/a": [0.0], "g/b": [0.5], "g/c": [-2.0]}, seed=0)
    assert [c.completion_id for c in narrowed.completions] == ["g/b", "g/c"]
    assert pairs(ActivePair(3).select([narrowed], 0)) == [("g/b", "g/c")]


def test_a_duel_is_between_the_favourites_of_two_judges():
    """Judge x likes a best, judge y likes c best: whoever is drawn first, they meet."""
    made = group({"a": 0.1, "b": 0.9, "c": 0.5})
    evidence = {"g/a": [1.0, 0.0], "g/b": [0.5, 0.5], "g/c": [0.0, 1.0]}
    duels = {
        tuple(sorted(c.completion_id for c in Dueling(3, "x, y").narrow(made, evidence, seed).completions))
        for seed in range(20)
    }
    assert duels == {("g/a", "g/c")}
    agreed = {name: [scores[0], scores[0]] for name, scores in evidence.items()}
    rivals = {Dueling(3, "x, y").narrow(made, agreed, seed).completions[1].completion_id for seed in range(20)}
    assert rivals == {"g/b", "g/c"}  # all judges agree on a: any other stands in


def test_replay_draws_what_is_young_enough_and_never_one_twice():
    old, young = group({"a": 1.0}, "old", version=1), [group({"a": 1.0}, f"y{i}", version=4) for i in range(3)]
    replay = Replay(groups=2, max_age=2)
    drawn = replay.draw([old, *young], 5, "seed")
    assert len({g.group_id for g in drawn}) == 2
    assert old not in drawn
    assert replay.draw([old, *young], 5, "seed") == drawn
    assert Replay(groups=9).draw(young, 5, "s") != []
    with pytest.raises(InvalidConfig, match="Use groups"):
        Replay(groups=-1)


def test_every_pass_of_rest_keeps_what_lies_above_a_higher_line():
    made = group({"a": 0.75, "b": 0.85, "c": 0.95, "d": 0.2})
    selection = Rejection(4, "above", 0.7, rise=0.1).select([made], 0)
    assert [[names(selection)[i] for i in kept] for kept in selection.passes] == [
        ["g/c", "g/b", "g/a"],
        ["g/c", "g/b"],
        ["g/c"],
    ]
    assert Rejection(4, "above", 0.7).select([made], 0).passes == []


def test_where_no_answer_was_right_one_that_knew_the_hint_is_learned():
    right, wrong = group({"own": 0.9, "told": 0.8}), group({"own": 0.1, "told": 0.8}, "h")
    neither = group({"own": 0.1, "told": 0.2}, "k")
    assert names(Rationalise(1).select([right, wrong, neither], 0)) == ["g/own", "h/told"]
    assert [d.hint for d in Rationalise(1).draws] == [False, True]
