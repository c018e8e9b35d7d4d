"""One bag through the tracker and the policy that the robot runs: what they would command, and what they did.

Two questions, two ways of driving the same PolicyRunner. `replay` asks how near the policy comes to what was
commanded in the bag: after each frame the robot goes on from the recorded command, so that errors do not build up.
`agreement` asks whether a bag of a live run gives the commands of that run again: the runner starts, holds and stops
where the live one did, and goes on from its own commands.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from atk_perception.camera_join import CameraJoin, Joined, joined_observation
from atk_perception.frames import (
    BagError,
    Frame,
    bag_messages,
    bag_offers,
    read_frames,
    read_joined_frames,
    stamp_ns_of,
)
from atk_perception.image_codec import RgbImage
from atk_perception.keypoint_tracker import KeypointObservation, TrackerState, observation_of
from atk_perception.overlay import Overlay
from atk_perception.robot_description import RobotDescription
from atk_perception.video import VideoWriter
from atk_policy.demonstrations import Tracking
from atk_policy.policy_runner import PolicyRunner, RunState
from atk_policy.run_folder import RunFolder

FloatArray = npt.NDArray[np.float64]
STATUS_TYPE, KEYPOINTS_TYPE = "atk_interfaces/msg/PolicyStatus", "atk_interfaces/msg/KeypointArray"


# Commands [rad, m] that differ by less are one; they travel as doubles.
SAME = 1e-9


@dataclass(frozen=True, eq=False)
class Replay:
    """One bag through tracker and policy; T frames, N keypoints, J joints, H the chunk's horizon.

    Attributes:
        name: of the bag.
        time_s: (T,) from the first frame.
        uv_px: (T, N, 2), visible: (T, N): the tracks.
        tracking: (T,) bool, tracker state TRACKING.
        recorded, commanded: (T, J + 1) actions [rad, m]; NaN in `commanded` where the runner held.
        chunk: (T, H, J + 1) what the policy predicted, NaN where it held.
        tracker_ms, inference_ms: (T,); of several trackers the first camera's.
        holds: how often each cause held.
        seen: what the trackers answered to every image of the first camera, by stamp [ns]; images may come faster
            than frames.
    """

    name: str
    time_s: FloatArray
    uv_px: npt.NDArray[np.float32]
    visible: npt.NDArray[np.bool_]
    tracking: npt.NDArray[np.bool_]
    recorded: FloatArray
    commanded: FloatArray
    chunk: FloatArray
    tracker_ms: FloatArray
    inference_ms: FloatArray
    holds: dict[str, int]
    seen: Mapping[int, KeypointObservation] = field(repr=False)

    def error(self) -> FloatArray:
        """(T, J + 1) absolute error of the command against the recorded action [rad, m]; NaN where held."""
        return np.abs(self.commanded - self.recorded)

    def joint_error_rad(self) -> FloatArray:
        """(J,) mean absolute error of the command against the recorded action."""
        return np.asarray(_nanmean(self.error(), axis=0)[:-1])

    def gripper_error_m(self) -> float:
        """Mean absolute error of the gripper opening."""
        return float(_nanmean(self.error()[:, -1]))

    def error_by_horizon_rad(self) -> FloatArray:
        """(H,) mean absolute joint error of the chunk's k-th action against the action recorded k later."""
        steps, horizon = self.chunk.shape[:2]
        errors = np.full(horizon, np.nan)
        for k in range(min(horizon, steps)):
            errors[k] = _nanmean(np.abs(self.chunk[: steps - k, k] - self.recorded[k:])[:, :-1])
        return errors


