from __future__ import annotations

from iterpo.prompt_sampling import Sequential, Uniform


def test_no_prompt_comes_twice_before_all_have_been_seen():
    assert sorted(Uniform().draw(10, 10, drawn=0, seed=1)) == list(range(10))
    assert sorted(Uniform().draw(10, 10, drawn=20, seed=1)) == list(range(10))


def test_drawing_in_two_parts_is_drawing_at_once():
    whole = Uniform().draw(7, 12, drawn=0, seed=5)
    assert Uniform().draw(7, 5, 0, 5) + Uniform().draw(7, 7, 5, 5) == whole


def test_the_pool_is_shuffled_once_an_epoch_and_not_once_a_draw(monkeypatch):
    shuffled = []
    permutation = Uniform._permutation
    monkeypatch.setattr(
        Uniform, "_permutation", staticmethod(lambda p, e, s: shuffled.append(e) or permutation(p, e, s))
    )
    drawn = Uniform().draw(4, 6, drawn=3, seed=0)
    assert shuffled == [0, 1, 2]
    assert drawn == [permutation(4, 0, 0)[3], *permutation(4, 1, 0), permutation(4, 2, 0)[0]]


def test_another_seed_is_another_order():
    assert Uniform().draw(50, 50, 0, seed=1) != Uniform().draw(50, 50, 0, seed=2)


def test_sequential_goes_round():
    assert Sequential().draw(3, 5, drawn=2, seed=0) == [2, 0, 1, 2, 0]
