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
import inspect
import itertools
import json
import os
import pathlib
import platform
import sys
import tempfile

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


# ---------------------------------------------------------------------------------------------------------------- MONAI


class Bundle:
    """A MONAI bundle, by its own ConfigParser: expressions, references and defaults are what MONAI makes of them."""

    kind = "monai"

    def __init__(self, options):
        progress("Loading torch and MONAI")
        try:
            import monai  # noqa: F401
            import torch  # noqa: F401
            from monai.bundle import ConfigParser, config_item
        except ImportError as error:
            raise Fault("NO_PYTHON_PACKAGE", "monai", str(error)) from error
        self.base = self.root = pathlib.Path(options.folder).resolve()
        self.config = options.config or "inference.json"
        self.file = self.root / "configs" / self.config
        self.device, self.loaded = device_of(options), None
        self.is_program = getattr(options, "program", False)
        sys.path.insert(0, str(self.root))  # own code of a bundle is its package `scripts`
        self.made, original = {}, config_item.ConfigComponent.instantiate

        def instantiate(component, **extra):
            """Notes with which arguments each object is made, after expressions and references."""
            thing = original(component, **extra)
            if thing is not None:
                arguments = {**component.resolve_args(), **extra}
                self.made[id(thing)] = (thing, str(component.get_id()).replace("::", "#"), arguments)
            return thing

        config_item.ConfigComponent.instantiate = instantiate
        self.parser = ConfigParser()
        self.parser.read_config(str(self.file))
        self.parser["bundle_root"] = str(self.root)
        if "device" in self.parser.config:
            self.parser["device"] = self.device_expression()
        self.notes = []
        self.metadata = json.loads((self.root / "configs" / "metadata.json").read_text(encoding="utf-8"))

    def device_expression(self):
        return f"$__import__('torch').device('{self.device}')"

    def has(self, key):
        return key in self.parser.config

    def get(self, key):
        try:
            return self.parser.get_parsed_content(key)
        except Exception as error:  # whatever an expression of the config raises
            raise Fault("CONFIG", f"{self.config}: {key}", f"MONAI cannot evaluate it: {last_cause(error)}") from error

    def describe(self, thing):
        target = f"{type(thing).__module__}.{type(thing).__qualname__}"
        if id(thing) not in self.made:
            return {"path": "", "target": target, "arguments": None}
        _, path, given = self.made[id(thing)]
        try:
            bound = inspect.signature(type(thing)).bind(**given)
            bound.apply_defaults()
            arguments = dict(bound.arguments)
            arguments.update(arguments.pop("kwargs", {}))
        except (TypeError, ValueError):
            arguments = given
        return {"path": path, "target": target, "arguments": plain(arguments)}

    def flatten(self, thing):
        from monai.transforms import Compose

        if thing is None:
            return []
        if isinstance(thing, Compose):
            return [step for part in thing.transforms for step in self.flatten(part)]
        if isinstance(thing, (list, tuple)):
            return [step for part in thing for step in self.flatten(part)]
        return [thing]

    def steps(self, key):
        return self.flatten(self.get(key)) if self.has(key) else []

    def counts(self):
        """Channels that the network takes and gives, by its definition or the metadata."""
        formats = self.metadata.get("network_data_format", {})
        network = self.parser.config.get("network_def") or {}
        found = []
        for name, side in (("in_channels", "inputs"), ("out_channels", "outputs")):
            value = None
            if isinstance(network, dict) and name in network:
                value = self.get(f"network_def#{name}")
            if not isinstance(value, int):
                value = next(iter(formats.get(side, {}).values()), {}).get("num_channels")
            found.append(value if isinstance(value, int) else 1)
        return found

    def plan(self):
        channels, classes = self.counts()
        if not self.has("preprocessing") and not self.is_program:
            raise Fault("CONFIG", f"{self.config}: preprocessing", "The config has no such key")
        progress("Reading the transforms")
        pre, post = self.steps("preprocessing"), self.steps("postprocessing")
        inferer = self.describe(self.get("inferer")) if self.has("inferer") else None
        described = []
        for step in post:
            entry = self.describe(step)
            if "Lambda" in entry["target"] or not entry["target"].startswith("monai."):
                entry["table"] = truth_table(step, classes)
            described.append(entry)
        return {
            "kind": "monai", "config": self.config, "channels": channels, "classes": classes,
            "preprocessing": [self.describe(step) for step in pre], "postprocessing": described, "inferer": inferer,
            "amp": bool((self.parser.config.get("evaluator") or {}).get("amp", False)),
            "metadata": {key: value for key, value in self.metadata.items() if key != "changelog"},
            "versions": versions("torch", "monai", "numpy", "nibabel", "onnx", "onnxruntime"),
        }

    def network(self):
        """The network of the config with its weights; where there is none, models/model.ts."""
        progress("Building the network")
        try:
            return self.built_network()
        except Fault as fault:
            return self.scripted_network(fault)

    def scripted_network(self, fault):
        """The same network in TorchScript, which holds its code: where code or weights of the config are missing."""
        import torch

        file = self.root / "models" / "model.ts"
        if not file.is_file():
            instead = (". The bundle has no models/model.ts (TorchScript) to take instead. Import the bundle where its network can be "
                       "built, or with --command" if fault.code == "CONFIG" else "")
            raise Fault(fault.code, fault.path, f"{str(fault).rstrip('.')}{instead}") from fault
        try:
            network = torch.jit.load(str(file), map_location="cpu").eval()
        except Exception as error:  # damaged, or of another torch
            raise Fault("WEIGHTS", str(file), f"torch cannot load it: {last_cause(error)}") from error
        self.notes = [f"The network is models/model.ts (TorchScript), because the config's own cannot be taken: {fault.path}: {fault}"]
        return network

    def built_network(self):
        import torch

        network = self.get("network_def" if self.has("network_def") else "network")
        path, keys = self.weights()
        if not path.is_file():
            raise Fault("NO_WEIGHTS", str(path), "The file of the weights does not exist. Download it (large_files.yml)")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception:  # a checkpoint with other objects, as training may write it
            state = torch.load(path, map_location="cpu", weights_only=False)
        for key in (*keys, "model", "state_dict", "network"):
            if isinstance(state, dict) and isinstance(state.get(key), dict):
                state = state[key]
                break
        state = {key.removeprefix("module."): value for key, value in state.items()}
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise Fault("WEIGHTS", str(path), f"The weights do not fit the network: {error}") from error
        return network.eval()

    def load(self):
        """The network on its device, loaded once."""
        if self.loaded is None:
            self.loaded = self.network().to(self.device)
        return self.loaded

    def weights(self):
        """The file that the config itself loads, and under which keys."""
        config = self.parser.config
        places = [("checkpointloader", config.get("checkpointloader"))]
        places += [(f"handlers#{i}", part) for i, part in enumerate(config.get("handlers") or [])]
        for key, part in places:
            if isinstance(part, dict) and "CheckpointLoader" in str(part.get("_target_")) and "load_path" in part:
                return pathlib.Path(self.get(f"{key}#load_path")), list(part.get("load_dict") or {})
        return self.root / "models" / "model.pt", []

    def module(self):
        """The network on arrays [1, C, z, y, x]: MONAI's are x, y, z."""
        import torch

        order = (0, 1, 3, 2) if self.takes_slices() else (0, 1, 4, 3, 2)
        network = self.network()
        module = transposed(network, order, order)
        if not isinstance(network, torch.jit.ScriptModule):
            return module
        # The exporters take TorchScript only as the whole. Its own branches stay in a trace.
        return torch.jit.trace(module, torch.zeros(1, self.counts()[0], *self.window()), check_trace=False)

    def window(self):
        """The size z, y, x at which the network is exported."""
        size = self.describe(self.get("inferer"))["arguments"].get("roi_size") if self.has("inferer") else None
        if not size:
            entry = next(iter(self.metadata.get("network_data_format", {}).get("inputs", {}).values()), {})
            size = [n if isinstance(n, int) else 64 for n in entry.get("spatial_shape", [64, 64, 64])]
        sizes = [size] * 3 if isinstance(size, int) else [int(n) for n in size if n != 1 or len(size) != 3]
        return [n if n > 0 else 64 for n in reversed(sizes)]

    def data_of(self, inputs, plan):
        """The dictionary that the first transform takes: one key for each that LoadImaged reads."""
        loads = [(step["arguments"] or {}).get("keys") for step in plan if step["target"].endswith("LoadImaged")]
        loaded = next((keys for keys in loads if keys), ["image"])
        loaded = [loaded] if isinstance(loaded, str) else list(loaded)
        keys = [key for key in loaded if key != "label"] or ["image"]
        prompts = {key: value for key, value in self.first_entry().items() if key not in (*loaded, "image", "label")}
        if len(keys) == 1:
            return {**prompts, keys[0]: str(inputs[0]) if len(inputs) == 1 else [str(file) for file in inputs]}
        return {**prompts, **dict(zip(keys, map(str, inputs)))}

    def first_entry(self):
        """What else the author's own dataset gives beside the volumes, such as the label prompts of VISTA3D."""
        if not isinstance(self.parser.config.get("dataset"), dict) or "data" not in self.parser.config["dataset"]:
            return {}
        try:
            entry = next(iter(self.parser.get_parsed_content("dataset#data")), {})
        except Exception:  # the author's own data is not here
            return {}
        return entry if isinstance(entry, dict) else {}

    def run(self, cases, options):
        """The author's own evaluator, as `python -m monai.bundle run` starts it; without ignite, its parts by themselves."""
        has_evaluator = self.has_evaluator()
        for number, case in enumerate(cases):
            progress(f"Running the bundle: case {number + 1} of {len(cases)}")
            if has_evaluator:
                case.update({"by": "monai.bundle run", **self.run_evaluator(case)})
            else:
                case.update({"by": "transforms and inferer", **self.run_steps(case)})
        return {"cases": cases}

    def has_evaluator(self):
        from importlib.util import find_spec

        if not (find_spec("ignite") and self.has("evaluator") and self.has("dataset")):
            return False
        if not self.is_program:
            self.network()  # notes where TorchScript takes its place, which no evaluator of the config knows
        return not self.notes

    def entry_of(self, case):
        return self.data_of(case["inputs"], [self.describe(step) for step in self.steps("preprocessing")])

    def changes(self, entry, folder):
        """What `monai.bundle run` is given beside the config: one entry of data, and the folder of its results."""
        changes = {"bundle_root": str(self.root), "output_dir": str(folder), "dataset#data": [entry]}
        if self.has("dataloader"):
            changes["dataloader#num_workers"] = 0
        if self.has("device"):
            changes["device"] = self.device_expression()
        return changes

    def run_evaluator(self, case):
        from monai.bundle import run

        with tempfile.TemporaryDirectory() as folder:
            run(config_file=str(self.file), **self.changes(self.entry_of(case), folder))
            return self.take_result(folder, case["out"])

    def take_result(self, folder, out):
        """The one file that the bundle wrote into the folder, as a label map."""
        import nibabel
        import numpy

        found = [file for file in pathlib.Path(folder).rglob("*") if file.is_file()]
        if len(found) != 1:
            raise Fault("RUN", self.config, f"The bundle wrote {len(found)} files where one label map was expected")
        image = nibabel.load(found[0])
        return save_labels(numpy.asanyarray(image.dataobj), image.affine, out)

    def run_steps(self, case):
        """Without an evaluator, its parts by themselves."""
        labels = self.walk(case, lambda *stage: None, keeps_windows=False)["pred"]
        if labels.shape[0] != 1:
            raise no_label_map(labels.shape)
        return save_labels(labels.cpu().numpy()[0], labels.affine.cpu().numpy(), case["out"])

    def prepare(self, inputs, keep=lambda *stage: None):
        """The author's transforms before the network: their dictionary, and the key of the image [C, x, y, z] in it."""
        pre = self.steps("preprocessing")
        data = self.data_of(inputs, [self.describe(step) for step in pre])
        key = next(iter(data))
        for step in pre:
            data = step(data)
            key = "image" if "image" in data else key
            if hasattr(data[key], "shape"):
                keep("prepared", step, data[key])
        return data, key

    def prepared(self, inputs):
        """What the network gets of a case, [C, z, y, x], and the axis of its slices if the network takes slices."""
        import torch

        data, key = self.prepare(inputs)
        axis = None
        if self.takes_slices():
            axis = 2 - int(self.describe(self.get("inferer"))["arguments"].get("spatial_dim") or 0)
        return torch.as_tensor(data[key]).float().permute(0, 3, 2, 1), axis

    def takes_slices(self):
        return "SliceInferer" in str(self.parser.config.get("inferer"))

    def walk(self, case, keep, keeps_windows=True):
        """The author's transforms and inferer, one after the other; keep(kind, step, tensor [C, x, y, z]) sees each result."""
        import torch
        from monai.data import decollate_batch, list_data_collate

        data, key = self.prepare(case["inputs"], keep)
        network, batch = self.load(), list_data_collate([data])
        with torch.no_grad():
            image, size = batch[key].to(self.device), self.window()[::-1] if keeps_windows else ()
            if len(size) == 3 and all(n >= w for n, w in zip(image.shape[2:], size)):
                window = torch.as_tensor(image)[(..., *[slice(0, w) for w in size])].contiguous()
                keep("window", None, torch.Tensor(window[0]))
                keep("logits", None, torch.Tensor(network(window)[0]))
            batch["pred"] = self.get("inferer")(image, network)
        data = decollate_batch(batch)[0]
        keep("scores", None, data["pred"])
        for step in self.steps("postprocessing"):
            if "SaveImage" not in type(step).__name__:
                data = step(data)
                keep("after", step, data["pred"])
        return data

    def dump(self, case, options):
        """The tensor after each transform, the first window and its scores, the blended scores, and the steps after them."""
        import torch

        folder, stages = pathlib.Path(case["out"]), []
        folder.mkdir(parents=True, exist_ok=True)

        def keep(kind, step, value):
            tensor = torch.as_tensor(value).float()
            tensor = tensor[None] if tensor.ndim == 3 else tensor
            entry = write_tensor(folder, f"{len(stages):02d}-{kind}", tensor.permute(0, 3, 2, 1).numpy())
            if hasattr(value, "affine") and kind not in ("window", "logits"):
                entry["affine"] = [float(number) for row in value.affine.tolist() for number in row]
            described = self.describe(step) if step is not None else {"path": "inferer", "target": kind}
            stages.append({**entry, "kind": kind, "path": described["path"], "target": described["target"]})

        self.walk(case, keep)
        return save_stages(folder, stages)


