"""A stop ends what is being carried out whenever it comes: before it begins, in the moment when it does, and in its midst."""

from __future__ import annotations

import threading

import pytest

from atk_policy.planning_scenes.execution import carry_out
from atk_policy.planning_scenes.protocol import GoHomeError

PATIENCE_S = 10.0


class Controllers:
    """As MoveIt's: they take a moment to begin, and a stop that comes before ends nothing."""

    def __init__(self) -> None:
        self.called, self.may_begin, self.begun = threading.Event(), threading.Event(), threading.Event()
        self._stopped = threading.Event()
        self.stops_for_nothing = 0
        self.ended = ""

    def execute(self) -> str:
        self.called.set()
        assert self.may_begin.wait(PATIENCE_S)
        self._stopped.clear()
        self.begun.set()
        self.ended = "preempted" if self._stopped.wait(1.0) else "arrived"
        return self.ended

    def stop(self) -> None:
        self.stops_for_nothing += not self.begun.is_set()
        self._stopped.set()
        if self.stops_for_nothing > 2:
            self.may_begin.set()


class Way:
    """Somebody who may ask for a stop."""

    def __init__(self) -> None:
        self.stopped = threading.Event()

    def check(self) -> None:
        if self.stopped.is_set():
            raise GoHomeError("stopped")


def test_what_nobody_stops_ends_with_its_result():
    controllers, way = Controllers(), Way()
    controllers.may_begin.set()
    assert carry_out(controllers.execute, controllers.stop, way.check) == "arrived"
    assert not controllers.stops_for_nothing


def test_a_stop_that_came_before_lets_nothing_begin():
    controllers, way = Controllers(), Way()
    way.stopped.set()
    with pytest.raises(GoHomeError, match="stopped"):
        carry_out(controllers.execute, controllers.stop, way.check)
    assert not controllers.called.is_set()


def test_a_stop_in_the_moment_before_the_controllers_begin_is_not_lost():
    controllers, way = Controllers(), Way()
    threading.Thread(target=lambda: controllers.called.wait(PATIENCE_S) and way.stopped.set()).start()
    with pytest.raises(GoHomeError, match="stopped"):
        carry_out(controllers.execute, controllers.stop, way.check)
    assert controllers.stops_for_nothing > 2
    assert controllers.ended == "preempted"


def test_a_stop_in_motion_ends_it():
    controllers, way = Controllers(), Way()
    controllers.may_begin.set()
    threading.Thread(target=lambda: controllers.begun.wait(PATIENCE_S) and way.stopped.set()).start()
    with pytest.raises(GoHomeError, match="stopped"):
        carry_out(controllers.execute, controllers.stop, way.check)
    assert controllers.ended == "preempted"


def test_what_goes_wrong_is_told():
    def fail() -> None:
        raise RuntimeError("no controller")

    with pytest.raises(RuntimeError, match="no controller"):
        carry_out(fail, lambda: None, lambda: None)
