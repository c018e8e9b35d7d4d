"""Clips of MuJoCo scenes: random solids on a table, moved by an arm that hides them, with exact tracks.

Nothing is simulated: bodies follow smooth random paths, which covers what a robot does to objects and costs nothing.
A point is attached to the body that the first frame's segmentation shows at its pixel, at the depth that its depth image
shows; body poses then give its later pixels, and depth images its visibility.

Shapes, textures, lights, cameras and the arm are random. Nothing is taken from the tasks of `atk_sim`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import mujoco
import numpy as np
from numpy.typing import NDArray

from atk_perception.training.clip import Clip, every_frame_labelled
from atk_perception.training.photometry import PhotometricStrength, Photometry
from atk_perception.training.textures import random_colour, random_texture

Array = NDArray[np.float64]

# A point counts as hidden if something is this much nearer than where it should be; depth buffers are good to 1 mm here.
HIDDEN_BY_M = 0.006
TABLE_HALF_M = 0.7
ARM_LINKS = 4


@dataclass(frozen=True)
class RobotClass:
    """What kind of scene.

    Attributes:
        plain_fraction: share of objects of almost one colour.
        objects: least and most.
        object_m: least and largest half size.
        photometric: light, blur, noise on top of the rendered lights.
        new_scene_fraction: share of clips whose first frame has the objects elsewhere, under other lamps, perhaps on another table.
        new_scene_yaw_rad: how far objects are turned there.
        twin_fraction: share of clips (without a new scene) in which an object has a look-alike.
        transparent_fraction: share of solids that light goes through.
        background_point_fraction: share of points on the table, where that stays the same.
        speed: of objects, arm and camera, 1: as in training.
    """

    plain_fraction: float = 0.5
    objects: tuple[int, int] = (3, 6)
    object_m: tuple[float, float] = (0.018, 0.07)
    photometric: PhotometricStrength = field(default_factory=lambda: PhotometricStrength(light=0.7, blur=0.6))
    new_scene_fraction: float = 0.35
    new_scene_yaw_rad: float = float(np.pi)
    twin_fraction: float = 0.0
    transparent_fraction: float = 0.05
    background_point_fraction: float = 0.15
    speed: float = 1.0


def robot_clip(
    seed: int, length: int, height: int, width: int, kind: RobotClass | None = None, points: int = 64
) -> Clip:
    """One clip, a pure function of its arguments. All points are visible in frame 0."""
    kind = kind or RobotClass()
    rng = np.random.default_rng([30, seed])
    new_scene = bool(rng.random() < kind.new_scene_fraction)
    count = int(rng.integers(kind.objects[0], kind.objects[1] + 1))
    model = _build_model(
        rng, kind, count, height, width, twin=not new_scene and bool(rng.random() < kind.twin_fraction)
    )
    data = mujoco.MjData(model)
    lamps = [_draw_lamps(rng, model.nlight) for _ in range(2)]
    paths = _paths(rng, kind, model, count, length, new_scene)
    light = Photometry(rng, length, height, width, kind.photometric)
    other_table = new_scene and rng.random() < 0.6

    video = np.empty((length, height, width, 3), np.uint8)
    depth = np.empty((length, height, width), np.float32)
    bodies = np.zeros((length, model.nbody, 12))
    cameras = np.zeros((length, 12))
    owner = np.zeros((height, width), int)
    with mujoco.Renderer(model, height, width) as renderer:
        for t in range(length):
            _set_lamps(model, lamps[int(new_scene and t == 0)])
            _pose(model, data, paths, t, hide_arm=new_scene and t == 0, other_table=other_table and t == 0)
            bodies[t, :, :9], bodies[t, :, 9:] = data.xmat, data.xpos
            cameras[t, :9], cameras[t, 9:] = data.cam_xmat[0], data.cam_xpos[0]
            renderer.update_scene(data, camera=0)
            colour = renderer.render().astype(np.float32)
            if t == 0:
                renderer.enable_segmentation_rendering()
                renderer.update_scene(data, camera=0)
                owner = _body_of_pixels(model, renderer.render())
                renderer.disable_segmentation_rendering()
            renderer.enable_depth_rendering()
            renderer.update_scene(data, camera=0)
            depth[t] = renderer.render()
            renderer.disable_depth_rendering()
            motion = rng.normal(0, 3.0 * width / 320, 2) if rng.random() < 0.4 else np.zeros(2)
            video[t] = light(colour, t, motion.astype(np.float32))
    focal_px = height / 2 / np.tan(np.deg2rad(model.cam_fovy[0]) / 2)
    uv_px, visible = _tracks(
        rng,
        kind,
        owner,
        depth,
        bodies,
        cameras,
        focal_px,
        count,
        points,
        0.0 if new_scene else kind.background_point_fraction,
    )
    return every_frame_labelled(video, uv_px, visible)


@dataclass(frozen=True, eq=False)
class _Lamps:
    """(L, 3) position [m], direction and colour of lamps; strength of the light from everywhere and from the camera."""

    position_m: Array
    direction: Array
    diffuse: Array
    ambient: float
    headlight: float


def _draw_lamps(rng: np.random.Generator, count: int) -> _Lamps:
    def per_lamp(low: float, high: float, columns: int) -> Array:
        return np.asarray(rng.uniform(low, high, (count, columns)))

    return _Lamps(
        np.concatenate([per_lamp(-1.2, 1.2, 2), per_lamp(0.8, 2.0, 1)], axis=1),
        np.concatenate([per_lamp(-0.6, 0.6, 2), np.full((count, 1), -1.0)], axis=1),
        per_lamp(0.6, 1.0, 3) * per_lamp(0.25, 0.8, 1),
        float(rng.uniform(0.2, 0.55)),
        float(rng.uniform(0.05, 0.5)),
    )


def _set_lamps(model: mujoco.MjModel, lamps: _Lamps) -> None:
    model.light_pos[:], model.light_dir[:] = lamps.position_m, lamps.direction
    model.light_diffuse[:] = lamps.diffuse
    model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:] = lamps.ambient, lamps.headlight


def _build_model(
    rng: np.random.Generator, kind: RobotClass, count: int, height: int, width: int, *, twin: bool
) -> mujoco.MjModel:
    """Table (body 1), objects (2 ... count + 1), arm (after them); all but the table are mocap bodies.

    With `twin` the last two objects look alike.
    """
    spec = mujoco.MjSpec()
    spec.visual.quality.shadowsize = 1024
    spec.visual.quality.offsamples = 0
    spec.visual.global_.offwidth, spec.visual.global_.offheight = width, height
    spec.visual.map.znear, spec.visual.map.zfar = 0.05, 20.0
    spec.stat.extent, spec.stat.center = 1.0, [0, 0, 0]
    _add_picture(
        spec, "sky", mujoco.mjtTexture.mjTEXTURE_SKYBOX, np.concatenate([random_texture(rng, 64, 64)] * 6)
    )
    for number in range(int(rng.integers(1, 4))):
        spec.worldbody.add_light(
            specular=[rng.uniform(0, 0.5)] * 3,
            # A shadow costs as much as the rest of the frame: one lamp in one scene of three casts it.
            castshadow=bool(number == 0 and rng.random() < 0.35),
        )
    table = spec.worldbody.add_body(name="table")
    for number in range(2):
        picture = random_texture(rng, 384, 384)
        _add_material(spec, f"table{number}", mujoco.mjtTexture.mjTEXTURE_2D, picture, 0.1)
        table.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[TABLE_HALF_M, TABLE_HALF_M, 0.01],
            pos=[0, 0, -0.01 - 3.0 * number],
            material=f"table{number}",
        )
    looks = rng.integers(1 << 32, size=count)
    if twin and count > 1:
        looks[-1] = looks[-2]
    for number, look in enumerate(looks):
        body = spec.worldbody.add_body(name=f"object{number}", mocap=True)
        _add_object(spec, body, np.random.default_rng(look), number, kind)
    _add_arm(spec, rng)
    eye = spec.worldbody.add_body(name="eye", mocap=True)
    eye.add_camera(name="eye", fovy=rng.uniform(38, 60))
    return spec.compile()


def _add_picture(
    spec: mujoco.MjSpec, name: str, kind: mujoco.mjtTexture, picture: NDArray[np.float32]
) -> None:
    pixels = np.ascontiguousarray(np.clip(picture, 0, 255).astype(np.uint8))
    texture = spec.add_texture(
        name=name, type=kind, width=pixels.shape[1], height=pixels.shape[0], nchannel=3
    )
    texture.data = pixels.tobytes()


def _add_material(
    spec: mujoco.MjSpec,
    name: str,
    kind: mujoco.mjtTexture,
    picture: NDArray[np.float32],
    specular: float,
    alpha: float = 1.0,
) -> None:
    _add_picture(spec, name, kind, picture)
    material = spec.add_material(name=name, specular=specular, shininess=0.4, rgba=[1, 1, 1, alpha])
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name


def _add_object(
    spec: mujoco.MjSpec,
    body: mujoco.MjsBody,
    rng: np.random.Generator,
    number: int,
    kind: RobotClass,
) -> None:
    """One to three solids in one body, its lowest point about at height 0."""
    plain = bool(rng.random() < kind.plain_fraction)
    low, high = kind.object_m
    size = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    kinds = [
        mujoco.mjtGeom.mjGEOM_BOX,
        mujoco.mjtGeom.mjGEOM_SPHERE,
        mujoco.mjtGeom.mjGEOM_CYLINDER,
        mujoco.mjtGeom.mjGEOM_ELLIPSOID,
        mujoco.mjtGeom.mjGEOM_CAPSULE,
    ]
    for part in range(int(rng.choice([1, 1, 2, 3]))):
        faces = [random_texture(rng, 96, 96, plain=plain) for _ in range(6)]
        if plain:
            # One colour all over, as most things in a laboratory.
            faces = (
                [np.zeros((96, 96, 3), np.float32) + random_colour(rng)] * 6
                if rng.random() < 0.6
                else [faces[0]] * 6
            )
        name = f"object{number}_{part}"
        alpha = float(rng.uniform(0.4, 0.8)) if rng.random() < kind.transparent_fraction else 1.0
        _add_material(
            spec,
            name,
            mujoco.mjtTexture.mjTEXTURE_CUBE,
            np.concatenate(faces),
            float(rng.uniform(0, 0.6)),
            alpha,
        )
        extent = size * np.exp(rng.uniform(-0.6, 0.35, 3))
        shift = (
            [0, 0, extent[2]]
            if part == 0
            else [*rng.uniform(-0.8, 0.8, 2) * size, rng.uniform(0.3, 1.6) * size]
        )
        body.add_geom(
            type=kinds[int(rng.integers(len(kinds)))],
            size=extent.tolist(),
            pos=list(shift),
            euler=[0, 0, float(rng.uniform(0, 3.1))],
            material=name,
        )


def _add_arm(spec: mujoco.MjSpec, rng: np.random.Generator) -> None:
    """Links of capsules and boxes, and a gripper of two fingers, each a mocap body."""
    style = random_colour(rng) / 255.0
    for link in range(ARM_LINKS):
        body = spec.worldbody.add_body(name=f"link{link}", mocap=True)
        thick = rng.uniform(0.025, 0.05)
        colour = [*(style if rng.random() < 0.6 else random_colour(rng) / 255.0).tolist(), 1.0]
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CAPSULE, size=[thick, 0.12, 0], pos=[0, 0, 0.12], rgba=colour
        )
        if rng.random() < 0.7:
            body.add_geom(
                type=mujoco.mjtGeom.mjGEOM_CYLINDER,
                size=[1.25 * thick, 0.03, 0],
                rgba=[*(random_colour(rng) / 255).tolist(), 1.0],
            )
    hand = spec.worldbody.add_body(name="hand", mocap=True)
    colour = [*(random_colour(rng) / 255.0).tolist(), 1.0]
    hand.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[0.025, rng.uniform(0.05, 0.09), 0.03],
        pos=[0, 0, 0.1],
        rgba=colour,
    )
    gap = rng.uniform(0.02, 0.05)
    for side in (-1, 1):
        hand.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[0.01, 0.008, 0.04],
            pos=[0, side * gap, 0.04],
            rgba=[*(random_colour(rng) / 255).tolist(), 1.0],
        )


@dataclass(frozen=True, eq=False)
class _Paths:
    """Where everything is at every time: (T, K, 3) positions [m], (T, K, 4) quaternions, K mocap bodies in model order."""

    position_m: Array
    quaternion: Array


def _sines(rng: np.random.Generator, length: int, channels: int, amplitude: float, period: float) -> Array:
    """(T, channels) bounded smooth paths."""
    time = np.arange(length)[:, None, None]
    periods = period * np.exp(rng.uniform(-0.6, 0.6, (1, channels, 2)))
    return np.asarray(
        amplitude
        * 0.6
        * np.sin(2 * np.pi * time / periods + rng.uniform(0, 2 * np.pi, (1, channels, 2))).sum(axis=2)
    )


def _quaternion(axis: Array, angle_rad: Array) -> Array:
    """(T, 4) turns about one axis."""
    axis = axis / np.linalg.norm(axis)
    return np.concatenate([np.cos(angle_rad / 2)[:, None], np.sin(angle_rad / 2)[:, None] * axis], axis=1)


def _product(a: Array, b: Array) -> Array:
    """Hamilton product of (T, 4) quaternions."""
    w, x, y, z = a.T
    p, q, r, s = b.T
    return np.stack(
        [
            w * p - x * q - y * r - z * s,
            w * q + x * p + y * s - z * r,
            w * r - x * s + y * p + z * q,
            w * s + x * r - y * q + z * p,
        ],
        1,
    )


def _paths(
    rng: np.random.Generator,
    kind: RobotClass,
    model: mujoco.MjModel,
    count: int,
    length: int,
    new_scene: bool,
) -> _Paths:
    bodies = count + ARM_LINKS + 2
    position, quaternion = np.zeros((length, bodies, 3)), np.zeros((length, bodies, 4))
    pace = 60.0 / kind.speed
    middle = rng.uniform(-0.08, 0.08, 2)
    up = np.array([0, 0, 1.0])
    for number in range(count):
        home = middle + rng.uniform(-0.24, 0.24, 2)
        moving = rng.random()
        still = moving < 0.35
        yaw = rng.uniform(0, 2 * np.pi) + (0.0 if still else 1.0) * _sines(rng, length, 1, 0.9, pace)[:, 0]
        position[:, number, :2] = home + (0.0 if still else 1.0) * _sines(rng, length, 2, 0.09, pace)
        tilt = np.zeros(length)
        if moving > 0.65:
            # Lifted, and turned out of the plane as a gripper does.
            position[:, number, 2] = np.maximum(0.0, 0.05 + _sines(rng, length, 1, 0.12, pace)[:, 0])
            tilt = _sines(rng, length, 1, rng.uniform(0.1, 0.9), pace)[:, 0]
            tilt -= tilt[0]
        quaternion[:, number] = _product(
            _quaternion(up, yaw), _quaternion(np.array([*rng.normal(size=2), 0.0]), tilt)
        )
        if new_scene:
            position[0, number] = [*(middle + rng.uniform(-0.24, 0.24, 2)), 0.0]
            # Tilts begin at none, so that this is a turn about the vertical by so much.
            yaw_rad = yaw[min(1, length - 1)] + kind.new_scene_yaw_rad * rng.uniform(-1, 1)
            quaternion[0, number] = _quaternion(up, np.array([yaw_rad]))[0]

    # The hand works at one object for a while, then at another; the arm hangs from a shoulder beside the table.
    targets = position[
        np.arange(length), (np.arange(length) // int(rng.integers(15, 50)) + rng.integers(count)) % count
    ]
    smooth = cv2.blur(targets.astype(np.float32), (1, 9), borderType=cv2.BORDER_REPLICATE)
    hover = np.abs(_sines(rng, length, 1, 0.12, 0.5 * pace)) + rng.uniform(0.0, 0.05)
    hand = smooth + np.concatenate([_sines(rng, length, 2, 0.05, pace), hover], axis=1)
    shoulder = np.array(
        [*(0.75 * np.array([np.cos(a := rng.uniform(0, 6.3)), np.sin(a)])), rng.uniform(0.2, 0.5)]
    )
    wrist = hand + np.array([0, 0, 0.15])
    for link in range(ARM_LINKS):
        share, following = link / ARM_LINKS, (link + 1) / ARM_LINKS
        bow = np.array([0, 0, 0.25])
        start = shoulder + share * (wrist - shoulder) + 4 * share * (1 - share) * bow
        end = shoulder + following * (wrist - shoulder) + 4 * following * (1 - following) * bow
        position[:, count + link] = start
        quaternion[:, count + link] = _pointing(end - start)
    position[:, count + ARM_LINKS] = hand
    quaternion[:, count + ARM_LINKS] = _quaternion(
        up, rng.uniform(0, 6.3) + _sines(rng, length, 1, 0.8, pace)[:, 0]
    )

    far = rng.uniform(0.6, 1.05)
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.45)
    sway = (rng.random() < 0.35) * _sines(rng, length, 3, 0.04, 2 * pace)
    around, high = azimuth + sway[:, 0], np.clip(elevation + sway[:, 1], 0.4, 1.5)
    eye = far * np.stack([np.cos(around) * np.cos(high), np.sin(around) * np.cos(high), np.sin(high)], axis=1)
    eye = eye + np.array([*middle, 0.0])
    look = np.array([*middle, 0.03]) + 0.5 * sway
    position[:, -1] = eye
    quaternion[:, -1] = [_look_at(eye[t], look[t]) for t in range(length)]
    return _Paths(position, quaternion)


def _pointing(direction: Array) -> Array:
    """(T, 4) quaternions that turn z into `direction` (T, 3)."""
    unit = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    turned = np.stack([1.0 + unit[:, 2], -unit[:, 1], unit[:, 0], np.zeros(len(unit))], axis=1)
    return np.asarray(turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-9))


def _look_at(eye_m: Array, target_m: Array) -> Array:
    """(4,) of a MuJoCo camera (looks along -z, y up) at `eye_m`."""
    backward = eye_m - target_m
    backward = backward / np.linalg.norm(backward)
    right = np.cross([0.0, 0.0, 1.0], backward)
    right /= np.linalg.norm(right)
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, np.stack([right, np.cross(backward, right), backward], axis=1).ravel())
    return quaternion


def _pose(
    model: mujoco.MjModel, data: mujoco.MjData, paths: _Paths, t: int, *, hide_arm: bool, other_table: bool
) -> None:
    count = paths.position_m.shape[1] - ARM_LINKS - 2
    data.mocap_pos[:], data.mocap_quat[:] = paths.position_m[t], paths.quaternion[t]
    if hide_arm:
        data.mocap_pos[count : count + ARM_LINKS + 1, 2] += 10.0
    # The two table tops change places; the lower one is out of sight.
    upper, lower = (1, 0) if other_table else (0, 1)
    first = model.body("table").geomadr[0]
    model.geom_pos[first + upper, 2], model.geom_pos[first + lower, 2] = -0.01, -3.0
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_camlight(model, data)


def _body_of_pixels(model: mujoco.MjModel, segmentation: NDArray[np.int32]) -> NDArray[np.int_]:
    """(H, W) body of each pixel, -1: sky."""
    geom, kind = segmentation[..., 0], segmentation[..., 1]
    return np.where(kind == int(mujoco.mjtObj.mjOBJ_GEOM), model.geom_bodyid[np.maximum(geom, 0)], -1)


def _tracks(
    rng: np.random.Generator,
    kind: RobotClass,
    owner: NDArray[np.int_],
    depth_m: NDArray[np.float32],
    bodies: Array,
    cameras: Array,
    focal_px: float,
    count: int,
    points: int,
    background_fraction: float,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Bodies (T, B, 12) and cameras (T, 12) are a row-major rotation and a position."""
    length, height, width = depth_m.shape
    # Away from silhouettes: half a pixel there is the difference between an object and the table behind it.
    inner = (
        cv2.erode(
            (np.abs(cv2.Laplacian(owner.astype(np.float32), cv2.CV_32F)) < 0.5).astype(np.uint8),
            np.ones((3, 3)),
        )
        > 0
    )
    inner[:3], inner[-3:], inner[:, :3], inner[:, -3:] = False, False, False, False
    on_object = np.argwhere(inner & (owner >= 2) & (owner < 2 + count))
    on_table = np.argwhere(inner & (owner == 1))
    ground = points if len(on_object) == 0 else min(round(points * background_fraction), len(on_table))
    chosen = []
    if ground < points:
        body = owner[on_object[:, 0], on_object[:, 1]]
        weight = 1.0 / np.sqrt(np.bincount(body)[body])
        chosen.append(on_object[rng.choice(len(on_object), points - ground, p=weight / weight.sum())])
    if ground:
        chosen.append(on_table[rng.choice(len(on_table), ground)])
    at = np.concatenate(chosen)
    body = owner[at[:, 0], at[:, 1]]
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    # MuJoCo cameras look along -z with y up.
    ray = np.concatenate([(at[:, ::-1] - middle) / focal_px * [1, -1], -np.ones((len(at), 1))], axis=1)
    in_camera = ray * depth_m[0, at[:, 0], at[:, 1]][:, None]
    world = in_camera @ cameras[0, :9].reshape(3, 3).T + cameras[0, 9:]
    local = np.einsum("nij,ni->nj", bodies[0, body, :9].reshape(-1, 3, 3), world - bodies[0, body, 9:])

    moved = (
        np.einsum("tnij,nj->tni", bodies[:, body, :9].reshape(length, -1, 3, 3), local) + bodies[:, body, 9:]
    )
    seen = np.einsum("tji,tnj->tni", cameras[:, :9].reshape(-1, 3, 3), moved - cameras[:, None, 9:])
    distance = np.maximum(-seen[..., 2], 1e-3)
    uv_px = (middle + focal_px * seen[..., :2] * [1, -1] / distance[..., None]).transpose(1, 0, 2)
    distance = distance.T
    nearest = np.rint(uv_px).astype(int)
    inside = (
        (nearest[..., 0] >= 0)
        & (nearest[..., 0] < width)
        & (nearest[..., 1] >= 0)
        & (nearest[..., 1] < height)
    )
    u, v = np.clip(nearest[..., 0], 0, width - 1), np.clip(nearest[..., 1], 0, height - 1)
    # Of the pixels around, the farthest: slanted faces must not hide their own points.
    farthest = np.stack([cv2.dilate(image, np.ones((3, 3))) for image in depth_m])
    visible = inside & (farthest[np.arange(length)[None, :], v, u] > distance - HIDDEN_BY_M)
    visible[:, 0] = True
    return uv_px.astype(np.float32), visible
