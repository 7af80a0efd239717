"""Puts the figures of `evaluate.py` where people read them, so that none is typed by hand.

    python card.py --figures FOLDER

Writes the two tables into `apps/brain/README.md` and `training/brain/README.md` (between the marks
`<!-- NAME -->` and `<!-- /NAME -->`), the summary into `limitations` of `apps/brain/tomaat.yaml`, and
the pictures into `docs/images/brain-*.png`.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

from labels import TISSUES
from pipeline import RESOLUTIONS

REPOSITORY = Path(__file__).resolve().parents[2]
APP = REPOSITORY / "apps/brain"
CARD = APP / "README.md"
TRAINING = REPOSITORY / "training/brain/README.md"
IMAGES = REPOSITORY / "docs/images"
COLUMNS = ("brain", *TISSUES[1:])

CHOSEN_BY = "The recipe was chosen by two heads that were not trained on, so figures measured on them are optimistic."
SINGLE_SCANS = "Each figure on real images is that of a single scan, and the crop was chosen while looking at these scans."
"""What a reader has to know of the figures, beside them wherever they are shown."""

Row = dict[str, Any]


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def cell(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def column(rows: list[Row], name: str) -> list[float]:
    return [row["dice"][name] for row in rows if row["dice"][name] is not None]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def held_out_table(rows: list[Row]) -> str:
    names = (*COLUMNS, "right side")
    lines = [[row["scan"], row["head"], *(cell(row["dice"][name]) for name in names)] for row in rows]
    lines.append(["**mean**", "", *(f"**{mean(column(rows, name)):.3f}**" for name in names)])
    lines.append(["worst", "", *(cell(min(column(rows, name))) for name in names)])
    return markdown(["scan", "head", *names], lines)


def real_table(rows: list[Row]) -> str:
    names = ("brain", "mask", *TISSUES[1:])
    lines = [
        [row["scan"], row["against"], *(cell(row["dice"][name]) for name in names), f"{row['litres']:.2f}"]
        for row in rows
    ]
    return markdown(["scan", "against", *names, "brain litres"], lines)


def figure(value: float) -> str:
    return f"{value:.2f}"


def summary(figures: Row) -> str:
    """The sentences that `limitations` begins with; figures are those of the resolution that is the default."""
    rows, real = figures["heldOut"], {row["scan"]: row for row in figures["real"]}

    def of(word: str, name: str) -> str:
        return figure(mean(column([row for row in rows if row["scan"].startswith(word)], name)))

    t1 = ", ".join(f"{name} {of('T1', name)}" for name in COLUMNS)
    def real_scan(name: str, what: str) -> str:
        return figure(real[name]["dice"][what])

    return (
        f"{figures['trained']} {CHOSEN_BY} Mean Dice on synthetic T1 scans of these two heads: {t1}. "
        f"Brain on thick T2 slices {of('T2', 'brain')}, on FLAIR {of('FLAIR', 'brain')}, on random contrasts "
        f"{of('random', 'brain')}, on proton density, where fluid may look like cortex, {of('proton', 'brain')}; "
        f"the worst of all {figure(min(column(rows, 'brain')))}. {SINGLE_SCANS} Brain {real_scan('vxm_t1', 'brain')} on a T1 scan, "
        f"against FreeSurfer; the mask {real_scan('seg3d_MR', 'mask')} on another, against one drawn by hand; brain "
        f"{real_scan('fernando_t2', 'brain')} on a T2 scan with slices of 5.5 mm. "
        "CT was not measured. Lesions, children and surgery were not in the training."
    )


def put_between(path: Path, mark: str, text: str) -> None:
    """Replaces what stands between `<!-- mark -->` and `<!-- /mark -->`; both must be there."""
    old = path.read_text()
    pattern = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.DOTALL)
    if not pattern.search(old):
        raise SystemExit(f"{path} has no <!-- {mark} --> … <!-- /{mark} -->; put the two marks where the text belongs.")
    path.write_text(pattern.sub(lambda found: found[1] + text.rstrip() + "\n" + found[2], old))


def put_limitations(text: str) -> None:
    path = APP / "tomaat.yaml"
    folded = textwrap.fill(text, 116, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    old = path.read_text()
    new, count = re.subn(r"(?m)^limitations: >-\n(?:  .*\n)+", f"limitations: >-\n{folded}\n", old)
    if count != 1:
        raise SystemExit(f"{path} has no limitations as a folded text (limitations: >-).")
    path.write_text(new)


def pictures(figures: Row, folder: Path) -> str:
    lines = []
    for row in figures["real"]:
        if not (folder / f"{row['scan']}.png").exists():
            continue
        name = f"brain-{row['scan'].replace('_', '-').lower()}.png"
        shutil.copyfile(folder / f"{row['scan']}.png", IMAGES / name)
        said = "" if row["dice"]["brain"] is None else f", brain Dice {row['dice']['brain']:.3f}"
        lines.append(f"![{row['scan']} with its labels](../../docs/images/{name})\n\n`{row['scan']}`{said}.\n")
    return "\n".join(lines)


def write_card(folder: Path) -> None:
    files = {name: folder / f"{name}.json" for name in RESOLUTIONS}
    measured = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    fast = measured[next(iter(RESOLUTIONS))]
    limitations = summary(fast)
    put_limitations(limitations)
    lines = []
    for name, spacing in RESOLUTIONS.items():
        rows = measured[name]["heldOut"] if name in measured else []
        means = [cell(mean(column(rows, one)) if rows else None) for one in COLUMNS]
        worst = cell(min(column(rows, "brain")) if rows else None)
        lines.append([name, f"{spacing:g} mm", *means, worst])
    resolutions = markdown(["resolution", "spacing", *COLUMNS, "worst brain"], lines)
    for path in (CARD, TRAINING):
        put_between(path, "held-out", held_out_table(fast["heldOut"]))
        put_between(path, "real", real_table(fast["real"]))
        put_between(path, "resolutions", resolutions)
    put_between(CARD, "summary", textwrap.fill(limitations, 120, break_on_hyphens=False))
    put_between(CARD, "pictures", pictures(fast, folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figures", type=Path, required=True, help="folder with fast.json, perhaps fine.json, and the pictures")
    write_card(parser.parse_args().figures)


if __name__ == "__main__":
    main()
