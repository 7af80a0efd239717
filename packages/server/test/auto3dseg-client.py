"""Drives the remote logic of Auto3DSeg's module for 3D Slicer, unmodified, without Slicer.

auto3dseg-client.py FOLDER URL MODEL OUTPUT INPUT...
FOLDER is the module's (MONAIAuto3DSeg). Prints JSON; the label map that Slicer would load is copied to OUTPUT.
"""

import json
import shutil
import sys
import tempfile
import types
from unittest.mock import MagicMock

folder, url, model, output, *inputs = sys.argv[1:]

# What the module imports of Slicer: classes that it derives from are real, everything else answers anything.
slicer = MagicMock(name="slicer")
scripted = types.ModuleType("slicer.ScriptedLoadableModule")
for name in ("", "Widget", "Logic", "Test"):
    setattr(scripted, f"ScriptedLoadableModule{name}", type(f"ScriptedLoadableModule{name}", (), {"__init__": lambda self, *_: None}))
i18n = types.ModuleType("slicer.i18n")
i18n.tr = lambda text: text
i18n.translate = lambda _context, text: text
util = MagicMock(name="slicer.util")
util.VTKObservationMixin = type("VTKObservationMixin", (), {})
util.tempDirectory = tempfile.mkdtemp
slicer.util = util
vtk = MagicMock(name="vtk")
vtk.vtkStringArray.return_value.GetNumberOfValues.return_value = 0
slicer.modules.terminologies.logic.return_value.GetNumberOfTypesInTerminologyCategory.return_value = 0
sys.modules.update({"slicer": slicer, "slicer.ScriptedLoadableModule": scripted, "slicer.i18n": i18n, "slicer.util": util, "vtk": vtk, "qt": MagicMock(), "ctk": MagicMock()})
sys.path.insert(0, folder)


class StorageNode:
    """Writes a volume, which is here the path of an NRRD file."""

    def SetFileName(self, path):
        self.path = path

    def UseCompressionOff(self):
        pass

    def WriteData(self, node):
        shutil.copyfile(node.path, self.path)


class VolumeNode:
    def __init__(self, path):
        self.path = path

    def IsA(self, name):
        return name == "vtkMRMLScalarVolumeNode"

    def GetID(self):
        return self.path


slicer.mrmlScene.AddNewNodeByClass.side_effect = lambda name: StorageNode()
segmentation = MagicMock(name="segmentation")
storage = segmentation.GetStorageNode.return_value
storage.ReadData.side_effect = lambda _node: shutil.copyfile(storage.SetFileName.call_args.args[0], output)

from MONAIAuto3DSeg import RemoteMONAIAuto3DSegLogic  # noqa: E402

logic = RemoteMONAIAuto3DSegLogic()
logic.server_address = url
told = {"models": logic.models, "default": logic.defaultModel, "monai": logic.getMONAIPythonPackageInfo()}
try:
    told["labels"] = logic.labelDescriptions(model)
    logic.process([VolumeNode(path) for path in inputs], segmentation, model)
    colors = slicer.vtkMRMLColorTableNode.return_value
    told["colors"] = colors.SetNumberOfColors.call_args.args[0]
    told["names"] = {call.args[0]: call.args[1] for call in colors.SetColorName.call_args_list}
except Exception as error:
    told["error"] = f"{type(error).__name__}: {error}"
print(json.dumps(told))
