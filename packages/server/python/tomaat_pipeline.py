"""What the readers of MONAI bundles and of nnU-Net folders share: the lines of their protocol, faults, values and tensors."""

import inspect
import json
import os
import platform
import sys

# Where the lines of the protocol go; None in a program that imports this one.
channel = None


def take_stdout():
    """stdout for a protocol alone: what libraries print, native code too, goes to stderr from here on."""
    taken = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return taken


def send(kind, **fields):
    channel.write(json.dumps({"type": kind, **fields}, default=str, allow_nan=False) + "\n")
    channel.flush()


class Fault(Exception):
    """What an author can correct: a code, the place in the folder or its config, and a text."""

    def __init__(self, code, path, text):
        super().__init__(text)
        self.code, self.path = code, path


def progress(text):
    if channel is None:
        print(text, file=sys.stderr)
    else:
        send("progress", text=text)


def device_of(options):
    """Where torch computes: the CPU, unless --device names another; `auto` takes a GPU if torch has one."""
    import torch

    name = getattr(options, "device", None) or "cpu"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return str(torch.device(name))
    except RuntimeError as error:
        raise Fault("DEVICE", "device", f"torch has no device “{name}”. Give cpu, cuda, cuda:1 or auto") from error


def versions(*names):
    from importlib import metadata

    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return found


def plain(value):
    """A value as JSON. What is not data becomes { object } or { function }."""
    import numpy
    import torch

    if isinstance(value, (numpy.ndarray, torch.Tensor)):
        return plain(value.tolist())
    if isinstance(value, numpy.generic):
        return plain(value.item())
    if isinstance(value, float) and value not in (float("inf"), float("-inf")) and value == value:
        return value
    if value is None or isinstance(value, (bool, int, str)):
        return str(value.value) if hasattr(value, "value") and isinstance(value, str) else value
    if isinstance(value, (list, tuple, range, set)):
        return [plain(entry) for entry in value]
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if inspect.isclass(value) or inspect.isroutine(value):
        return {"function": getattr(value, "__qualname__", str(value))}
    return {"object": str(value) if isinstance(value, (float, torch.dtype, torch.device)) else type(value).__qualname__}


def save_stages(folder, stages):
    (folder / "stages.json").write_text(json.dumps({"stages": stages}, indent=1))
    return {"folder": str(folder), "stages": stages}


def write_tensor(folder, name, tensor):
    """tensor: [C, z, y, x]. Returns what the index says of it."""
    import numpy

    data = numpy.ascontiguousarray(numpy.asarray(tensor, dtype="<f4"))
    (folder / f"{name}.f32").write_bytes(data.tobytes())
    return {"name": name, "file": f"{name}.f32", "dims": list(data.shape)}


def transposed(network, before, after):
    import torch

    class Transposed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, image):
            scores = self.network(image.permute(*before))
            # Deep supervision: the first output is that at full size.
            scores = scores[0] if isinstance(scores, (list, tuple)) else scores
            return scores.permute(*after)

    return Transposed().eval()


def last_cause(error):
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".replace("\n", " ")


def add_source_options(parser):
    parser.add_argument("--kind", choices=["monai", "nnunet"], required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--config")
    parser.add_argument("--folds")
    parser.add_argument("--mirror", action="store_true")
    parser.add_argument("--device", help="cpu (default), cuda, cuda:1, or auto")
