"""
What `tomaat import` asks of an author's own Python: it reads a MONAI bundle or a folder of nnU-Net v2, exports its network to
ONNX, and runs the author's own pipeline. It needs the environment that the model runs in (torch, and monai or nnunetv2), and onnx
and onnxruntime to check the export. It installs nothing, and writes only where --out and the cases say.

    exporter.py plan   --kind monai|nnunet --folder DIR [--config FILE] [--folds 0,1]
    exporter.py export … --out model.onnx [--case '{"inputs": ["a.nii.gz"]}']
    exporter.py run    … --case '{"inputs": ["a.nii.gz"], "out": "labels.nii.gz"}' [--mirror] [--float32] [--device auto]
    exporter.py dump   … --case '{"inputs": ["a.nii.gz"], "out": "folder"}'

stdout has one JSON object a line, by `type`: progress {text}; fault {code, path, text}, the last line, with exit code 1; result.
Tensors of `dump` are float32, little-endian, [C, z, y, x] with x fastest; `affine` is row-major, voxel x, y, z to mm in RAS+.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile

import tomaat_pipeline
from tomaat_bundle import Bundle
from tomaat_nnunet import TrainedFolder
from tomaat_onnx import export
from tomaat_pipeline import Fault, add_source_options, last_cause, plain, send, take_stdout


def open_source(options):
    return Bundle(options) if options.kind == "monai" else TrainedFolder(options)


def watch_files():
    """A set that holds the path of each file that this process opens to read from now on."""
    opened = set()

    def note(event, arguments):
        if event == "open" and isinstance(arguments[0], (str, os.PathLike)) and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            opened.add(os.path.abspath(arguments[0]))

    sys.addaudithook(note)
    return opened


# Weights, wherever they lie; what else a library opens outside the author's folder is its own.
WEIGHTS = (".pt", ".pth", ".ts", ".ckpt", ".safetensors", ".onnx", ".npz", ".pkl", ".h5")


def sort_files(opened, base, inputs):
    """The files below the folder `base` that were read, without the cases, and weights that lie elsewhere, by their names."""
    cases = {os.path.realpath(file) for file in inputs}
    inside, outside, own = set(), set(), (sys.prefix, sys.base_prefix, tempfile.gettempdir(), *filter(None, sys.path))
    for path in opened:
        if not os.path.isfile(path) or os.path.realpath(path) in cases or "__pycache__" in path:
            continue
        if path.startswith(str(base) + os.sep):
            inside.add(pathlib.Path(path).relative_to(base).as_posix())
        elif path.endswith(WEIGHTS) and not path.startswith(tuple(part + os.sep for part in own)):
            outside.add(os.path.basename(path))
    return {"files": sorted(inside), "outside": sorted(outside)}


def main():
    tomaat_pipeline.channel = take_stdout()
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["plan", "export", "run", "dump"])
    add_source_options(parser)
    parser.add_argument("--out")
    parser.add_argument("--case", action="append", default=[])
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--program", action="store_true", help="the pipeline becomes a program, and not steps")
    options = parser.parse_args()
    opened = watch_files()
    try:
        source = open_source(options)
        cases = [json.loads(text) for text in options.case]
        if options.command == "plan":
            result = source.plan()
        elif options.command == "export":
            result = export(source, options, *cases[:1])
        elif options.command == "run":
            result = source.run(cases, options)
            inputs = [file for case in cases for file in case["inputs"]]
            result.update({"device": source.device, **sort_files(opened, source.base, inputs)})
        else:
            result = source.dump(cases[0], options)
        send("result", result=plain(result))
    except Fault as fault:
        send("fault", code=fault.code, path=fault.path, text=str(fault))
        sys.exit(1)
    except Exception as error:
        import traceback

        traceback.print_exc()
        send("fault", code="PYTHON", path=options.command, text=last_cause(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
