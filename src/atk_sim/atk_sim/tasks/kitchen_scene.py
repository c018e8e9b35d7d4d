"""The toy kitchen that the kitchen tasks share: tiled walls with rails, a hook, stove, oven with a hinged door.

The furniture stands still and is small enough for one arm on a table. Each `add_` function takes the placement of its
piece and needs nothing else of the scene, so a task puts in what it wants. Local frames: x towards the front, z up,
origin on the table below the middle of the front.

The oven's mouth is slanted and its door hinged at the top, as on a bread bin: a hand that points down can reach in from
above and push the door shut from behind. (Into an upright mouth it would not fit below the roof.)

The rail behind the robot is out of its reach, or of the box that its description lets it work in. So the tiles go round
the corner at its right, to the stove, and the hook is on that wall's rail: high enough for a towel to hang clear of the
table, and turned towards the room, so that the camera in front sees the towel's face.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from atk_sim import textures_kitchen as printed
from atk_sim.camera import CameraPlacement
from atk_sim.cloth import CLOTH_BIT
from atk_sim.robots.panda import SCENE_CONTACT
from atk_sim.scene import Layout, Placement, add_body, add_textured_material, add_visual_mesh
from atk_sim.shapes import TexturedMesh
from atk_sim.shapes_kitchen import rectangle, sheet
from atk_sim.textures import Texture

FloatArray = NDArray[np.float64]

OVEN_DOOR = "oven_door"  # body and hinge
OVEN_WIDTH_M, OVEN_DEPTH_M, OVEN_HEIGHT_M = 0.26, 0.22, 0.185
OVEN_LIP_M = 0.055  # height of the wall below the mouth
OVEN_ROOF_DEPTH_M = 0.11
OVEN_FLOOR_M = 0.022  # the tray's upper side
OVEN_WALL_M = 0.012
HINGE_M = np.array([-(OVEN_DEPTH_M - OVEN_ROOF_DEPTH_M), OVEN_HEIGHT_M])  # (x, z) in the oven's frame
DOOR_SLOPE_RAD = float(np.arctan2(OVEN_HEIGHT_M - OVEN_LIP_M, -HINGE_M[0]))  # below the horizontal, when shut
DOOR_LENGTH_M = float(np.hypot(HINGE_M[0], OVEN_HEIGHT_M - OVEN_LIP_M)) + 0.006
DOOR_THICKNESS_M = 0.010
DOOR_MASS_KG = 0.25
# More than the door's weight ever turns it with (0.21 Nm): it stays where it is left.
DOOR_FRICTION_NM = 0.28
DOOR_OPEN_MAX_RAD = 2.80

STOVE_WIDTH_M, STOVE_DEPTH_M, STOVE_HEIGHT_M = 0.26, 0.27, 0.012
BURNER_RADIUS_M = 0.082
BURNER_M = np.array([-0.125, 0.0])  # (x, y) of the large burner in the stove's frame
_SMALL_BURNERS_M = ((-0.225, 0.085, 0.034), (-0.225, -0.085, 0.034))  # x, y, radius

TILE_EDGE_M = 0.0636
TILED_BELOW_M = 0.18  # the tiles go down behind the table's edge
RAIL_OFF_M, RAIL_RADIUS_M = 0.022, 0.004  # from the tiles to the rail's axis
HOOK = "hook"  # a straight peg with a knob: local x from its root on the rail to the knob
HOOK_HEIGHT_M, HOOK_LENGTH_M, HOOK_RADIUS_M, HOOK_KNOB_RADIUS_M = 0.30, 0.09, 0.005, 0.008

# Onto the counter between stove and oven, from the front and above.
COUNTER_CAMERA = CameraPlacement((1.16, -0.06, 0.80), (0.475, -0.085, 0.03), np.deg2rad(29.0))

# Distractors find room in front of the stove and beside it.
KITCHEN_AREA_M = ((0.30, -0.42), (0.70, 0.36))
# A towel leaves less room there: also behind stove and oven.
BESIDE_TOWEL_M = ((0.16, -0.38), (0.72, 0.40))

RIGHT, UP = (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)  # of a panel that faces x


def kitchen_layout() -> Layout:
    """Where the furniture stands in every kitchen task: oven on the left of the robot, stove, hook and tiles on the right."""
    furniture = (
        Placement("oven", (0.48, 0.19, 0.0), -np.pi / 2, 0.0, OVEN_HEIGHT_M),
        Placement("stove", (0.575, -0.275, 0.0), 0.0, 0.0, STOVE_HEIGHT_M),
        Placement("tiles", (-0.20, 0.0, 0.0), 0.0, 0.0, 0.26),
        Placement("side_tiles", (0.054, -0.43, 0.0), np.pi / 2, 0.0, 0.33),
        Placement(HOOK, (0.215, -0.43 + RAIL_OFF_M, HOOK_HEIGHT_M), np.deg2rad(60.0), 0.0, 0.0),
    )
    return {piece.name: piece for piece in furniture}


def footprints() -> list[Placement]:
    """Upright cylinders that cover the furniture: distractors and objects keep clear of these."""
    kitchen, cover = kitchen_layout(), []
    sizes = {"oven": (OVEN_DEPTH_M, OVEN_WIDTH_M), "stove": (STOVE_DEPTH_M, STOVE_WIDTH_M)}
    radius_m = 0.05
    for name, (depth, width) in sizes.items():
        along = np.linspace(-depth + 0.7 * radius_m, -0.7 * radius_m, 4)
        across = np.linspace(-width / 2 + 0.7 * radius_m, width / 2 - 0.7 * radius_m, 4)
        for k, local in enumerate((x, y) for x in along for y in across):
            point = to_world(kitchen[name], np.array([*local, 0.0]))
            cover.append(
                Placement(f"{name}_{k}", tuple(point.tolist()), 0.0, radius_m, kitchen[name].height_m)
            )
    return cover


def to_world(piece: Placement, local_m: FloatArray) -> FloatArray:
    """(3,) world point of a point in the frame of a piece of furniture [m]."""
    cosine, sine = np.cos(piece.yaw_rad), np.sin(piece.yaw_rad)
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    point: FloatArray = np.array(piece.position_m) + turn @ local_m
    return point


def add_kitchen(spec: mujoco.MjSpec, door_angle_rad: float) -> None:
    """All furniture at its place, the oven's door open by `door_angle_rad` (0: shut)."""
    layout = kitchen_layout()
    add_tiles(spec, layout["tiles"])
    add_side_tiles(spec, layout["side_tiles"])
    add_hook(spec, layout[HOOK])
    add_stove(spec, layout["stove"])
    add_oven(spec, layout["oven"], door_angle_rad)


