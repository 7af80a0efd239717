"""Client for TOMAAT servers: send a volume, get its segmentation, its volumes and a receipt.

from tomaat_client import Client

result = Client("http://127.0.0.1:9000").predict("ct-lung", "chest.nii.gz")
print(result.volumes)
result.save("lungs.nii.gz")
"""

from ._version import __version__
from .batch import Row
from .client import Client
from .errors import TomaatError
from .job import Job, Label, Output, Result
from .receipt import Receipt, verify_receipt
from .registry import discover, verify_entry
from .volume import LabelMap

__all__ = [
    "Client",
    "Job",
    "Label",
    "LabelMap",
    "Output",
    "Receipt",
    "Result",
    "Row",
    "TomaatError",
    "__version__",
    "discover",
    "verify_entry",
    "verify_receipt",
]
