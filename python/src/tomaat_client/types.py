# Written by scripts/write-reference.ts (npm run reference) from docs/openapi.json. Do not edit.
# ruff: noqa: I001, UP013
"""What servers and registries answer, as JSON. A newer server may send more keys."""

from typing import Any, Literal, TypedDict, Union


_EntryParityOptional = TypedDict(
    "_EntryParityOptional",
    {
        "conditions": str,
    },
    total=False,
)


class EntryParity(_EntryParityOptional):
    """How its results agree with those of its author’s own pipeline, as its server signed"""

    verdict: Literal["exact", "within noise", "close", "differs"]
    agree: float
    cases: int


_EntryOptional = TypedDict(
    "_EntryOptional",
    {
        "serverUrl": str,
        "serviceId": str,
        "version": str,
        "default": bool,
        "volumes": int,
        "parity": EntryParity,
        "id": str,
        "signed": Union[Literal[False], str],
    },
    total=False,
)


class Entry(_EntryOptional):
    sid: str
    name: str
    modality: str
    anatomy: str
    task: str
    description: str
    predictionUrl: str
    interfaceUrl: str
    face: Literal["api", "v1"]
    live: bool
    announcedTime: str
    expiresTime: str


_ProblemOptional = TypedDict(
    "_ProblemOptional",
    {
        "field": str,
        "requestId": str,
        "facts": dict[str, Any],
    },
    total=False,
)


class Problem(_ProblemOptional):
    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool


_SignedAnnouncementOptional = TypedDict(
    "_SignedAnnouncementOptional",
    {
        "version": str,
        "default": bool,
        "volumes": int,
    },
    total=False,
)


class SignedAnnouncement(_SignedAnnouncementOptional):
    name: str
    modality: str
    anatomy: str
    task: str
    description: str
    predictionUrl: str
    interfaceUrl: str
    serverUrl: str
    serviceId: str
    id: str
    sub: str
    aud: str
    iat: int
    exp: int
    epoch: int
    certificate: str


class JobOutput(TypedDict):
    name: str
    type: str
    label: str
    primary: bool
    format: str
    formats: list[str]
    fileName: str
    sizeBytes: int
    digest: str
    url: str


_CanceledJobOptional = TypedDict(
    "_CanceledJobOptional",
    {
        "strippedInputs": list[str],
        "startedTime": str,
    },
    total=False,
)


class CanceledJob(_CanceledJobOptional):
    id: str
    service: str
    attempt: int
    createdTime: str
    parameters: dict[str, Any]
    settledTime: str
    expiresTime: str
    error: Problem
    outputs: list[JobOutput]
    state: Literal["canceled"]


_FailedJobOptional = TypedDict(
    "_FailedJobOptional",
    {
        "strippedInputs": list[str],
        "startedTime": str,
    },
    total=False,
)


class FailedJob(_FailedJobOptional):
    id: str
    service: str
    attempt: int
    createdTime: str
    parameters: dict[str, Any]
    settledTime: str
    expiresTime: str
    error: Problem
    outputs: list[JobOutput]
    state: Literal["failed"]


_QueuedJobOptional = TypedDict(
    "_QueuedJobOptional",
    {
        "strippedInputs": list[str],
        "queuePosition": int,
        "expectedSeconds": float,
        "expectedWaitSeconds": float,
    },
    total=False,
)


class QueuedJob(_QueuedJobOptional):
    id: str
    service: str
    attempt: int
    createdTime: str
    parameters: dict[str, Any]
    state: Literal["queued"]
    outputs: list[JobOutput]


_RunningJobOptional = TypedDict(
    "_RunningJobOptional",
    {
        "strippedInputs": list[str],
        "stage": str,
        "fraction": float,
        "expectedSeconds": float,
    },
    total=False,
)


class RunningJob(_RunningJobOptional):
    id: str
    service: str
    attempt: int
    createdTime: str
    parameters: dict[str, Any]
    startedTime: str
    state: Literal["running"]
    outputs: list[JobOutput]


_SucceededJobOptional = TypedDict(
    "_SucceededJobOptional",
    {
        "strippedInputs": list[str],
    },
    total=False,
)


