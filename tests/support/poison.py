"""Steps that go wrong: in chosen steps of a run, the first micro-batch of this process is spoilt.

Steps are counted from the run's first, 1, so that a resumed run meets the same ones.
"""

from __future__ import annotations

import math
from typing import Any

LOSS_FACTOR = 30.0


def poison(plan: dict[int, str]) -> None:
    """From now on, in each step of ``plan``:

    ``embedding``: the batch's embeddings are NaN. ``gradient``: the loss is right, its gradient is NaN. ``spike``:
    loss and gradient are 30 times what they should be; ``steep``: the gradient alone. ``weights``: one weight is NaN
    for good. ``norm``: this process alone finds a norm 30 times what it is.
    """
    from lmbatch.train.engine import Engine

    begin, scaled, clip = Engine.begin, Engine._scaled_loss, Engine._clip
    ill: list[str | None] = [None]
    misled = []

    def spoilt_begin(self, step, *, number, stop):
        ill[0] = plan.get(number + 1)
        misled[:] = [ill[0] == "norm"]
        return begin(self, step, number=number, stop=stop)

    def spoilt_loss(self, model, batch, tokens):
        kind, ill[0] = ill[0], None
        if kind == "embedding":
            embeddings: Any = self.plain_model.get_input_embeddings()
            hook = embeddings.register_forward_hook(lambda module, given, output: output * math.nan)
            try:
                return scaled(self, model, batch, tokens)
            finally:
                hook.remove()
        if kind == "weights":
            self._held_weights()[0].data.view(-1)[0] = math.nan
        loss = scaled(self, model, batch, tokens)
        if kind == "spike":
            self._micro_losses[-1] = self._micro_losses[-1] * LOSS_FACTOR
        return loss * {"gradient": math.nan, "spike": LOSS_FACTOR, "steep": LOSS_FACTOR}.get(kind, 1.0)

    def spoilt_clip(self):
        return clip(self) * (LOSS_FACTOR if misled[0] else 1.0)

    Engine._clip = spoilt_clip  # type: ignore[method-assign]
    Engine.begin = spoilt_begin  # type: ignore[method-assign]
    Engine._scaled_loss = spoilt_loss  # type: ignore[method-assign]
