"""The page for trying a model in a browser.

::

    browser ──▶ server (uvicorn, limits, login) ──▶ page (Gradio) ──▶ writing ──▶ GenerationQueue (infer.batching)
                                                     ▲     ▲
                                    presets (settings)     about (the model's card as a table)

A model that was trained from scratch on plain text continues texts; it answers no questions. So the page is one for
completions with a history: every line of it is a prompt and what the model made of it. Called by ``cli``.
"""

from lmbatch.chat.options import ChatOptions

__all__ = ["ChatOptions"]
