"""The report of a corpus as one HTML file: no script, no network, nothing beside it.

::

    CorpusReport ──▶ page ──┬── ledger · chunking · lengths · sources · duplicates · samples · work
                            └── elements (text is escaped there, and nowhere else) · charts (SVG) · style (CSS)

Everything here is a pure function to ``Html``; whatever is no ``Html`` is text and gets escaped.
"""

from lmbatch.report.html.page import corpus_page

__all__ = ["corpus_page"]