def _panel(
    spec: mujoco.MjSpec,
    body: mujoco.MjsBody,
    name: str,
    mesh: TexturedMesh,
    material: str,
    position_m: tuple[float, float, float],
) -> None:
    add_visual_mesh(spec, body, f"kitchen_{name}", mesh, material, position_m)


def _block(
    body: mujoco.MjsBody,
    low_m: tuple[float, float, float],
    high_m: tuple[float, float, float],
    **look: object,
) -> None:
    """A solid box between two corners; unseen unless it has a `material` or `rgba`."""
    low, high = np.array(low_m), np.array(high_m)
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=(high - low) / 2,
        pos=(high + low) / 2,
        group=2 if look else 3,
        **look,
        **SCENE_CONTACT,
    )


def add_oven(spec: mujoco.MjSpec, place: Placement, door_angle_rad: float) -> None:
    """A small oven with a slanted mouth; its door (body and hinge `OVEN_DOOR`) starts open by `door_angle_rad`."""
    oven = add_body(spec, place, free=False)
    enamel = add_textured_material(spec, "oven_enamel", printed.enamel(), specular=0.3, shininess=0.5)
    tray = add_textured_material(spec, "oven_tray", printed.tray(), specular=0.2, shininess=0.3)
    panel = add_textured_material(spec, "oven_panel", printed.oven_panel(), specular=0.3, shininess=0.5)
    spec.add_material(name="oven_dark", rgba=[0.13, 0.12, 0.12, 1], specular=0.1, shininess=0.2)
    spec.add_material(name="oven_chrome", rgba=[0.72, 0.73, 0.75, 1], specular=0.8, shininess=0.8)
    depth, half, top, wall = OVEN_DEPTH_M, OVEN_WIDTH_M / 2, OVEN_HEIGHT_M, OVEN_WALL_M

    # Side walls follow the slant.
    profile = np.array([[-depth, 0.0], [0.0, 0.0], [0.0, OVEN_LIP_M], [HINGE_M[0], top], [-depth, top]])
    mirrored = (profile * (-1, 1))[::-1]
    sides = (
        ("oven_side_right", sheet([profile], wall, (1, 0, 0), UP), -half),
        ("oven_side_left", sheet([mirrored], wall, (-1, 0, 0), UP), half),
    )
    for name, mesh, y in sides:
        _panel(spec, oven, name, mesh, enamel, (0.0, y, 0.0))
        oven.add_geom(
            type=mujoco.mjtGeom.mjGEOM_MESH,
            meshname=f"kitchen_{name}",
            pos=(0.0, y, 0.0),
            group=3,
            mass=0,
            **SCENE_CONTACT,
        )
    _block(oven, (-depth, -half + wall, 0.0), (-wall, half - wall, OVEN_FLOOR_M - 0.002))
    inner = rectangle(-half + wall, wall - depth, half - wall, -wall)
    _panel(spec, oven, "oven_tray", sheet([inner], 0.004, RIGHT, (-1, 0, 0)), tray, (-depth, 0, OVEN_FLOOR_M))
    _block(oven, (-depth, -half + wall, 0.0), (wall - depth, half - wall, top), material="oven_dark")
    _block(oven, (-depth, -half + wall, top - wall), (HINGE_M[0] - 0.004, half - wall, top))
    roof = rectangle(-half, -(OVEN_ROOF_DEPTH_M - 0.004), half, 0.0)
    _panel(spec, oven, "oven_roof", sheet([roof], wall, RIGHT, (-1, 0, 0)), enamel, (-depth, 0, top + 0.0005))
    _block(oven, (-wall, -half + wall, 0.0), (0.0, half - wall, OVEN_LIP_M))
    shy = half - 0.0006  # no face of it lies in the plane of a side's
    front = rectangle(-shy, 0.0, shy, OVEN_LIP_M)
    _panel(spec, oven, "oven_panel", sheet([front], wall, RIGHT, UP), panel, (0.001, 0, 0))
    for y in (-half * 2 / 3, 0.0, half * 2 / 3):
        _knob(oven, (0.009, y, OVEN_LIP_M / 2 + 0.001), 0.0125)
    _add_oven_door(spec, oven, door_angle_rad)


