"""An episode in one process: reset, observe, step. The node and the fast benchmarks share it."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from atk_perception.image_codec import DepthImage, RgbImage
from atk_perception.robot_description import RobotDescription
from atk_sim.camera import FloatArray
from atk_sim.disturbances import Disturbance, Stall
from atk_sim.experts import Expert
from atk_sim.scene import stream
from atk_sim.tasks import make_task
from atk_sim.world import CameraRenderer, World

# Success must last this long before the episode is done: nothing may roll off again.
SUCCESS_HOLD_S = 0.4
# Servo noise of 1: a slow random walk of half a hundredth of a radian, some 4 mm at the hand.
SERVO_NOISE_RAD = 0.004
SERVO_NOISE_MEMORY = 0.93
# Of a grey level of 255, in every pixel and image anew, as of a good camera in a lit room. Without it, two pictures of a scene
# at rest would be the same to the bit, which of a real camera only those are that it repeats because it hangs.
SENSOR_NOISE = 1.0
EXPERT_SHARE_OF_LIMITS = 0.6  # of the robot's velocity and acceleration: demonstrations stay easy to follow


class Simulation:
    """A simulated robot with its camera, in lock-step: time passes only in `step`.

    Args:
        robot: camera size and rates, home, joint limits.
        servo_noise: strength of a disturbance between command and servo, unknown to who commands
            (as DART, Laskey et al. 2017): demonstrations then hold recoveries. 0 for none.
        render: whether images will be asked for; without, no graphics is needed.
    """

    def __init__(self, robot: RobotDescription, servo_noise: float = 0.0, *, render: bool = True) -> None:
        self.robot = robot
        self.servo_noise = servo_noise
        self._renderers = [
            CameraRenderer(camera.width, camera.height, number)
            for number, camera in enumerate(robot.cameras if render else ())
        ]
        self._sensor_noise = SensorNoise()
        self._expert = Expert(robot)
        self._world: World | None = None

    def reset(self, task: str, disturbance: str, seed: int) -> None:
        """Begin an episode; the same arguments give the same episode.

        Raises:
            ValueError: unknown task or disturbance.
        """
        chosen = make_task(task)
        self._world = World(self.robot, chosen, disturbance, seed)
        self._stall = Stall.of(Disturbance.parse(disturbance), seed)
        self._last_rgb: RgbImage | None = None
        for renderer in self._renderers:
            renderer.show(self._world)
        self.task, self.disturbance, self.seed = task, disturbance, seed
        self.max_steps = round(chosen.max_duration_s * self.robot.camera.rate_hz)
        self._noise_rng = stream(seed, "servo")
        self._noise_rad = np.zeros(self.robot.joint_count)
        self._command = self.world.measured()
        self._last_change_rad = np.zeros(self.robot.joint_count)
        self.steps = 0
        self.succeeded = False
        self._success_s = 0.0

    @property
    def world(self) -> World:
        """The present episode's world."""
        if self._world is None:
            raise RuntimeError("no episode yet; call reset first")
        return self._world

    @property
    def done(self) -> bool:
        """Success held, or the time is over."""
        return self.succeeded or self.steps >= self.max_steps

    def measured(self) -> FloatArray:
        """(J + 1,) joint positions [rad] and gripper opening [m]."""
        return self.world.measured()

    @property
    def _stalls(self) -> bool:
        return self._stall.at(self.steps / self.robot.camera.rate_hz)

    @property
    def image_lost(self) -> bool:
        """Whether the first camera gives no image in this period (disturbance `freeze`)."""
        return self._stalls and not self._stall.repeats

    def rgb(self) -> RgbImage:
        """(H, W, 3) uint8 image of the first camera of this instant; the last one again while it hangs (`freeze`)."""
        if self._last_rgb is None or not self._stalls:
            self._last_rgb = self._seen(0)
        return self._last_rgb

    def images(self) -> list[RgbImage]:
        """What every camera shows of this instant, in the robot's order."""
        return [self.rgb(), *(self._seen(number) for number in range(1, len(self.renderers)))]

    def _seen(self, camera: int) -> RgbImage:
        return self._sensor_noise.on(self.renderers[camera].rgb(), (self.seed, camera, self.steps))

    def depth(self) -> DepthImage:
        """(H, W) float32 depth [m] of this instant."""
        return self.renderer.depth()

    @property
    def renderer(self) -> CameraRenderer:
        """The first camera."""
        return self.renderers[0]

    @property
    def renderers(self) -> list[CameraRenderer]:
        """One per camera, in the robot's order."""
        if not self._renderers:
            raise RuntimeError("this simulation was made with render=False")
        return self._renderers

    def expert_command(self) -> FloatArray:
        """(J + 1,) what the scripted expert commands in this state."""
        measured = self.measured()
        world = self.world
        goal = world.task.expert_goal(world.model, world.data, float(measured[-1]))
        command = self._expert.command(measured[:-1], float(measured[-1]), goal)
        command[:-1] = self._gently_towards(command[:-1])
        return command

    def _gently_towards(self, wanted_rad: FloatArray) -> FloatArray:
        """(J,) the next joint command towards `wanted_rad`, bounded in velocity and acceleration.

        The change is shrunk as a whole, not joint by joint, so that the hand keeps its direction.
        """
        joints, period_s = self.robot.joints, 1.0 / self.robot.camera.rate_hz
        faster = EXPERT_SHARE_OF_LIMITS * period_s * np.array(joints.velocity_max_rad_s)
        harder = EXPERT_SHARE_OF_LIMITS * period_s**2 * np.array(joints.acceleration_max_rad_s2)
        change = _scaled_into(wanted_rad - self._command[:-1], faster)
        change = self._last_change_rad + _scaled_into(change - self._last_change_rad, harder)
        self._last_change_rad = change
        bounded: FloatArray = np.clip(
            self._command[:-1] + change, self.robot.action_min[:-1], self.robot.action_max[:-1]
        )
        return bounded

    def command(self, action: FloatArray) -> None:
        """(J + 1,) in effect from now on; it stays until the next."""
        self._command = np.asarray(action, dtype=np.float64)
        self._send_to_servos()

    def _send_to_servos(self) -> None:
        noisy = self._command.copy()
        noisy[:-1] += self._noise_rad
        self.world.command(noisy)

    def advance(self, seconds: float) -> None:
        """Let physics run."""
        self.world.step(seconds)

    def end_period(self) -> None:
        """Close a camera period: count it, judge success, draw the next servo noise."""
        period_s = 1.0 / self.robot.camera.rate_hz
        self.steps += 1
        self._success_s = self._success_s + period_s if self.world.success() else 0.0
        self.succeeded = self.succeeded or self._success_s >= SUCCESS_HOLD_S
        if self.servo_noise:
            fresh = self._noise_rng.normal(0.0, self.servo_noise * SERVO_NOISE_RAD, self._noise_rad.shape)
            keep = SERVO_NOISE_MEMORY
            self._noise_rad = keep * self._noise_rad + np.sqrt(1 - keep**2) * fresh
            self._send_to_servos()

    def step(self, action: FloatArray) -> None:
        """One camera period under `action`."""
        self.command(action)
        self.advance(1.0 / self.robot.camera.rate_hz)
        self.end_period()

    def close(self) -> None:
        """Release the renderers."""
        for renderer in self._renderers:
            renderer.close()


