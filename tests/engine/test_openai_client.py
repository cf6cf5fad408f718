"""The official OpenAI client against the real service: every endpoint, streams, limits of what is asked, versions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from iterpo.demo.free_ports import free_ports
from tests.engine.served import QUESTIONS, Served, running_inference

openai = pytest.importorskip("openai")
pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

(METRICS_PORT,) = free_ports(1)
ASK = [{"role": "user", "content": QUESTIONS[0]}]


@pytest.fixture(scope="module")
def served(tmp_path_factory, base_model, learner) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("openai")
    more = {"metrics_address": f"127.0.0.1:{METRICS_PORT}", "attested_share": 1.0}
    with running_inference(folder, base_model, learner, "merged", "float32", **more) as running:
        yield running


@pytest.fixture(scope="module")
def client(served: Served):
    return openai.OpenAI(base_url=served.http, api_key="none", max_retries=0)


def test_a_chat_is_what_generate_says(served: Served, client) -> None:
    from tests.engine.served import chat, greedy

    answer = client.chat.completions.create(model="serving", messages=ASK, temperature=0, max_tokens=24)
    told = list(served.inference.generate(chat(QUESTIONS[0]), greedy(24)))
    assert answer.choices[0].message.content == "".join(part.text_delta for part in told)
    assert answer.usage.completion_tokens == told[-1].completion_tokens
    assert answer.usage.prompt_tokens == told[-1].prompt_tokens
    assert answer.model_extra["policy_version"] == 0


def test_a_stream_is_the_whole_answer_in_parts(client) -> None:
    whole = client.chat.completions.create(model="serving", messages=ASK, temperature=0, max_tokens=24)
    stream = client.chat.completions.create(
        model="serving", messages=ASK, temperature=0, max_tokens=24, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert len(chunks) > 5


def test_seeds_repeat_and_n_answers_differ(client) -> None:
    def three(seed: int) -> list[str]:
        answer = client.chat.completions.create(
            model="base", messages=ASK, n=3, seed=seed, max_tokens=16, temperature=1.0
        )
        return [choice.message.content for choice in answer.choices]

    first = three(7)
    assert len(set(first)) == 3
    assert three(7) == first
    assert three(8) != first


def test_logprobs_are_those_of_the_tokens_and_the_greedy_one_is_the_likeliest(client) -> None:
    answer = client.chat.completions.create(
        model="serving", messages=ASK, temperature=0, max_tokens=8, logprobs=True, top_logprobs=3
    )
    for place in answer.choices[0].logprobs.content:
        assert len(place.top_logprobs) == 3
        assert place.top_logprobs[0].token == place.token
        assert place.top_logprobs[0].logprob == pytest.approx(place.logprob)
        assert place.top_logprobs[0].logprob >= place.top_logprobs[1].logprob


def test_texts_are_gone_on_with_and_stop_ends_them(client) -> None:
    answer = client.completions.create(
        model="serving", prompt=["One, two, three,", "Monday, Tuesday,"], temperature=0, max_tokens=12, logprobs=2
    )
    assert "four" in answer.choices[0].text
    assert "Wednesday" in answer.choices[1].text
    assert len(answer.choices[0].logprobs.tokens) == 12
    cut = client.completions.create(
        model="serving", prompt="One, two, three,", temperature=0, max_tokens=12, stop=[" five"]
    )
    assert (cut.choices[0].finish_reason, "five" in cut.choices[0].text) == ("stop", False)
    streamed = client.completions.create(
        model="serving", prompt="One, two, three,", temperature=0, max_tokens=12, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in streamed) == answer.choices[0].text


def test_a_promoted_version_answers_under_its_names_and_the_base_stays(served: Served, client) -> None:
    def say(model: str) -> tuple[str, int]:
        answer = client.chat.completions.create(model=model, messages=ASK, temperature=0, max_tokens=24)
        return answer.choices[0].message.content, answer.model_extra["policy_version"]

    base = say("base")
    version = served.serve(seed=3, std=0.05)
    names = [model.id for model in client.models.list()]
    assert {"serving", "previous", "base", "v0", f"v{version}"} <= set(names)
    assert say("serving") == say(f"v{version}")
    assert say("serving")[1] == version
    assert say("serving")[0] != base[0]
    assert say("previous") == base
    assert client.models.retrieve("serving").model_extra["policy_version"] == version


def test_live_answers_are_scored_once_more_and_agree(client) -> None:
    """In float32 one pass over the answer gives what token by token gave, before and after a swap."""
    import time

    import httpx

    def attested() -> dict[str, float]:
        text = httpx.get(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=10).text
        name = "iterpo_inference_attested_tokens_total"
        found = (line.removeprefix(name).split() for line in text.splitlines() if line.startswith(name))
        return {labels.split('"')[1]: float(value) for labels, value in found}

    before = attested().get("inside", 0.0)
    deadline = time.monotonic() + 30
    while attested().get("inside", 0.0) < before + 30 and time.monotonic() < deadline:  # an answer may be short
        for model in ("base", "serving"):
            client.chat.completions.create(model=model, messages=ASK, max_tokens=20)
            time.sleep(1.0)
    assert attested()["inside"] >= before + 30
    assert attested().get("outside", 0.0) == 0.0


def test_errors_are_the_client_s_own_kinds(client) -> None:
    with pytest.raises(openai.NotFoundError, match="gpt-4"):
        client.chat.completions.create(model="gpt-4", messages=ASK)
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model="serving", messages=ASK, temperature=9)
    with pytest.raises(openai.BadRequestError, match="context"):
        client.chat.completions.create(model="serving", messages=ASK, max_tokens=5000)
    with pytest.raises(openai.BadRequestError, match="tools"):
        client.chat.completions.create(
            model="serving", messages=ASK, tools=[{"type": "function", "function": {"name": "f"}}]
        )
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="serving", input="x")


def test_a_client_that_hangs_up_leaves_no_request_behind(served: Served, client) -> None:
    import time

    with client.chat.completions.create(model="serving", messages=ASK, max_tokens=200, stream=True) as stream:
        next(iter(stream))
        assert served.in_flight() >= 1
    deadline = time.monotonic() + 10
    while served.in_flight() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert served.in_flight() == 0