def _knob(body: mujoco.MjsBody, position_m: tuple[float, float, float], radius_m: float) -> None:
    """Seen only: nothing comes near it."""
    turned = [np.sqrt(0.5), 0.0, np.sqrt(0.5), 0.0]
    look = {"contype": 0, "conaffinity": 0, "group": 2, "mass": 0}
    cylinder = mujoco.mjtGeom.mjGEOM_CYLINDER
    body.add_geom(
        type=cylinder, size=[radius_m, 0.008, 0], pos=position_m, quat=turned, material="oven_dark", **look
    )
    mark = (position_m[0] + 0.008, position_m[1], position_m[2] + 0.5 * radius_m)
    box = mujoco.mjtGeom.mjGEOM_BOX
    body.add_geom(type=box, size=[0.0012, 0.0016, 0.4 * radius_m], pos=mark, material="oven_chrome", **look)


def _add_oven_door(spec: mujoco.MjSpec, oven: mujoco.MjsBody, door_angle_rad: float) -> None:
    """Local frame: x from the hinge to the free edge, z outwards."""
    angle = DOOR_SLOPE_RAD - door_angle_rad
    door = oven.add_body(
        name=OVEN_DOOR, pos=[HINGE_M[0], 0, HINGE_M[1]], quat=[np.cos(angle / 2), 0, np.sin(angle / 2), 0]
    )
    door.add_joint(
        name=OVEN_DOOR,
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=[0, -1, 0],
        ref=door_angle_rad,
        range=[0.0, DOOR_OPEN_MAX_RAD],
        frictionloss=DOOR_FRICTION_NM,
        damping=0.02,
        armature=0.002,
        solref_friction=[0.004, 1],
        solimp_friction=[0.99, 0.999, 0.001, 0.5, 2],
        solref_limit=[0.004, 1],
    )
    printed_frame = add_textured_material(
        spec, "oven_door", printed.oven_door(), specular=0.25, shininess=0.5
    )
    spec.add_material(name="oven_glass", rgba=[0.55, 0.68, 0.70, 0.28], specular=0.8, shininess=0.9)
    length, half, thick = DOOR_LENGTH_M, OVEN_WIDTH_M / 2, DOOR_THICKNESS_M
    # Right and up as seen from outside with the hinge on top: the picture's first row lies at the hinge.
    left, right, low, high = -half + 0.048, half - 0.048, -length + 0.048, -0.046
    frame = [
        rectangle(-half, high, half, 0.0),
        rectangle(-half, -length, half, low),
        rectangle(-half, low, left, high),
        rectangle(right, low, half, high),
    ]
    _panel(spec, door, "oven_door", sheet(frame, thick, RIGHT, (-1, 0, 0)), printed_frame, (0, 0, thick))
    box = mujoco.mjtGeom.mjGEOM_BOX
    door.add_geom(
        type=box,
        size=[(high - low) / 2, right, 0.002],
        pos=[-(high + low) / 2, 0, thick / 2],
        material="oven_glass",
        contype=0,
        conaffinity=0,
        group=2,
        mass=0,
    )
    door.add_geom(
        type=box,
        size=[length / 2, half, thick / 2],
        pos=[length / 2, 0, thick / 2],
        mass=DOOR_MASS_KG,
        friction=[0.5, 0.01, 0.001],
        group=3,
        **SCENE_CONTACT,
    )
    # The handle is a rail along the free edge, flush enough that no finger hooks behind it.
    door.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        size=[0.0055, half * 0.8, 0],
        pos=[length - 0.004, 0, thick + 0.001],
        quat=[np.sqrt(0.5), np.sqrt(0.5), 0, 0],
        material="oven_chrome",
        contype=0,
        conaffinity=0,
        group=2,
        mass=0,
    )
    spec.add_exclude(bodyname1=oven.name, bodyname2=OVEN_DOOR)


