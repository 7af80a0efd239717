"""
Makes the fixtures of this folder: make.py PYTHON_FOLDER (that of exporter.py), in an environment with nnunetv2, onnx and onnxruntime.

The volume is synthetic. The networks are nnU-Net's own classes with random weights, their last bias balanced so that all labels
occur. Plans, ONNX and label maps are what `tomaat import` gets from exporter.py: `labels` as nnU-Net computes, `labels-float32`
with its sums in float32.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import nibabel
import numpy
import scipy.ndimage
import torch

here = pathlib.Path(__file__).resolve().parent
exporter = pathlib.Path(sys.argv[1]) / "exporter.py"
torch.set_num_threads(1)
for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(name, tempfile.gettempdir())

labels = {"background": 0, "liver": 1, "kidney_left": 2, "lesion": 3}
kwargs = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}


def make_case(path):
    """44 x 36 x 22 voxels of 1.9 x 2.3 x 3.4 mm, oblique and left-handed, values like those of a CT in steps of 8."""
    rng = numpy.random.default_rng(7)
    field = sum(scipy.ndimage.gaussian_filter(rng.standard_normal((44, 36, 22)), s) * s**1.5 * w
                for s, w in ((1.2, 60), (3.5, 90)))
    voxels = numpy.round((field - field.mean()) / field.std() * 60 / 8) * 8 + 40
    voxels[:3] = 0
    voxels[:, :, -2:] = 0
    c, s = numpy.cos(0.12), numpy.sin(0.12)
    turn = numpy.array([[-c, s, 0], [s, c, 0], [0, 0, 1]]) @ numpy.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine = numpy.eye(4)
    affine[:3, :3] = turn @ numpy.diag([1.9, 2.3, 3.4])
    affine[:3, 3] = 31, -44, 12
    nibabel.save(nibabel.Nifti1Image(voxels.astype(numpy.int16), affine), path)


def architecture(name, dimensions, residual):
    conv, norm = f"torch.nn.modules.conv.Conv{dimensions}d", f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d"
    blocks = {"n_blocks_per_stage": [1, 1, 1]} if residual else {"n_conv_per_stage": [1, 1, 1]}
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
        "arch_kwargs": {
            "n_stages": 3, "features_per_stage": [4, 6, 8], "conv_op": conv, "kernel_sizes": [[3] * dimensions] * 3,
            "strides": [[1] * dimensions, [2] * dimensions, [2] * dimensions], **blocks, "n_conv_per_stage_decoder": [1, 1],
            "conv_bias": True, "norm_op": norm, "norm_op_kwargs": {"eps": 1e-05, "affine": True}, "dropout_op": None,
            "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def plans_of(configuration, order, spacing, patch, network):
    return {
        "dataset_name": "Dataset910_Phantom", "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO",
        "transpose_forward": order, "transpose_backward": [order.index(axis) for axis in range(3)],
        "original_median_spacing_after_transp": spacing, "original_median_shape_after_transp": [22, 36, 44],
        "label_manager": "LabelManager", "experiment_planner_used": "ExperimentPlanner",
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": 40.0, "median": 40.0, "std": 55.0, "min": -200.0, "max": 260.0,
                  "percentile_00_5": -96.0, "percentile_99_5": 168.0},
        },
        "configurations": {configuration: {
            "data_identifier": "x", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2, "patch_size": patch,
            "median_image_size_in_voxels": patch, "spacing": spacing[3 - len(patch):], "normalization_schemes": ["CTNormalization"],
            "use_mask_for_norm": [False], "batch_dice": False, "architecture": network,
            **{f"resampling_fn_{part}": "resample_data_or_seg_to_shape" for part in ("data", "seg", "probabilities")},
            "resampling_fn_data_kwargs": {**kwargs, "order": 3}, "resampling_fn_seg_kwargs": {**kwargs, "is_seg": True},
            "resampling_fn_probabilities_kwargs": kwargs,
        }},
    }


def make_folder(folder, configuration, plans, folds):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 2, "file_ending": ".nii.gz"}
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    manager = PlansManager(plans)
    settings = manager.get_configuration(configuration)
    reader = manager.image_reader_writer_class()
    image, properties = reader.read_images([str(here / "case.nii.gz")])
    data = settings.preprocessor_class(verbose=False).run_case_npy(image, None, properties, manager, settings, dataset)[0]
    for fold in range(folds):
        torch.manual_seed(5 + fold)
        network = get_network_from_plans(settings.network_arch_class_name, settings.network_arch_init_kwargs,
                                         settings.network_arch_init_kwargs_req_import, 1, 4, allow_init=True,
                                         deep_supervision=False).eval()
        file = folder / f"fold_{fold}" / "checkpoint_final.pth"
        file.parent.mkdir()

        def save():
            torch.save({"network_weights": network.state_dict(), "trainer_name": "nnUNetTrainer",
                        "init_args": {"configuration": configuration},
                        "inference_allowed_mirroring_axes": tuple(range(len(settings.patch_size)))}, file)

        save()
        predictor = nnUNetPredictor(use_mirroring=False, perform_everything_on_device=False, device=torch.device("cpu"),
                                    allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(folder), (fold,), "checkpoint_final.pth")
        scores = predictor.predict_logits_from_preprocessed_data(torch.as_tensor(data)).float().reshape(4, -1)
        last = [part for part in network.modules() if getattr(part, "out_channels", None) == 4
                and getattr(part, "kernel_size", [0])[0] == 1][-1]
        bias = -scores.mean(1)
        for _ in range(400):
            share = torch.bincount((scores + bias[:, None]).argmax(0), minlength=4) / scores.shape[1]
            bias += 0.1 * scores.std(1).mean() * (0.25 - share)
        with torch.no_grad():
            last.bias.add_(bias)
            scale = 8 / (scores + bias[:, None]).abs().quantile(0.99)
            last.weight.mul_(scale)
            last.bias.mul_(scale)
        save()


def ask(command, folder, *more):
    called = subprocess.run([sys.executable, exporter, command, "--kind", "nnunet", "--folder", folder, *more],
                            stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(called.stdout.splitlines()[-1])["result"]


def main():
    variants = {
        "folds": ("3d_fullres", [0, 1, 2], [3.0, 2.0, 2.4], [16, 24, 24], architecture("PlainConvUNet", 3, False), 2),
        "slices": ("2d", [1, 0, 2], [2.3, 3.1, 2.4], [24, 32], architecture("PlainConvUNet", 2, False), 1),
        "turned": ("3d_fullres", [2, 0, 1], [2.4, 3.0, 2.0], [24, 16, 24], architecture("ResidualEncoderUNet", 3, True), 1),
    }
    case = here / "case.nii.gz"
    make_case(case)
    with tempfile.TemporaryDirectory() as work:
        for name, (configuration, order, spacing, patch, network, folds) in variants.items():
            folder = pathlib.Path(work) / name / f"nnUNetTrainer__nnUNetPlans__{configuration}"
            make_folder(folder, configuration, plans_of(configuration, order, spacing, patch, network), folds)
            out = here / name
            out.mkdir(exist_ok=True)
            chosen = ["--folds", ",".join(map(str, range(folds)))]
            (out / "plan.json").write_text(json.dumps(ask("plan", folder, *chosen)) + "\n")
            given = {"inputs": [str(case)]}
            ask("export", folder, *chosen, "--case", json.dumps(given), "--out", out / "model.onnx")
            runs = {"labels": [], "labels-float32": ["--float32"]}
            if name == "folds":
                ask("export", folder, "--folds", "0", "--case", json.dumps(given), "--out", out / "fold-0.onnx")
                runs |= {"labels-mirror": ["--mirror"], "labels-mirror-float32": ["--mirror", "--float32"]}
            for labels_name, flags in runs.items():
                ask("run", folder, *chosen, *flags, "--case", json.dumps({**given, "out": str(out / f"{labels_name}.nii.gz")}))


if __name__ == "__main__":
    main()
