"""The arm goes on only as far as a plan that was found free reaches, whenever frames and answers come."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atk_policy.plan_checks import PlanChecks

PERIOD_NS = 50_000_000
CLOCK_NS = 1_700_000_000_000_000_000

# Of every frame: periods since the one before, and until the answer to its plan comes.
frames = st.lists(st.tuples(st.floats(0.2, 3.0), st.floats(0.05, 4.0)), min_size=1, max_size=30)


@given(frames=frames)
@settings(max_examples=300, deadline=None)
def test_no_step_goes_beyond_what_was_looked_at(frames):
    checks = PlanChecks(PERIOD_NS)
    checks.begin()
    now_ns, motion_ns, sent_ns = 0, 0, None
    answers: list[tuple[int, int, int]] = []  # when it comes, stamp, how far the arm had moved by then
    looked_at_ns = None  # how far the arm had moved in the plan that was answered last
    for gap, delay in frames:
        now_ns += round(gap * PERIOD_NS)
        for answer in [answer for answer in answers if answer[0] <= now_ns]:
            answers.remove(answer)
            assert not checks.answer(answer[1], "")
            looked_at_ns = max(answer[2], -1 if looked_at_ns is None else looked_at_ns)
        goes_on = not checks.fault(now_ns)
        # A step or a brake takes the time that passed, a period at most.
        motion_ns += 0 if sent_ns is None else min(now_ns - sent_ns, PERIOD_NS)
        if goes_on:
            assert looked_at_ns is not None
            assert motion_ns <= looked_at_ns + PERIOD_NS
        sent_ns = now_ns
        stamp_ns = checks.send(now_ns, CLOCK_NS + now_ns)
        answers.append((now_ns + round(delay * PERIOD_NS), stamp_ns, motion_ns))


@given(frames=st.lists(st.tuples(st.floats(0.5, 3.0), st.floats(0.05, 0.45)), min_size=1, max_size=30))
def test_answers_that_come_before_the_next_frame_never_hold_the_arm(frames):
    checks, now_ns, causes = PlanChecks(PERIOD_NS), 0, []
    for gap, delay in frames:
        now_ns += round(gap * PERIOD_NS)
        causes.append(checks.fault(now_ns))
        stamp_ns = checks.send(now_ns, CLOCK_NS + now_ns)
        assert delay < gap
        checks.answer(stamp_ns, "")
    assert causes == ["plan_unchecked"] + [""] * (len(frames) - 1), "but for the first plan of all"


def test_an_answer_that_comes_late_is_worth_what_is_left_of_its_plan():
    checks = PlanChecks(PERIOD_NS)
    first = checks.send(0, CLOCK_NS)
    checks.send(PERIOD_NS, CLOCK_NS + PERIOD_NS)
    checks.answer(first, "")
    assert checks.fault(PERIOD_NS) == "", "its second setpoint is due now"
    assert checks.fault(PERIOD_NS + 1) == "plan_check_stale", (
        "it brakes from here, and nothing newer is known"
    )


def test_a_plan_that_is_not_free_holds_for_the_rest_of_the_run_and_not_in_the_next():
    checks = PlanChecks(PERIOD_NS)
    stamp_ns = checks.send(0, CLOCK_NS)
    assert checks.answer(stamp_ns, "scene_collision")
    assert not checks.answer(stamp_ns, "self_collision"), "only the first is news"
    later = checks.send(PERIOD_NS, CLOCK_NS + PERIOD_NS)
    checks.answer(later, "")
    assert checks.fault(PERIOD_NS) == "scene_collision"
    checks.begin()
    assert checks.fault(PERIOD_NS) == "plan_unchecked"
    assert not checks.answer(later, "scene_collision"), "of the run before"
    assert checks.fault(PERIOD_NS) == "plan_unchecked"


@pytest.mark.parametrize("clock_ns", [CLOCK_NS, CLOCK_NS - 60 * 10**9])
def test_a_clock_that_stands_still_or_is_set_back_never_gives_two_plans_one_stamp(clock_ns):
    checks = PlanChecks(PERIOD_NS)
    first = checks.send(0, CLOCK_NS)
    second = checks.send(0, clock_ns)
    assert second > first
    checks.answer(first, "")
    checks.send(2 * PERIOD_NS, clock_ns)
    assert checks.fault(3 * PERIOD_NS) == "plan_check_stale"
