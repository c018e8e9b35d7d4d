"""What every tracker promises: explicit state, points that come and go, another start at any time.

Trackers that are installed are run as they are, and must be right. Those that are not, because weights are missing, are run
with random weights where their code is here: what they promise must hold whatever they see.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from atk_perception.correspondence.protocol import Matches, Template
from atk_perception.evaluation.run import known_matches
from atk_perception.learned.backbone import Backbone
from atk_perception.learned.network import PointNetwork
from atk_perception.public_models import BackendError
from atk_perception.registry import TRACKERS, make_tracker
from atk_perception.tracking.atk import AtkTracker
from atk_perception.tracking.bootstapir import BootstapirTracker
from atk_perception.tracking.cotracker3 import WINDOW, Cotracker3Tracker
from atk_perception.tracking.protocol import Tracks
from atk_perception.tracking.refinding import Refinding, RefindingParameters

CPU = torch.device("cpu")


def random_atk() -> AtkTracker:
    return AtkTracker(Backbone(PointNetwork().requires_grad_(False)))


def random_bootstapir() -> BootstapirTracker:
    module = pytest.importorskip("tapnet.torch.tapir_model")
    return BootstapirTracker(module.TAPIR(pyramid_level=1, use_casual_conv=True), CPU)


def random_cotracker3() -> Cotracker3Tracker:
    module = pytest.importorskip("cotracker.models.core.cotracker.cotracker3_online")
    model = module.CoTrackerThreeOnline(
        stride=4, corr_radius=3, window_len=WINDOW, model_resolution=(96, 128)
    )
    return Cotracker3Tracker(model, CPU, iterations=1)


WITH_RANDOM_WEIGHTS = {
    "atk": random_atk,
    "bootstapir": random_bootstapir,
    "cotracker3": random_cotracker3,
}


REFINDING = "with refinding"


@pytest.fixture(scope="module", params=[*TRACKERS, REFINDING])
def candidate(request: pytest.FixtureRequest) -> tuple[Any, bool]:
    """A tracker, and whether it is the real one."""
    if request.param == REFINDING:  # as every tracker is run by nodes and selection
        return Refinding(make_tracker()), True
    try:
        return make_tracker(request.param), True
    except BackendError:
        torch.manual_seed(0)
        return WITH_RANDOM_WEIGHTS[request.param](), False


@pytest.fixture
def tracker(candidate: tuple[Any, bool]) -> Any:
    return candidate[0]


@pytest.fixture
def installed(candidate: tuple[Any, bool]) -> Any:
    if not candidate[1]:
        pytest.skip("its weights are not installed")
    return candidate[0]


Shots = tuple[Template, list[np.ndarray], list[np.ndarray]]


@pytest.fixture
def shots(make_scene: Any, pose: Any) -> Shots:
    """A template of 12 points on three objects, frames in which these move, and where the points are in each."""
    scene = make_scene(seed=11)
    template = scene.template(per_object=4)
    poses = [[pose(p.u + 3 * k, p.v - 2 * k, 0.03 * k) for p in scene.home] for k in range(6)]
    frames = [scene.render(p) for p in poses]
    truth = [scene.truth(template, p, per_object=4).astype(np.float32) for p in poses]
    return template, frames, truth


def same(one: Tracks, other: Tracks) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("uv_px", "visible", "confidence")
    )


def part(template: Template, rows: list[int]) -> Template:
    return Template(template.image_rgb, template.uv_px[rows])


def begin(tracker: Any, shots: Shots, rows: list[int]) -> Any:
    template, frames, truth = shots
    return tracker.start(part(template, rows), frames[0], known_matches(truth[0][rows]))


def test_points_are_followed(installed: Any, shots: Shots) -> None:
    _, frames, truth = shots
    state = begin(installed, shots, list(range(12)))
    for frame in frames[1:]:
        state, tracks = installed.step(state, frame)
    error_px = np.linalg.norm(tracks.uv_px - truth[-1], axis=1)
    assert tracks.visible.mean() > 0.6
    assert np.median(error_px[tracks.visible]) < 4.0


def test_tracks_have_the_points_shapes_and_types(tracker: Any, shots: Shots) -> None:
    _, frames, _ = shots
    _, tracks = tracker.step(begin(tracker, shots, list(range(12))), frames[1])
    assert tracks.uv_px.shape == (12, 2)
    assert tracks.uv_px.dtype == np.float32
    assert tracks.visible.dtype == np.bool_
    assert tracks.confidence.dtype == np.float32
    assert np.all((tracks.confidence >= 0) & (tracks.confidence <= 1))
    assert np.isfinite(tracks.uv_px).all()


def test_a_state_can_be_stepped_twice_and_stays_as_it_was(tracker: Any, shots: Shots) -> None:
    _, frames, _ = shots
    state, _ = tracker.step(begin(tracker, shots, list(range(12))), frames[1])
    _, first = tracker.step(state, frames[2])
    later = state
    for frame in frames[3:]:
        later, _ = tracker.step(later, frame)
    _, again = tracker.step(state, frames[2])
    assert same(first, again)


def test_points_can_be_dropped_and_the_others_go_on(tracker: Any, shots: Shots) -> None:
    _, frames, _ = shots
    state, _ = tracker.step(begin(tracker, shots, list(range(12))), frames[1])
    keep = np.array([9, 1, 4])
    _, all_of_them = tracker.step(state, frames[2])
    fewer, tracks = tracker.step(tracker.select(state, keep), frames[2])
    assert len(all_of_them.visible) == 12
    # Points are each other's neighbours, so not to the bit; random attention moves them by more than that.
    if not isinstance(tracker, Cotracker3Tracker):
        np.testing.assert_allclose(tracks.uv_px, all_of_them.uv_px[keep], atol=1.5)
    assert tracks.uv_px.shape == (3, 2)
    _, again = tracker.step(fewer, frames[3])
    assert len(again.visible) == 3


def test_all_points_can_be_dropped(tracker: Any, shots: Shots) -> None:
    _, frames, _ = shots
    state, _ = tracker.step(begin(tracker, shots, [0, 1]), frames[1])
    _, tracks = tracker.step(tracker.select(state, np.zeros(0, np.int_)), frames[2])
    assert tracks.uv_px.shape == (0, 2)


def test_points_can_be_added(tracker: Any, shots: Shots) -> None:
    template, frames, truth = shots
    state, _ = tracker.step(begin(tracker, shots, [0, 1, 4, 5]), frames[1])
    more = tracker.extend(state, part(template, [2, 6]), frames[1], known_matches(truth[1][[2, 6]]))
    _, tracks = tracker.step(more, frames[2])
    assert tracks.uv_px.shape == (6, 2)
    assert np.isfinite(tracks.uv_px).all()
    # What was extended is as it was; and what was added can be dropped again.
    _, without = tracker.step(state, frames[2])
    assert len(without.visible) == 4
    _, dropped = tracker.step(tracker.select(more, np.arange(4)), frames[2])
    if not isinstance(tracker, Cotracker3Tracker):
        np.testing.assert_allclose(dropped.uv_px, without.uv_px, atol=1.5)


def test_added_points_are_followed_like_the_others(installed: Any, shots: Shots) -> None:
    template, frames, truth = shots
    old, new = [0, 1, 4, 5, 8, 9], [2, 6, 10]
    state = begin(installed, shots, old)
    for frame in frames[1:4]:
        state, _ = installed.step(state, frame)
    state = installed.extend(state, part(template, new), frames[3], known_matches(truth[3][new]))
    for frame in frames[4:]:
        state, tracks = installed.step(state, frame)
    error_px = np.linalg.norm(tracks.uv_px - truth[-1][old + new], axis=1)
    assert tracks.visible[6:].any()
    assert np.median(error_px[tracks.visible]) < 4.0
    assert np.all(error_px[6:][tracks.visible[6:]] < 8.0)


def test_another_start_knows_nothing_of_the_first(tracker: Any, shots: Shots) -> None:
    _, frames, _ = shots

    def run() -> Tracks:
        state, _ = tracker.step(begin(tracker, shots, [0, 4, 8]), frames[1])
        return tracker.step(state, frames[2])[1]

    first = run()
    state = begin(tracker, shots, list(range(12)))
    for frame in frames[::-1]:
        state, _ = tracker.step(state, frame)
    assert same(first, run())


def test_points_that_are_not_there_are_not_said_to_be_seen(installed: Any, shots: Shots) -> None:
    template, frames, truth = shots
    blank = np.full_like(frames[0], 90)
    lost = known_matches(truth[0])
    state = installed.start(template, blank, Matches(lost.uv_px, np.zeros(12, np.float32), lost.warp))
    _, tracks = installed.step(state, blank)
    assert np.isfinite(tracks.uv_px).all()
    assert tracks.visible.mean() < 0.2


def test_a_window_that_fills_hands_over_to_the_next(shots: Shots) -> None:
    """CoTracker3 advances by half a window; more frames than two windows, stepped from states kept at every frame."""
    tracker = random_cotracker3()
    _, frames, _ = shots
    states, tracks = [begin(tracker, shots, [0, 4, 8])], []
    for k in range(2 * WINDOW + 3):
        state, seen = tracker.step(states[-1], frames[k % len(frames)])
        states.append(state)
        tracks.append(seen)
        assert len(state.frames) <= WINDOW
        assert np.isfinite(seen.uv_px).all()
    for k in (3, WINDOW - 2, WINDOW - 1, WINDOW, 2 * WINDOW - 1, 2 * WINDOW):
        assert same(tracker.step(states[k], frames[k % len(frames)])[1], tracks[k])


def test_cotracker3_says_what_its_authors_code_says_at_the_end_of_each_window(shots: Shots) -> None:
    """Its window run at every frame must agree with theirs, run every eighth, where both have seen the same frames."""
    tracker = random_cotracker3()
    model, (_, frames, truth) = tracker._model, shots
    chosen = [0, 4, 8]
    video = torch.cat([tracker._frame(frames[k % len(frames)]) for k in range(2 * WINDOW)]).float()[None]
    start = tracker._to_network(truth[0][chosen], frames[0])
    queries = torch.cat([torch.zeros_like(start[..., :1]), start], dim=2)
    model.init_video_online_processing()
    theirs = {}
    with torch.inference_mode():
        for end in range(WINDOW, 2 * WINDOW + 1, WINDOW // 2):
            xy, *_ = model(video=video[:, end - WINDOW : end], queries=queries, iters=1, is_online=True)
            theirs[end - 1] = tracker._to_image(xy[0, -1], frames[0])
    state = begin(tracker, shots, chosen)
    for k in range(1, 2 * WINDOW):
        state, tracks = tracker.step(state, frames[k % len(frames)])
        if k in theirs:
            np.testing.assert_allclose(tracks.uv_px, theirs[k], atol=0.05)


def test_hidden_points_are_known_again_by_the_frame_that_they_came_in(make_scene: Any, pose: Any) -> None:
    scene = make_scene(seed=3)
    template = scene.template()
    after = [pose(p.u + 25, p.v - 20, np.deg2rad(140)) for p in scene.home]
    first, turned = scene.render(scene.home), scene.render(after)
    half = len(template) // 2
    old, new = part(template, list(range(half))), part(template, list(range(half, len(template))))
    tracker = Refinding(make_tracker(), RefindingParameters(after_frames=1, every_frames=1))
    state = tracker.start(old, first, known_matches(old.uv_px))
    state = tracker.extend(state, new, first, known_matches(new.uv_px))
    keep = np.arange(len(template))[::-1]
    state = tracker.select(state, keep)
    for _ in range(3 * len(scene.home)):  # a window an image, and there are three objects
        state, tracks = tracker.step(state, turned)
    truth = scene.truth(template, after)[keep]
    assert tracks.visible.mean() > 0.75
    assert np.median(np.linalg.norm(tracks.uv_px - truth, axis=1)[tracks.visible]) < 1.5


def test_what_is_carried_out_of_the_image_is_looked_for_at_its_edge(make_scene: Any) -> None:
    scene = make_scene(seed=3)
    template = scene.template()
    frame = scene.render(scene.home)
    far = np.tile(np.array([[-4000.0, 7000.0]], np.float32), (len(template), 1))
    tracker = Refinding(make_tracker(), RefindingParameters(after_frames=1, every_frames=1))
    start = known_matches(template.uv_px)
    state = tracker.start(template, frame, Matches(far, start.confidence, start.warp))
    for _ in range(4):
        state, tracks = tracker.step(state, frame)
    assert not tracks.visible.any()
    assert np.isfinite(tracks.uv_px).all()
