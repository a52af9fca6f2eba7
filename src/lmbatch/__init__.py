"""lmbatch: from a raw corpus to a trained language model on a cluster.

The data flows one way, and so do the imports::

    corpus ─▶ tokens ─▶ shards ─▶ preprocess ─▶ manifest.json (in a store)
                                                    │
    infer ◀─ export ◀─ checkpoint ◀─ train ◀─ loader ◀─┘

``errors``, ``config`` and ``store`` lie below everything; ``launch``, ``report`` and ``cli`` lie above
everything and nothing imports them.
"""

__version__ = "0.1.0"