def replay(
    bag: Path,
    run: RunFolder,
    robot: RobotDescription,
    *,
    video: Path | None = None,
    viewpoint: str = "none",
) -> Replay:
    """Stream one bag through tracker and runner.

    Args:
        video: also write the images of the first camera with the tracks drawn on them, as MP4.
        viewpoint: how keypoints are reprojected into the training camera, a name in viewpoint.VIEWPOINTS.

    Raises:
        BagError, JointStateError, ImageFormatError: see `read_frames`.
        ViewpointError, KeypointSetError: something that the viewpoint needs is missing, see `bag_viewpoint`.
        RunFolderError: the run folder does not fit the robot.
        VideoError: the video cannot be written.
    """
    torch.set_num_threads(1)  # as on the robot: the order of a sum decides the last digits
    robot = run.require_robot(robot)
    track = Tracking(run.file.matcher, run.file.tracker, viewpoint).observer(
        bag, run.keypoint_sets.values(), robot
    )
    runner = PolicyRunner(run, robot)
    overlay = Overlay()
    tracker_ms: dict[int, float] = {}
    seen: dict[int, KeypointObservation] = {}
    sets = list(run.keypoint_sets.items())

    with VideoWriter(video, robot.camera.rate_hz) if video else nullcontext() as writer:

        def observe(camera: str, stamp_ns: int, image_rgb: RgbImage) -> KeypointObservation:
            started = time.perf_counter()
            observation = track(camera, stamp_ns, image_rgb)
            if camera != robot.camera.name:
                return observation
            # Of two images with one stamp (a simulator that was reset) the first is the frame's, as in FrameAligner.
            tracker_ms.setdefault(stamp_ns, 1e3 * (time.perf_counter() - started))
            if writer is not None:
                height, width = image_rgb.shape[:2]
                scale = (width / run.keypoint_set.image_width, height / run.keypoint_set.image_height)
                writer.add(overlay.draw(image_rgb, observation, scale))
            return observation

        def join(joined: Joined[KeypointObservation]) -> KeypointObservation:
            return seen.setdefault(joined.stamp_ns, joined_observation(joined, sets))

        frames = read_joined_frames(bag, robot, observe, join)
        rows = list(_follow_recorded(frames, run, robot, runner, tracker_ms))
    if not rows:
        raise BagError(f"bag {bag} has no frame in which image, joint state and command overlap in time")
    causes = [row[-1] for row in rows if row[-1]]
    stamps, uv, visible, tracking, recorded, commanded, chunk, tracker_time, inference = map(
        np.array, list(zip(*rows, strict=True))[:-1]
    )
    return Replay(
        bag.name,
        (stamps - stamps[0]) / 1e9,
        uv,
        visible,
        tracking,
        recorded,
        commanded,
        chunk,
        tracker_time,
        inference,
        {cause: causes.count(cause) for cause in sorted(set(causes))},
        seen,
    )


def _follow_recorded(
    frames: Iterator[Frame[KeypointObservation]],
    run: RunFolder,
    robot: RobotDescription,
    runner: PolicyRunner,
    tracker_ms: Mapping[int, float],
) -> Iterator[tuple[Any, ...]]:
    unknown = np.full(robot.action_size, np.nan)
    unknown_chunk = np.full((run.file.horizon, robot.action_size), np.nan)
    runner.start()
    for frame in frames:
        step = runner.step(frame)
        running = step.state is RunState.RUNNING
        seen = frame.payload
        yield (
            frame.stamp_ns,
            seen.policy_uv_px,
            seen.visible,
            seen.tracker_state is TrackerState.TRACKING,
            frame.action,
            step.command if running else unknown,
            runner.last_chunk if running and runner.last_chunk is not None else unknown_chunk,
            tracker_ms[frame.stamp_ns],
            step.inference_ms,
            "" if running else step.cause,
        )
        if frame.action is not None:  # the recorded command is what the robot went on from
            runner.follow(frame.action)


# --------------------------------------------------------------------------------------- agreement


@dataclass(frozen=True)
class Agreement:
    """How a bag of a live run and that run agree; differences are the largest of all frames.

    Attributes:
        frames: that both commanded.
        command_rad, gripper_m: between the commands.
        tracks_px: between the tracks, where the bag holds `keypoints`, else None.
        same_tracks_rad: between the commands when the recorded tracks are given to the policy, else None.
        held_here: frames that the live run commanded and that hold here, by cause.
        missing: frames that the live run answered and the bag does not give.
        latency_ms: (T,) from image stamp to command, as the live run measured it.
    """

    frames: int
    command_rad: float
    gripper_m: float
    tracks_px: float | None
    same_tracks_rad: float | None
    held_here: Mapping[str, int]
    missing: int
    latency_ms: FloatArray = field(repr=False)


