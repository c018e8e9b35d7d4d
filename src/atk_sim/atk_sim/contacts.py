"""Questions about contacts that several tasks ask."""

import mujoco

from atk_sim.robots.panda import FINGER_BODIES


def fingers_touch(model: mujoco.MjModel, data: mujoco.MjData, body: str) -> bool:
    """Whether a finger of the Panda touches the body of that name now."""
    wanted = model.body(body).id
    fingers = {model.body(name).id for name in FINGER_BODIES}
    for contact in data.contact:
        # A geom of -1 stands for cloth.
        bodies = {int(model.geom_bodyid[geom]) for geom in contact.geom if geom >= 0}
        if wanted in bodies and bodies & fingers:
            return True
    return False
