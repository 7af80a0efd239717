"""A MONAI bundle as the author runs it: its plan, its network, its results, and the tensor after each of its steps."""

import inspect
import itertools
import json
import pathlib
import sys
import tempfile

from tomaat_pipeline import Fault, device_of, last_cause, plain, progress, save_stages, transposed, versions, write_tensor


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
