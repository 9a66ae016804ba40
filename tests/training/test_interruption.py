"""Signals: the first one saves and stops, a second one stops at once, and afterwards all is as before."""

from __future__ import annotations

import os
import signal
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from hf_prompting.errors import Interrupted
from hf_prompting.training import SaveBeforeStop, signals_as_exceptions

ONE_PROCESS = SimpleNamespace(world_size=1)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_for_a_checkpoint_and_stops_when_it_is_saved(number: int) -> None:
    before = signal.getsignal(number)
    control: Any = SimpleNamespace(should_save=False)
    with pytest.raises(Interrupted) as caught, SaveBeforeStop() as stop:
        stop.on_step_end(ONE_PROCESS, None, control)
        stop.on_save(ONE_PROCESS, None, control)
        assert not control.should_save
        send(number)
        stop.on_step_end(ONE_PROCESS, None, control)
        assert control.should_save
        stop.on_save(ONE_PROCESS, None, control)
    assert caught.value.exit_code == 128 + number
    assert isinstance(caught.value, KeyboardInterrupt)
    assert not isinstance(caught.value, Exception)
    assert signal.getsignal(number) is before


def test_a_second_signal_stops_at_once() -> None:
    with pytest.raises(Interrupted), SaveBeforeStop():
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        raise AssertionError("goes on after the second signal")


def test_a_signal_after_the_last_step_stops_too() -> None:
    with pytest.raises(Interrupted), SaveBeforeStop():
        send(signal.SIGTERM)


def test_another_error_is_not_hidden_by_a_signal() -> None:
    with pytest.raises(ValueError, match="mine"), SaveBeforeStop():
        send(signal.SIGINT)
        raise ValueError("mine")


def test_outside_of_training_a_scheduler_is_heard_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as caught, signals_as_exceptions():
        send(signal.SIGTERM)
    assert caught.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_another_thread_nothing_is_touched() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with SaveBeforeStop(), signals_as_exceptions():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
