"""What is driven, in which order: blocks of cells, the most telling first, so that an interrupted run is of use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from atk_sim.disturbances import DISTURBANCES, STRESSES

SIM_TO_REAL = ("sushi", "pot", "clock_button", "clock_hand")
IMITATION = ("grape_oven", "towel_hanging", "towel_folding", "pan_filling", "shoe_lacing")
FEW = ("fullset", "random", "rgb")  # baselines of the tasks that the paper drove on its robot alone
SEVERITIES = (0.25, 0.5, 1.0)
# The paper's columns as they grow, beyond what the paper drew too; 1 is its column Light.
LIGHTS = ("Light:0.25", "Light:0.5", "Light:1.5", "Light:2")


@dataclass(frozen=True)
class Block:
    """Every method on every task, each trained with every seed, so many episodes in every column."""

    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    columns: tuple[str, ...]
    training_seeds: tuple[int, ...]
    episodes: int

    def only(
        self,
        tasks: Sequence[str] | None = None,
        methods: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> Block:
        """The part of it that is asked for; None asks for all."""

        def among(mine: tuple[str, ...], asked: Sequence[str] | None) -> tuple[str, ...]:
            return mine if asked is None else tuple(name for name in mine if name in asked)

        return Block(
            among(self.tasks, tasks),
            among(self.methods, methods),
            among(self.columns, columns),
            self.training_seeds,
            self.episodes,
        )


def bars(methods: Sequence[str]) -> list[Block]:
    """What the benchmark's bars ask for, of the methods that can be used; about a day on two cores."""
    few = tuple(name for name in methods if name in FEW)
    others = tuple(name for name in methods if name not in (*FEW, "atk"))
    stresses = tuple(f"{stress}:{severity:g}" for severity in SEVERITIES for stress in STRESSES)
    return [
        Block(SIM_TO_REAL, ("atk",), DISTURBANCES, (0,), 30),
        Block(IMITATION, ("atk",), DISTURBANCES, (0,), 20),
        Block(SIM_TO_REAL, ("atk",), DISTURBANCES, (1, 2), 30),
        Block(SIM_TO_REAL, few, DISTURBANCES, (0,), 20),
        Block(SIM_TO_REAL, ("atk",), (*stresses, *LIGHTS), (0,), 10),
        Block(IMITATION, few, DISTURBANCES, (0,), 20),
        Block(SIM_TO_REAL, others, DISTURBANCES, (0,), 20),
    ]