def truth_table(step, channels):
    """
    What own code after a threshold makes of channels that are 0 or 1: the value for each combination, where bit c of its number is
    channel c. None where it is not a function of a voxel's channels alone.
    """
    import torch

    if not 1 <= channels <= 8:
        return None
    combinations = torch.tensor(list(itertools.product((0.0, 1.0), repeat=channels))).flip(1)  # [2^C, C]
    values = []
    for order in (torch.arange(len(combinations)), torch.randperm(len(combinations), generator=torch.Generator().manual_seed(1))):
        try:
            made = torch.as_tensor(step({"pred": combinations[order].T.reshape(channels, -1, 1, 1).clone()})["pred"])
        except Exception:  # own code of any kind: what it cannot do here is not a table
            return None
        if tuple(made.shape) not in ((1, len(order), 1, 1), (len(order), 1, 1)):
            return None
        values.append(made.reshape(-1)[torch.argsort(order)])
    if not torch.equal(values[0], values[1]):
        return None
    return [int(value) if float(value).is_integer() else float(value) for value in values[0].tolist()]


def no_label_map(shape):
    return Fault("RUN", "postprocessing", f"The author's result has the shape {list(shape)}, and is not one label map. "
                 "Add AsDiscreted(argmax=True), or a step that composes one label map, to the postprocessing")


