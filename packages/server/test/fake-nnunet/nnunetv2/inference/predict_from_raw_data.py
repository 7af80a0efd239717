"""
A stand-in for nnU-Net v2's predictor, since no test has torch: the same classes and files as far as exporter.py uses them. Its
"network" marks what is brighter than the threshold in checkpoint_final.pth: 2 in the half of the volume where the first axis of the
array is high, else 1; after another stage, 3 where that one marked the voxel, too. So its result depends on how a file is stored.
"""

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import nibabel
import numpy


class Reader:
    """Arrays are [channel, z, y, x]."""

    def read_images(self, files):
        images = [nibabel.load(file) for file in files]
        if any(image.shape != images[0].shape for image in images):
            print("shapes differ")
            raise RuntimeError("the images do not have the same shape")
        return self.stack(images), {"affine": images[0].affine}

    def read_seg(self, file):
        image = nibabel.load(file)
        return self.stack([image]), {"affine": image.affine}

    @staticmethod
    def stack(images):
        return numpy.stack([numpy.asanyarray(image.dataobj).transpose(2, 1, 0) for image in images])

    def write_seg(self, labels, file, properties):
        nibabel.save(nibabel.Nifti1Image(labels.transpose(2, 1, 0).astype(numpy.uint8), properties["affine"]), file)


class nnUNetPredictor:
    def __init__(self, **settings):
        self.settings = settings

    def initialize_from_trained_model_folder(self, folder, folds, checkpoint):
        with open(os.path.join(folder, "plans.json")) as file:
            plans = json.load(file)
        with open(os.path.join(folder, "dataset.json")) as file:
            self.dataset_json = json.load(file)
        self.thresholds, self.sleep = [], 0
        for fold in folds:
            with open(os.path.join(folder, f"fold_{fold}", checkpoint)) as file:
                weights = json.load(file)
            self.thresholds.append(weights["threshold"])
            self.sleep = weights.get("sleep", 0)
        name = os.path.basename(folder).split("__")[-1]
        configurations = {key: self.configuration(value) for key, value in plans["configurations"].items()}
        self.configuration_manager = configurations[name]
        self.plans_manager = SimpleNamespace(
            plans=plans, dataset_name=plans["dataset_name"], plans_name=plans["plans_name"], transpose_forward=[0, 1, 2],
            transpose_backward=[0, 1, 2], available_configurations=list(configurations),
            get_configuration=configurations.get, image_reader_writer_class=Reader, foreground_intensity_properties_per_channel={})
        self.label_manager = SimpleNamespace(num_segmentation_heads=len(self.dataset_json["labels"]), has_regions=False)
        self.trainer_name, self.allowed_mirroring_axes, self.calls = "nnUNetTrainer", None, 0

    @staticmethod
    def configuration(settings):
        return SimpleNamespace(
            configuration=settings, previous_stage_name=settings.get("previous_stage"), spacing=[1.5, 1.5, 1.5],
            patch_size=[8, 8, 8], normalization_schemes=["ZScoreNormalization"], use_mask_for_norm=[False])

    def predict_single_npy_array(self, image, properties, before=None):
        self.calls += 1
        print("nnU-Net prints on stdout")
        subprocess.run([sys.executable, "-c", "print('so does what it starts')"], check=True)
        if os.environ.get("FAKE_NNUNET_LOG"):
            with open(os.environ["FAKE_NNUNET_LOG"], "a") as file:
                print(os.getpid(), self.calls, file=file)
        time.sleep(self.sleep)
        if not image.any():
            raise ValueError("the volume is empty")
        labels = (image[0] > sum(self.thresholds) / len(self.thresholds)).astype(numpy.uint8)
        labels[len(labels) // 2:] *= 2
        if before is not None:
            labels[(labels > 0) & (before[0] > 0)] = 3
        return labels
