"""Progress: a bar in a terminal or notebook, or the caller's own function."""

from __future__ import annotations

import sys
from typing import Any, Callable, Optional, Union

from ._extras import need

# True: a bar, which needs tqdm. False: none. None: a bar if tqdm is installed and somebody can see it.
# A function is called with what is being done, and the share of it that is done if that is known.
ShowProgress = Union[bool, Callable[[str, Optional[float]], None], None]


def wants_bar(show: ShowProgress) -> bool:
    if show is not None:
        return show is True
    if not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        return False
    try:
        need("tqdm.auto")
    except ImportError:
        return False
    return True


class Progress:
    """Shows the progress of one prediction."""

    def __init__(self, show: ShowProgress) -> None:
        self._call = show if callable(show) else None
        self._bar: Any = None
        if wants_bar(show):
            self._bar = need("tqdm.auto").tqdm(
                total=100, bar_format="{desc}: {percentage:3.0f}% |{bar}| {elapsed}", leave=False
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, step: str, fraction: float | None) -> None:
        if self._call:
            self._call(step, fraction)
        if self._bar is not None:
            self._bar.set_description_str(step, refresh=False)
            self._bar.n = round(100 * (fraction or 0))
            self._bar.refresh()
