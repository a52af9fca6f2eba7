"""What cutting documents into examples threw away."""

from __future__ import annotations

from lmbatch.report.corpus import CorpusReport
from lmbatch.report.html.charts import bar
from lmbatch.report.html.elements import Html, element, section, table
from lmbatch.report.html.figures import count, share


def chunking_section(report: CorpusReport) -> Html:
    """The sum over tokens; nothing for a corpus whose documents were not cut."""
    chunking, tokens = report.plan.config.chunking, report.ledger.tokens
    if chunking is None or tokens is None:
        return Html("")
    sums = [("tokens of all documents", tokens.encoded), ("+ ends of documents added", tokens.eod)]
    sums += [(f"− thrown away: {reason}", number) for reason, number in sorted(tokens.thrown_away.items())]
    rows = [(name, count(n), share(n, tokens.encoded), bar(n, tokens.encoded)) for name, n in sums]
    rows.append(("= tokens written", count(tokens.written), share(tokens.written, tokens.encoded), Html("")))
    if tokens.padding is not None:
        padding, all_tokens = tokens.padding, tokens.encoded
        cells = count(padding), share(padding, all_tokens), bar(padding, all_tokens)
        rows.append(("padding of the examples, not stored", *cells))
    length = f", at most {count(chunking.length)} tokens each" if chunking.length else ""
    return section(
        "chunking",
        "Cut into examples",
        element("p", "Mode ", element("code", chunking.mode), f"{length}."),
        table("Tokens of the examples", ("", "tokens", "of all", ""), rows, numbers=(1, 2), bars=(3,)),
    )
