"""Joins the curves of consecutive runs of train.py into one CSV and draws it.

python curve.py RUN/curve.csv [RUN/curve.csv …] --output FOLDER
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("curves", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    rows: list[dict[str, str]] = []
    for path in options.curves:
        with path.open(newline="") as file:
            rows += csv.DictReader(file)
    with (options.output / "curve.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    steps = [int(row["step"]) for row in rows]
    figure, panel = plt.subplots(figsize=(7, 4.2))
    for name in list(rows[0])[4:]:
        if name in ("brain worst", "sides"):
            continue
        panel.plot(steps, [float(row[name]) for row in rows], marker=".", label=name)
    panel.set(xlabel="step", ylabel="mean Dice, held-out heads, random contrasts", ylim=(0, 1))
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8, ncol=2, loc="lower right")
    figure.tight_layout()
    figure.savefig(options.output / "curve.png", dpi=80)


if __name__ == "__main__":
    main()
