"""What every page has: its head, which lets nothing run and fetches nothing, its overview, its foot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lmbatch import __version__
from lmbatch.report.html.elements import Html, element
from lmbatch.report.html.style import STYLE

# Nothing is fetched and nothing runs, whatever a text on the page may say.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(title: str, overview: Sequence[Html], sections: Iterable[Html], source: str) -> str:
    """The whole file, UTF-8. ``source`` is what it was written from, in words."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("link", rel="icon", href="data:,"),
        element("title", f"{title} · lmbatch"),
        element("style", Html(STYLE)),
    )
    body = element(
        "body",
        element("header", element("h1", title), *overview),
        element("main", *sections),
        element("footer", element("p", f"Written by lmbatch {__version__} from {source}")),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def tiles(shown: Iterable[tuple[str, str, str]]) -> Html:
    """Name, figure and a note below it, side by side."""
    return element(
        "dl",
        *(element("div", element("dt", name), element("dd", value, element("small", note)))
          for name, value, note in shown),
        class_="tiles",
    )  # fmt: skip
