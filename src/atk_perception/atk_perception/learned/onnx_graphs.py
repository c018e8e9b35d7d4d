"""The learned network as two ONNX graphs, and running them with onnxruntime in place of torch.

    encoder.onnx       image -> descriptors
    refinement.onnx    descriptors and state of the points -> positions and logits after the last refinement

The width of the image is the network's; its height and the number of points are free. What follows a frame (`advance`) is a
few sums and stays in torch. Written by `python -m atk_perception.learned.onnx_graphs`, chosen by inference_backend.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from atk_perception.learned.network import CELL_PX, DESCRIPTOR, ITERATIONS, Estimate, PointNetwork, PointState
from atk_perception.learned.weights import PACKAGED, WeightsError, load_network

NETWORK_SIZE = (240, 320)  # (height, width) of the example; the width is fixed by it
MULTIPLE = 16
ENCODER_FILE, REFINEMENT_FILE = "encoder.onnx", "refinement.onnx"
WEIGHTS_DIGEST = "weights_sha256"  # entry of the graphs' metadata: which weights they were made of
STATE = ("template", "template_px", "latest", "uv_px", "velocity_px", "visible", "certain", "unseen")


class OnnxGraphError(RuntimeError):
    """Graphs that cannot be written or run; the message says why and what to do."""


class _Encode(nn.Module):
    def __init__(self, network: PointNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network.encode(image)


class _Refine(nn.Module):
    def __init__(self, network: PointNetwork, iterations: int) -> None:
        super().__init__()
        self.network, self.iterations = network, iterations

    def forward(self, features: Tensor, *state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        estimate = self.network.estimate(features, PointState(*state), self.iterations)
        return estimate.uv_px[-1], estimate.visible_logit[-1], estimate.certain_logit[-1]


def digest(network: PointNetwork) -> str:
    """Which weights a network holds."""
    found = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def export_graphs(network: PointNetwork, folder: Path, *, iterations: int = ITERATIONS) -> None:
    """Write both graphs; a kill at any moment leaves old files or new ones.

    Raises:
        OnnxGraphError: onnx or onnxscript is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch.onnx needs it and would say so less clearly
    except ImportError as error:
        raise OnnxGraphError(
            f"to export, onnx and onnxscript are needed, which cannot be imported ({error}); install them: "
            "pip install -r requirements/onnx.txt"
        ) from error
    height, width = NETWORK_SIZE
    rows, points = torch.export.Dim("rows", min=2, max=64), torch.export.Dim("points", min=1, max=4096)
    # Not 1 and no two alike, or torch would take sizes that are equal here for always equal.
    features = torch.zeros(1, DESCRIPTOR, height // CELL_PX, width // CELL_PX)
    state = _example_state(23)
    graphs: dict[str, tuple[nn.Module, tuple[Tensor, ...], list[str], list[str], Any]] = {
        ENCODER_FILE: (
            _Encode(network),
            (torch.zeros(1, 3, height, width),),
            ["image"],
            ["features"],
            ({2: MULTIPLE * rows},),
        ),
        REFINEMENT_FILE: (
            _Refine(network, iterations),
            (features, *state),
            ["features", *STATE],
            ["refined_uv_px", "visible_logit", "certain_logit"],
            ({2: MULTIPLE // CELL_PX * rows}, tuple({1: points} for _ in state)),
        ),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, (module, example, inputs, outputs, sizes) in graphs.items():
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of torch about its own parts
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            program: Any = torch.onnx.export(
                module.eval(),
                example,
                input_names=inputs,
                output_names=outputs,
                dynamic_shapes=sizes,
                dynamo=True,
                verbose=False,
            )
        model = program.model_proto
        for key, value in ((WEIGHTS_DIGEST, digest(network)), ("iterations", str(iterations))):
            entry = model.metadata_props.add()
            entry.key, entry.value = key, value
        partial = (folder / name).with_suffix(".partial")
        onnx.save(model, str(partial))
        os.replace(partial, folder / name)


def _example_state(points: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    sizes = ((DESCRIPTOR,), (2,), (DESCRIPTOR,), (2,), (2,), (), (), ())
    return tuple(torch.rand((1, points, *size), generator=generator) for size in sizes)


class OnnxNetwork:
    """The graphs of a folder in place of `PointNetwork.encode` and `PointNetwork.estimate`, on one thread.

    Args:
        folder: written by `export_graphs`.
        network: whose weights they must have been made of.

    Raises:
        OnnxGraphError: onnxruntime is not installed; graphs are missing, damaged or of other weights.
    """

    def __init__(self, folder: Path, network: PointNetwork) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise OnnxGraphError(
                f"onnxruntime cannot be imported ({error}); install it: pip install -r requirements/onnx.txt, "
                "or use inference_backend 'torch'"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        wanted, sessions = digest(network), []
        remedy = (
            "write it with 'python -m atk_perception.learned.onnx_graphs', or use inference_backend 'torch'"
        )
        for path in (folder / ENCODER_FILE, folder / REFINEMENT_FILE):
            if not path.is_file():
                raise OnnxGraphError(f"{path} does not exist; {remedy}")
            try:
                session: Any = onnxruntime.InferenceSession(
                    str(path), options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # onnxruntime's errors have no common base but this
                raise OnnxGraphError(
                    f"{path} is no graph that onnxruntime can run ({error}); {remedy}"
                ) from error
            self._facts = session.get_modelmeta().custom_metadata_map
            if self._facts.get(WEIGHTS_DIGEST) != wanted:
                raise OnnxGraphError(f"{path} was made of other weights; {remedy}")
            sessions.append(session)
        self._encoder, self._refinement = sessions
        self._iterations = int(self._facts["iterations"])

    def encode(self, image: Tensor) -> Tensor:
        """(1, 3, H, 320) in [0, 1] -> (1, 64, H/4, 80); see `PointNetwork.encode`."""
        (features,) = self._encoder.run(None, {"image": image.contiguous().numpy()})
        return torch.from_numpy(features)

    def estimate(self, features: Tensor, state: PointState, iterations: int) -> Estimate:
        """See `PointNetwork.estimate`; with the last refinement only, and no posterior.

        Raises:
            OnnxGraphError: the graph was written with another number of refinements.
        """
        if iterations != self._iterations:
            raise OnnxGraphError(
                f"the graph refines {self._iterations} times, asked for are {iterations}; export it with those"
            )
        feed = {name: getattr(state, name).contiguous().numpy() for name in STATE}
        found = self._refinement.run(None, {"features": features.contiguous().numpy(), **feed})
        uv_px, visible, certain = map(torch.from_numpy, found)
        return Estimate(torch.empty(0), torch.empty(0), [uv_px], [visible], [certain])


@torch.no_grad()
def compare(
    network: PointNetwork, graphs: OnnxNetwork, points: int = 32, frames: int = 50
) -> dict[str, float]:
    """Largest differences, and the median CPU milliseconds of a frame in both, on random images and points."""
    generator = torch.Generator().manual_seed(1)
    milliseconds: dict[str, list[float]] = {}
    differs = {"descriptor": 0.0, "uv_px": 0.0, "logit": 0.0}

    def timed(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        begin = time.thread_time()  # one thread, whatever else the machine does
        result = call(*arguments)
        milliseconds.setdefault(name, []).append(1e3 * (time.thread_time() - begin))
        return result

    for _ in range(frames):
        image = torch.rand((1, 3, *NETWORK_SIZE), generator=generator)
        image = image.contiguous(memory_format=torch.channels_last)
        state = random_state(points, generator)
        features = timed("torch_encoder_ms", network.encode, image)
        other = timed("onnx_encoder_ms", graphs.encode, image)
        differs["descriptor"] = max(differs["descriptor"], float((features - other).abs().max()))
        mine = timed("torch_refinement_ms", network.estimate, features, state, ITERATIONS)
        theirs = timed("onnx_refinement_ms", graphs.estimate, features, state, ITERATIONS)
        differs["uv_px"] = max(differs["uv_px"], float((mine.uv_px[-1] - theirs.uv_px[-1]).abs().max()))
        for name in ("visible_logit", "certain_logit"):
            difference = (getattr(mine, name)[-1] - getattr(theirs, name)[-1]).abs().max()
            differs["logit"] = max(differs["logit"], float(difference))
    return {**differs, **{name: round(float(np.median(v)), 2) for name, v in milliseconds.items()}}


def random_state(points: int, generator: torch.Generator) -> PointState:
    """Points anywhere in the image, at any speed and certainty, some of them unseen for a while."""

    def unit() -> Tensor:
        return nn.functional.normalize(torch.randn((1, points, DESCRIPTOR), generator=generator), dim=2)

    def uniform(*size: int) -> Tensor:
        return torch.rand((1, points, *size), generator=generator)

    height, width = NETWORK_SIZE
    place_px = torch.tensor([width, height])
    return PointState(
        unit(),
        uniform(2) * place_px,
        unit(),
        uniform(2) * place_px,
        4.0 * uniform(2) - 2.0,
        uniform(),
        uniform() * (uniform() > 0.2),
        torch.floor(5.0 * uniform()),
    )


def main() -> None:
    """Export the packaged weights and compare; the last line of standard output is JSON."""
    parser = argparse.ArgumentParser(
        prog="onnx_graphs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--weights", type=Path, default=PACKAGED, help="safetensors file (default: the packaged one)"
    )
    parser.add_argument("--output", type=Path, help="folder of the graphs (default: that of the weights)")
    parser.add_argument(
        "--random", action="store_true", help="random weights, to compare the speeds without trained ones"
    )
    args = parser.parse_args()
    if args.random and args.output is None:
        raise SystemExit("onnx_graphs: graphs of random weights need an --output of their own")
    torch.set_num_threads(1)  # as on the robot
    output = args.output or args.weights.parent
    try:
        network = PointNetwork().eval() if args.random else load_network(args.weights)
        export_graphs(network, output)
        figures = compare(network, OnnxNetwork(output, network))
    except (OnnxGraphError, WeightsError) as error:
        raise SystemExit(f"onnx_graphs: {error}") from error
    print(json.dumps({"folder": str(output), **figures}))


if __name__ == "__main__":
    main()
