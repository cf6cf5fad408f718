"""Markdown that a policy wrote, as HTML that does nothing: no HTML of its own, no image is loaded, no link leads away.

A policy may write anything, and a hostile one will. So HTML is off and shows as text, an image is its description, a
link is its text with the address beside it, and hidden characters are named (visible.py). Parsers of Markdown take
quadratic time on made-up text; what is long, or has what that takes, is shown as it is. The page's
Content-Security-Policy is the second lock: it would load and run nothing of what got through here.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.renderer import RendererHTML, RendererProtocol
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from markdown_it.utils import OptionsDict

from services.labeling.page.visible import visible

LONGEST_FORMATTED = 20_000
"""Characters. Longer texts are shown as they are."""
MOST_BRACKETS = 2_000
"""Of `[` in a formatted text: 10,000 of them cost 0.22 s [measured, markdown-it-py 4.3]."""
MOST_CELLS = 64
"""Of `|` in a line of a formatted text: a wide head over thousands of short rows becomes megabytes of empty cells."""
HEADING_OFFSET = 3
"""Answers stand under the page's own headings."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One text as the page gets it."""

    text: str
    """As it was written, hidden characters named."""
    html: str
    """Inert."""
    formatted: bool
    """False: too long to be formatted."""

    @classmethod
    def of(cls, text: str) -> Shown:
        plain = visible(text)
        if _may_be_slow(plain):
            return cls(plain, f'<pre class="plain" dir="auto">{escapeHtml(plain)}</pre>', formatted=False)
        return cls(plain, _MARKDOWN.render(plain), formatted=True)

    def as_json(self) -> dict[str, Any]:
        return {"text": self.text, "html": self.html, "formatted": self.formatted}


def _may_be_slow(text: str) -> bool:
    return (
        len(text) > LONGEST_FORMATTED
        or text.count("[") > MOST_BRACKETS
        or any(line.count("|") > MOST_CELLS for line in text.split("\n"))
    )


def _make_inert(state: StateCore) -> None:
    """Blocks find their own direction, headings stay below the page's, cells are aligned by class (the page's policy
    refuses style attributes), and a link's end knows its address."""
    for token in state.tokens:
        if token.nesting == 1 or token.type in {"fence", "code_block"}:
            token.attrSet("dir", "auto")
        if token.tag in {"h1", "h2", "h3", "h4", "h5", "h6"}:
            token.tag = f"h{min(int(token.tag[1]) + HEADING_OFFSET, 6)}"
        style = token.attrs.pop("style", "")
        if style:
            token.attrSet("class", str(style).replace("text-align:", "align-"))
        _tell_addresses(token.children or [])


def _tell_addresses(tokens: Sequence[Token]) -> None:
    open_links: list[Token] = []
    for token in tokens:
        if token.type == "link_open":
            open_links.append(token)
        elif token.type == "link_close" and open_links:
            opened = open_links.pop()
            token.meta["address"] = "" if opened.info == "auto" else str(opened.attrs.get("href", ""))


def _image(
    renderer: RendererProtocol, tokens: Sequence[Token], index: int, options: OptionsDict, env: MutableMapping[str, Any]
) -> str:
    assert isinstance(renderer, RendererHTML)
    description = renderer.renderInlineAsText(tokens[index].children, options, env)
    return f'<span class="image">[image: {escapeHtml(description)}]</span>'


def _link_open(
    _renderer: RendererProtocol, _tokens: Sequence[Token], _index: int, _options: OptionsDict, _env: Any
) -> str:
    return '<span class="link">'


def _link_close(
    _renderer: RendererProtocol, tokens: Sequence[Token], index: int, _options: OptionsDict, _env: Any
) -> str:
    address = str(tokens[index].meta.get("address", ""))
    beside = f' <bdi class="address">({escapeHtml(address)})</bdi>' if address else ""
    return f"</span>{beside}"


def _code(_renderer: RendererProtocol, tokens: Sequence[Token], index: int, _options: OptionsDict, _env: Any) -> str:
    return f'<pre dir="auto"><code>{escapeHtml(tokens[index].content)}</code></pre>\n'


def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    markdown.core.ruler.push("make_inert", _make_inert)
    for name, rule in {
        "image": _image,
        "link_open": _link_open,
        "link_close": _link_close,
        "fence": _code,
        "code_block": _code,
    }.items():
        markdown.add_render_rule(name, rule)
    return markdown


_MARKDOWN = _markdown()