def demonstrated(simulation: Simulation, task: str, disturbance: str, seed: int) -> Iterator[FloatArray]:
    """An episode that the expert drives, seen again: frame by frame its (J + 1,) command, while `simulation` is in that frame.

    These are the frames that a recorder sees, that after the last step among them.
    """
    simulation.reset(task, disturbance, seed)
    while True:
        command = simulation.expert_command()
        yield command
        if simulation.done:
            return
        simulation.step(command)


class SensorNoise:
    """Gaussian noise of `SENSOR_NOISE`, cut out of one long piece: drawing it anew would cost more than rendering."""

    def __init__(self) -> None:
        self._pools: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}

    def on(self, image_rgb: RgbImage, key: tuple[int, ...]) -> RgbImage:
        """(H, W, 3) with noise; the same for the same key of integers >= 0."""
        size = image_rgb.size
        if size not in self._pools:
            drawn = np.random.default_rng(size).normal(0.0, SENSOR_NOISE, 2 * size)
            levels = np.rint(drawn).astype(np.int16)
            self._pools[size] = (
                np.maximum(levels, 0).astype(np.uint8),
                np.maximum(-levels, 0).astype(np.uint8),
            )
        start = int(np.random.default_rng(key).integers(size))
        brighter, darker = (pool[start : start + size].reshape(image_rgb.shape) for pool in self._pools[size])
        return np.asarray(cv2.subtract(cv2.add(image_rgb, brighter), darker), np.uint8)


def _scaled_into(values: FloatArray, bounds: FloatArray) -> FloatArray:
    """`values` divided by one number, so that each is within its bound."""
    return values / max(1.0, float(np.max(np.abs(values) / bounds)))
