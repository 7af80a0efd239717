"""The network: a residual 3-D U-Net with 1.9 million weights.

It computes eight channels for each voxel: seven tissue classes (`labels.TISSUES`) and one side
channel (positive: left, negative: right). `SidedNetwork` turns these into the eleven scores that
the exported model gives; see there why the sides can never change which tissue wins.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from labels import LABELS, TISSUES


class InstanceNorm(nn.InstanceNorm3d):
    """Instance normalisation that is three times faster in training with one image a step.

    Of one image it is batch normalisation, which keeps the channels-last layout of the convolutions.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True)

    def forward(self, features: Tensor) -> Tensor:
        if self.training and features.shape[0] == 1:
            return functional.batch_norm(
                features, None, None, self.weight, self.bias, training=True, eps=self.eps
            )
        return super().forward(features)


class ConvNormAct(nn.Sequential):
    """3×3×3 convolution, instance normalisation, leaky ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            nn.Conv3d(channels_in, channels_out, 3, padding=1, bias=False),
            InstanceNorm(channels_out),
            nn.LeakyReLU(0.01, inplace=True),
        )


class Residual(nn.Module):
    """Adds what `depth` convolutions find to what came in."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*(ConvNormAct(channels, channels) for _ in range(depth)))

    def forward(self, features: Tensor) -> Tensor:
        return features + self.body(features)


class Modulation(nn.Module):
    """Scales and shifts each channel of the skips by what the deepest level knows of the whole scan.

    What an intensity means depends on the contrast of the scan, which is the same everywhere in it.
    Starts as the identity.
    """

    def __init__(self, context: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.channels = channels
        self.weigh = nn.Conv3d(context, 2 * sum(channels), 1)
        nn.init.zeros_(self.weigh.weight)
        nn.init.zeros_(self.weigh.bias)

    def forward(self, deepest: Tensor, skips: list[Tensor]) -> list[Tensor]:
        weights = self.weigh(deepest.mean((2, 3, 4), keepdim=True))
        scales, shifts = weights.chunk(2, dim=1)
        return [
            skip * (1 + scale) + shift
            for skip, scale, shift in zip(
                skips, scales.split(self.channels, 1), shifts.split(self.channels, 1)
            )
        ]


class BrainNetwork(nn.Module):
    """Image [n, 1, z, y, x] → [n, 7 tissues + 1 side, z, y, x]; sides multiples of 16."""

    def __init__(
        self,
        channels: tuple[int, ...] = (16, 32, 64, 96, 96),
        encoder_depth: tuple[int, ...] = (1, 2, 2, 2, 2),
        decoder_depth: tuple[int, ...] = (1, 2, 1, 1),
    ) -> None:
        super().__init__()
        levels = range(len(channels) - 1)
        self.stem = ConvNormAct(1, channels[0])
        self.encoders = nn.ModuleList(Residual(c, d) for c, d in zip(channels, encoder_depth))
        self.downs = nn.ModuleList(nn.Conv3d(channels[i], channels[i + 1], 2, stride=2) for i in levels)
        # 1×1×1 then nearest-neighbour enlargement: no checkerboard, and cheap in every runtime.
        self.ups = nn.ModuleList(nn.Conv3d(channels[i + 1], channels[i], 1) for i in levels)
        self.decoders = nn.ModuleList(Residual(channels[i], decoder_depth[i]) for i in levels)
        self.modulation = Modulation(channels[-1], channels[:-1])
        self.finish = Residual(channels[0], 1)
        nn.init.zeros_(self.finish.body[0][1].weight)
        self.head = nn.Conv3d(channels[0], len(TISSUES) + 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        features = self.encoders[0](self.stem(image))
        skips: list[Tensor] = []
        for down, encoder in zip(self.downs, self.encoders[1:]):
            skips.append(features)
            features = encoder(down(features))
        skips = self.modulation(features, skips)
        for level in reversed(range(len(skips))):
            raised = functional.interpolate(self.ups[level](features), scale_factor=2.0, mode="nearest")
            features = self.decoders[level](raised + skips[level])
        return self.head(self.finish(features))


class SidedNetwork(nn.Module):
    """Image [n, 1, z, y, x] → scores [n, 11, z, y, x] of `labels.LABELS`.

    A tissue that has sides gives two scores: t + min(0, s) for left, t + min(0, −s) for right,
    with t the tissue's score and s the side channel. The winning side keeps exactly t, so the
    tissue of the argmax is the tissue the network chose; s only says on which side it lies.
    """

    def __init__(self, network: BrainNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        raw = self.network(image)
        side = raw[:, -1:]
        shifts = {"left": side.clamp(max=0.0), "right": (-side).clamp(max=0.0)}
        scores = []
        for label in LABELS:
            score = raw[:, label.tissue : label.tissue + 1]
            scores.append(score + shifts[label.side] if label.side else score)
        return torch.cat(scores, dim=1)