def door_angle(data: mujoco.MjData) -> float:
    """How far the oven's door is open [rad]."""
    return float(data.joint(OVEN_DOOR).qpos[0])


def add_stove(spec: mujoco.MjSpec, place: Placement) -> None:
    """A flat glass cooktop with one large and two small burners; knobs at its front."""
    stove = add_body(spec, place, free=False)
    px_per_m = 3000
    size = (round(STOVE_WIDTH_M * px_per_m), round(STOVE_DEPTH_M * px_per_m))
    burners = ((*BURNER_M, BURNER_RADIUS_M), *_SMALL_BURNERS_M)
    # Columns run along y, rows from the back (-depth) to the front.
    rings = tuple(
        (
            round((y + STOVE_WIDTH_M / 2) * px_per_m),
            round((x + STOVE_DEPTH_M) * px_per_m),
            round(r * px_per_m),
        )
        for x, y, r in burners
    )
    glass = add_textured_material(
        spec, "stove_glass", printed.cooktop(*size, rings), specular=0.4, shininess=0.7
    )
    spec.add_material(name="stove_steel", rgba=[0.55, 0.56, 0.58, 1], specular=0.6, shininess=0.6)
    half, depth, top = STOVE_WIDTH_M / 2, STOVE_DEPTH_M, STOVE_HEIGHT_M
    outline = rectangle(-half, 0.0, half, depth)
    _panel(spec, stove, "stove_top", sheet([outline], 0.004, RIGHT, (-1, 0, 0)), glass, (0.0, 0.0, top))
    _block(stove, (-depth, -half, 0.0), (0.0, half, top - 0.0005), material="stove_steel")


