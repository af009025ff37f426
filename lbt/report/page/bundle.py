"""The page's file: its template, style, scripts and libraries in one, with a policy that admits nothing else."""

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import orjson
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

ASSETS = Path(__file__).with_name("assets")
LIBRARIES = ("vendor/d3.min.js", "vendor/plot.umd.min.js")
SCRIPTS = (
    "dom", "data", "state", "series", "chart", "legend", "filters", "table", "chosen", "compare", "charts", "grids",
    "main",
)  # fmt: skip
_IN_SCRIPT = {
    b"<": rb"\u003c",
    b">": rb"\u003e",
    b"&": rb"\u0026",
    "\u2028".encode(): rb"\u2028",
    "\u2029".encode(): rb"\u2029",
}


def render(content: Mapping[str, Any], islands: Mapping[str, Any]) -> str:
    """Returns the page.

    Args:
        content: what the template shows; texts of records among it are escaped there.
        islands: name -> data for the script.
    """
    style = _read("style.css")
    scripts = [*map(_read, LIBRARIES), _application()]
    policy = (
        f"default-src 'none'; script-src {' '.join(map(_hash, scripts))}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            **content,
            policy=policy,
            style=Markup(style),
            scripts=[Markup(script) for script in scripts],
            licences=_read("vendor/LICENSES.txt"),
            islands={name: Markup(island(data)) for name, data in islands.items()},
        )
    )


def island(data: Any) -> str:
    """Returns data as JSON that ends no script and begins no tag, whatever its texts are."""
    text = orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)
    for letter, written in _IN_SCRIPT.items():
        text = text.replace(letter, written)
    return text.decode()


def markdown(text: str) -> Markup:
    """Returns Markdown that this program wrote as HTML: no tags of its own, no images."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = parser.parse(text)
    for token in tokens:
        if "style" in token.attrs:  # a column's side; the policy admits no style here
            token.attrs = {"class": "n"} if "right" in str(token.attrs["style"]) else {}
    return Markup(parser.renderer.render(tokens, parser.options, {}))


def inline(text: str) -> Markup:
    """Returns one line of our own Markdown as HTML, of which only `code` is markup."""
    parts = str(text).split("`")
    whole = len(parts) % 2 == 1
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if whole and place % 2 else escape(part)
        for place, part in enumerate(parts)
    )


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"inline": inline, "markdown": markdown}
    return made


@cache
def _read(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


@cache
def _application() -> str:
    """Returns the page's own scripts, in one scope."""
    parts = [_read(f"js/{name}.js") for name in SCRIPTS]
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "\n})();\n"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
