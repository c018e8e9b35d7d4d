"""Demonstrations without images: keypoint tracks of scenes in which it is known which objects matter.

`make_demonstrations`: two do, the object and the target. `make_press_demonstrations`: one does, the panel.
`make_long_demonstrations`: two do, each in a stage of its own. In all of them a distractor stands somewhere else each time, most points lie on a table that never moves, and some
cannot be tracked.
"""

from __future__ import annotations

import numpy as np

from atk_policy.demonstrations import Demonstration

JOINTS = 7
OBJECT, TARGET, STATIC, NOISE, FLICKER, DISTRACTOR = range(6)


def keypoint_kinds(candidates: int, rng: np.random.Generator) -> np.ndarray:
    """(C,) what each candidate lies on: 6% each on the object and the target, the rest on nothing of use."""
    kinds = [OBJECT, TARGET, STATIC, NOISE, FLICKER, DISTRACTOR]
    return rng.choice(kinds, candidates, p=[0.06, 0.06, 0.4, 0.3, 0.08, 0.1])


def make_demonstrations(
    count: int, candidates: int, *, steps: int = 60, seed: int = 0
) -> tuple[list[Demonstration], np.ndarray, np.ndarray]:
    """Pick-and-place seen as points: reach the object, close, carry it to the target, open.

    Returns:
        The demonstrations, (C,) the kind of each candidate and (C, 2) its place on the template.
    """
    rng = np.random.default_rng(seed)
    kind = keypoint_kinds(candidates, rng)
    kind[:4] = [OBJECT, TARGET, OBJECT, TARGET]
    template = rng.uniform([30, 30], [610, 450], (candidates, 2))
    object_px, target_px = np.array([200.0, 250.0]), np.array([420.0, 300.0])
    template[kind == OBJECT] = object_px + rng.uniform(-25, 25, ((kind == OBJECT).sum(), 2))
    template[kind == TARGET] = target_px + rng.uniform(-35, 35, ((kind == TARGET).sum(), 2))
    distractor_px = np.array([120.0, 380.0])
    template[kind == DISTRACTOR] = distractor_px + rng.uniform(-25, 25, ((kind == DISTRACTOR).sum(), 2))
    # A fixed smooth map from image position to joints stands for the camera and inverse kinematics.
    to_joints = rng.normal(size=(JOINTS, 3)) * np.array([0.5, 0.5, 0.2])

    def joints_at(uv: np.ndarray, height: float) -> np.ndarray:
        return to_joints @ np.array([(uv[0] - 320) / 160, (uv[1] - 240) / 160, height])

    home = joints_at(np.array([320.0, 100.0]), 1.0)
    demonstrations = []
    for number in range(count):
        at_object = object_px + rng.uniform(-60, 60, 2)
        at_target = target_px + rng.uniform(-40, 40, 2)
        waypoints = [
            (home, 0.08),
            (joints_at(at_object, 0.5), 0.08),
            (joints_at(at_object, 0.0), 0.08),
            (joints_at(at_object, 0.0), 0.0),
            (joints_at(at_target, 0.5), 0.0),
            (joints_at(at_target, 0.0), 0.0),
            (joints_at(at_target, 0.0), 0.08),
        ]
        progress = np.linspace(0, len(waypoints) - 1.001, steps)
        stage, mix = progress.astype(int), progress % 1.0
        action = np.array(
            [
                np.append(
                    (1 - m) * waypoints[s][0] + m * waypoints[s + 1][0],
                    waypoints[s + 1][1] * m + waypoints[s][1] * (1 - m),
                )
                for s, m in zip(stage, mix, strict=True)
            ]
        )
        robot = np.vstack([np.append(home, 0.08), action[:-1]]) + rng.normal(0, 0.001, action.shape)
        carried = np.clip(progress - 3.0, 0.0, 2.0) / 2.0
        object_track = at_object + carried[:, None] * (at_target - at_object)
        uv = np.broadcast_to(template, (steps, candidates, 2)).copy()
        uv[:, kind == OBJECT] += (object_track - object_px)[:, None]
        uv[:, kind == TARGET] += at_target - target_px
        uv[:, kind == DISTRACTOR] += rng.uniform(-60, 60, 2)
        demonstrations.append(_seen(f"episode_{number:04d}", uv, kind, robot, action, rng))
    return demonstrations, kind, template.astype(np.float32)


