"""Optional packages: imported where they are used, with a clear message if one is missing."""

from __future__ import annotations

import importlib
from typing import Any

_EXTRAS = {
    "numpy": "numpy",
    "nibabel": "nibabel",
    "SimpleITK": "simpleitk",
    "pandas": "pandas",
    "tqdm.auto": "progress",
    "cryptography": "receipts",
}


def need(module: str) -> Any:
    """Imports an optional package.

    Raises:
        ImportError: that names what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        extra = next((extra for name, extra in _EXTRAS.items() if module.split(".")[0] == name.split(".")[0]), None)
        raise ImportError(
            f'This needs the package {module.split(".")[0]}: pip install "tomaat-client[{extra}]"', name=module
        ) from error
