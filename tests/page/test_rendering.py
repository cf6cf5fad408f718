"""Whatever a policy writes is shown, and does nothing."""

from __future__ import annotations

import time
from html.parser import HTMLParser

import pytest

from services.labeling.page.rendering import LONGEST_FORMATTED, Shown
from services.labeling.page.visible import LONGEST_SHOWN, visible
from services.labeling.page.word_diff import MOST_WORDS, word_diff

ELEMENTS = {
    *("p", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "em", "strong", "s", "br", "hr", "span"),
    *("bdi", "table", "thead", "tbody", "tr", "th", "td"),
}
ATTRIBUTES = {"class", "dir", "start"}


class Inventory(HTMLParser):
    """The elements and attributes that a browser would make of it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}


HOSTILE = {
    "script": "<script>window.pwned = 1</script>",
    "handler": "<img src=x onerror='window.pwned = 1'> <b onmouseover=alert(1)>x</b>",
    "split tag": "<scr\nipt>alert(1)</scr\nipt>",
    "comment": "<!-- --><iframe src='https://evil.example'></iframe>",
    "javascript link": "[click](javascript:alert(1)) [click](JaVaScRiPt:alert(1)) <javascript:alert(1)>",
    "data link": "[x](data:text/html;base64,PHNjcmlwdD4=) ![x](data:image/svg+xml,<svg/onload=alert(1)>)",
    "link": '[x](https://evil.example/?q="onclick="alert(1) "title\' onload=alert(1)")',
    "image": '![a <b>"alt"</b>](https://evil.example/pixel.png "t")',
    "autolink": "<https://evil.example/?<script>>",
    "reference": '[x][1]\n\n[1]: https://evil.example "><script>alert(1)</script>"',
    "fence": "```html onload=alert(1)\n<script>alert(1)</script>\n```",
    "fence language": '```"><script>alert(1)</script>\nx\n```',
    "code": "`<script>alert(1)</script>`",
    "table": "|a<script>|b|\n|:-:|-:|\n|<img onerror=alert(1)>|x|",
    "style": "<style>body{display:none}</style><link rel=stylesheet href=//evil.example>",
    "entities": "&lt;script&gt;alert(1)&lt;/script&gt; &#60;script&#62;",
    "form": "<form action=//evil.example><input name=token autofocus onfocus=alert(1)></form>",
    "long": "<script>alert(1)</script>" * 1_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_becomes_text(name: str) -> None:
    found = Inventory(Shown.of(HOSTILE[name]).html)
    assert found.elements <= ELEMENTS
    assert found.attributes <= ATTRIBUTES


def test_the_inventory_would_see_a_script() -> None:
    """Negative control of the test above."""
    found = Inventory("<p><script src=x></script><img onerror=x></p>")
    assert {"script", "img"} <= found.elements
    assert {"src", "onerror"} <= found.attributes


def test_markdown_is_formatted_below_the_pages_own_headings() -> None:
    html = Shown.of("# Title\n\n*so* **it** is\n\n- a\n- b\n\n| x | y |\n|---|--:|\n| 1 | 2 |").html
    assert '<h4 dir="auto">Title</h4>' in html
    assert "<em>so</em> <strong>it</strong>" in html
    assert '<td dir="auto" class="align-right">2</td>' in html


def test_an_image_is_its_description_and_a_link_shows_where_it_leads() -> None:
    html = Shown.of("![a cat](https://a.example/c.png) and [here](https://b.example/x)").html
    assert '<span class="image">[image: a cat]</span>' in html
    assert '<span class="link">here</span> <bdi class="address">(https://b.example/x)</bdi>' in html
    assert "a.example" not in html
    assert "href" not in html


def test_an_address_that_is_its_own_text_is_not_said_twice() -> None:
    assert Shown.of("<https://b.example>").html.count("b.example") == 1


@pytest.mark.parametrize(
    ("hidden", "shown"),
    [
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("\u2066x\u2069", "⟨U+2066⟩x⟨U+2069⟩"),
        ("a\u200bb\u200f", "a⟨U+200B⟩b⟨U+200F⟩"),
        ("a\u00adb\ufeff", "a⟨U+00AD⟩b⟨U+FEFF⟩"),
        ("\x00\x07\x1b[31m\x7f", "⟨U+0000⟩⟨U+0007⟩⟨U+001B⟩[31m⟨U+007F⟩"),
        ("\U000e0041", "⟨U+E0041⟩"),
        ("a\tb\nc\r\nd", "a\tb\nc\nd"),
        ("grüß 你好 مرحبا", "grüß 你好 مرحبا"),
    ],
)
def test_what_cannot_be_seen_is_named(hidden: str, shown: str) -> None:
    assert visible(hidden) == shown
    assert Shown.of(hidden).text == shown


def test_text_of_each_direction_stands_alone() -> None:
    """A right-to-left paragraph must not turn its neighbours around."""
    assert Shown.of("مرحبا\n\nhello").html.count('<p dir="auto">') == 2


SLOW = {
    "brackets": "[" * LONGEST_FORMATTED,
    "images": "![" * (LONGEST_FORMATTED // 2),
    "links": "[a](" * (LONGEST_FORMATTED // 4),
    "stars": "*a_ " * (LONGEST_FORMATTED // 4),
    "quotes": ">" * LONGEST_FORMATTED,
    "lists": "- " * (LONGEST_FORMATTED // 2),
    "nested lists": "".join("  " * depth + "- a\n" for depth in range(135)),
    "ticks": "".join("a" + "`" * i for i in range(190)),
    "wide table": "|a" * 2_000 + "|\n" + "|-" * 2_000 + "|\n" + "a\n" * 2_000,
    "html": "<a b='" * (LONGEST_FORMATTED // 6),
    "100 KB of Markdown": "*a* [b](c) `d`\n\n" * 6_400,
    "100 KB without a space": "a" * 100_000,
    "100 KB of tags": "<b>" * 34_000,
    "2 MB": "word " * 400_000,
}


HONEST = ("*a* [b](c) `d`\n\n" * LONGEST_FORMATTED)[:LONGEST_FORMATTED]


@pytest.mark.parametrize("name", SLOW)
def test_made_up_text_takes_no_time_and_does_not_swell(name: str) -> None:
    """No text takes longer than an honest one that is as long, twice over for noise: some 100 ms of an old core."""
    text = SLOW[name]
    best, honest = (min(_timed(each) for _ in range(3)) for each in (text, HONEST))
    assert best < 2 * honest
    assert len(Shown.of(text).html) < 12 * min(len(text), LONGEST_SHOWN) + 1_000


def _timed(text: str) -> float:
    started = time.process_time()
    Shown.of(text)
    return time.process_time() - started


def test_a_long_text_is_shown_as_it_is_and_says_so() -> None:
    shown = Shown.of("*a* <b>" * 4_000)
    assert not shown.formatted
    assert shown.html.startswith('<pre class="plain" dir="auto">*a* &lt;b&gt;*a*')


def test_what_nobody_could_read_is_cut_and_counted() -> None:
    assert visible("a" * (LONGEST_SHOWN + 7)).endswith("⟨7 more characters are not shown⟩")


def test_differences_are_marked_in_both_answers() -> None:
    assert word_diff("The cat sat down.", "The dog sat  down.") == (
        [("The", False), (" cat", True), (" sat down.", False)],
        [("The", False), (" dog", True), (" sat  down.", False)],
    )


def test_a_lone_common_word_between_two_changes_is_marked_with_them() -> None:
    found = word_diff("Rise by the clock now", "Look at the dough now")
    assert found is not None
    assert found[0] == [("Rise by the clock", True), (" now", False)]


@pytest.mark.parametrize("texts", [("", ""), ("same text\n", "same text\n"), (" a  b\n\nc ", "x\ty"), ("a", "")])
def test_segments_join_to_the_answers(texts: tuple[str, str]) -> None:
    found = word_diff(*texts)
    assert found is not None
    assert tuple("".join(text for text, _ in side) for side in found) == texts


def test_answers_that_are_too_long_are_not_compared() -> None:
    assert word_diff("a " * (MOST_WORDS + 1), "a") is None


def test_hostile_answers_are_compared_in_no_time() -> None:
    """Every second word unique on one side, the others at the edge of what difflib calls popular: its worst case."""
    left = " ".join(str(i % 90) for i in range(MOST_WORDS))
    right = " ".join(str(i % 90) if i % 2 else f"u{i}" for i in range(MOST_WORDS))
    started = time.perf_counter()
    assert word_diff(left, right) is not None
    assert time.perf_counter() - started < 0.5
