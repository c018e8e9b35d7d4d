"""Demonstrations (rosbag2 folders) to keypoint-annotated arrays (method.md, training step 2).

Every bag is streamed through the same `KeypointTracker` that the robot later runs, with all
candidates as its keypoint set. Images are never kept; what remains of a demonstration are its
tracks, a few hundred kilobytes, cached by content.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from itertools import dropwhile, islice
from pathlib import Path
from typing import overload
from zipfile import BadZipFile

import cv2
import numpy as np
import numpy.typing as npt

import atk_perception
from atk_perception.bag_calibration import bag_viewpoint
from atk_perception.camera_join import joined_observation
from atk_perception.frames import BagError, Frame, read_frames, read_joined_frames
from atk_perception.image_codec import RgbImage
from atk_perception.keypoint_set import KeypointSet
from atk_perception.keypoint_tracker import (
    KeypointObservation,
    KeypointTracker,
    KeypointTrackerParameters,
)
from atk_perception.public_models import weights_version
from atk_perception.recording import DISCARDED_SUFFIX, UNFINISHED_SUFFIX
from atk_perception.registry import make_matcher, make_tracker
from atk_perception.robot_description import RobotDescription
from atk_perception.transfer import TransferParameters
from atk_perception.viewpoint import Viewpoint
from atk_policy.worker_processes import worker_pool

CACHE_FORMAT = 2
# Tracks that are kept once they were read; those of 1,000 demonstrations with 512 candidates are 1.3 GB.
MEMORY_BYTES = 256 << 20
Observer = Callable[[str, int, RgbImage], KeypointObservation]  # (camera, stamp [ns], image)
_FIELDS = ("stamp_ns", "uv_px", "visible", "confidence", "robot", "action")


class DemonstrationError(ValueError):
    """Demonstrations that cannot be used; the message names which and what to do."""


@dataclass(frozen=True, eq=False)
class Demonstration:
    """One demonstration as the policy sees it: T frames at the control rate, C keypoints, J joints.

    Attributes:
        name: the bag's folder name.
        stamp_ns: (T,) int64 of the images.
        uv_px: (T, C, 2) float32 in pixels of each point's template; the last estimate where not visible.
        visible: (T, C) bool; all false while the tracker has not found the scene.
        confidence: (T, C) float32 in [0, 1].
        robot: (T, J + 1) float64 measured joint positions [rad], gripper opening [m].
        action: (T, J + 1) float64 commanded joint positions [rad], gripper opening [m].
    """

    name: str
    stamp_ns: npt.NDArray[np.int64]
    uv_px: npt.NDArray[np.float32]
    visible: npt.NDArray[np.bool_]
    confidence: npt.NDArray[np.float32]
    robot: npt.NDArray[np.float64]
    action: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.stamp_ns)

    def keypoints(self, keep: npt.NDArray[np.bool_]) -> Demonstration:
        """The same with only the keypoints where `keep` (C,) is true."""
        return replace(
            self,
            uv_px=self.uv_px[:, keep],
            visible=self.visible[:, keep],
            confidence=self.confidence[:, keep],
        )

    @property
    def nbytes(self) -> int:
        """Memory of all arrays."""
        return sum(getattr(self, name).nbytes for name in _FIELDS)

    def save(self, path: Path) -> None:
        """Write as NPZ without objects; a kill at any moment leaves no half file of that name."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        with partial.open("wb") as file:
            np.savez_compressed(file, **{name: getattr(self, name) for name in _FIELDS})
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path, name: str) -> Demonstration:
        """Read what `save` wrote.

        Raises:
            DemonstrationError: no such file, or a damaged one.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(name, **{field: arrays[field] for field in _FIELDS})
        except (OSError, KeyError, ValueError, BadZipFile) as error:
            raise DemonstrationError(f"track file {path} cannot be read ({error}); delete it") from error


# A demonstration shows the task: somebody saw to that. And of the candidates many lie on a bare table, where nothing can be found,
# so that a few found ones are enough to begin with; each candidate's own tracks then say whether it can be tracked.
AS_CANDIDATES = KeypointTrackerParameters(transfer=TransferParameters(min_found_fraction=0.05))


def once_found(demonstration: Demonstration) -> Demonstration:
    """From the first frame on that shows a keypoint: before it a robot would not move. Without frames where none does."""
    seen = np.flatnonzero(demonstration.visible.any(axis=1))
    first = int(seen[0]) if len(seen) else len(demonstration)
    return replace(demonstration, **{name: getattr(demonstration, name)[first:] for name in _FIELDS})


class TrackedDemonstrations(Sequence[Demonstration]):
    """Demonstrations in the files of a track cache, read when they are asked for.

    The first MEMORY_BYTES of them stay in memory, so that a few dozen are read once and a thousand do not fill it.

    Args:
        files: of `Demonstration.save`. names: of the bags.

    Raises:
        DemonstrationError: by every access, see `Demonstration.load`.
    """

    def __init__(self, files: Sequence[Path], names: Sequence[str]) -> None:
        self.files, self._names = files, names
        self._held: dict[int, Demonstration] = {}
        self._left = MEMORY_BYTES

    def __reduce__(self) -> tuple[type[TrackedDemonstrations], tuple[Sequence[Path], Sequence[str]]]:
        return TrackedDemonstrations, (self.files, self._names)  # another process reads its own

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, index: int) -> Demonstration: ...

    @overload
    def __getitem__(self, index: slice) -> list[Demonstration]: ...

    def __getitem__(self, index: int | slice) -> Demonstration | list[Demonstration]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        if index in self._held:
            return self._held[index]
        demonstration = Demonstration.load(self.files[index], self._names[index])
        if demonstration.nbytes <= self._left:
            self._held[index] = demonstration
            self._left -= demonstration.nbytes
        return demonstration


@dataclass(frozen=True)
class Tracking:
    """How demonstrations are tracked: names in atk_perception.registry, and in atk_perception.viewpoint.VIEWPOINTS."""

    matcher: str
    tracker: str
    viewpoint: str = "none"

    def keypoint_tracker(
        self,
        keypoint_set: KeypointSet,
        parameters: KeypointTrackerParameters | None = None,
        viewpoint: Viewpoint | None = None,
    ) -> KeypointTracker:
        """A fresh tracker for one image stream, which may be of a camera that stands elsewhere."""
        return KeypointTracker(
            keypoint_set,
            make_matcher(self.matcher),
            make_tracker(self.tracker),
            parameters,
            viewpoint=viewpoint,
        )

    def observer(
        self,
        bag: Path,
        sets: Iterable[KeypointSet],
        robot: RobotDescription,
        parameters: KeypointTrackerParameters | None = None,
    ) -> Observer:
        """A fresh tracker for every camera of a bag, as `read_joined_frames` asks them.

        Raises:
            ViewpointError, KeypointSetError, BagError: see `bag_viewpoint`.
        """
        by_name = {camera.name: camera for camera in robot.cameras}
        trackers, depths = {}, {}
        for points in sets:
            name = points.camera_name
            viewpoint, depths[name] = bag_viewpoint(self.viewpoint, bag, points, robot, by_name[name])
            trackers[name] = self.keypoint_tracker(points, parameters, viewpoint)

        def observe(camera: str, stamp_ns: int, image_rgb: RgbImage) -> KeypointObservation:
            depth = depths[camera]
            return trackers[camera].update(stamp_ns, image_rgb, None if depth is None else depth.at(stamp_ns))

        return observe


def find_bags(paths: Sequence[Path | str]) -> list[Path]:
    """The rosbag2 folders among `paths` and directly inside them, sorted by path.

    Raises:
        DemonstrationError: a path does not exist or holds no bag, or two bags have one name.
    """
    bags: list[Path] = []
    for path in map(Path, paths):
        if (path / "metadata.yaml").is_file():
            inside = [path]
        else:
            inside = sorted(
                child.parent
                for child in path.glob("*/metadata.yaml")
                if not child.parent.name.endswith((UNFINISHED_SUFFIX, DISCARDED_SUFFIX))
            )
        if not inside:
            raise DemonstrationError(
                f"{path} is no rosbag2 folder and holds none (a bag is a folder with metadata.yaml); "
                "record demonstrations with 'ros2 bag record -s mcap' or the recorder"
            )
        bags += inside
    bags = list(dict.fromkeys(bag.resolve() for bag in bags))
    names = [bag.name for bag in bags]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DemonstrationError(f"several demonstrations are named {repeated}; rename their folders")
    return bags


def first_image(bag: Path, robot: RobotDescription) -> RgbImage:
    """The image of a demonstration's first frame.

    Raises:
        BagError: the bag has no frame at all.
    """
    return first_images(bag, robot, robot.control_rate_hz, 1)[0]


def first_images(bag: Path, robot: RobotDescription, rate_hz: float, count: int) -> list[RgbImage]:
    """At most `count` images from a demonstration's first frame on, about `rate_hz` of them a second.

    Raises:
        BagError: the bag has no frame at all.
    """
    every = max(1, round(robot.control_rate_hz / rate_hz))
    frames = islice(read_frames(bag, robot), 0, every * count, every)
    images = [frame.payload for frame in frames]
    if not images:
        raise BagError(f"bag {bag} has no frame in which image, joint state and command overlap in time")
    return images


def track_demonstration(
    bag: Path, candidates: Sequence[KeypointSet], robot: RobotDescription, tracking: Tracking
) -> Demonstration:
    """Stream one bag through the keypoint tracker of every camera; `candidates` has a set for each, in the robot's order.

    Raises:
        BagError, JointStateError, ImageFormatError: see `read_frames`; or a camera was silent in the middle.
        ViewpointError, KeypointSetError: something that `tracking.viewpoint` needs is missing, see `bag_viewpoint`.
    """
    sets = [(points.camera_name, points) for points in candidates]
    frames = list(
        read_joined_frames(
            bag,
            robot,
            tracking.observer(bag, candidates, robot, AS_CANDIDATES),
            lambda joined: joined_observation(joined, sets),
        )
    )
    # When a recording starts, cameras are found one after the other.
    frames = list(dropwhile(_lacks_camera, frames))
    for frame in filter(_lacks_camera, frames):
        raise BagError(
            f"bag {bag}: camera '{frame.payload.oldest_camera}' has no image of the {robot.deadlines_s.image} s before "
            f"{(frame.stamp_ns - frames[0].stamp_ns) / 1e9:.2f} s into the demonstration. Record it again, or leave it out"
        )
    if not frames:
        raise BagError(f"bag {bag} has no frame in which image, joint state and command overlap in time")
    seen = [frame.payload for frame in frames]
    return Demonstration(
        bag.name,
        np.array([frame.stamp_ns for frame in frames], np.int64),
        np.stack([s.policy_uv_px for s in seen]),
        np.stack([s.visible for s in seen]),
        np.stack([s.confidence for s in seen]),
        np.stack([frame.robot.vector() for frame in frames]),
        np.stack([frame.action for frame in frames if frame.action is not None]),
    )


def _lacks_camera(frame: Frame[KeypointObservation]) -> bool:
    return frame.payload.stamp_ns == 0


def track_demonstrations(
    bags: Sequence[Path],
    candidates: Sequence[KeypointSet],
    robot: RobotDescription,
    tracking: Tracking,
    cache_folder: Path,
    *,
    workers: int = 2,
    report: Callable[[float, str], None] = lambda fraction, detail: None,
) -> TrackedDemonstrations:
    """Track every bag, in parallel processes, each at most once in the life of the cache.

    Args:
        report: called with (share done, bag name) as bags finish; what it raises ends the work,
            and the bags tracked so far stay in the cache.

    Returns:
        One demonstration per bag, in the order of `bags`.

    Raises:
        BagError, JointStateError, ImageFormatError: see `read_frames`; the first bad bag ends the work.
    """
    # Threads are enough to hash: the digest of a block does not hold Python's lock.
    with ThreadPoolExecutor(workers) as threads:
        keys = threads.map(lambda bag: _content_key(bag, candidates, robot, tracking), bags)
        files = {bag: cache_folder / f"{key}.npz" for bag, key in zip(bags, keys, strict=True)}
    missing = [bag for bag, file in files.items() if not file.is_file()]
    done = len(bags) - len(missing)
    if done:
        report(done / len(bags), f"{done} of {len(bags)} from the cache")
    if missing:
        with worker_pool(min(workers, len(missing))) as pool:
            jobs = {
                pool.submit(_track_to_cache, bag, candidates, robot, tracking, files[bag]): bag
                for bag in missing
            }
            try:
                for job in as_completed(jobs):
                    job.result()
                    done += 1
                    report(done / len(bags), jobs[job].name)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return TrackedDemonstrations([files[bag] for bag in bags], [bag.name for bag in bags])


def _track_to_cache(
    bag: Path, candidates: Sequence[KeypointSet], robot: RobotDescription, tracking: Tracking, file: Path
) -> None:
    track_demonstration(bag, candidates, robot, tracking).save(file)


def _content_key(
    bag: Path, candidates: Sequence[KeypointSet], robot: RobotDescription, tracking: Tracking
) -> str:
    """Changes with anything that the tracks depend on."""
    digest = hashlib.sha256()
    for part in (
        f"{CACHE_FORMAT}",
        _perception_version(),
        tracking.matcher,
        tracking.tracker,
        weights_version(tracking.matcher),
        weights_version(tracking.tracker),
        robot.fingerprint(),
    ):
        digest.update(f"{part};".encode())
    if tracking.viewpoint != "none":
        told = [points.calibration.dump() for points in candidates if points.calibration is not None]
        digest.update("".join([tracking.viewpoint, robot.dump(), *told]).encode())
    for points in candidates:
        rigid = points.rigid
        along = () if rigid is None else (rigid.numbers, rigid.companions_px)
        for array in (points.uv_px, points.template_rgb, *along):
            digest.update(f"{points.camera_name}{array.shape};".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    for file in sorted(p for p in bag.iterdir() if p.suffix in (".mcap", ".db3", ".zstd")):
        with file.open("rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()[:32]


@cache
def _perception_version() -> str:
    """Digest of the perception code, its weights and OpenCV's version.

    Tracks of an older tracker are not those that the robot will see.
    """
    digest = hashlib.sha256(f"{cv2.__version__};{np.__version__};".encode())
    root = Path(atk_perception.__file__).parent
    for file in sorted(p for p in root.rglob("*") if p.suffix in (".py", ".safetensors")):
        if not file.name.endswith("_node.py"):
            digest.update(f"{file.relative_to(root)};".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def split(count: int, held_out_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of training and held-out demonstrations, by demonstration and at random.

    With fewer than 5 demonstrations nothing is held out: every one is needed.
    """
    held_out = max(1, round(held_out_fraction * count)) if count >= 5 and held_out_fraction > 0 else 0
    order = np.random.default_rng(seed).permutation(count)
    return sorted(order[held_out:].tolist()), sorted(order[:held_out].tolist())


