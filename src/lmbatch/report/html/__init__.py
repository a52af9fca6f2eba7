"""The report of a corpus, of a run or of several as one HTML file: no script, no network, nothing beside it.

::

    CorpusReport ──▶ page ──────┬── ledger · chunking · lengths · sources · duplicates · samples · work
    RunReport ─────▶ run_page ──┼── run_attempts · run_texts · curves (SVG)
    two of them ───▶ runs_page ─┤
                                └── frame · elements (text is escaped there, and nowhere else) · charts · style (CSS)

Everything here is a pure function to ``Html``; whatever is no ``Html`` is text and gets escaped.
"""

from lmbatch.report.html.page import corpus_page
from lmbatch.report.html.run_page import run_page
from lmbatch.report.html.runs_page import runs_page

__all__ = ["corpus_page", "run_page", "runs_page"]
