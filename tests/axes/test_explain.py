"""`explain`: what is shown is what is trained, and a batch that cannot work is refused by field and row."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from iterpo.algorithms import TABLE
from iterpo.batch_json import recorded
from iterpo.cli.main import main
from iterpo.errors import InvalidConfig, InvalidInput
from iterpo.explain import explain
from iterpo.gradient import prepared, token_gradient
from tests.axes.builders import random_batch


def row(group: str, logprobs: list[float], **fields) -> dict[str, object]:
    return {"group": group, "logprobs": logprobs, **fields}


def two(**fields) -> dict[str, object]:
    """Two one-token answers to one prompt, the first one better."""
    good = row("p", [-1.0], role="chosen", reward=1.0, reference_logprobs=[-1.0])
    return {"sequences": [good | fields, row("p", [-1.0], role="rejected", reward=0.0, reference_logprobs=[-1.0])]}


def as_json(batch) -> dict[str, object]:
    """A TokenBatch as the file that would describe it; KTO's mismatched answers are rows without a role."""
    rows = []
    cut = {
        "logprobs": batch.logprobs,
        "reference_logprobs": batch.reference,
        "behaviour_logprobs": batch.old,
        "values": batch.values,
        "reference_kl": batch.reference_kl,
    }
    cut = {name: [part.tolist() for part in flat.split(batch.lengths.tolist())] for name, flat in cut.items()}
    for i in range(len(batch.lengths)):
        pair = {"p_chosen": float(batch.p_chosen[i // 2]), "weight": float(batch.weight[i // 2])}
        rows.append(
            {name: lists[i] for name, lists in cut.items()}
            | {
                "group": f"g{int(batch.group[i])}",
                "role": "rejected" if i % 2 else "chosen",
                "reward": float(batch.reward[i]),
                "strength": float(batch.strength[i // 2]),
                "baseline": float(batch.baseline[i]),
                "from_reference": bool(batch.from_reference[i]),
                "truncated": bool(batch.truncated[i]),
            }
            | ({} if i % 2 else pair)
        )
    return {"sequences": rows, "normalizer_constant": batch.max_tokens}


def test_kto_averages_over_its_own_answers_and_not_over_the_strangers():
    """Good and bad answer at the reference, z0 = 0: beta / 4 each way, halved by the mean over two."""
    stranger = row("q", [-1.0, -1.0], reference_logprobs=[-0.5, -0.5])
    found = explain("kto", {"sequences": [stranger, *two()["sequences"]]})
    assert found["gradient"] == [[0.0, 0.0], [pytest.approx(0.0125)], [pytest.approx(-0.0125)]]
    assert found["objective"] == pytest.approx(-0.5)


@pytest.mark.parametrize("name", [n for n in TABLE if n != "kto"])
def test_what_is_shown_is_what_the_learner_takes(name):
    batch = random_batch(5, soft="pairs" in TABLE[name].gradient_coefficient.needs)
    found = explain(name, json.loads(json.dumps(as_json(batch))))
    if "pairs" not in TABLE[name].gradient_coefficient.needs:
        batch = without_pairs(batch)
    expected = token_gradient(TABLE[name], prepared(TABLE[name], batch))
    assert list(chain.from_iterable(found["gradient"])) == expected.gradient.tolist()
    assert list(chain.from_iterable(found["coefficients"])) == expected.coefficients.tolist()
    assert found["objective"] == float(expected.objective)


@pytest.mark.parametrize("name", TABLE)
def test_what_the_learner_recorded_explains_what_it_trained_on(name):
    needs = TABLE[name].gradient_coefficient.needs
    batch = random_batch(5, soft="pairs" in needs)
    if "pairs" not in needs:
        batch = without_pairs(batch)
    if "mismatched" not in needs:
        batch = replace(batch, mismatched=None)
    texts = [["x"] * int(length) for length in batch.lengths]
    found = explain(name, json.loads(json.dumps(recorded(batch, texts))))
    expected = token_gradient(TABLE[name], prepared(TABLE[name], batch))
    own = found["gradient"][: len(texts)]
    assert list(chain.from_iterable(own)) == pytest.approx(expected.gradient.tolist(), rel=1e-12, abs=1e-15)
    assert found["objective"] == pytest.approx(float(expected.objective), rel=1e-12)


@pytest.mark.parametrize("name", TABLE)
def test_the_terms_of_a_token_make_up_its_number(name):
    needs = TABLE[name].gradient_coefficient.needs
    batch = random_batch(7, soft="pairs" in needs)
    if "mismatched" not in needs:
        batch = replace(batch, mismatched=None)
    found = explain(name, recorded(batch, [["x"] * int(length) for length in batch.lengths]))
    t = {term: list(chain.from_iterable(lists)) for term, lists in found["terms"].items()}
    numbers = zip(t["method"], t["correction"], t["kl"], t["normalizer"], strict=True)
    made = [(m * w + kl, (m * w + kl) * norm) for m, w, kl, norm in numbers]
    assert [c for c, _ in made] == pytest.approx(list(chain.from_iterable(found["coefficients"])), rel=1e-12)
    assert [g for _, g in made] == pytest.approx(list(chain.from_iterable(found["gradient"])), rel=1e-12)
    assert found["formula"] == TABLE[name].gradient_coefficient.formula


def test_an_answer_in_two_pairs_feels_both():
    """DPO at the reference: each pair gives its sides beta / 2, and two pairs are averaged."""
    rows = [row(g, [-1.0], reference_logprobs=[-1.0]) for g in ("p", "p", "p")]
    pairs = [{"chosen": 0, "rejected": 1}, {"chosen": 0, "rejected": 2, "weight": 0.5}]
    found = explain("dpo", {"sequences": rows, "pairs": pairs}, {"beta": "0.2"})
    assert found["gradient"] == [[pytest.approx(0.075)], [pytest.approx(-0.05)], [pytest.approx(-0.025)]]


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ({"chosen": 0, "rejected": 2}, "pairs[0] joins 0 and 2"),
        ({"chosen": 1, "rejected": 1}, "joins 1 and 1"),
        ({"chosen": 0.5, "rejected": 1}, "joins 0.5 and 1"),
        ({"chosen": 0}, "joins 0 and None"),
        ({"chosen": 0, "rejected": 1, "p_chosen": 2}, "pairs[0].p_chosen is 2"),
        ({"chosen": 0, "rejected": 1, "colour": 2}, "unknown field `colour`"),
        ("0-1", "pairs[0] is no object"),
    ],
)
def test_a_wrong_pair_is_refused_by_its_place(pair, says):
    with pytest.raises(InvalidInput) as refused:
        explain("dpo", two() | {"pairs": [pair]})
    assert says in str(refused.value)


def without_pairs(batch):
    from dataclasses import replace

    none = batch.chosen[:0]
    empty = {"chosen": none, "rejected": none, "p_chosen": none.double(), "strength": none.double()}
    return replace(batch, **empty, weight=batch.reward.new_ones(len(batch.lengths)))


def test_dpo_by_hand_has_every_key_of_the_output():
    """At the reference: beta/2 upwards and downwards, objective -log 2."""
    found = explain("dpo", two())
    assert found["coefficients"] == found["gradient"] == [[0.05], [-0.05]]
    assert found["objective"] == pytest.approx(-math.log(2))
    assert (found["method"], found["normalizer"]) == ("offline_dpo", "sequence_sum")
    assert found["needs"] == ["completions", "pairs", "reference"]
    assert found["parameters"]["beta"] == 0.1
    assert list(found) == [
        "method",
        "parameters",
        "needs",
        "normalizer",
        "coefficients",
        "gradient",
        "formula",
        "terms",
        "objective",
        "metrics",
    ]
    assert found["terms"]["margin"] == [[0.0], [0.0]]
    assert found["terms"]["normalizer"] == [[1.0], [1.0]]


def test_behaviour_logprobs_are_what_the_ratio_divides_by():
    """The policy is log 1.1 above the sampler: rho 1.1, inside the clip; at log 1.3 the good answer is clipped."""
    inside = explain("dr_grpo", two(behaviour_logprobs=[-1 - math.log(1.1)]) | {"normalizer_constant": 1})
    assert inside["coefficients"][0] == pytest.approx([0.55])
    outside = explain("dr_grpo", two(behaviour_logprobs=[-1 - math.log(1.3)]) | {"normalizer_constant": 1})
    assert outside["coefficients"][0] == [0]


def test_old_logprobs_put_the_samplers_into_the_correction():
    """Trainer twice as sure as the sampler: w = min(2, 2); on-policy for the trainer, so rho = 1."""
    batch = two(behaviour_logprobs=[-1 - math.log(4)], old_logprobs=[-1.0]) | {"normalizer_constant": 1}
    assert explain("dr_grpo", batch)["coefficients"][0] == pytest.approx([1.0])
    assert explain("dr_grpo", batch, {"mismatch": "none"})["coefficients"][0] == pytest.approx([0.5])


def test_a_masked_token_counts_nowhere():
    """Not in the sums, not in the lengths, not in the shown gradient."""
    masked = copy.deepcopy(two())
    for sequence in masked["sequences"]:
        sequence["logprobs"] = [-1.0, -7.0]
        sequence["reference_logprobs"] = [-1.0, -2.0]
        sequence["mask"] = [1, 0]
    for name in ("dpo", "simpo", "grpo"):
        plain, found = explain(name, two()), explain(name, masked)
        assert found["gradient"] == [[g[0], 0.0] for g in plain["gradient"]]
        assert found["objective"] == plain["objective"]


def test_parameters_are_set_by_name():
    assert explain("dpo", two(), {"beta": "0.3"})["coefficients"] == [[0.15], [-0.15]]
    assert explain("grpo", two(), {"normalizer": "per_token", "beta": "0"})["normalizer"] == "per_token"
    assert explain("grpo", two(), {"kl.beta": "0", "gradient_coefficient.advantage": "centred"})["coefficients"] == [
        [0.5],
        [-0.5],
    ]


def test_answers_without_a_role_are_ktos_mismatched_ones():
    batch = two()
    stranger = row("q", [-1.0], reference_logprobs=[-3.0])
    found = explain("kto", {"sequences": [*batch["sequences"], stranger]})
    assert found["metrics"]["z0"] == 2.0
    assert found["coefficients"][2] == [0.0]


@pytest.mark.parametrize(
    ("method", "batch", "says"),
    [
        ("dpo", [], "must be an object with a list `sequences`"),
        ("dpo", {"sequences": []}, "sequences is empty"),
        ("dpo", {"sequences": [3]}, r"sequences\[0\] is no object"),
        ("dpo", {"sequences": [row("", [-1.0])]}, r"sequences\[0\].group is missing or empty"),
        ("dpo", {"sequences": [row("p", [])]}, r"sequences\[0\].logprobs is missing or empty"),
        ("dpo", {"sequences": [row("p", [-1.0], colour=1)]}, "unknown field `colour`"),
        ("dpo", two() | {"extra": 1}, "unknown key `extra`"),
        ("dpo", two(reference_logprobs=[-1.0, -1.0]), r"sequences\[0\].reference_logprobs has 2 entries, but logprobs"),
        ("dpo", two(logprobs=[float("nan")]), r"sequences\[0\].logprobs holds nan, not a finite number"),
        ("dpo", two(logprobs=["x"]), "holds 'x'"),
        ("dpo", two(logprobs=[0.5]), "log-probs are at most 0"),
        ("dpo", two(mask=[0]), r"sequences\[0\].mask must hold zeros and ones, with a one"),
        ("dpo", two(role="best"), r"sequences\[0\].role is 'best'"),
        ("dpo", two(role=None), "has 0 chosen and 1 rejected"),
        (
            "dpo",
            two(reference_logprobs=None),
            r"sequences\[0\].reference_logprobs is missing, and method 'offline_dpo'",
        ),
        ("grpo", two(reward=None), r"sequences\[0\].reward is missing, and method 'grpo' needs rewards"),
        ("grpo", two(reward=float("inf")), r"sequences\[0\].reward is inf"),
        ("grpo", two(group="alone"), r"'alone' has one sequence, and the baseline of method 'grpo' needs two"),
        ("ppo", two(), r"sequences\[0\].values is missing, and method 'ppo' needs values"),
        ("remax", two(), "baseline is missing"),
        ("xpo", two(), "from_reference is missing"),
        ("tdpo1", two(), "reference_kl is missing"),
        ("kto", two(), "answers to other prompts"),
        ("kto", {"sequences": [row("p", [-1.0], reference_logprobs=[-1.0])]}, "needs roles"),
        ("dr_grpo", two(), "`constant` divides by the longest allowed answer"),
        ("dr_grpo", two() | {"normalizer_constant": 0.5}, "normalizer_constant is 0.5"),
        ("dpo", two(p_chosen=2.0), "p_chosen is 2.0"),
        ("dpo", two(strength=10**400), "strength is 1000"),
        ("reinforce", two(behaviour_logprobs=[-800.0], reward=1e308, logprobs=[-1.0]), "is not finite"),
        ("dpo", two(truncated="yes"), "truncated is 'yes'"),
    ],
)
def test_a_batch_that_cannot_work_is_refused_with_field_and_row(method, batch, says):
    with pytest.raises(InvalidInput, match=says) as caught:
        explain(method, batch)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("method", "settings", "kind", "says"),
    [
        ("dpoo", {}, InvalidConfig, "Unknown algorithm"),
        ("dpo", {"betta": "1"}, InvalidInput, "has no parameter 'betta'. Did you mean 'beta'?"),
        ("dpo", {"beta": "much"}, InvalidConfig, "is not float"),
        ("dpo", {"beta": "-1"}, InvalidConfig, "Use beta > 0"),
        ("dpo", {"beta": "nan"}, InvalidConfig, "is not a finite number"),
        ("grpo", {"off_policy_mask": "0"}, InvalidConfig, "off_policy_mask: Input should be greater than 0"),
        ("grpo", {"mismatch": "1"}, InvalidConfig, "mismatch: Input should be a valid string"),
        ("ppo", {"advantage": "centred"}, InvalidConfig, "has an advantage of its own"),
        ("dpo", {"normalizer": "per_token"}, InvalidConfig, "would be another method"),
    ],
)
def test_parameters_that_cannot_work_are_refused(method, settings, kind, says):
    with pytest.raises(kind) as caught:
        explain(method, two(), settings)
    assert says in str(caught.value)


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    shown = capsys.readouterr()
    return int(ended.value.code or 0), shown.out, shown.err


def test_the_command_prints_full_precision_or_a_table(capsys, tmp_path):
    path = tmp_path / "batch.json"
    batch = two(tokens=["Yes\x1b[31m"])
    path.write_text(json.dumps(batch))
    code, out, _ = run(capsys, "explain", "simpo", "--batch", str(path), "--json", "--set", "beta=2")
    assert code == 0
    assert json.loads(out) == explain("simpo", batch, {"beta": "2"})
    code, out, _ = run(capsys, "explain", "simpo", "--batch", str(path))
    assert code == 0
    assert "Yes\\x1b" in out
    assert "objective" in out


@pytest.mark.parametrize(
    ("content", "more", "says"),
    [
        ("{", [], "is not JSON"),
        (json.dumps(two()), ["--set", "beta"], "is no KEY=VALUE"),
        (json.dumps(two(logprobs=[])), [], "sequences[0].logprobs"),
    ],
)
def test_the_command_exits_with_two_and_names_what_is_wrong(capsys, tmp_path, content, more, says):
    path = tmp_path / "batch.json"
    path.write_text(content)
    code, _, err = run(capsys, "explain", "dpo", "--batch", str(path), "--json", *more)
    assert code == 2
    assert says in json.loads(err)["error"]["message"]
    code, _, err = run(capsys, "explain", "dpo", "--batch", str(tmp_path / "nowhere.json"), "--json")
    assert (code, json.loads(err)["error"]["reason"]) == (2, "BAD_BATCH")


def test_one_method_is_shown_whole(capsys):
    code, out, _ = run(capsys, "algorithms", "ppo", "--json")
    (found,) = json.loads(out)
    assert code == 0
    assert found["formula"].startswith("c_t = A_t rho_t")
    assert found["regularizers"] == ["clipped_value_loss"]
    assert found["defaults"]["gradient_coefficient"]["lam"] == 0.95
    code, out, _ = run(capsys, "algorithms", "vapo")
    assert code == 0
    assert "value pre-training" in " ".join(out.split())


@pytest.mark.parametrize("method", ["simpo", "dpo", "grpo"])
def test_the_example_of_the_documentation_works(method):
    text = (Path(__file__).parents[2] / "docs/methods.md").read_text(encoding="utf-8")
    example = json.loads(text.partition("```json\n")[2].partition("```")[0])
    assert explain(method, example, {"beta": "0"} if method == "grpo" else {})["coefficients"][1][2] == 0
