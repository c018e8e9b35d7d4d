"""Colours say the state, ids stay legible, markers stand where the points are, diagnostics speak the usual words."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from atk_perception.keypoint_tracker import KeypointObservation, TrackerState
from atk_perception.markers import keypoint_markers
from atk_perception.overlay import (
    FONT,
    LABEL_SIZE,
    Overlay,
    PointState,
    place_labels,
    point_states,
    state_text,
)
from atk_perception.points_in_camera import CalibrationError, depth_at, intrinsics, points_in_camera
from atk_perception.topic_diagnostic import ERROR, OK, WARN, TopicDiagnostic

GREY = np.full((480, 640, 3), 90, np.uint8)


def seen(uv, visible, state=TrackerState.TRACKING, stamp_ns=1, reason="why") -> KeypointObservation:
    uv_px = np.array(uv, np.float32).reshape(-1, 2)
    count = len(uv_px)
    return KeypointObservation(
        stamp_ns,
        np.arange(100, 100 + count),
        uv_px,
        np.array(visible, bool),
        np.ones(count, np.float32),
        state,
        reason,
    )


def test_colours_tell_tracked_occluded_and_lost():
    assert point_states(seen([[10, 10], [50, 50]], [True, False])) == [
        PointState.TRACKED,
        PointState.OCCLUDED,
    ]
    assert point_states(seen([[10, 10]], [False], TrackerState.LOST)) == [PointState.LOST]
    observation = seen([[200, 200], [400, 300]], [True, False])
    picture = Overlay().draw(GREY, observation)
    assert tuple(picture[200, 200]) == PointState.TRACKED.value
    assert tuple(picture[300, 400]) == (90, 90, 90)  # hollow
    assert (picture[290:311, 390:411] == PointState.OCCLUDED.value).all(axis=2).any()
    assert (GREY == 90).all()
    lost = Overlay().draw(GREY, seen([[200, 200]], [False], TrackerState.LOST))
    assert (lost[190:211, 190:211] == PointState.LOST.value).all(axis=2).any()


def test_the_state_is_written_with_its_reason_where_it_is_not_well():
    assert state_text(seen([[1, 1]], [True])) == "TRACKING  1/1 visible"
    assert state_text(seen([[1, 1]], [False], TrackerState.LOST, reason="no light")) == (
        "LOST  0/1 visible  no light"
    )
    long = seen([[1, 1]], [False], TrackerState.TRANSFER_FAILED, reason="a very long reason " * 20)
    picture = Overlay().draw(GREY, long)
    assert (picture[:, -8:] != 90).any(axis=2)[:24].all()  # the strip
    assert (picture[24:] == 90).all(axis=2)[:, 100:].all()  # and nothing of the text beyond it


def test_ids_of_neighbours_do_not_hide_each_other():
    rng = np.random.default_rng(0)
    points = (np.array([300.0, 200.0]) + rng.uniform(-20, 20, (5, 2))).astype(np.float32)
    size = np.array(cv2.getTextSize("157", FONT, LABEL_SIZE, 1)[0], np.float32) + 2
    sizes = np.tile(size, (5, 1))
    corners = place_labels(points, sizes, (640, 480))
    boxes = [(*corner, *(corner + size)) for corner in corners]
    for k, a in enumerate(boxes):
        for b in boxes[k + 1 :]:
            overlap = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
            assert overlap <= 0.15 * size.prod()


@pytest.mark.parametrize("corner", [(1, 1), (638, 1), (1, 478), (638, 478)])
def test_an_id_at_the_edge_stays_in_the_picture(corner):
    size = np.array([[24.0, 12.0]], np.float32)
    ((left, top),) = place_labels(np.array([corner], np.float32), size, (640, 480))
    assert left >= 0
    assert top >= 0
    assert left + 24 <= 640
    assert top + 12 <= 480


def test_points_outside_and_without_a_place_are_no_fault():
    picture = Overlay().draw(GREY, seen([[-500, 9e9], [np.nan, 5], [320, 240]], [True, False, True]))
    assert tuple(picture[240, 320]) == PointState.TRACKED.value


def test_a_point_projects_back_to_its_pixel():
    K = np.array([[500.0, 0, 320], [0, 510.0, 240], [0, 0, 1]])
    uv = np.array([[320.0, 240.0], [100.0, 400.0]])
    z = np.array([0.6, 1.2])
    points = points_in_camera(uv, K, z)
    np.testing.assert_allclose(points[0], [0, 0, 0.6])
    back = points @ K.T
    np.testing.assert_allclose(back[:, :2] / back[:, 2:], uv)


def test_depth_is_the_median_of_what_is_measured_nearby():
    depth = np.full((100, 100), np.nan, np.float32)
    depth[48:53, 48:53] = 0.5
    depth[50, 50] = 9.0  # a flying pixel
    found = depth_at(depth, np.array([[50.0, 50.0], [10.0, 10.0], [-3.0, 50.0], [99.4, 0.0]]))
    assert found[0] == pytest.approx(0.5)
    assert np.isnan(found[1:]).all()


def test_an_uncalibrated_camera_gives_no_geometry():
    with pytest.raises(CalibrationError, match="uncalibrated"):
        intrinsics(CameraInfo())


def test_markers_hold_points_ids_and_state():
    observation = seen([[10, 10], [50, 50], [60, 60]], [True, False, True])
    points = np.array([[0.0, 0, 0.6], [0.1, 0, 0.6], [np.nan] * 3])
    markers = keypoint_markers(Header(frame_id="optical"), observation, points, 0.6).markers
    by_namespace = {name: [m for m in markers if m.ns == name] for name in ("keypoints", "ids", "state")}
    (spheres,) = by_namespace["keypoints"]
    assert len(spheres.points) == len(spheres.colors) == 2
    assert (spheres.colors[0].a, spheres.colors[1].a) == (1.0, pytest.approx(0.6))
    assert spheres.colors[1].r > spheres.colors[1].g  # amber
    assert [(m.text, m.id) for m in by_namespace["ids"]] == [("100", 100), ("101", 101)]
    assert by_namespace["state"][0].text == "TRACKING  2/3 visible"
    assert all(m.header.frame_id == "optical" and m.pose.orientation.w == 1.0 for m in markers)


# -- diagnostics ---------------------------------------------------------------------------------------


def reports(true_hz: float, delay_s: float, seconds: int = 5, **promised):
    topic = TopicDiagnostic("images", **promised)
    topic.report(0)
    report = None
    step_ns = round(1e9 / true_hz)
    now_ns = 0
    for second in range(1, seconds + 1):
        while now_ns < second * 10**9:
            now_ns += step_ns
            topic.tick(now_ns + round(delay_s * 1e9), now_ns)
        report = topic.report(second * 10**9)
    return report


def test_a_healthy_topic_is_told_in_the_words_of_diagnostic_updater():
    level, message, values = reports(30.0, 0.02, rate_hz=30.0, delay_max_s=0.25)
    assert (level, message) == (OK, "Desired frequency met; Timestamps are reasonable.")
    assert float(values["Actual frequency (Hz)"]) == pytest.approx(30.0, rel=0.02)
    assert float(values["Minimum acceptable frequency (Hz)"]) == pytest.approx(27.0)
    assert float(values["Maximum acceptable frequency (Hz)"]) == pytest.approx(33.0)
    assert float(values["Latest timestamp delay:"]) == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("rate_hz", "delay_s", "promised", "level", "text"),
    [
        (20.0, 0.0, {"rate_hz": 30.0}, WARN, "Frequency too low."),
        (60.0, 0.0, {"rate_hz": 30.0}, WARN, "Frequency too high."),
        (30.0, 0.4, {"delay_max_s": 0.25}, WARN, "Timestamps too far in past seen."),
        (30.0, 0.4, {}, OK, "Desired frequency met"),
    ],
)
def test_what_is_slow_or_late_is_a_warning_where_a_promise_is_known(rate_hz, delay_s, promised, level, text):
    found, message, values = reports(rate_hz, delay_s, **promised)
    assert found == level
    assert text in message
    assert ("Target frequency (Hz)" in values) == ("rate_hz" in promised)


def test_silence_is_an_error_also_when_there_was_something_before():
    topic = TopicDiagnostic("images")
    assert topic.report(0)[:2] == (ERROR, "No events recorded.")
    for second in range(1, 4):
        topic.tick(second * 10**9, second * 10**9)
        assert topic.report(second * 10**9)[0] == OK
    for second in range(4, 12):
        level, message, _ = topic.report(second * 10**9)
    assert (level, message) == (ERROR, "No events recorded.")


def test_a_clock_that_jumps_back_begins_a_new_window():
    topic = TopicDiagnostic("images")
    topic.report(10**12)
    topic.tick(0, 0)
    assert topic.report(0)[0] == OK
    assert topic.report(0)[2]["Zero seen diagnostic update count:"] == "1"
