"""The benchmark runs on generated sequences and on a folder of labelled video, and ends with one line of JSON."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from atk_perception.bench_perception import main
from atk_perception.correspondence.protocol import Matches, Template
from atk_perception.evaluation.endurance import endurance
from atk_perception.evaluation.labelled_video import read_folder, read_labels
from atk_perception.evaluation.run import track_clip
from atk_perception.tracking.lucas_kanade import LucasKanadeTracker
from atk_perception.tracking.protocol import Tracks
from atk_perception.training.clip import Clip, save_clip
from atk_perception.training.photometry import PhotometricStrength
from atk_perception.training.planar import PlanarClass, planar_clip

GENTLE = PlanarClass(
    photometric=PhotometricStrength(light=0.0, blur=0.0, noise=1.0),
    plain_fraction=0.0,
    occluders=(0, 0),
    new_scene_fraction=0.0,
    speed_px=2.0,
)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """A folder with one NPZ sequence, and one of pictures with sparse JSON labels."""
    folder = tmp_path / "labels"
    (folder / "frames").mkdir(parents=True)
    clip = planar_clip(1, 6, 240, 320, GENTLE, points=8)
    save_clip(folder / "first.npz", clip)
    for t, frame in enumerate(clip.video_rgb):
        cv2.imwrite(str(folder / "frames" / f"{t:03d}.png"), frame[:, :, ::-1])
    points = ((clip.uv_px + 0.5) / [320, 240]).tolist()
    for track in points:
        track[2] = None
    about = {"format_version": 1, "video": "frames", "points": points, "occluded": (~clip.visible).tolist()}
    (folder / "second.json").write_text(json.dumps(about))
    return folder


def test_the_last_line_is_the_result_and_pictures_are_left_behind(
    labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATK_WEIGHTS", str(tmp_path / "none"))
    output = tmp_path / "out"
    trackers, matchers = ["lucas_kanade", "template_lk+refinding", "bootstapir"], ["sift", "dinov2"]
    options = ["--trackers", *trackers, "--matchers", *matchers, "--quick", "--pairs", "2"]
    main(["--output", str(output), "--data", str(labels), *options])
    result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert set(result) == {"tracking", "transfer", "ms_p95_32"}
    figures = result["tracking"]["lucas_kanade"]["data"]
    assert set(figures) == {"delta_avg", "oa", "aj"}
    assert figures["delta_avg"] > 0.8
    assert set(result["transfer"]["sift"]) == {"pck8", "confident_wrong", "ms_256"}
    assert result["ms_p95_32"]["lucas_kanade"] > 0
    assert set(result["tracking"]) == {"lucas_kanade", "template_lk+refinding"}
    text = (output / "table.md").read_text()
    assert "- not measured: tracker bootstapir: " in text
    assert "get_weights dinov2" in text
    made = {path.name for path in output.iterdir()}
    expected = {
        "table.md",
        "metrics.json",
        "delta.png",
        "reliability.png",
        "transfer.png",
        "tracks_first.png",
    }
    assert expected <= made


def test_sparse_labels_leave_the_other_frames_unjudged(labels: Path) -> None:
    clip = read_folder(labels)["second"]
    hidden = ~clip.visible[:, 2] & clip.labelled[:, 2]
    assert not (clip.labelled[:, 2] & ~hidden).any()
    judged = track_clip(LucasKanadeTracker(), clip).judged
    assert not judged[:, 0].any()
    assert judged[:, 1].all()


def test_points_are_tracked_from_the_first_frame_that_shows_them() -> None:
    clip = planar_clip(2, 5, 240, 320, GENTLE, points=6)
    visible = clip.visible.copy()
    visible[:3, :2] = False
    later = Clip(clip.video_rgb, clip.uv_px, visible, clip.labelled)
    tracks = track_clip(LucasKanadeTracker(), later)
    judged = tracks.judged
    assert not judged[:3, :3].any()
    assert judged[:3, 3:].all()
    assert judged[3:, 1:].all()
    error_px = np.linalg.norm(tracks.uv_px - clip.uv_px, axis=2)[judged & tracks.visible & visible]
    assert np.median(error_px) < 1.0


def test_labels_that_do_not_fit_the_video_are_refused(labels: Path) -> None:
    path = labels / "second.json"
    about = json.loads(path.read_text())
    (labels / "frames" / "005.png").unlink()
    with pytest.raises(ValueError, match="do not fit the 5 frames"):
        read_labels(path)
    path.write_text(json.dumps({**about, "format_version": 2}))
    with pytest.raises(ValueError, match="format_version 2"):
        read_labels(path)
    del about["occluded"]
    path.write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"lacks \['occluded'\]"):
        read_labels(path)


def test_an_empty_folder_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected NAME\.npz"):
        read_folder(tmp_path)


def test_endurance_tells_drift_and_growth_from_a_tracker_that_holds_still_and_one_that_does_not() -> None:
    class Still:
        """Says where the points began; or, with a drift, a little farther to the right in every frame."""

        def __init__(self, drift_px: float) -> None:
            self.drift_px = drift_px

        def start(self, template: Template, frame_rgb: np.ndarray, matches: Matches) -> np.ndarray:
            return matches.uv_px

        def step(self, state: np.ndarray, frame_rgb: np.ndarray) -> tuple[np.ndarray, Tracks]:
            moved = state + np.array([self.drift_px, 0.0], np.float32)
            count = len(state)
            return moved, Tracks(moved, np.ones(count, np.bool_), np.ones(count, np.float32))

    memory = iter([100.0, 103.5, 100.0, 100.0])
    still = endurance(Still(0.0), 0.02, lambda: next(memory), points=5)
    assert (still.frames, still.drift_px, still.visible, still.growth_mib) == (36, 0.0, 1.0, 3.5)
    drifting = endurance(Still(0.1), 0.02, lambda: next(memory), points=5)
    assert drifting.drift_px == pytest.approx(3.6, abs=1e-3)


def test_endurance_from_the_command_line_is_one_json_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--endurance", "0.02", "--trackers", "template_lk", "--output", str(tmp_path)])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result) == {"template_lk"}
    assert result["template_lk"]["frames"] == 36
    assert result["template_lk"]["drift_px"] < 0.5
    assert result["template_lk"]["visible"] > 0.8
    assert json.loads((tmp_path / "endurance.json").read_text())["format_version"] == 1
