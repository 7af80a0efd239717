"""A folder of nnU-Net v2 as the author runs it: its plan, its network, its results, and the tensor after each of its steps."""

import os
import pathlib
import tempfile

from tomaat_pipeline import Fault, device_of, last_cause, plain, progress, save_stages, transposed, versions, write_tensor


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
