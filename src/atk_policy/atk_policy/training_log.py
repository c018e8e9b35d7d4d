"""Where the curves of a training go while it runs: TensorBoard, Weights & Biases, both, or nowhere.

metrics.json has the curves in any case; this is for watching. Both packages are optional, imported only when asked for, and
their absence is said before anything is trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

TENSORBOARD_FOLDER = "tensorboard"


class TrainingLogError(ValueError):
    """A log was asked for whose package is not there; the message says how to install it."""


class LogConfig(BaseModel):
    """Who is told about a training.

    Attributes:
        tensorboard: write event files to RUN/.select/tensorboard.
        wandb_project: Weights & Biases project; '' for none. WANDB_MODE=offline keeps it on this machine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tensorboard: bool = False
    wandb_project: str = ""


class TrainingLog:
    """Scalars of one stage of a training, by step.

    A run that was killed and continued repeats the steps after its last checkpoint. TensorBoard is told to forget those that
    come again, Weights & Biases drops what is older than its newest step.

    Args:
        config: who is told.
        work: folder of the training; event files go into its `tensorboard/STAGE`.
        stage: such as 'refit'.

    Raises:
        TrainingLogError: a package is not installed.
    """

    def __init__(self, config: LogConfig, work: Path, stage: str) -> None:
        self._folder = work / TENSORBOARD_FOLDER / stage
        self._make_writer = _tensorboard_writer() if config.tensorboard else None
        self._writer: Any = None
        self._wandb_run: Any = None
        if config.wandb_project:
            # The same folder is the same run, before and after a kill.
            identity = hashlib.sha256(f"{work.resolve()}/{stage}".encode()).hexdigest()[:16]
            work.mkdir(parents=True, exist_ok=True)
            self._wandb_run = _wandb().init(
                project=config.wandb_project,
                name=stage,
                id=identity,
                resume="allow",
                dir=str(work),
                reinit="create_new",
            )

    def __call__(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write the scalars of a step."""
        if self._make_writer is not None:
            if self._writer is None:
                self._writer = self._make_writer(log_dir=str(self._folder), purge_step=step)
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()
        if self._wandb_run is not None:
            self._wandb_run.log(dict(scalars), step=step)

    def close(self) -> None:
        """Write out what is left."""
        if self._writer is not None:
            self._writer.close()
        if self._wandb_run is not None:
            self._wandb_run.finish()


def check_log(config: LogConfig) -> None:
    """Refuse a log whose package is not there.

    Raises:
        TrainingLogError: a package is not installed.
    """
    if config.tensorboard:
        _tensorboard_writer()
    if config.wandb_project:
        _wandb()


def _tensorboard_writer() -> Callable[..., Any]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingLogError(
            f"log.tensorboard is true, but tensorboard cannot be imported ({error}); install it: "
            "pip install -r requirements/training.txt, or leave the entry out"
        ) from error
    return SummaryWriter  # type: ignore[no-any-return]


def _wandb() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise TrainingLogError(
            f"log.wandb_project is given, but wandb cannot be imported ({error}); install it: "
            "pip install -r requirements/training.txt, or leave the entry out"
        ) from error
    return wandb
