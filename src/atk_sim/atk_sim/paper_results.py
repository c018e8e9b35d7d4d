"""Success rates that the paper published, for the columns RP, RB, +RO, +Light (method.md, published results)."""

from __future__ import annotations

PAPER_COLUMNS = ("RP", "RB", "RO", "Light")
Rates = tuple[float, float, float, float]

# Our names of the paper's tasks and methods. In its simulator ATK has one figure for all four columns.
IN_SIMULATION: dict[str, dict[str, Rates]] = {
    "sushi": {
        "atk": (0.893, 0.893, 0.893, 0.893),
        "rgb": (0.453, 0.076, 0.027, 0.010),
        "depth": (0.255, 0.255, 0.020, 0.010),
        "fullset": (0.122, 0.053, 0.010, 0.013),
        "random": (0.337, 0.246, 0.233, 0.226),
        "manual": (0.032, 0.020, 0.013, 0.006),
    },
    "pot": {
        "atk": (0.933, 0.933, 0.933, 0.933),
        "rgb": (0.253, 0.109, 0.020, 0.000),
        "depth": (0.110, 0.110, 0.000, 0.000),
        "fullset": (0.311, 0.069, 0.013, 0.013),
        "random": (0.120, 0.031, 0.116, 0.006),
        "manual": (0.133, 0.020, 0.010, 0.010),
    },
    "clock_button": {
        "atk": (0.970, 0.970, 0.970, 0.970),
        "rgb": (0.456, 0.046, 0.013, 0.000),
        "depth": (0.290, 0.290, 0.000, 0.000),
        "fullset": (0.474, 0.126, 0.026, 0.020),
        "random": (0.107, 0.080, 0.036, 0.026),
        "manual": (0.913, 0.913, 0.913, 0.913),
    },
    "clock_hand": {
        "atk": (0.903, 0.903, 0.903, 0.903),
        "rgb": (0.367, 0.093, 0.013, 0.000),
        "depth": (0.256, 0.256, 0.000, 0.020),
        "fullset": (0.253, 0.083, 0.010, 0.010),
        "random": (0.253, 0.076, 0.000, 0.000),
        "manual": (0.065, 0.146, 0.077, 0.020),
    },
}

ON_THE_ROBOT: dict[str, Rates] = {
    "sushi": (0.85, 0.80, 0.55, 0.45),
    "pot": (0.75, 0.65, 0.60, 0.60),
    "clock_button": (0.90, 0.90, 0.80, 0.75),
    "clock_hand": (0.50, 0.50, 0.40, 0.35),
    "towel_hanging": (0.85, 0.85, 0.80, 0.60),
    "towel_folding": (1.0, 1.0, 1.0, 0.70),
    "grape_oven": (0.80, 0.80, 0.75, 0.65),
    "pan_filling": (0.60, 0.55, 0.40, 0.25),
}


def paper_rate(task: str, method: str, column: str) -> float | None:
    """The published rate to compare with: the simulator's where there is one, else the real robot's (ATK only).

    The paper's GPTSelect (points named by a vision-language model) stands beside our `manual` and `vlm`.
    """
    if column not in PAPER_COLUMNS:
        return None
    index = PAPER_COLUMNS.index(column)
    if task in IN_SIMULATION:
        rates = IN_SIMULATION[task].get("manual" if method == "vlm" else method)
        return None if rates is None else rates[index]
    if method == "atk" and task in ON_THE_ROBOT:
        return ON_THE_ROBOT[task][index]
    return None