def save_labels(voxels, affine, out):
    """The author's label map as whole numbers, and how many of its voxels were fractions. voxels: [x, y, z], affine: RAS+, mm."""
    import nibabel
    import numpy

    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim != 3:
        raise no_label_map(voxels.shape)
    whole = numpy.round(voxels)
    nibabel.save(nibabel.Nifti1Image(whole.astype(numpy.uint16), affine), out)
    return {"fractional": int(numpy.count_nonzero(whole != voxels))}


# -------------------------------------------------------------------------------------------------------------- nnU-Net


class TrainedFolder:
    """A folder that nnU-Net v2 trained: plans.json, dataset.json, fold_*/checkpoint_*.pth."""

    kind = "nnunet"
    notes = ()

    def __init__(self, options):
        progress("Loading torch and nnU-Net")
        # nnU-Net warns of these where they are missing; it needs neither to predict.
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            os.environ.setdefault(name, tempfile.gettempdir())
        try:
            import torch
            from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
        except ImportError as error:
            raise Fault("NO_PYTHON_PACKAGE", "nnunetv2", str(error)) from error
        self.root = pathlib.Path(options.folder).resolve()
        self.base = self.root.parent
        self.device = device_of(options)
        names = [entry for entry in (options.folds or "0").split(",")]
        self.folds = [int(name) if name.isdigit() else name for name in names]
        for name in ("checkpoint_final.pth", "checkpoint_best.pth"):
            if all((self.root / f"fold_{fold}" / name).is_file() for fold in self.folds):
                self.checkpoint = name
                break
        else:
            raise Fault("NO_WEIGHTS", f"fold_{names[0]}", "A fold has neither checkpoint_final.pth nor checkpoint_best.pth")
        self.predictor = nnUNetPredictor(tile_step_size=0.5, use_gaussian=True, use_mirroring=options.mirror,
                                         perform_everything_on_device=self.device != "cpu", device=torch.device(self.device),
                                         verbose=False, allow_tqdm=False)
        try:
            self.predictor.initialize_from_trained_model_folder(str(self.root), tuple(self.folds), self.checkpoint)
        except Exception as error:  # own trainers and architectures that are not installed, old checkpoints
            raise Fault("WEIGHTS", f"fold_{names[0]}/{self.checkpoint}", f"nnU-Net cannot load it: {last_cause(error)}") from error
        self.plans, self.configuration = self.predictor.plans_manager, self.predictor.configuration_manager
        self.previous = self.previous_stage(options)

    def previous_stage(self, options):
        """Of a cascade, the folder whose result this one needs: nnU-Net writes it beside this one."""
        import copy

        name = self.configuration.previous_stage_name
        if not name or not getattr(options, "program", False):
            return None
        folder = self.root.with_name("__".join([*self.root.name.split("__")[:-1], name]))
        if not (folder / "plans.json").is_file():
            raise Fault("NO_WEIGHTS", folder.name, f"The configuration needs the result of {name}, whose folder is not beside it. "
                        "Put the trained folder there")
        before = copy.copy(options)
        before.folder = str(folder)
        return TrainedFolder(before)

    def plan(self):
        settings, labels, data = self.configuration.configuration, self.predictor.label_manager, self.predictor.dataset_json
        names = data.get("channel_names") or data.get("modality") or {}
        order = data.get("regions_class_order")
        return {
            "kind": "nnunet", "dataset": self.plans.dataset_name, "folds": self.folds, "checkpoint": self.checkpoint,
            "trainer": self.predictor.trainer_name, "planner": self.plans.plans_name,
            "configuration": self.name(), "previousStage": self.configuration.previous_stage_name,
            "preprocessor": settings.get("preprocessor_name", "DefaultPreprocessor"),
            "reader": self.plans.plans.get("image_reader_writer"),
            "channelNames": [str(names[key]) for key in sorted(names, key=int)], "classes": labels.num_segmentation_heads,
            "labels": plain(data["labels"]), "regionsClassOrder": plain(list(order)) if labels.has_regions and order else None,
            "spacing": plain(self.configuration.spacing), "patchSize": plain(self.configuration.patch_size),
            "transposeForward": plain(self.plans.transpose_forward),
            "normalization": list(self.configuration.normalization_schemes),
            "useMaskForNorm": list(self.configuration.use_mask_for_norm),
            "intensity": plain(self.plans.foreground_intensity_properties_per_channel),
            "resampling": {part: {"function": settings.get(f"resampling_fn_{part}"),
                                  "arguments": plain(settings.get(f"resampling_fn_{part}_kwargs") or {})}
                           for part in ("data", "probabilities")},
            "mirrorAxes": plain(self.predictor.allowed_mirroring_axes),
            "versions": versions("torch", "nnunetv2", "numpy", "SimpleITK", "onnx", "onnxruntime"),
        }

    def name(self):
        for name in self.plans.available_configurations:
            if self.plans.get_configuration(name).configuration == self.configuration.configuration:
                return name
        return "?"

    def module(self):
        """The mean of the folds on arrays [1, C, z, y, x] of the file's own axes, with the plans' order of axes inside."""
        import copy

        import torch

        progress("Building the network")
        networks = torch.nn.ModuleList()
        for parameters in self.predictor.list_of_parameters:
            network = copy.deepcopy(self.predictor.network)
            network.load_state_dict(parameters)
            networks.append(network)

        class Mean(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.networks = networks

            def forward(self, image):
                scores = [network(image) for network in self.networks]
                return scores[0] if len(scores) == 1 else sum(scores) / len(scores)

        order = list(self.plans.transpose_forward)
        if len(self.configuration.patch_size) == 2:
            order = [0, 1] if order[1] < order[2] else [1, 0]
        inverse = [order.index(axis) for axis in range(len(order))]
        return transposed(Mean(), (0, 1, *[a + 2 for a in order]), (0, 1, *[a + 2 for a in inverse])).eval()

    def window(self):
        order, size = list(self.plans.transpose_forward), [int(n) for n in self.configuration.patch_size]
        if len(size) == 2:
            return size if order[1] < order[2] else size[::-1]
        return [size[order.index(axis)] for axis in range(3)]

    def counts(self):
        import nnunetv2.utilities.label_handling.label_handling as handling

        channels = handling.determine_num_input_channels(self.plans, self.configuration, self.predictor.dataset_json)
        return [channels, self.predictor.label_manager.num_segmentation_heads]

    def run(self, cases, options):
        """nnU-Net's predictor. With --float32 its sums are float32 instead of float16: the difference is its own noise."""
        if options.float32:
            exact_sums()
        for number, case in enumerate(cases):
            progress(f"Running nnU-Net: case {number + 1} of {len(cases)}")
            self.run_case(case)
            case["fractional"] = 0
        return {"cases": cases}

    def run_case(self, case):
        """The label map of one case, after those of the cascade's stages before it."""
        reader = self.plans.image_reader_writer_class()
        try:
            image, properties = reader.read_images([str(file) for file in case["inputs"]])
        except Exception as error:  # channels on different grids, files that its reader cannot read
            raise Fault("INPUT", "image_reader_writer", f"nnU-Net cannot read the volume: {last_cause(error)}") from error
        before = None
        if self.previous:
            with tempfile.TemporaryDirectory(dir=os.path.dirname(case["out"])) as folder:
                file = os.path.join(folder, "previous.nii.gz")
                self.previous.run_case({**case, "out": file})
                before = reader.read_seg(file)[0]
        reader.write_seg(self.predictor.predict_single_npy_array(image, properties, before), case["out"], properties)

    def prepare(self, inputs):
        """nnU-Net's preprocessor: [C, …] with the axes in the plans' order."""
        image, properties = self.plans.image_reader_writer_class().read_images([str(file) for file in inputs])
        preprocessor = self.configuration.preprocessor_class(verbose=False)
        return preprocessor.run_case_npy(image, None, properties, self.plans, self.configuration, self.predictor.dataset_json)[0]

    def prepared(self, inputs):
        """What the network gets of a case, [C, z, y, x], and the axis of its slices if the network takes slices."""
        import torch

        volume = torch.as_tensor(self.prepare(inputs)).float().permute(0, *[axis + 1 for axis in self.plans.transpose_backward])
        return volume, self.plans.transpose_forward[0] if len(self.configuration.patch_size) == 2 else None

    def dump(self, case, options):
        import nnunetv2.preprocessing.preprocessors.default_preprocessor as own
        import torch

        folder = pathlib.Path(case["out"])
        folder.mkdir(parents=True, exist_ok=True)
        stages, inverse = [], self.plans.transpose_backward

        def keep(kind, name, data, key="inferer"):
            tensor = torch.as_tensor(data).float().numpy().transpose([0, *[axis + 1 for axis in inverse]])
            entry = write_tensor(folder, f"{len(stages):02d}-{kind}", tensor)
            stages.append({**entry, "kind": kind, "path": f"plans.json: {self.name()}: {key}", "target": name})

        crop, normalize = own.crop_to_nonzero, own.DefaultPreprocessor._normalize

        def kept_crop(*arguments, **named):
            made = crop(*arguments, **named)
            keep("prepared", "crop_to_nonzero", made[0], "crop_to_nonzero")
            return made

        def kept_normalize(*arguments, **named):
            made = normalize(*arguments, **named)
            keep("prepared", "normalize", made, "normalization_schemes")
            return made

        own.crop_to_nonzero, own.DefaultPreprocessor._normalize = kept_crop, kept_normalize
        try:
            data = self.prepare(case["inputs"])
        finally:
            own.crop_to_nonzero, own.DefaultPreprocessor._normalize = crop, normalize
        keep("prepared", "resample", data, "spacing")
        size = [int(n) for n in self.configuration.patch_size]
        if len(size) == 3 and all(n >= w for n, w in zip(data.shape[1:], size)):
            window = torch.as_tensor(data)[(slice(None), *[slice(0, w) for w in size])].float()
            order = [0, *[axis + 1 for axis in inverse]]
            keep("window", "network", window)
            with torch.no_grad():
                given = window.permute(order)[None]
                made = self.module()(given)[0].permute([0, *[axis + 1 for axis in self.plans.transpose_forward]])
            keep("logits", "network", made)
        if options.float32:
            exact_sums()
        keep("scores", "predict_sliding_window", self.predictor.predict_logits_from_preprocessed_data(torch.as_tensor(data)))
        return save_stages(folder, stages)


def exact_sums():
    """Lets nnU-Net add the scores of windows, and weigh them, in float32."""
    import nnunetv2.inference.predict_from_raw_data as predict
    import nnunetv2.inference.sliding_window_prediction as windows
    import torch

    torch.half = torch.float32
    gaussian = getattr(windows.compute_gaussian, "__wrapped__", windows.compute_gaussian)
    predict.compute_gaussian = lambda *arguments, **named: gaussian(*arguments, **{**named, "dtype": torch.float32})


# --------------------------------------------------------------------------------------------------------------- export


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
    global channel
    channel = take_stdout()
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
