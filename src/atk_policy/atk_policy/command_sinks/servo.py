"""What both sinks for MoveIt Servo share: joint velocities out of a plan, and Servo's command type.

Rules of Servo (moveit_servo of Jazzy): a command counts until it is `incoming_command_timeout` (0.1 s) old by its
stamp, then the arm is halted; only commands of the type last asked for by `switch_command_type` are taken;
`command_in_type` must be `speed_units` here.
"""

from __future__ import annotations

import importlib.util

import numpy as np
from builtin_interfaces.msg import Time

from atk_policy.command_plan import CommandPlan
from atk_policy.command_sinks.protocol import FloatArray, Moment, Preparation

# Servo integrates velocities, so that the arm drifts from the plan. What it is off is made up for in this time [s]: slower
# than any arm follows, faster than a motion lasts.
CORRECTION_S = 0.5
# The share of a joint's speed that making up for it may take: a correction, never a motion of its own.
CORRECTION_SHARE = 0.1


def joint_velocity(plan: CommandPlan, moment: Moment, velocity_max: FloatArray) -> FloatArray:
    """(J,) joint velocities [rad/s] that follow a plan; exactly zero for one at rest, wherever the arm is.

    Args:
        plan: what to follow.
        moment: tells how far the arm is off.
        velocity_max: (J,) [rad/s]; beyond it, all joints are slowed alike, which keeps the direction.
    """
    if not plan.velocity.any():
        return np.zeros(len(velocity_max))
    velocity = plan.velocity[0, :-1].copy()
    if moment.measured is not None:
        due_now = plan.command[:-1] - velocity * plan.time_ns[0] / 1e9
        limit = CORRECTION_SHARE * velocity_max
        velocity += np.clip((due_now - moment.measured) / CORRECTION_S, -limit, limit)
    excess = float(np.max(np.abs(velocity) / velocity_max))
    slowed: FloatArray = velocity / max(1.0, excess)
    return slowed


def command_type(topic: str, name: str) -> Preparation | None:
    """The switch of Servo to the command type `name`, at the node that `topic` belongs to.

    None where moveit_msgs is not installed: then somebody else must have switched it.

    Raises:
        ValueError: the topic has no node in its name.
    """
    if "/" not in topic.strip("/"):
        raise ValueError(
            f"topics.command is '{topic}'; for MoveIt Servo give a topic of its node, such as servo_node/delta_joint_cmds"
        )
    if importlib.util.find_spec("moveit_msgs") is None:
        return None
    from moveit_msgs.srv import ServoCommandType

    request = ServoCommandType.Request(command_type=getattr(ServoCommandType.Request, name))
    return Preparation(f"{topic.rsplit('/', 1)[0]}/switch_command_type", ServoCommandType, request)


def stamp_of(moment: Moment) -> Time:
    """As a message."""
    seconds, nanoseconds = divmod(moment.stamp_ns, 1_000_000_000)
    return Time(sec=seconds, nanosec=nanoseconds)
