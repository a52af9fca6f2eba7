"""Parts of a state that several processes hold: asked for by one, made by all."""

from __future__ import annotations

import queue
import threading

import pytest
import torch

from lmbatch.errors import CheckpointError, LmbatchError, StoreFullError
from lmbatch.train.relay import Relay


class Told:
    """Two ranks in two threads: the main one's numbers travel through a queue."""

    def __init__(self, main, numbers):
        self.main, self._numbers = main, numbers

    def number_from_main(self, value):
        if self.main:
            self._numbers.put(value)
            return value
        return self._numbers.get(timeout=60)


def together(work):
    """Run ``work(relay)`` on the main rank; what the other one made, and what each of the two raised."""
    numbers, made, raised = queue.Queue(), [], {}
    main = Relay(Told(True, numbers), lambda number: torch.tensor(number))
    other = Relay(Told(False, numbers), lambda number: made.append(number) or torch.tensor(0))

    def take_part(name, relay, own):
        try:
            relay.run(own)
        except LmbatchError as error:
            raised[name] = type(error)

    thread = threading.Thread(target=take_part, args=("other", other, lambda: pytest.fail("it only answers")))
    thread.start()
    take_part("main", main, lambda: work(main))
    thread.join()
    return made, raised


def test_the_others_make_what_is_asked_for_in_that_order():
    found = []
    assert together(lambda relay: found.extend(int(relay.ask(number)) for number in (4, 0, 2))) == ([4, 0, 2], {})
    assert found == [4, 0, 2]


def test_nothing_asked_for_is_nothing_made():
    assert together(lambda relay: None) == ([], {})


def test_a_failure_of_the_main_process_is_told_to_the_others():
    def work(relay):
        relay.ask(1)
        raise StoreFullError("full")

    assert together(work) == ([1], {"main": StoreFullError, "other": CheckpointError})


def test_in_the_middle_of_an_answer_nothing_more_is_said():
    """The others are in a collective then, and another one would never meet it."""
    numbers = queue.Queue()

    def broken(number):
        raise ValueError(number)

    relay = Relay(Told(True, numbers), broken)
    with pytest.raises(ValueError, match="5"):
        relay.run(lambda: relay.ask(5))
    assert numbers.get_nowait() == 5
    assert numbers.empty()
