"""The network of a bundle or a folder as ONNX, compared with torch."""

import pathlib

from tomaat_pipeline import Fault, last_cause, progress


def export(source, options, case=None):
    """
    ONNX of the network, by the first way that works: the older exporter with free sizes, the same at the size of the window alone,
    then torch.export. onnxruntime on the CPU has to give torch's scores for noise, at a second size too if sizes are free, and for
    the middle of the case: values and smooth regions of a real volume are not those of noise.
    """
    import torch

    torch.manual_seed(0)
    module, size, channels = source.module(), source.window(), source.counts()[0]
    out = pathlib.Path(options.out)
    other = [96 if n == 64 else 64 for n in size]
    axes = dict(zip(range(2, 2 + len(size)), "zyx"[-len(size):]))
    middle = [] if case is None else [("the middle of the case", middle_of(source, case["inputs"], size))]
    noise = [(f"noise of {' x '.join(map(str, shape))} voxels", noise_of(channels, shape)) for shape in (size, other)]
    tried, scores = [], {}
    for how, free in (("legacy", True), ("legacy", False), ("dynamo", True), ("dynamo", False)):
        progress(f"Exporting to ONNX: {how}, {'any size' if free else 'one size'}")
        for old in (out, out.with_name(f"{out.name}.data")):
            old.unlink(missing_ok=True)
        try:
            export_as(module, torch.zeros(1, channels, *size), out, how, axes if free else {})
            report = compare(module, out, noise[:2 if free else 1] + middle, scores)
        except Fault:
            raise
        except Exception as error:  # operators that an exporter does not have, shapes that it fixed
            tried.append(f"{how}, {'any size' if free else 'one size'}: {last_cause(error)[:300]}")
            continue
        return {"file": str(out), "exporter": how, "anySize": free, "window": size, "tried": tried, "notes": source.notes, **report}
    out.unlink(missing_ok=True)
    raise Fault("EXPORT", "network", "No exporter of torch can write it. " + " | ".join(tried))


def noise_of(channels, size):
    import torch

    return torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(len(size) + 2))


def middle_of(source, inputs, size):
    """The window in the middle of a case as the network gets it, [1, C, z, y, x] or of a slice [1, C, y, x]; 0 beyond the volume."""
    import torch

    progress("Preparing a window of the case")
    try:
        volume, axis = source.prepared(inputs)
    except Fault:
        raise
    except Exception as error:  # whatever the author's transforms raise for this file
        raise Fault("RUN", str(inputs[0]), f"The author's steps before the network fail: {last_cause(error)}") from error
    if axis is not None:
        volume = volume.select(axis + 1, volume.shape[axis + 1] // 2)
    padding = []
    for at, wanted in enumerate(size, 1):
        volume = volume.narrow(at, max(0, volume.shape[at] - wanted) // 2, min(wanted, volume.shape[at]))
        padding = [0, wanted - volume.shape[at], *padding]
    return torch.nn.functional.pad(volume, padding)[None].contiguous()


def export_as(module, example, out, how, axes):
    import torch

    names = {"input_names": ["image"], "output_names": ["scores"]}
    if how == "legacy":
        torch.onnx.export(module, (example,), str(out), opset_version=17, dynamo=False,
                          **({"dynamic_axes": {"image": axes, "scores": axes}} if axes else {}), **names)
        return
    shapes = ({axis: torch.export.Dim.DYNAMIC for axis in axes},)
    torch.onnx.export(module, (example,), str(out), dynamo=True, external_data=False, verbose=False,
                      **({"dynamic_shapes": shapes} if axes else {}), **names)


def compare(module, out, images, scores):
    """Raises ValueError where onnxruntime differs from torch by more than a part of 1e-4. `scores` keeps torch's by the image's name."""
    import numpy
    import torch

    try:
        import onnxruntime
    except ImportError as error:
        raise Fault("NO_PYTHON_PACKAGE", "onnxruntime", f"{error}. It checks the exported network") from error
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(out), settings, providers=["CPUExecutionProvider"])
    compared = []
    for name, image in images:
        if name not in scores:
            with torch.no_grad():
                scores[name] = module(image).numpy()
        wanted, found = scores[name], session.run(None, {"image": image.numpy()})[0]
        if found.shape != wanted.shape:
            raise ValueError(f"for {name} scores of shape {found.shape} where torch gives {wanted.shape}")
        worst, largest = float(numpy.abs(found - wanted).max()), float(numpy.abs(wanted).max())
        if not worst <= 1e-4 * largest:
            raise ValueError(f"for {name} scores differ from torch's by {worst:.2g}, of at most {largest:.2g}")
        compared.append({"of": name, "maxDifference": worst, "maxScore": largest})
    worst = max(compared, key=lambda one: one["maxDifference"] / (one["maxScore"] or 1))
    return {"maxDifference": worst["maxDifference"], "maxScore": worst["maxScore"], "compared": compared}
