"""Writes the network as ONNX and checks it against PyTorch.

    python export.py --weights averaged.pt --output brain.onnx

Input `image` float32 [1, 1, z, y, x] (sides multiples of 16), output `logits` float32
[1, 11, z, y, x] in the order of `labels.LABELS`.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from labels import LABELS
from network import BrainNetwork, InstanceNorm, SidedNetwork

OPSET = 17


def load_averaged(path: Path) -> tuple[SidedNetwork, int]:
    """The averaged weights of a checkpoint, ready to use, and the steps of their training."""
    network = BrainNetwork()
    state = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict(state["averaged"])
    return SidedNetwork(network).eval(), state["step"]


class StepwiseNorm(nn.Module):
    """Instance normalisation by means along x, then y, then z.

    ONNX Runtime's own sums a whole channel in float32, one voxel after the other: with a million voxels the scores
    of a head were off by 3e-3. These short sums are as exact as PyTorch's and take about as long.
    """

    def __init__(self, norm: InstanceNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, features: Tensor) -> Tensor:
        centred = features - self.mean(features)
        scale = self.weight.view(1, -1, 1, 1, 1) * torch.rsqrt(self.mean(centred * centred) + self.eps)
        return centred * scale + self.bias.view(1, -1, 1, 1, 1)

    @staticmethod
    def mean(features: Tensor) -> Tensor:
        return features.mean(4, keepdim=True).mean(3, keepdim=True).mean(2, keepdim=True)


def with_stepwise_norms(module: nn.Module) -> nn.Module:
    """A copy in which each instance normalisation is stepwise."""
    changed = copy.deepcopy(module)
    for parent in list(changed.modules()):
        for name, child in parent.named_children():
            if isinstance(child, InstanceNorm):
                setattr(parent, name, StepwiseNorm(child))
    return changed


def export(network: SidedNetwork, steps: int, path: Path) -> None:
    axes = {2: "z", 3: "y", 4: "x"}
    torch.onnx.export(
        with_stepwise_norms(network),
        (torch.zeros(1, 1, 32, 48, 64),),
        str(path),
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": axes, "logits": axes},
        opset_version=OPSET,
        dynamo=False,
    )
    model = onnx.load(path)
    names = "|".join(label.name for label in LABELS)
    for key, value in (("labels", names), ("license", "Apache-2.0"), ("steps", str(steps))):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    onnx.save(model, path)


def largest_difference(network: SidedNetwork, path: Path) -> float:
    """Largest |PyTorch − ONNX Runtime| over four sizes, the last one that of a head."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for size in ((32, 48, 64), (80, 64, 48), (64, 96, 80), (80, 112, 96)):
        image = torch.rand(1, 1, *size, generator=generator)
        with torch.inference_mode():
            expected = network(image).numpy()
        actual = session.run(["logits"], {"image": image.numpy()})[0]
        worst = max(worst, float(np.abs(expected - actual).max()))
    return worst


def publish(weights: Path, output: Path) -> str:
    """Writes the ONNX file of a checkpoint, if it gives what PyTorch gives; its SHA-256."""
    network, steps = load_averaged(weights)
    part = output.with_suffix(".part.onnx")
    export(network, steps, part)
    difference = largest_difference(network, part)
    if difference >= 1e-4:
        raise SystemExit(f"{part} differs from PyTorch by {difference:.1e}, which is too much.")
    part.replace(output)
    digest = hashlib.sha256(output.read_bytes()).hexdigest()
    print(f"{output}: {output.stat().st_size} bytes, sha256 {digest}, |Δ| ≤ {difference:.1e}")
    return digest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="checkpoint of train.py")
    parser.add_argument("--output", type=Path, required=True, help="ONNX file to write")
    options = parser.parse_args()
    publish(options.weights, options.output)


if __name__ == "__main__":
    main()
