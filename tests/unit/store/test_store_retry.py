import logging

import pytest

from lmbatch.store import Backoff, retry


class Flaky:
    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


BACKOFF = Backoff(5, 1.0, 3.0)


def run(operation: Flaky, uniform=lambda low, high: high) -> tuple:
    """The result, or the error that was raised; and the pauses before."""
    pauses: list[float] = []

    def again(error: Exception) -> bool:
        return isinstance(error, OSError)

    try:
        result = retry(operation, what="w", again=again, backoff=BACKOFF, sleep=pauses.append, uniform=uniform)
    except Exception as error:
        return error, pauses
    return result, pauses


def test_ceilings_double_up_to_the_cap() -> None:
    assert [Backoff(6, 0.5, 3.0).ceiling(number) for number in range(1, 7)] == [0.0, 0.5, 1.0, 2.0, 3.0, 3.0]
    assert Backoff().ceiling(10**6) == Backoff().cap


def test_a_result_needs_no_pause() -> None:
    assert run(Flaky()) == ("done", [])


def test_passing_errors_are_tried_again_with_growing_pauses() -> None:
    assert run(Flaky(OSError(), OSError(), OSError())) == ("done", [1.0, 2.0, 3.0])


def test_the_pause_is_drawn_from_nothing_to_the_ceiling() -> None:
    drawn = []
    run(Flaky(OSError(), OSError()), uniform=lambda low, high: drawn.append((low, high)) or 0.0)
    assert drawn == [(0.0, 1.0), (0.0, 2.0)]


def test_the_last_error_is_raised_after_the_last_attempt() -> None:
    flaky = Flaky(*(OSError(n) for n in range(9)))
    error, pauses = run(flaky)
    assert (error.args, flaky.calls, len(pauses)) == ((4,), 5, 4)


def test_patience_counts_from_the_first_error_and_never_takes_attempts_away() -> None:
    backoff, now = Backoff(3, 1.0, 10.0, patience=60.0), [1000.0]
    flaky = Flaky(*(OSError(n) for n in range(99)))

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with pytest.raises(OSError, match="^9$"):  # pauses of 1, 2, 4, 8 and then 10 seconds
        retry(flaky, what="w", again=lambda _: True, backoff=backoff, sleep=sleep, uniform=lambda low, high: high,
              clock=lambda: now[0])  # fmt: skip
    assert now[0] == 1065.0
    flaky = Flaky(*(OSError(n) for n in range(99)))
    with pytest.raises(OSError, match="^2$"):
        retry(flaky, what="w", again=lambda _: True, backoff=backoff, sleep=lambda _: None, clock=Clock(100.0))


class Clock:
    """Goes on by a step at each look."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_a_lasting_error_is_raised_at_once() -> None:
    flaky = Flaky(ValueError("no"))
    error, pauses = run(flaky)
    assert (str(error), flaky.calls, pauses) == ("no", 1, [])


def test_each_attempt_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        retry(Flaky(OSError("raw")), what="read x", again=lambda _: True, reason=lambda _: "busy", sleep=lambda _: None)
    (message,) = [record.message for record in caplog.records]
    assert message.startswith("read x: busy; attempt 2 of 8 in ")
