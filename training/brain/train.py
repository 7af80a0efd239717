"""Trains the network on scans synthesised on the fly; see README.md for the phases that were run.

    python train.py --maps FOLDER [FOLDER …] --work FOLDER --minutes 60 [--resume FILE]

`--work` receives `last.pt` (to go on from), `averaged.pt` (the weights to export) and `curve.csv`.
The learning rate follows the clock, not the step count: a one-cycle schedule over `--minutes`.
"""

from __future__ import annotations

import argparse
import copy
import csv
import math
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as functional
from torch import Tensor

from labels import TISSUES
from network import BrainNetwork
from synthesis import LabelMap, Recipe, Sample, held_out, read_label_maps, synthesise

VALIDATION_COUNT = 10


def soft_dice_loss(overlap: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
    """1 − mean soft Dice from the sums per class; classes absent from the truth do not count."""
    dice = (2 * overlap + 1) / (predicted + true + 1)
    present = true > 0
    return 1 - dice[present].mean() if bool(present.any()) else overlap.sum() * 0


def loss_of(raw: Tensor, sample: Sample) -> Tensor:
    """Cross entropy + Dice of the tissues and of the whole brain + cross entropy of the sides."""
    count = len(TISSUES)
    # [voxels, channels]: the memory order of the network's output.
    scores = raw[0].permute(1, 2, 3, 0).reshape(-1, count + 1).float()
    truth = sample.tissues.reshape(-1).long()
    log_probabilities = functional.log_softmax(scores[:, :count], 1)
    log_of_truth = log_probabilities.gather(1, truth[:, None])[:, 0]
    of_truth = log_of_truth.exp()
    predicted = log_probabilities.exp().sum(0)
    true = torch.bincount(truth, minlength=count).float()
    overlap = torch.zeros(count).index_add(0, truth, of_truth)
    tissues = soft_dice_loss(overlap[1:], predicted[1:], true[1:])
    # Of the brain as one: what is brain in truth, less what was called background there.
    in_brain = truth > 0
    brain_overlap = true[1:].sum() - log_probabilities[in_brain, 0].exp().sum()
    brain = soft_dice_loss(brain_overlap[None], predicted[None, 1:].sum(1), true[None, 1:].sum(1))
    sides = sample.sides.reshape(-1)
    sided = sides > 0
    if bool(sided.any()):
        truth_left = (sides[sided] == 1).float()
        side = functional.binary_cross_entropy_with_logits(scores[sided, count], truth_left)
    else:
        side = scores.sum() * 0
    return tissues + 0.5 * brain + 0.2 * side - log_of_truth.mean()


def dice_of(predicted: Tensor, truth: Tensor) -> list[float]:
    """Dice of each tissue but the background, then of the whole brain; absent tissues give NaN."""
    result = []
    for tissue in range(1, len(TISSUES)):
        first, second = predicted == tissue, truth == tissue
        size = first.sum() + second.sum()
        absent = second.sum() < 50
        result.append(math.nan if absent else (2 * (first & second).sum() / size).item())
    first, second = predicted > 0, truth > 0
    result.append((2 * (first & second).sum() / (first.sum() + second.sum())).item())
    return result


def precision_of(name: str) -> torch.autocast:
    """The context in which the network runs; `auto` takes bfloat16 where the processor has instructions for it."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fast = "avx512_bf16" in flags or "amx_bf16" in flags
    return torch.autocast("cpu", torch.bfloat16, enabled=fast if name == "auto" else name == "bfloat16")


def validate(network: BrainNetwork, maps: list[LabelMap], recipe: Recipe, precision: torch.autocast) -> dict[str, float]:
    """Mean Dice over fixed samples of the held-out heads; sides: share of voxels on the right one."""
    network.eval()
    fixed = replace(recipe, sizes=((96,), (112,), (96,)), shift=8.0)
    rows, sides_right = [], []
    with torch.inference_mode():
        for seed in range(VALIDATION_COUNT):
            generator = torch.Generator().manual_seed(1000 + seed)
            sample = synthesise(maps[seed % len(maps)], fixed, generator)
            with precision:
                raw = network(sample.image[None, None])[0].float()
            rows.append(dice_of(raw[: len(TISSUES)].argmax(0), sample.tissues))
            sided = sample.sides > 0
            sides_right.append(((raw[-1] > 0) == (sample.sides == 1))[sided].float().mean().item())
    network.train()
    table = torch.tensor(rows)
    means = table.nanmean(0).tolist()
    names = [*TISSUES[1:], "brain"]
    result = dict(zip(names, means))
    result["brain worst"] = table[:, -1].min().item()
    result["sides"] = sum(sides_right) / len(sides_right)
    return result


def average_into(averaged: BrainNetwork, network: BrainNetwork, decay: float) -> None:
    with torch.no_grad():
        for slow, fast in zip(averaged.parameters(), network.parameters()):
            slow.lerp_(fast, 1 - decay)


def save(path: Path, state: dict[str, object]) -> None:
    """Writes beside, then renames: a reader or a kill never sees half a file."""
    torch.save(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def save_all(
    work: Path,
    network: BrainNetwork,
    averaged: BrainNetwork,
    optimiser: torch.optim.Optimizer,
    step: int,
) -> None:
    weights = {"network": network.state_dict(), "averaged": averaged.state_dict(), "step": step}
    save(work / "averaged.pt", weights)
    save(work / "last.pt", {**weights, "optimiser": optimiser.state_dict()})


def learning_rate(progress: float, peak: float, warm: float) -> float:
    if progress < warm:
        return peak * (0.05 + 0.95 * progress / warm)
    return peak * (0.005 + 0.995 * 0.5 * (1 + math.cos(math.pi * (progress - warm) / (1 - warm))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", type=Path, nargs="+", required=True, help="folders of label maps")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and curve")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--resume", type=Path, help="last.pt or averaged.pt to start from")
    parser.add_argument("--spacing", type=float, default=2.0, help="mm of the working grid")
    parser.add_argument("--validate-minutes", type=float, default=8)
    parser.add_argument("--tight", type=float, default=0.0, help="share of tight frames until the last 40 %% of the time")
    parser.add_argument("--precision", choices=("auto", "bfloat16", "float32"), default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)

    maps = read_label_maps(options.maps)
    training = [m for m in maps if not held_out(m.name)]
    validation = [m for m in maps if held_out(m.name)]
    print(f"{len(training)} heads to train on, {len(validation)} held out", flush=True)
    recipe = Recipe(spacing=options.spacing)
    # Little more than the brain: half the cost of a step; the last part sees whole heads alone.
    tight = replace(recipe, sizes=((64, 80), (64, 80, 96), (64, 80)), shift=14.0)
    precision = precision_of(options.precision)

    network = BrainNetwork().to(memory_format=torch.channels_last_3d)
    averaged = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=1e-4)
    first_step = 0
    if options.resume:
        state = torch.load(options.resume, map_location="cpu", weights_only=True)
        # Parts that the checkpoint does not have yet start as the identity; see network.py.
        missing = network.load_state_dict(state["network"], strict=False).missing_keys
        averaged.load_state_dict(state["averaged"], strict=False)
        if "optimiser" in state and not missing:
            optimiser.load_state_dict(state["optimiser"])
        first_step = state["step"]

    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + first_step)
    curve_path = options.work / "curve.csv"
    fresh = not curve_path.exists()
    names = [*TISSUES[1:], "brain", "brain worst", "sides"]
    start = time.monotonic()
    last_validation = start
    step, recent = first_step, 0.0
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: stopping.append(received))
    with curve_path.open("a", newline="") as file:
        curve = csv.writer(file)
        if fresh:
            curve.writerow(["step", "minutes", "rate", "loss", *names])
        while True:
            progress = (time.monotonic() - start) / (60 * options.minutes)
            done = progress >= 1 or bool(stopping)
            if not done:
                rate = learning_rate(progress, options.rate, 0.015 if options.resume else 0.06)
                for group in optimiser.param_groups:
                    group["lr"] = rate
                head = training[int(torch.randint(len(training), (), generator=generator))]
                is_tight = progress < 0.6 and torch.rand((), generator=generator) < options.tight
                framing = tight if is_tight else recipe
                sample = synthesise(head, framing, generator)
                image = sample.image[None, None].to(memory_format=torch.channels_last_3d)
                with precision:
                    raw = network(image)
                loss = loss_of(raw, sample)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
                optimiser.step()
                step += 1
                average_into(averaged, network, min(0.992, step / (step + 10)))
                value = loss.item()
                recent = value if recent == 0 else 0.98 * recent + 0.02 * value
                if step % 20 == 0:
                    minutes = (time.monotonic() - start) / 60
                    print(f"step {step} at {minutes:.1f} min: loss {recent:.3f}", flush=True)
            if stopping:
                save_all(options.work, network, averaged, optimiser, step)
                return
            if done or time.monotonic() - last_validation > 60 * options.validate_minutes:
                scores = validate(averaged, validation, recipe, precision)
                minutes = (time.monotonic() - start) / 60
                row = [f"{scores[name]:.4f}" for name in names]
                curve.writerow([step, f"{minutes:.1f}", f"{rate:.2e}", f"{recent:.4f}", *row])
                file.flush()
                print(f"step {step}:", {k: round(v, 3) for k, v in scores.items()}, flush=True)
                save_all(options.work, network, averaged, optimiser, step)
                last_validation = time.monotonic()
            if done:
                return


if __name__ == "__main__":
    main()