class SucceededJob(_SucceededJobOptional):
    id: str
    service: str
    attempt: int
    createdTime: str
    parameters: dict[str, Any]
    startedTime: str
    settledTime: str
    expiresTime: str
    state: Literal["succeeded"]
    outputs: list[JobOutput]


Job = Union[QueuedJob, RunningJob, SucceededJob, FailedJob, CanceledJob]


_ServiceParityOptional = TypedDict(
    "_ServiceParityOptional",
    {
        "conditions": str,
        "versions": dict[str, str],
    },
    total=False,
)


class ServiceParity(_ServiceParityOptional):
    """How its results agree with those of the authors’ own pipeline, as its manifest states"""

    verdict: Literal["exact", "within noise", "close", "differs"]
    agree: float
    cases: int
    tool: str


_ServiceInputVolumeOptional = TypedDict(
    "_ServiceInputVolumeOptional",
    {
        "label": str,
        "description": str,
        "modality": str,
    },
    total=False,
)


class ServiceInputVolume(_ServiceInputVolumeOptional):
    name: str
    type: Literal["volume"]
    optional: bool
    frames: Literal["one", "all"]


_ServiceInputSliderOptional = TypedDict(
    "_ServiceInputSliderOptional",
    {
        "label": str,
        "description": str,
        "step": float,
        "default": float,
        "unit": str,
    },
    total=False,
)


class ServiceInputSlider(_ServiceInputSliderOptional):
    name: str
    type: Literal["slider"]
    minimum: float
    maximum: float


_ServiceInputCheckboxOptional = TypedDict(
    "_ServiceInputCheckboxOptional",
    {
        "label": str,
        "description": str,
    },
    total=False,
)


class ServiceInputCheckbox(_ServiceInputCheckboxOptional):
    name: str
    type: Literal["checkbox"]
    default: bool


_ServiceInputRadiobuttonOptional = TypedDict(
    "_ServiceInputRadiobuttonOptional",
    {
        "label": str,
        "description": str,
        "default": str,
    },
    total=False,
)


class ServiceInputRadiobutton(_ServiceInputRadiobuttonOptional):
    name: str
    type: Literal["radiobutton"]
    options: list[str]


_ServiceInputFiducialsOptional = TypedDict(
    "_ServiceInputFiducialsOptional",
    {
        "label": str,
        "description": str,
    },
    total=False,
)


class ServiceInputFiducials(_ServiceInputFiducialsOptional):
    name: str
    type: Literal["fiducials"]
    optional: bool
    minimumPoints: int
    maximumPoints: int


_ServiceInputTransformOptional = TypedDict(
    "_ServiceInputTransformOptional",
    {
        "label": str,
        "description": str,
    },
    total=False,
)


class ServiceInputTransform(_ServiceInputTransformOptional):
    name: str
    type: Literal["transform"]
    optional: bool


_ServiceOutputLabelVolumeOptional = TypedDict(
    "_ServiceOutputLabelVolumeOptional",
    {
        "label": str,
        "description": str,
    },
    total=False,
)


class ServiceOutputLabelVolume(_ServiceOutputLabelVolumeOptional):
    name: str
    primary: bool
    type: Literal["LabelVolume"]


_ServiceOutputVTKMeshOptional = TypedDict(
    "_ServiceOutputVTKMeshOptional",
    {
        "label": str,
        "description": str,
        "from": str,
        "labels": list[int],
    },
    total=False,
)


class ServiceOutputVTKMesh(_ServiceOutputVTKMeshOptional):
    name: str
    primary: bool
    type: Literal["VTKMesh"]
    smooth: bool
    keepTriangles: float


_ServiceOutputFiducialsOptional = TypedDict(
    "_ServiceOutputFiducialsOptional",
    {
        "label": str,
        "description": str,
        "from": str,
    },
    total=False,
)


class ServiceOutputFiducials(_ServiceOutputFiducialsOptional):
    name: str
    primary: bool
    type: Literal["Fiducials"]


_ServiceOutputPlainTextOptional = TypedDict(
    "_ServiceOutputPlainTextOptional",
    {
        "label": str,
        "description": str,
        "from": str,
        "report": Literal["volumes"],
    },
    total=False,
)


class ServiceOutputPlainText(_ServiceOutputPlainTextOptional):
    name: str
    primary: bool
    type: Literal["PlainText"]