def make_press_demonstrations(
    count: int, candidates: int, *, steps: int = 40, seed: int = 0
) -> tuple[list[Demonstration], np.ndarray, np.ndarray]:
    """The arm goes to a button on a panel that stands anywhere; half of the points come in near-duplicate pairs.

    Returns:
        As `make_demonstrations`; the panel is OBJECT, and there is no TARGET.
    """
    rng = np.random.default_rng(seed)
    kind = rng.choice([OBJECT, STATIC, NOISE, FLICKER, DISTRACTOR], candidates, p=[0.2, 0.35, 0.2, 0.05, 0.2])
    kind[:4], kind[4:8] = OBJECT, DISTRACTOR
    template = rng.uniform([30, 30], [610, 450], (candidates, 2))
    panel_px, distractor_px = np.array([330.0, 240.0]), np.array([150.0, 330.0])
    template[kind == OBJECT] = panel_px + rng.uniform(-40, 40, ((kind == OBJECT).sum(), 2))
    template[kind == DISTRACTOR] = distractor_px + rng.uniform(-40, 40, ((kind == DISTRACTOR).sum(), 2))
    for body in (OBJECT, DISTRACTOR):
        members = np.flatnonzero(kind == body)
        pairs = len(members) // 4
        template[members[:pairs]] = template[members[pairs : 2 * pairs]] + rng.uniform(-2, 2, (pairs, 2))
    to_joints = rng.normal(size=(JOINTS, 3)) * np.array([0.5, 0.5, 0.2])
    demonstrations = []
    for number in range(count):
        at = panel_px + rng.uniform(-100, 100, 2)
        height = np.linspace(1.0, 0.0, steps)
        reach = np.clip((0.6 - height) / 0.2, 0.0, 1.0)  # nothing but the panel tells where to, until late
        place = (at - [320, 240]) / 100
        arm = np.stack([to_joints @ [*(r * place), h] for r, h in zip(reach, height, strict=True)])
        action = np.concatenate([arm, np.zeros((steps, 1))], axis=1)
        robot = np.vstack([action[:1], action[:-1]]) + rng.normal(0, 0.001, action.shape)
        uv = np.broadcast_to(template, (steps, candidates, 2)).copy()
        uv[:, kind == OBJECT] += at - panel_px
        uv[:, kind == DISTRACTOR] += rng.uniform(-100, 100, 2)
        demonstrations.append(_seen(f"press_{number:04d}", uv, kind, robot, action, rng))
    return demonstrations, kind, template.astype(np.float32)


def make_long_demonstrations(
    count: int, candidates: int, *, steps: int = 48, seed: int = 0
) -> tuple[list[Demonstration], np.ndarray, np.ndarray]:
    """Two tasks in one: close on the object, and then, with the gripper closed, go to the target.

    What is not of the stage misleads: until the gripper closes something covers the target, and then the object, and the tracker
    holds on to that, in one piece and sure of itself.

    Returns:
        As `make_demonstrations`.
    """
    rng = np.random.default_rng(seed)
    kind = rng.choice([OBJECT, TARGET, STATIC, DISTRACTOR], candidates, p=[0.2, 0.2, 0.4, 0.2])
    kind[:12] = np.repeat([OBJECT, TARGET, DISTRACTOR], 4)
    template = rng.uniform([30, 30], [610, 450], (candidates, 2))
    middles_px = {OBJECT: [200.0, 250.0], TARGET: [420.0, 300.0], DISTRACTOR: [120.0, 380.0]}
    for body, middle_px in middles_px.items():
        template[kind == body] = middle_px + rng.uniform(-25, 25, ((kind == body).sum(), 2))
    to_joints = rng.normal(size=(JOINTS, 3)) * np.array([0.5, 0.5, 0.2])

    def arm_at(place_px: np.ndarray, height: float, opening_m: float) -> np.ndarray:
        joints = to_joints @ np.array([(place_px[0] - 320) / 160, (place_px[1] - 240) / 160, height])
        return np.append(joints, opening_m)

    middle = np.array([320.0, 100.0])
    demonstrations = []
    for number in range(count):
        moved_px = {body: rng.uniform(-70, 70, 2) for body in middles_px}
        at_object, at_target = (np.array(middles_px[body]) + moved_px[body] for body in (OBJECT, TARGET))
        stops = np.array(
            [
                arm_at(middle, 1.0, 0.08),
                arm_at(at_object, 0.5, 0.08),
                arm_at(at_object, 0.0, 0.08),
                arm_at(middle, 1.0, 0.0),
                arm_at(at_target, 0.5, 0.0),
                arm_at(at_target, 0.0, 0.0),
            ]
        )
        progress = np.linspace(0, len(stops) - 1, steps)
        action = np.stack([np.interp(progress, np.arange(len(stops)), s) for s in stops.T], axis=1)
        second = progress >= 2.5
        action[:, -1] = np.where(second, 0.0, 0.08)
        robot = np.vstack([action[:1], action[:-1]]) + rng.normal(0, 0.001, action.shape)
        uv = np.broadcast_to(template, (steps, candidates, 2)).copy()
        for body, away_px in moved_px.items():
            astray_px = rng.uniform(-70, 70, 2) + np.cumsum(rng.normal(0, 6, (steps, 2)), axis=0)
            covered = {OBJECT: second, TARGET: ~second}.get(body, np.zeros(steps, np.bool_))
            uv[:, kind == body] += np.where(covered[:, None], astray_px, away_px)[:, None]
        demonstrations.append(_seen(f"long_{number:04d}", uv, kind, robot, action, rng))
    return demonstrations, kind, template.astype(np.float32)


def _seen(
    name: str,
    uv: np.ndarray,
    kind: np.ndarray,
    robot: np.ndarray,
    action: np.ndarray,
    rng: np.random.Generator,
) -> Demonstration:
    """Tracks (T, C, 2) with a tracker's noise; those of NOISE wander, those of FLICKER are hardly ever seen."""
    steps, candidates = uv.shape[:2]
    noise, flicker = kind == NOISE, kind == FLICKER
    uv[:, noise] += np.cumsum(rng.normal(0, 6, (steps, noise.sum(), 2)), axis=0)
    uv[:, noise] += rng.normal(0, 40, (noise.sum(), 2))
    uv[:, flicker] += rng.normal(0, 60, (steps, flicker.sum(), 2))
    uv += rng.normal(0, 0.5, uv.shape)
    visible = rng.random((steps, candidates)) < np.where(flicker, 0.05, 0.97)
    return Demonstration(
        name,
        np.arange(steps, dtype=np.int64) * 50_000_000,
        uv.astype(np.float32),
        visible,
        np.where(visible, 0.9, 0.1).astype(np.float32),
        robot,
        action,
    )
