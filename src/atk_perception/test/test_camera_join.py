"""Cameras are joined by their stamps, whichever tracker is the faster one."""

from __future__ import annotations

import numpy as np
import pytest
from bag_writing import ROBOT
from hypothesis import given
from hypothesis import strategies as st

from atk_perception.camera_join import CameraJoin, Joined, joined_observation
from atk_perception.keypoint_set import KeypointSet
from atk_perception.keypoint_tracker import KeypointObservation, TrackerState

MS = 1_000_000
PERIOD_MS = 50
DEADLINE_MS = round(1e3 * ROBOT.deadlines_s.image)
LEFT = ROBOT.camera.model_copy(
    update={
        "name": "left",
        "image_topic": "left/camera/image_raw",
        "camera_info_topic": "left/camera/camera_info",
        "recorded_topic": "left/camera/image_raw/compressed",
    }
)
TWO = ROBOT.model_copy(update={"more_cameras": (LEFT,)})


def join(arrivals: list[tuple[str, int]], robot=TWO) -> dict[int, tuple[int | None, ...]]:
    """Stamps [ms] of what was joined, by the frame's; arrivals are (camera, stamp [ms])."""
    cameras: CameraJoin[int] = CameraJoin(robot)
    joined = [j for name, stamp in arrivals for j in cameras.add(name, stamp * MS, stamp)]
    joined += cameras.finish()
    assert [j.stamp_ns for j in joined] == sorted(j.stamp_ns for j in joined)
    return {j.stamp_ns // MS: j.seen for j in joined}


def by_the_rule(first: list[int], left: list[int]) -> dict[int, tuple[int | None, ...]]:
    expected = {}
    for t in first:
        until = [s for s in left if s <= t + PERIOD_MS / 4]
        recent = until and t - until[-1] <= DEADLINE_MS
        expected[t] = (t, until[-1] if recent else None)
    return expected


def stream(draw: st.DrawFn, lost: bool) -> list[int]:
    """Stamps [ms] of a camera that begins at any phase, jitters by less than a quarter of a period, loses images."""
    phase, jitter = draw(st.integers(0, 99)), PERIOD_MS // 8 - 1
    stamps = [1000 + phase + k * PERIOD_MS + draw(st.integers(-jitter, jitter)) for k in range(16)]
    keep = draw(st.lists(st.booleans(), min_size=16, max_size=16)) if lost else [True] * 16
    return [stamp for stamp, kept in zip(stamps, keep, strict=True) if kept]


@given(st.data())
def test_what_is_joined_depends_on_stamps_alone(data):
    """Each camera in order and later than its image by less than the deadline, everything else as it comes."""
    first, left = (stream(data.draw, lost) for lost in (False, True))
    delay = st.integers(0, DEADLINE_MS - 2 * PERIOD_MS)
    arrivals = []
    for name, stamps in (("camera", first), ("left", left)):
        at = 0
        for stamp in stamps:
            at = max(at, stamp + data.draw(delay))  # a tracker answers in order
            arrivals.append((at, name, stamp))
    arrivals.sort(key=lambda arrival: arrival[0])
    assert join([(name, stamp) for _, name, stamp in arrivals]) == by_the_rule(first, left)


def test_one_camera_is_handed_on_as_it_comes():
    cameras: CameraJoin[str] = CameraJoin(ROBOT)
    assert cameras.add("camera", 5, "seen") == [Joined(5, ("seen",))]
    assert cameras.finish() == []


@pytest.mark.parametrize(
    ("left", "taken"),
    [
        ([1000], 1000),
        ([950, 1001], 1001),  # a common trigger: this instant, though the stamp is a little later
        ([940, 990], 990),
        ([965, 1015], 965),
        ([1000 - DEADLINE_MS], 1000 - DEADLINE_MS),
        ([999 - DEADLINE_MS], None),
        ([1030], None),
        ([], None),
    ],
)
def test_the_image_of_this_instant_is_taken_or_the_newest_before(left, taken):
    assert join([*(("left", s) for s in left), ("camera", 1000)]) == {1000: (1000, taken)}


def test_a_frame_waits_for_no_camera_longer_than_an_image_may_be_old():
    cameras: CameraJoin[int] = CameraJoin(TWO)
    cameras.add("left", 1000 * MS, 1000)
    joined = []
    for stamp in range(1050, 1600, PERIOD_MS):
        joined += cameras.add("camera", stamp * MS, stamp)
        assert len(joined) == max(0, (stamp - 1050 - DEADLINE_MS + PERIOD_MS - 1) // PERIOD_MS)
        assert cameras.awaited() == "left"
    assert [j.seen[1] for j in joined[:5]] == [1000] * 4 + [None]


def test_the_first_camera_is_awaited_when_no_frame_waits_for_another():
    cameras: CameraJoin[int] = CameraJoin(TWO)
    cameras.add("left", 1000 * MS, 1000)
    assert cameras.awaited() == "camera"


@pytest.mark.parametrize("order", [("camera", "left"), ("left", "camera")])
def test_after_a_jump_back_nothing_of_before_is_joined(order):
    cameras: CameraJoin[int] = CameraJoin(TWO)
    joined = [
        j
        for start in (9000, 1000)
        for stamp in range(start, start + 3 * PERIOD_MS, PERIOD_MS)
        for name in order
        for j in cameras.add(name, stamp * MS, stamp)
    ]
    assert [j.seen for j in joined] == [(s, s) for s in (9000, 9050, 9100, 1000, 1050, 1100)]


def test_an_unknown_camera_is_an_error():
    with pytest.raises(KeyError, match="right"):
        CameraJoin(TWO).add("right", 0, None)


# ------------------------------------------------------------------------------------- observations

SETS = [
    (
        name,
        KeypointSet.create(
            name, np.full((count, 2), 5.0), np.zeros((9, 9, 3), np.uint8), ids=first + np.arange(count)
        ),
    )
    for name, first, count in (("camera", 0, 3), ("left", 3, 2))
]


def seen_by(number: int, stamp_ns: int, state=TrackerState.TRACKING, repeats: int = 0) -> KeypointObservation:
    ids = SETS[number][1].ids
    count = len(ids)
    uv_px = np.full((count, 2), 1.0 + number, np.float32)
    visible, confidence = np.ones(count, np.bool_), np.full(count, 0.9, np.float32)
    return KeypointObservation(stamp_ns, ids, uv_px, visible, confidence, state, state.name, repeats)


def test_points_are_in_the_order_of_the_cameras_and_as_old_and_as_good_as_the_worst():
    joined = Joined(20, (seen_by(0, 20), seen_by(1, 15, TrackerState.LOST, repeats=4)))
    together = joined_observation(joined, SETS)
    assert together.ids.tolist() == [0, 1, 2, 3, 4]
    assert together.uv_px[:, 0].tolist() == [1.0, 1.0, 1.0, 2.0, 2.0]
    assert (together.stamp_ns, together.oldest_camera) == (15, "left")
    assert (together.tracker_state, together.reason, together.repeats) == (TrackerState.LOST, "LOST", 4)


def test_a_missing_camera_is_infinitely_old_and_its_points_are_nowhere():
    together = joined_observation(Joined(20, (seen_by(0, 20), None)), SETS)
    assert (together.stamp_ns, together.oldest_camera) == (0, "left")
    assert together.visible.tolist() == [True, True, True, False, False]
    assert np.isnan(together.uv_px[3:]).all()
    assert together.tracker_state is not TrackerState.TRACKING


def test_one_camera_says_what_it_saw():
    seen = seen_by(0, 20)
    assert joined_observation(Joined(20, (seen,)), SETS[:1]) is seen
