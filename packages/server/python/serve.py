"""
The author's own pipeline as the program of an app: `tomaat import --command` puts it into the app's folder, beside the
modules that know how the pipeline runs (tomaat_*.py), requirements.lock and the author's files. It needs the author's environment
and nothing else.

    serve.py --kind monai --folder model --config inference.json --inputs volume --output segmentation
    serve.py --kind nnunet --folder model/… --folds 0,1 [--mirror] --inputs volume --output segmentation

With TOMAAT_SERVE=1 it loads the model once, writes {"ready": true}, and answers one request a line of stdin,
    {"id": 1, "input": DIR, "output": DIR, "params": FILE}, with {"id": 1, "ok": true} or {"id": 1, "error": "…", "fault": "input"|"app"},
until stdin ends. Otherwise its last three arguments are the folders `input` and `output` and the file of parameters; it ends with 0,
with 2 where the input is at fault, or with 1; the last line of stderr says why. Lines {"fraction": 0.5, "stage": "…"} are progress.

Volumes are input/NAME.nii.gz; the result is output/NAME.nii.gz, whole numbers. MODEL_DEVICE (cpu, cuda, cuda:1) chooses the device;
without it a GPU is taken if torch finds one.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import tempfile

from tomaat_bundle import Bundle
from tomaat_nnunet import TrainedFolder
from tomaat_pipeline import Fault, add_source_options, last_cause, progress, take_stdout

STAGE = "Running the author’s pipeline"
here = pathlib.Path(__file__).resolve().parent
# Those that decide the result. The others may be newer.
MAIN_PACKAGES = ("torch", "monai", "pytorch-ignite", "nnunetv2", "numpy", "scipy", "nibabel", "simpleitk")


def check_versions(lock):
    """Refuses an environment whose main packages are not those of the lock; builds for another GPU (2.4.0+cu121) are the same."""
    from importlib import metadata

    if not lock.is_file():
        return
    wrong = []
    for line in lock.read_text(encoding="utf-8").splitlines():
        name, separator, pinned = line.strip().partition("==")
        if not separator or re.sub(r"[-_.]+", "-", name).lower() not in MAIN_PACKAGES:
            continue
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = "none"
        if found.split("+")[0] != pinned.split("+")[0]:
            wrong.append(f"{name} {found} instead of {pinned}")
    if wrong:
        raise Fault("VERSIONS", lock.name, f"This environment has {', '.join(wrong)}. Run “venv/bin/python3 -m pip install "
                    f"-r {lock.name}” in the app's folder; if the results were proved with these, write them into {lock.name}")


# --------------------------------------------------------------------------------------------------------- the pipelines


class WarmBundle:
    """A MONAI bundle: the workflow that `monai.bundle run` makes, kept, and given one entry of data after another."""

    def __init__(self, options):
        self.bundle = Bundle(options)
        self.workflow = None
        # The workflow has one folder of results for its life. A link leads it into the folder of each request, which the server
        # clears: no result stays behind if this process is killed.
        self.results = os.path.join(temporary_folder(), "results")
        if not self.bundle.has_evaluator():
            self.bundle.load()
        elif self.reads_when_asked():
            self.start({})

    def reads_when_asked(self):
        """Whether the dataset reads no entry before the run, so that the model can be loaded without one."""
        dataset = self.bundle.parser.config["dataset"]
        return isinstance(dataset, dict) and dataset.get("_target_") in ("Dataset", "monai.data.Dataset")

    def start(self, entry):
        from monai.bundle import create_workflow

        progress("Loading the model")
        self.workflow = create_workflow(config_file=str(self.bundle.file), **self.bundle.changes(entry, self.results))

    def run(self, case):
        check_stack(self.bundle.entry_of(case))
        if not self.bundle.has_evaluator():
            return self.bundle.run_steps(case)
        with tempfile.TemporaryDirectory(prefix=".results-", dir=os.path.dirname(case["out"])) as folder:
            if os.path.lexists(self.results):
                os.unlink(self.results)
            os.symlink(folder, self.results)
            entry = self.bundle.entry_of(case)
            if self.workflow is None:
                self.start(entry)
            else:
                give(self.workflow.parser.get_parsed_content("dataset"), [entry])
            self.workflow.run()
            self.forget()
            return self.bundle.take_result(folder, case["out"])

    def forget(self):
        """Frees the volumes of the last run, and what each run adds to the path."""
        state = getattr(self.workflow.parser.get_parsed_content("evaluator"), "state", None)
        for name in ("batch", "output"):
            if hasattr(state, name):
                setattr(state, name, None)
        sys.path[:] = dict.fromkeys(sys.path)


temporary = []


def temporary_folder():
    """A folder that is removed when this program ends, or is ended by SIGTERM."""
    temporary.append(tempfile.mkdtemp(prefix="tomaat-serve-"))
    return temporary[-1]


def remove_temporary():
    for folder in temporary:
        shutil.rmtree(folder, ignore_errors=True)


def end_by_signal(number, _frame):
    # Without the work that Python does at an end: a GPU or a pool of threads may keep it waiting.
    remove_temporary()
    os._exit(128 + number)


def give(dataset, entries):
    """Datasets with a cache fill it again."""
    if hasattr(dataset, "set_data"):
        dataset.set_data(entries)
    else:
        dataset.data = entries


def check_stack(entry):
    """Volumes that are the channels of one tensor must lie on one grid."""
    import nibabel
    import numpy

    for files in entry.values():
        if not isinstance(files, list) or len(files) < 2 or not all(isinstance(file, str) and os.path.isfile(file) for file in files):
            continue
        first, *others = [nibabel.load(file) for file in files]
        for file, image in zip(files[1:], others):
            if image.shape != first.shape or not numpy.allclose(image.affine, first.affine, atol=1e-3):
                raise Fault("INPUT", name_of(file), f"It does not lie on the grid of {name_of(files[0])}. Send volumes of one grid")


def name_of(file):
    return os.path.basename(file).removesuffix(".nii.gz")


class WarmFolder:
    """A folder of nnU-Net: its predictor with the weights of the folds, kept."""

    def __init__(self, options):
        self.trained = TrainedFolder(options)

    def run(self, case):
        self.trained.run_case(case)
        return {"fractional": 0}


def open_pipeline(options):
    return WarmBundle(options) if options.kind == "monai" else WarmFolder(options)


# ----------------------------------------------------------------------------------------------------------- the program


def predict(pipeline, options, input_folder, output_folder):
    """One prediction: the volumes of `input_folder` by the names of the app's inputs, in their order."""
    files = [os.path.join(input_folder, f"{name}.nii.gz") for name in options.inputs.split(",")]
    for file in files:
        if not os.path.isfile(file):
            raise Fault("INPUT", name_of(file), "The volume is missing. Send it")
    done = pipeline.run({"inputs": files, "out": os.path.join(output_folder, f"{options.output}.nii.gz")})
    if done["fractional"]:
        print(f"The pipeline's result had fractional labels in {done['fractional']} voxels; they were rounded", file=sys.stderr)


