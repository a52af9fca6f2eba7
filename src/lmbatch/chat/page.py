"""The page itself: what stands where, and which function a button calls."""

from __future__ import annotations

import asyncio
import html
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import gradio as gr

from lmbatch.chat.about import About
from lmbatch.chat.options import ChatOptions
from lmbatch.chat.presets import FIRST, MOST_BEAMS, NEW_TOKENS, PRESETS, settings_from
from lmbatch.chat.writing import in_words, write
from lmbatch.errors import LmbatchError
from lmbatch.infer.batching import GenerationQueue

Message = dict[str, Any]

_EXCHANGES = 50  # that a page keeps: all of them travel with every request
_FONTS = ("system-ui", "Noto Sans CJK SC", "Source Han Sans SC", "PingFang SC", "Microsoft YaHei", "sans-serif")
_MONO = ("ui-monospace", "Consolas", "Noto Sans Mono CJK SC", "monospace")
_EMPTY = "The model continues the beginning of a text."
_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

CSS = """
.gradio-container { max-width: 1280px !important; margin: 0 auto; }
#head h1 { font-size: 1.35rem; font-weight: 600; margin: 0; }
#head p { margin: .15rem 0 0; opacity: .75; overflow-wrap: anywhere; }
#note { min-height: 1.6em; opacity: .85; }
#note .failed { color: var(--error-text-color, #b91c1c); }
#about table { width: 100%; border-collapse: collapse; font-size: .85rem; }
#about th { text-align: left; font-weight: 500; vertical-align: top; padding: .2rem .6rem .2rem 0; }
#about td { overflow-wrap: anywhere; padding: .2rem 0; }
#buttons button { white-space: nowrap; padding-inline: .4rem; }
#history .message { line-height: 1.7; overflow-wrap: anywhere; }
"""


def theme() -> gr.themes.Base:
    """The default look with the fonts of the reader's machine: none is fetched from anywhere."""
    return gr.themes.Default(font=list(_FONTS), font_mono=list(_MONO))


@dataclass(frozen=True, slots=True)
class Controls:
    """The controls whose values make the settings, by the names that GenerateConfig has for them."""

    by_name: dict[str, Any]

    @property
    def all(self) -> list[Any]:
        """In the order in which a handler gets their values."""
        return list(self.by_name.values())

    def values(self, given: tuple[Any, ...]) -> dict[str, Any]:
        """What a handler got, by name."""
        return dict(zip(self.by_name, given, strict=True))


def build_page(queue: GenerationQueue, model: About, options: ChatOptions) -> gr.Blocks:
    """The whole page. Its requests may run side by side: the queue decides how many do."""
    page = gr.Blocks(title=f"{model.name} · lmbatch", analytics_enabled=False)
    with page:
        gr.HTML(_head(model), elem_id="head")
        with gr.Row(equal_height=False):
            with gr.Column(scale=7, min_width=320):
                talk = _talk(options)
            with gr.Column(scale=3, min_width=280):
                controls = _controls(_most_tokens(queue, options))
                with gr.Accordion("Model", open=False):
                    gr.HTML(_table(model), elem_id="about")
        _wire(queue, options, talk, controls)
    page.queue(max_size=options.rows + options.waiting, default_concurrency_limit=None)
    return page


@dataclass(frozen=True, slots=True)
class _Talk:
    history: gr.Chatbot
    note: gr.HTML
    prompt: gr.Textbox
    write: gr.Button
    go_on: gr.Button
    stop: gr.Button
    clear: gr.Button


