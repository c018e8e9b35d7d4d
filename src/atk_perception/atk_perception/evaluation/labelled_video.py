"""Real video with sparse labels, from a folder, in the layout of TAP-Vid without its pickles.

Each sequence is either `NAME.npz` with TAP-Vid's arrays (see `training.clip`), or `NAME.json` beside a video:

    {"format_version": 1, "video": "NAME.mp4",         # a video file or a folder of pictures, beside the JSON file
     "points":   [[[x, y], ...T], ...N],               # x / width and y / height, in [0, 1]; null where not labelled
     "occluded": [[false, ...T], ...N]}
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from atk_perception.training.clip import Clip, load_clip

PICTURES = (".png", ".jpg", ".jpeg")


def read_folder(folder: Path) -> dict[str, Clip]:
    """All sequences in `folder`, by name.

    Raises:
        ValueError: there are none, or one is malformed.
    """
    clips = {path.stem: load_clip(path) for path in sorted(folder.glob("*.npz"))}
    clips |= {path.stem: read_labels(path) for path in sorted(folder.glob("*.json"))}
    if not clips:
        raise ValueError(f"no labelled video in {folder}: expected NAME.npz, or NAME.json beside a video")
    return clips


def read_labels(path: Path) -> Clip:
    """One JSON file and the video it names.

    Raises:
        ValueError: a key is missing, the version is another one, or the video does not fit the labels.
    """
    about = json.loads(path.read_text())
    missing = {"format_version", "video", "points", "occluded"} - set(about)
    if missing:
        raise ValueError(f"{path} lacks {sorted(missing)}")
    if about["format_version"] != 1:
        raise ValueError(f"{path} has format_version {about['format_version']}; this code reads 1")
    video = read_video(path.parent / about["video"])
    height, width = video.shape[1:3]
    occluded = np.asarray(about["occluded"], np.bool_)
    points = [[(np.nan, np.nan) if p is None else p for p in track] for track in about["points"]]
    uv_px = np.asarray(points, np.float32) * np.array([width, height], np.float32) - 0.5
    if uv_px.shape != (*occluded.shape, 2) or occluded.shape[1] != len(video):
        raise ValueError(
            f"{path}: points {uv_px.shape} and occluded {occluded.shape} do not fit the {len(video)} frames of {about['video']}"
        )
    labelled = np.isfinite(uv_px).all(axis=2) | occluded
    return Clip(video, np.nan_to_num(uv_px), ~occluded & labelled, labelled)


def read_video(path: Path) -> NDArray[np.uint8]:
    """(T, H, W, 3) uint8 RGB, from a video file or a folder of pictures in order of their names.

    Raises:
        ValueError: nothing can be read there.
    """
    if path.is_dir():
        pictures = [cv2.imread(str(p)) for p in sorted(path.iterdir()) if p.suffix.lower() in PICTURES]
        frames = [picture for picture in pictures if picture is not None]
    else:
        reader = cv2.VideoCapture(str(path))
        frames = []
        while True:
            more, frame = reader.read()
            if not more:
                break
            frames.append(frame)
        reader.release()
    if not frames:
        raise ValueError(
            f"no frames can be read from {path}: neither a video file nor a folder of pictures {PICTURES}"
        )
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) for frame in frames]).astype(np.uint8)
