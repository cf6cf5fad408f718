"""The pages in a real browser against a real labeling process, by keyboard: what was pressed is what is stored."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iterpo.types import Label, Outcome
from tests.page.browser import CHROMIUM, HOW_TO_INSTALL, Person, chromium, eventually
from tests.page.page_process import PageService, page_service

pytest.importorskip("playwright", reason=HOW_TO_INSTALL)

pytestmark = [
    pytest.mark.page,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=HOW_TO_INSTALL),
]

HOSTILE = (
    "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'><svg onload='window.pwned = 1'>"
    "<iframe srcdoc='<script>parent.pwned = 1</script>'></iframe><style>body { display: none }</style>"
    "[click](javascript:window.pwned=1) ![pixel](https://evil.example/pixel.png) [link](https://evil.example)"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def service(tmp_path: Path) -> Iterator[PageService]:
    with page_service(tmp_path, 'guideline = "care"') as running:
        yield running


def pairs(count: int, start: int = 0) -> list[tuple[str, str, str]]:
    return [(f"Question {n}?", f"Answer one of {n}.", f"Answer two of {n}.") for n in range(start, start + count)]


class Pressed:
    """What a person meant, by the texts that he saw."""

    def __init__(self) -> None:
        self.meant: dict[frozenset[str], tuple[str, int, str]] = {}

    def note(self, answers: tuple[str, str], outcome: str, strength: int = 0, rationale: str = "") -> None:
        winner = {"first": answers[0], "second": answers[1]}.get(outcome, outcome)
        self.meant[frozenset(answers)] = (winner, strength, rationale)


def stored(service: PageService, labels: list[Label]) -> dict[frozenset[str], tuple[str, int, str]]:
    """The same, from the store's labels."""
    found = {}
    for label in labels:
        first, second = service.texts[label.first_id], service.texts[label.second_id]
        winner = {Outcome.FIRST: first, Outcome.SECOND: second}.get(label.outcome, label.outcome.value)
        found[frozenset((first, second))] = (winner, label.strength, label.rationale)
    return found


def test_twenty_tasks_by_keyboard_are_stored_as_they_were_pressed(browser: Any, service: PageService) -> None:
    service.record(pairs(20))
    ann = Person.at(browser, service.address)
    ann.sign_in("ann")
    pressed = Pressed()
    plan = [
        ("a", "first", 0), ("b", "second", 0), (["Shift+A"], "first", 3), (["Shift+B"], "second", 3), ("t", "tie", 0),
        ("n", "both_bad", 0), ("s", "skip", 0), ("1a", "first", 1), ("2b", "second", 2), ("31a", "first", 1),
        ("33a", "first", 0), ("2t", "tie", 0),
    ]  # fmt: skip
    for number in range(20):
        keys, outcome, strength = plan[number % len(plan)]
        answers = ann.answers()
        assert ann.focused == "task-title"
        if number == 4:
            # The label before is taken back, and given anew: its task comes again, in the same order.
            before = ann.shown
            ann.press("u")
            ann.page.wait_for_function("before => document.getElementById('main').dataset.shown !== before", arg=before)
            again = ann.answers()
            assert frozenset(again) in pressed.meant
            assert "taken back" in ann.status
            ann.choose("t")
            pressed.note(again, "tie")
            assert ann.answers() == answers
        if number == 8:
            ann.press("r")
            ann.page.keyboard.type("Half a reason, s")
            ann.page.reload()
            assert ann.answers() == answers
            ann.press("r", "End")
            ann.page.keyboard.type("aved.")
            ann.press("Escape")
            assert ann.focused == "task-title"
        ann.choose(*keys)
        pressed.note(answers, outcome, strength, "Half a reason, saved." if number == 8 else "")
    ann.wait_for("empty")
    labels = service.labels()
    assert len(labels) == 20
    assert stored(service, labels) == pressed.meant
    assert {label.presented_swapped for label in labels} == {True, False}
    assert all(0.2 < label.duration_seconds < 60 for label in labels)
    assert ann.page.locator("#labels-today").inner_text() == "20"
    # From the empty page, too.
    ann.press("u")
    ann.answers()
    assert len(service.labels()) == 19
    assert ann.said == []


def test_aspects_are_rated_by_keyboard_and_swapped_back(browser: Any, service: PageService) -> None:
    service.record(pairs(1))
    ann = Person.at(browser, service.address)
    ann.sign_in("ann")
    first, _ = ann.answers()
    for _ in range(30):
        if ann.page.evaluate("document.activeElement.name") == "aspect-0":
            break
        ann.press("Tab")
    ann.press("ArrowRight")  # A is more helpful
    ann.press("Tab", "ArrowRight", "ArrowRight")  # equally honest
    ann.choose("b")
    (label,) = service.labels()
    task_order = Outcome.FIRST if service.texts[label.first_id] == first else Outcome.SECOND
    assert label.aspects == {"helpful": task_order, "honest": Outcome.TIE}
    assert label.outcome is not task_order
    assert label.guideline_version