def _talk(options: ChatOptions) -> _Talk:
    history = gr.Chatbot(
        elem_id="history", label="History", height="55vh", min_height=260, layout="bubble", placeholder=_EMPTY,
        # A model writes what it likes: no markup, no formula, no picture is made of it.
        render_markdown=False, sanitize_html=True, allow_tags=False, latex_delimiters=[],
        feedback_options=None, buttons=["copy", "copy_all"], group_consecutive_messages=False,
    )  # fmt: skip
    note = gr.HTML("", elem_id="note")
    prompt = gr.Textbox(
        label="Prompt", elem_id="prompt", lines=2, max_lines=8, max_length=options.prompt_characters, autofocus=True,
        placeholder="The beginning of a text, for example 话说天下大势，", info="Shift+Enter writes as well.",
    )  # fmt: skip
    with gr.Row(elem_id="buttons"):
        buttons = [
            gr.Button("Write", variant="primary", elem_id="write", min_width=60),
            gr.Button("Go on", elem_id="go-on", min_width=60),
            gr.Button("Stop", variant="stop", interactive=False, elem_id="stop", min_width=60),
            gr.Button("Clear", elem_id="clear", min_width=60),
        ]
    return _Talk(history, note, prompt, *buttons)


def _controls(most_tokens: int) -> Controls:
    first = PRESETS[FIRST]
    with gr.Accordion("Settings", open=True):
        preset = gr.Radio(list(PRESETS), value=FIRST, label="Preset", elem_id="preset")
        tokens = gr.Slider(1, most_tokens, min(NEW_TOKENS, most_tokens), step=1, label="New tokens", elem_id="tokens")
        beams = gr.Slider(1, MOST_BEAMS, first.num_beams, step=1, label="Beams", info="1: none", elem_id="beams")
        ngram = gr.Slider(
            0, 10, first.no_repeat_ngram_size, step=1, label="No n-gram of this size twice", info="0: allowed"
        )
        temperature = gr.Slider(
            0, 2, first.temperature, step=0.05, label="Temperature", info="0: no sampling", elem_id="temperature"
        )
        with gr.Accordion("More", open=False):
            early = gr.Checkbox(first.early_stopping, label="Beams stop early")
            top_k = gr.Slider(0, 200, first.top_k, step=1, label="Top k", info="0: all tokens")
            top_p = gr.Slider(0.05, 1, first.top_p, step=0.05, label="Top p")
            penalty = gr.Slider(1, 2, first.repetition_penalty, step=0.05, label="Repetition penalty")
            seed = gr.Number(None, label="Seed", info="Empty: another one each time", precision=0, minimum=0)
    by_preset = {
        "num_beams": beams, "early_stopping": early, "no_repeat_ngram_size": ngram, "temperature": temperature,
        "top_k": top_k, "top_p": top_p, "repetition_penalty": penalty,
    }  # fmt: skip

    # In the browser: whoever clicks Write at once gets what was chosen.
    values = {name: [asdict(chosen)[key] for key in by_preset] for name, chosen in PRESETS.items()}
    preset.input(None, preset, list(by_preset.values()), js=f"name => ({json.dumps(values)})[name]", **_QUIET)
    return Controls({"max_new_tokens": tokens, **by_preset, "seed": seed})


def _wire(queue: GenerationQueue, options: ChatOptions, talk: _Talk, controls: Controls) -> None:
    """Which function each button calls. None of them is an API: `lmbatch serve` is one."""
    outputs = [talk.history, talk.note, talk.prompt, talk.write, talk.go_on, talk.clear, talk.stop]
    inputs = [talk.history, talk.prompt, *controls.all]
    beside: dict[str, Any] = {"concurrency_limit": None, **_QUIET}
    begin, again, stop = _handlers(queue, options, controls)
    gr.on([talk.write.click, talk.prompt.submit], begin, inputs, outputs, **beside)
    talk.go_on.click(again, inputs, outputs, **beside)
    talk.stop.click(stop, None, None, **beside)
    talk.clear.click(lambda: ([], ""), None, [talk.history, talk.note], **_QUIET)


Handler = Callable[..., AsyncGenerator[list[Any]]]