def reason_of(error):
    """What the caller reads, in one line, and whose fault it is."""
    if isinstance(error, Fault):
        return f"{error.path}: {error}.".replace("\n", " "), "input" if error.code == "INPUT" else "app"
    return last_cause(error)[:1000], "app"


def serve(requests, say, answer):
    """Answers one request after another, until there are no more. `answer(request)` predicts."""
    say({"ready": True})
    for line in requests:
        if not line.strip():
            continue
        request = json.loads(line)
        say({"fraction": 0, "stage": STAGE})
        try:
            answer(request)
        except Exception as error:  # whatever the author's code raises: the next request may be fine
            print_trace(error)
            text, fault = reason_of(error)
            say({"id": request["id"], "error": text, "fault": fault})
        else:
            say({"id": request["id"], "ok": True})
        free_memory()


def print_trace(error):
    import traceback

    if not isinstance(error, Fault):
        traceback.print_exception(type(error), error, error.__traceback__)


def free_memory():
    """Gives memory of the GPU back that no tensor uses, for other programs on it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def take_stdin():
    """stdin for requests alone: what the author's code starts reads nothing."""
    taken = os.fdopen(os.dup(0), "r", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return taken


def main():
    parser = argparse.ArgumentParser()
    parser.error = sys.exit  # With 1: 2 says that the caller's input is at fault.
    add_source_options(parser)
    parser.add_argument("--inputs", required=True, help="names of the app's volumes, in the order of the channels")
    parser.add_argument("--output", required=True, help="name of the app's label map")
    parser.add_argument("paths", nargs="*", help="input folder, output folder, file of parameters")
    options = parser.parse_args()
    options.program = True
    options.folder = str(here / options.folder)
    options.device = options.device or os.environ.get("MODEL_DEVICE") or "auto"
    channel, requests = take_stdout(), take_stdin()
    signal.signal(signal.SIGTERM, end_by_signal)

    def say(line):
        channel.write(json.dumps(line) + "\n")
        channel.flush()

    try:
        check_versions(here / "requirements.lock")
        pipeline = open_pipeline(options)
        if os.environ.get("TOMAAT_SERVE") == "1":
            serve(requests, say, lambda request: predict(pipeline, options, request["input"], request["output"]))
        elif len(options.paths) == 3:
            say({"fraction": 0, "stage": STAGE})
            predict(pipeline, options, *options.paths[:2])
        else:
            parser.error("give the folders input and output and the file of parameters, or set TOMAAT_SERVE=1")
    except Exception as error:
        print_trace(error)
        text, fault = reason_of(error)
        print(text, file=sys.stderr)
        sys.exit(2 if fault == "input" else 1)
    finally:
        remove_temporary()


if __name__ == "__main__":
    main()