def test_the_guideline_help_views_and_giving_back_have_keys(browser: Any, service: PageService) -> None:
    service.record([("Q", "The **cat** sat.", "The **dog** sat."), *pairs(1)])
    ann = Person.at(browser, service.address)
    ann.sign_in("ann")
    assert set(ann.answers()) == {"The cat sat.", "The dog sat."}
    ann.press("m")
    assert "**" in ann.answers()[0]
    ann.press("d")
    assert set(ann.page.locator("mark").all_inner_texts()) == {"**cat**", "**dog**"}
    ann.press("d", "m")
    ann.press("g")
    assert "Length is no merit" in ann.page.locator("#guideline").inner_text()
    ann.press("a")  # in a dialog no key labels
    ann.press("Escape", "?")
    assert ann.page.locator("#help").is_visible()
    ann.press("Escape", "x")
    ann.press("ArrowDown")
    ann.choose("Enter")
    assert "You gave the task back." in ann.status
    assert set(ann.answers()) == {"Answer one of 0.", "Answer two of 0."}
    ann.choose("a")
    ann.wait_for("empty")
    assert "hold the open tasks, or you have labelled" in ann.page.locator("#empty-text").inner_text()
    assert len(service.labels()) == 1
    assert ann.said == []


def test_a_lease_is_extended_while_the_person_is_active_and_a_late_label_counts(browser: Any, tmp_path: Path) -> None:
    with page_service(tmp_path, "lease_seconds = 3.0") as service:
        service.record(pairs(2))
        ann = Person.at(browser, service.address)
        ann.sign_in("ann")
        answers = ann.answers()
        ann.press("r")
        for _ in range(8):
            ann.page.keyboard.type("x")
            ann.page.wait_for_timeout(600)
        assert "run out" not in ann.notice
        ann.press("Escape")
        ann.page.wait_for_selector("#countdown:not([hidden])")
        ann.wait_for_notice("has run out")
        ann.choose("a")
        pressed = Pressed()
        pressed.note(answers, "first", rationale="x" * 8)
        assert stored(service, service.labels()) == pressed.meant
        # The next one runs out as well, and somebody else takes it.
        late = ann.answers()
        ann.wait_for_notice("has run out")
        bob = Person.at(browser, service.address)
        bob.sign_in("bob")
        assert set(bob.answers()) == set(late)
        ann.choose("b")
        assert "was not counted" in ann.notice
        assert "others" in ann.notice
        bob.choose("t")
        assert [label.annotator for label in service.labels()] == ["ann", "bob"]
        assert ann.said == bob.said == []