def add_tiles(spec: mujoco.MjSpec, place: Placement) -> None:
    """The wall behind the robot. Seen only: nothing reaches it."""
    spoons = (
        (-0.36, "rail_wood", 0.06, 0.018),
        (-0.26, "rail_steel", 0.055, 0.022),
        (0.22, "rail_wood", 0.065, 0.015),
        (0.32, "rail_steel", 0.06, 0.020),
    )
    _tiled_wall(spec, place, printed.wall_tiles(), 1.40, 0.225, spoons)


def add_side_tiles(spec: mujoco.MjSpec, place: Placement) -> None:
    """The wall at the robot's right, behind the hook, where a towel comes near it."""
    width, across = 8 * TILE_EDGE_M, 8 * 64
    tiles = printed.wall_tiles(across, across, seed=151)
    spoons = ((0.17, "rail_wood", 0.065, 0.017), (0.08, "rail_steel", 0.06, 0.021))
    wall = _tiled_wall(spec, place, tiles, width, HOOK_HEIGHT_M, spoons)
    _block(wall, (-0.012, -width / 2, 0.0), (0.0, width / 2, place.height_m))


def add_hook(spec: mujoco.MjSpec, place: Placement) -> None:
    """The hook (body `HOOK`); thinner than a cloth's mesh, so it meets the cloth's triangles."""
    hook = add_body(spec, place, free=False)
    look = add_textured_material(spec, "oven_enamel", printed.enamel(), specular=0.3, shininess=0.5)
    contact = {**SCENE_CONTACT, "contype": SCENE_CONTACT["contype"] | CLOTH_BIT, "solref": [0.01, 1]}
    hook.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        fromto=[0, 0, 0, HOOK_LENGTH_M, 0, 0],
        size=[HOOK_RADIUS_M, 0, 0],
        friction=[0.6, 0.01, 0.001],
        material=look,
        **contact,
    )
    hook.add_geom(
        type=mujoco.mjtGeom.mjGEOM_SPHERE,
        size=[HOOK_KNOB_RADIUS_M, 0, 0],
        pos=[HOOK_LENGTH_M, 0, 0],
        material=look,
        **contact,
    )


def _tiled_wall(
    spec: mujoco.MjSpec,
    place: Placement,
    tiles: Texture,
    width_m: float,
    rail_height_m: float,
    spoons: tuple[tuple[float, str, float, float], ...],
) -> mujoco.MjsBody:
    """Tiles that face local x, and a rail from which spoons hang: (y [m], material, length [m], radius of the head [m])."""
    body = add_body(spec, place, free=False)
    material = add_textured_material(spec, f"kitchen_{place.name}", tiles, specular=0.3, shininess=0.6)
    if spec.material("rail_steel") is None:
        spec.add_material(name="rail_steel", rgba=[0.66, 0.67, 0.70, 1], specular=0.7, shininess=0.7)
        spec.add_material(name="rail_wood", rgba=[0.62, 0.42, 0.22, 1], specular=0.1, shininess=0.2)
    outline = rectangle(-width_m / 2, -TILED_BELOW_M, width_m / 2, place.height_m)
    _panel(spec, body, place.name, sheet([outline], 0.012, RIGHT, UP), material, (0.0, 0.0, 0.0))
    look = {"contype": 0, "conaffinity": 0, "group": 2, "mass": 0}
    capsule, along_y = mujoco.mjtGeom.mjGEOM_CAPSULE, [np.sqrt(0.5), np.sqrt(0.5), 0, 0]
    body.add_geom(
        type=capsule,
        size=[RAIL_RADIUS_M, width_m / 2 - 0.08, 0],
        pos=[RAIL_OFF_M, 0, rail_height_m],
        quat=along_y,
        material="rail_steel",
        **look,
    )
    for y, material, length, head in spoons:
        body.add_geom(
            type=capsule,
            size=[0.0035, length / 2, 0],
            pos=[RAIL_OFF_M + 0.004, y, rail_height_m - 0.007 - length / 2],
            material=material,
            **look,
        )
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_ELLIPSOID,
            size=[0.006, head, head * 1.3],
            pos=[RAIL_OFF_M + 0.004, y, rail_height_m - 0.010 - length - head],
            material=material,
            **look,
        )
    return body