def _handlers(
    queue: GenerationQueue, options: ChatOptions, controls: Controls
) -> tuple[Handler, Handler, Callable[[gr.Request], Awaitable[None]]]:
    # A request ends itself when it is stopped: ended from outside, its last picture may come after that of Stop.
    stops: dict[str, asyncio.Event] = {}

    async def run(
        history: list[Message], prompt: str, given: tuple[Any, ...], stop: asyncio.Event
    ) -> AsyncGenerator[list[Any]]:
        try:
            settings = settings_from(controls.values(given), new_tokens=_most_tokens(queue, options))
        except LmbatchError as error:
            yield [history, _line(in_words(error), failed=True), gr.skip(), *_buttons(busy=False)]
            return
        limits: dict[str, Any] = {"characters": options.prompt_characters, "seconds": options.seconds}
        async with aclosing(write(queue, prompt, settings, **limits, stop=stop)) as pictures:
            async for picture in pictures:
                shown = history if picture.failed and not picture.text else _with(history, prompt, picture.text)
                box = gr.skip() if picture.failed else ""
                note = _line(picture.note, failed=picture.failed)
                yield [shown, note, box, *_buttons(busy=not picture.over)]

    async def begin(request: gr.Request, history: list[Message], prompt: str, *given: Any) -> AsyncGenerator[list[Any]]:
        with _listed(stops, request) as stop:
            async with aclosing(run(history, prompt, given, stop)) as states:
                async for state in states:
                    yield state

    async def again(
        request: gr.Request, history: list[Message], _prompt: str, *given: Any
    ) -> AsyncGenerator[list[Any]]:
        last = plain_text(history[-1]) if history else ""
        with _listed(stops, request) as stop:
            async with aclosing(run(history, last, given, stop)) as states:
                async for state in states:
                    yield [*state[:2], gr.skip(), *state[3:]]  # what stands in the box is not what was written

    async def stop(request: gr.Request) -> None:
        if (event := stops.get(_session(request))) is not None:
            event.set()

    return begin, again, stop


def _session(request: gr.Request) -> str:
    return str(request.session_hash)


@contextmanager
def _listed(stops: dict[str, asyncio.Event], request: gr.Request) -> Iterator[asyncio.Event]:
    """What Stop has to set to end this request; a page has one request at a time."""
    event = stops[_session(request)] = asyncio.Event()
    try:
        yield event
    finally:
        if stops.get(_session(request)) is event:
            del stops[_session(request)]


def message(role: str, text: str) -> Message:
    """A message that shows ``text`` as it is: even with markup switched off, Gradio's history shows pictures and links
    of HTML that it gets."""
    return {"role": role, "content": html.escape(text, quote=False)}


def plain_text(message: Message) -> str:
    """The text that a message shows; Gradio hands its content back as a list of parts."""
    content = message.get("content", "")
    if not isinstance(content, str):
        content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return html.unescape(content)


def _with(history: list[Message], prompt: str, text: str) -> list[Message]:
    return [*history, message("user", prompt), message("assistant", prompt + text)][-2 * _EXCHANGES :]


def _buttons(*, busy: bool) -> list[Any]:
    """Write, Go on, Clear, Stop."""
    return [*(gr.update(interactive=not busy) for _ in range(3)), gr.update(interactive=busy)]


def _most_tokens(queue: GenerationQueue, options: ChatOptions) -> int:
    return max(1, min(options.new_tokens, queue.generator.context - 1))


def _line(text: str, *, failed: bool = False) -> str:
    return f'<span role="status" class="{"failed" if failed else "fine"}">{html.escape(text)}</span>'


def _head(model: About) -> str:
    wanted = ("Architecture", "Parameters", "Context", "Tokens seen")
    facts = [f"{name}: {value}" for name, value in model.rows if name in wanted]
    return f"<h1>{html.escape(model.name)}</h1><p>{html.escape(' · '.join(facts))}</p>"


def _table(model: About) -> str:
    rows = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in model.rows)
    return f"<table>{rows}</table>"