def test_a_label_survives_the_server_being_killed_and_counts_once(browser: Any, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("annotator-token-1 = annotator\nadmin-token-123456 = admin\n")
    auth = f'[auth]\ntokens_file = "{tokens}"'
    with page_service(tmp_path / "server", "", auth, "admin-token-123456") as service:
        service.record(pairs(3))
        ann = Person.at(browser, service.address)
        ann.press("Tab")
        ann.page.keyboard.press("Shift+Tab")
        ann.sign_in("ann", "annotator-token-1")
        pressed = Pressed()
        pressed.note(answers := ann.answers(), "second", 2, "kept")
        ann.press("2", "r")
        ann.page.keyboard.type("kept")
        ann.press("Escape")
        service.kill()
        ann.press("b")
        ann.wait_for_notice("kept in this browser")
        ann.page.wait_for_timeout(700)
        service.start()
        ann.page.wait_for_function("() => document.getElementById('main').dataset.shown === '2'")
        assert ann.page.locator("#notice").is_hidden()
        assert stored(service, service.labels()) == pressed.meant

        # The label is stored, and its answer is lost: three times, then the page is closed.
        second = ann.answers()
        assert set(second) != set(answers)
        lost: list[int] = []

        def lose(route: Any) -> None:
            route.fetch()
            lost.append(1)
            route.abort()

        ann.page.route("**/api/label", lose)
        ann.press("a")
        assert eventually(lambda: len(lost) >= 3 or ann.page.wait_for_timeout(50) is not None)
        pressed.note(second, "first")
        ann.page.unroute_all(behavior="ignoreErrors")
        ann.page.reload()
        ann.answers()
        assert stored(service, service.labels()) == pressed.meant
        assert len(service.labels()) == 2
        assert ann.page.evaluate("Object.keys(localStorage).filter(key => key.includes('outbox')).length") == 0


def test_two_people_label_the_same_items(browser: Any, tmp_path: Path) -> None:
    with page_service(tmp_path, "required_labels = 2.0") as service:
        service.record(pairs(3))
        ann, bob = Person.at(browser, service.address), Person.at(browser, service.address)
        ann.sign_in("ann")
        bob.sign_in("bob")
        meant = {"ann": Pressed(), "bob": Pressed()}
        for _ in range(3):
            meant["ann"].note(ann.answers(), "first")
            meant["bob"].note(bob.answers(), "second")
            ann.choose("a")
            bob.choose("b")
        for person in (ann, bob):
            person.wait_for("empty")
            mine = [label for label in service.labels() if label.annotator == person.name]
            assert stored(service, mine) == meant[person.name].meant
        assert "Every task has its labels" in bob.page.locator("#empty-text").inner_text()
        # A new task appears by itself, to one of them at a time.
        service.record(pairs(1, start=9))
        assert set(ann.answers()) == {"Answer one of 9.", "Answer two of 9."}


def test_hostile_text_does_nothing(browser: Any, service: PageService) -> None:
    service.record([
        (HOSTILE, HOSTILE + " one", "The answer is \u202eton\u202c yes.\u200b two"),
        ("Long", "word " * 20_000, "<script>window.pwned = 1</script>" * 3_200),
        ("Deep", "> " * 5_000 + "- " * 3_000 + "x", "[" * 3_000 + "`" * 3_000),
    ])  # fmt: skip
    ann = Person.at(browser, service.address)
    requests: list[str] = []
    ann.page.on("request", lambda request: requests.append(request.url))
    ann.sign_in("ann")
    shown = []
    for _ in range(3):
        for key in ("", "m", "d", "d", "m"):
            if key:
                ann.press(key)
            shown += ann.answers()
            assert ann.overflow() == 0
        inside = (
            "document.querySelectorAll('.text :is(script, img, svg, iframe, style, a, form, input, object)').length"
        )
        assert ann.page.evaluate(inside) == 0
        assert ann.page.evaluate("window.pwned") is None
        ann.choose("a")
    everything = "\n".join(shown)
    assert "⟨U+202E⟩ton⟨U+202C⟩" in everything
    assert "⟨U+200B⟩" in everything
    assert "<script>window.pwned = 1</script>" in everything
    assert "[image: pixel]" in everything
    assert {re.match(r"https?://[^/]+", url)[0] for url in requests} == {service.address}  # type: ignore[index]
    assert ann.said == []


def test_a_phone_needs_no_sideways_scrolling_in_either_theme(browser: Any, service: PageService) -> None:
    wide = (
        "| a | b | c | d |\n|---|---|---|---|\n| " + "wide " * 9 + "| x | y | z |\n\n```\n" + "code_" * 60 + "\n```\n"
    )
    service.record([("Q" * 300, wide + "w" * 400, "https://example.org/" + "x" * 300)])
    phone = {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark", "has_touch": True, "is_mobile": True}
    ann = Person.at(browser, service.address, **phone)
    assert ann.overflow() == 0
    ann.sign_in("ann")
    ann.answers()
    assert ann.overflow() == 0
    box = [ann.page.locator(f"#answer-{side}").bounding_box() for side in "ab"]
    assert box[0]
    assert box[1]
    assert box[0]["y"] + box[0]["height"] <= box[1]["y"]
    background = "getComputedStyle(document.body).backgroundColor"
    assert ann.page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert ann.page.evaluate(background) == "rgb(20, 24, 31)"
    for key in ("d", "d", "g", "Escape", "x", "Escape", "?"):
        ann.press(key)
        assert ann.overflow() == 0
    ann.press("Escape")
    ann.page.locator("#theme").click()
    assert ann.page.evaluate(background) == "rgb(244, 245, 247)"
    ann.page.reload()
    ann.wait_for("ready")
    assert ann.page.evaluate(background) == "rgb(244, 245, 247)"
    ann.page.goto(f"{service.address}/lead")
    ann.wait_for("ready")
    assert ann.overflow() == 0


def test_contrast_is_at_least_double_a(browser: Any, service: PageService) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1 for text, in both themes. Computed from what the browser computed."""
    script = """() => {
      const channel = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
      const share = [0.2126, 0.7152, 0.0722];
      const light = (rgb) => rgb.reduce((sum, v, i) => sum + channel(v / 255) * share[i], 0);
      const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
      const ground = (element) => {
        for (let e = element; e; e = e.parentElement) {
          const found = numbers(getComputedStyle(e).backgroundColor);
          if (found.length === 3 || found[3] > 0) return found.slice(0, 3);
        }
        return [255, 255, 255];
      };
      const found = [];
      for (const element of document.querySelectorAll("body *")) {
        const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
        if (!own || !element.checkVisibility() || element.disabled || element.closest("button:disabled")) continue;
        const [a, b] = [numbers(getComputedStyle(element).color).slice(0, 3), ground(element)].map(light);
        found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.outerHTML.slice(0, 80)]);
      }
      return found;
    }"""
    service.record([("Q", "See [this](https://a.example) ![i](x) **now**.", "> *Well*, `no`.")])
    for scheme in ("light", "dark"):
        ann = Person.at(browser, service.address, color_scheme=scheme)
        ann.sign_in("ann")
        ann.answers()
        for keys in ((), ("d",), ("Escape", "?"), ("Escape", "g")):
            ann.press(*keys)
            found = ann.page.evaluate(script)
            assert len(found) > 20
            assert min(found)[0] >= 4.5, min(found)


def test_keys_are_changed_in_the_help_and_conflicts_refused(browser: Any, service: PageService) -> None:
    service.record(pairs(2))
    ann = Person.at(browser, service.address)
    ann.sign_in("ann")
    pressed = Pressed()
    pressed.note(ann.answers(), "tie")
    ann.press("?")
    change = ann.page.locator("button[data-bind=tie]")
    change.focus()
    ann.press("Enter", "a")
    assert "is already the key of “A is better”" in ann.page.locator("#key-error").inner_text()
    ann.press("Enter", "j", "Escape")
    assert "j" in ann.page.locator("button[data-action=tie]").inner_text()
    ann.press("t")  # nothing any more
    ann.choose("j")
    ann.page.reload()
    pressed.note(ann.answers(), "tie")
    ann.press("?")
    ann.page.locator("#reset-keys").focus()
    ann.press("Enter", "Escape", "j")
    ann.choose("t")
    assert stored(service, service.labels()) == pressed.meant
    assert ann.said == []


def test_caps_lock_and_held_keys_do_not_label(browser: Any, service: PageService) -> None:
    service.record(pairs(3))
    ann = Person.at(browser, service.address)
    ann.sign_in("ann")
    ann.answers()
    ann.page.keyboard.down("a")
    for _ in range(20):
        ann.page.keyboard.down("a")  # the same key held: the browser repeats it
        ann.page.wait_for_timeout(50)
    ann.page.keyboard.up("a")
    assert len(service.labels()) == 1
    ann.answers()
    ann.page.evaluate("document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'B', bubbles: true }))")
    assert eventually(lambda: len(service.labels()) == 2)
    assert [label.strength for label in service.labels()] == [0, 0]


def test_a_lead_excludes_somebody_and_readmits_him(browser: Any, service: PageService) -> None:
    service.record(pairs(4), versions=(1, 2))
    ann = Person.at(browser, service.address)
    ann.sign_in("ann")
    for key in "ab":
        ann.answers()
        ann.choose(key)
    ann.answers()
    lead = Person.at(browser, service.address)
    lead.sign_in("lea")
    lead.page.goto(f"{service.address}/lead")
    lead.wait_for("ready")
    row = lead.page.locator("tr[data-annotator=ann]")
    assert "ok" in row.inner_text()
    assert lead.page.locator("#policies tr").count() == 2
    assert "undefined" in lead.page.locator("#agreement").inner_text()
    assert "No item has labels of two people yet" in lead.page.locator("#agreement-words").inner_text()
    row.locator("button").focus()
    lead.press("Enter")
    lead.page.keyboard.type("Chooses at random.")
    lead.press("Tab", "Tab", "Enter")
    lead.page.wait_for_selector("tr[data-annotator=ann] .state[data-state=excluded]")
    assert "Chooses at random." in row.inner_text()
    ann.press("a")
    ann.wait_for("empty")
    assert "taken out" in ann.notice + ann.page.locator("#empty-text").inner_text()
    assert len(service.labels()) == 2
    lead.page.wait_for_function("() => document.activeElement.textContent === 'Readmit'")
    lead.press("Enter")
    lead.page.keyboard.type("We talked.")
    lead.press("Tab", "Tab", "Enter")
    lead.page.wait_for_selector("tr[data-annotator=ann] .state[data-state=ok]")
    ann.wait_for("ready")
    assert lead.said == []


def test_the_process_ends_in_order_with_browsers_connected(browser: Any, service: PageService) -> None:
    service.record(pairs(1))
    ann = Person.at(browser, service.address)
    ann.sign_in("ann")
    ann.answers()
    assert service.terminate() == 0
    assert "Traceback" not in service.log