_ServiceOutputMeasurementsOptional = TypedDict(
    "_ServiceOutputMeasurementsOptional",
    {
        "label": str,
        "description": str,
        "from": str,
    },
    total=False,
)


class ServiceOutputMeasurements(_ServiceOutputMeasurementsOptional):
    name: str
    primary: bool
    type: Literal["Measurements"]


_ServiceOutputTransformGridOptional = TypedDict(
    "_ServiceOutputTransformGridOptional",
    {
        "label": str,
        "description": str,
    },
    total=False,
)


class ServiceOutputTransformGrid(_ServiceOutputTransformGridOptional):
    name: str
    primary: bool
    type: Literal["TransformGrid"]


_ServiceOutputTransformBSplineOptional = TypedDict(
    "_ServiceOutputTransformBSplineOptional",
    {
        "label": str,
        "description": str,
    },
    total=False,
)


class ServiceOutputTransformBSpline(_ServiceOutputTransformBSplineOptional):
    name: str
    primary: bool
    type: Literal["TransformBSpline"]


_ServiceOutputTransformLinearOptional = TypedDict(
    "_ServiceOutputTransformLinearOptional",
    {
        "label": str,
        "description": str,
    },
    total=False,
)


class ServiceOutputTransformLinear(_ServiceOutputTransformLinearOptional):
    name: str
    primary: bool
    type: Literal["TransformLinear"]


class ServiceLabelCode(TypedDict):
    """What it is: a code in a terminology, SNOMED CT (scheme SCT) by preference. In DICOM results `85756007` (SCT, Tissue) if missing"""

    scheme: str
    value: str
    meaning: str


class ServiceLabelCategory(TypedDict):
    """What kind of thing that is, for DICOM results: `123037004` (SCT, Anatomical Structure) if missing, and like the code if that is missing too"""

    scheme: str
    value: str
    meaning: str


class ServiceLabelModifier(TypedDict):
    """What restricts the code, for DICOM results, such as `7771000` (SCT, Left)"""

    scheme: str
    value: str
    meaning: str


_ServiceLabelOptional = TypedDict(
    "_ServiceLabelOptional",
    {
        "color": str,
        "code": ServiceLabelCode,
        "category": ServiceLabelCategory,
        "modifier": ServiceLabelModifier,
        "when": dict[str, Any],
    },
    total=False,
)


class ServiceLabel(_ServiceLabelOptional):
    value: int
    name: str


_ServiceProcessingOptional = TypedDict(
    "_ServiceProcessingOptional",
    {
        "machine": str,
        "ports": list[int],
        "devices": list[str],
        "modelServers": list[str],
    },
    total=False,
)


class ServiceProcessing(_ServiceProcessingOptional):
    """Where it computes; missing for older servers: unknown"""

    reach: Literal["loopback", "network"]
    remoteWorkers: bool
    identity: Literal["allowed", "refused"]
    stripsInputs: bool


_ServiceOptional = TypedDict(
    "_ServiceOptional",
    {
        "citation": str,
        "homepage": str,
        "limitations": str,
        "parity": ServiceParity,
        "compute": Literal["server", "anywhere", "caller"],
        "devices": list[Literal["cpu", "cuda", "webgpu"]],
        "modelSha256": str,
        "modelSha256s": list[str],
        "runBytes": dict[str, int],
        "typicalSeconds": float,
        "sample": str,
        "picture": str,
        "keepSeconds": float,
        "processing": ServiceProcessing,
    },
    total=False,
)


class Service(_ServiceOptional):
    id: str
    name: str
    description: str
    version: str
    modality: str
    anatomy: str
    task: str
    authors: list[str]
    licence: str
    intendedUse: str
    default: bool
    inputs: list[Union[ServiceInputVolume, ServiceInputSlider, ServiceInputCheckbox, ServiceInputRadiobutton, ServiceInputFiducials, ServiceInputTransform]]
    outputs: list[Union[ServiceOutputLabelVolume, ServiceOutputVTKMesh, ServiceOutputFiducials, ServiceOutputPlainText, ServiceOutputMeasurements, ServiceOutputTransformGrid, ServiceOutputTransformBSpline, ServiceOutputTransformLinear]]
    labels: list[ServiceLabel]
    parameters: dict[str, Any]
    acceptance: list[dict[str, Any]]
    runtime: str