@dataclass(frozen=True)
class Trackability:
    """How well each candidate was tracked over all demonstrations, (C,) each.

    Attributes:
        transferred: share of demonstrations in whose first tenth of frames the point was visible.
        visible: share of all frames in which it was visible.
        confidence: mean confidence where visible.
        frames: how many there are.
    """

    transferred: npt.NDArray[np.float64]
    visible: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float64]
    frames: int

    def score(self) -> npt.NDArray[np.float64]:
        """(C,) all three in one figure in [0, 1]."""
        return self.transferred * self.visible * self.confidence


def trackability(demonstrations: Iterable[Demonstration]) -> Trackability:
    """Measure `Trackability` over some demonstrations, each looked at once."""
    early, frames = [], 0
    visible, confidence = np.zeros(0, np.int64), np.zeros(0, np.float32)
    for d in demonstrations:
        if not frames:
            visible, confidence = (
                np.zeros(d.visible.shape[1], np.int64),
                np.zeros(d.visible.shape[1], np.float32),
            )
        early.append(d.visible[: max(1, len(d) // 10)].any(axis=0))
        visible = visible + d.visible.sum(axis=0)
        confidence = np.concatenate([confidence[None], d.confidence * d.visible]).sum(axis=0)
        frames += len(d)
    return Trackability(np.mean(early, axis=0), visible / frames, confidence / np.maximum(visible, 1), frames)


def iterate_tracks(demonstration: Demonstration) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """(keypoint index, (T, 2) uv with NaN where not visible) of a demonstration, for plots."""
    for index in range(demonstration.uv_px.shape[1]):
        uv = demonstration.uv_px[:, index].copy()
        uv[~demonstration.visible[:, index]] = np.nan
        yield index, uv