def agreement(
    bag: Path, run: RunFolder, robot: RobotDescription, seen: Mapping[int, KeypointObservation]
) -> Agreement | None:
    """Compute the commands of a recorded live run again; None where the bag holds none (`policy/status`).

    Args:
        seen: what the trackers answer to this bag, see `Replay`.

    Raises:
        BagError, JointStateError, ImageFormatError: see `read_frames`.
    """
    offers = bag_offers(bag)
    topics = {kind: [t for t, offer in offers.items() if offer.msgtype == kind] for kind in _LIVE_TYPES}
    answers: dict[int, list[Any]] = {}
    for _, _, message in bag_messages(bag, topics[STATUS_TYPE]) if topics[STATUS_TYPE] else ():
        answers.setdefault(stamp_ns_of(message), []).append(message)
    asked = [stamp for stamp, given in answers.items() if given[0].state != RunState.IDLE]
    if not asked:
        return None
    robot = run.require_robot(robot)
    recorded: dict[int, KeypointObservation] = {}
    sets = list(run.keypoint_sets.items())
    camera_of_set = {points.name: camera for camera, points in sets}
    cameras: CameraJoin[KeypointObservation] = CameraJoin(robot)
    for _, _, message in bag_messages(bag, topics[KEYPOINTS_TYPE]) if topics[KEYPOINTS_TYPE] else ():
        if camera := camera_of_set.get(message.set_name):
            stamp_ns = stamp_ns_of(message)
            for joined in cameras.add(camera, stamp_ns, observation_of(message, stamp_ns)):
                recorded.setdefault(joined.stamp_ns, joined_observation(joined, sets))
    for joined in cameras.finish():
        recorded.setdefault(joined.stamp_ns, joined_observation(joined, sets))
    computed = _commands_again(bag, run, robot, answers, lambda stamp_ns: seen[stamp_ns])
    both = {stamp: pair for stamp, pair in computed.items() if isinstance(pair, tuple)}
    held = [pair for pair in computed.values() if isinstance(pair, str)]
    commanded = [stamp for stamp, given in answers.items() if given[0].state == RunState.RUNNING]
    tracks_px = same_tracks_rad = None
    # Where the bag ends before the last image of a further camera, the one before it stands in its place.
    shared = sorted(s for s in set(recorded) & set(seen) if recorded[s].stamp_ns == seen[s].stamp_ns)
    if shared:
        tracks_px = max(
            float(np.nanmax(np.abs(recorded[s].policy_uv_px - seen[s].policy_uv_px), initial=0.0))
            for s in shared
        )
        if set(answers) <= set(recorded):
            again = _commands_again(bag, run, robot, answers, lambda stamp_ns: recorded[stamp_ns])
            same_tracks_rad = _largest(again, slice(None, -1))
    return Agreement(
        len(both),
        _largest(computed, slice(None, -1)),
        _largest(computed, slice(-1, None)),
        tracks_px,
        same_tracks_rad,
        {cause: held.count(cause) for cause in sorted(set(held))},
        len(set(commanded) - set(computed)),
        np.array([given[0].latency_ms for given in answers.values() if given[0].state == RunState.RUNNING]),
    )


_LIVE_TYPES = (STATUS_TYPE, KEYPOINTS_TYPE)


def _commands_again(
    bag: Path,
    run: RunFolder,
    robot: RobotDescription,
    answers: Mapping[int, list[Any]],
    seen_at: Callable[[int], KeypointObservation],
) -> dict[int, tuple[FloatArray, FloatArray] | str]:
    """Per frame that the live run commanded: (its command, ours), or the cause why we hold."""
    runner = PolicyRunner(run, robot)
    results: dict[int, tuple[FloatArray, FloatArray] | str] = {}
    # The live run's clock of control frames began before it was asked to command.
    frames = read_frames(bag, robot, lambda stamp_ns, _: stamp_ns, with_actions=False, from_ns=min(answers))
    for stamps_only in frames:
        stamp_ns = stamps_only.stamp_ns
        for number, answer in enumerate(answers.get(stamp_ns, ())):
            state, live = RunState(answer.state), np.asarray(answer.command, np.float64)
            if state in (RunState.RUNNING, RunState.HOLDING) and runner.state in (
                RunState.IDLE,
                RunState.STOPPED,
            ):
                runner.start()
            if state in (RunState.HOLDING, RunState.STOPPED):
                ends = state is RunState.STOPPED and runner.state is not RunState.STOPPED
                held = (runner.stop(stamp_ns) if ends else runner.hold(stamp_ns, answer.hold_cause)).command
                # The cause may lie outside the bag, in how late a message came, and so may how far the arm had braked.
                if live.size and (held is None or np.abs(held - live).max() > SAME):
                    runner.follow(live)
                elif held is not None and not live.size:  # it was at rest already
                    runner.follow(held)
                    runner.follow(held)
            elif state is RunState.RUNNING and number == 0:
                frame = Frame(stamp_ns, seen_at(stamp_ns), stamps_only.robot, None)
                step = runner.step(frame)
                running = step.state is RunState.RUNNING and step.command is not None
                results[stamp_ns] = (live, np.asarray(step.command)) if running else step.cause
    return results


def _largest(results: Mapping[int, tuple[FloatArray, FloatArray] | str], part: slice) -> float:
    pairs = [pair for pair in results.values() if isinstance(pair, tuple)]
    return max((float(np.abs(live[part] - ours[part]).max()) for live, ours in pairs), default=float("nan"))


def _nanmean(values: FloatArray, axis: int | None = None) -> Any:
    """As np.nanmean, silently NaN where everything is."""
    count = np.isfinite(values).sum(axis=axis)
    total = np.nansum(values, axis=axis)
    return np.where(count, total / np.maximum(count, 1), np.nan)
