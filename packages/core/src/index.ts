export { type AcceptanceRule, acceptShape, checkShape, checkVolume, type Shape } from './app/acceptance.ts';
export {
  type CanaryReport,
  canaryDims,
  canaryTensor,
  compareResults,
  compareSessions,
} from './app/canary.ts';
export {
  type AppDefinition,
  checkDeclaration,
  type DeclaredInput,
  type DeclaredInputs,
  type DeclaredOutput,
  type DeclaredOutputs,
  defineApp,
  type InputOf,
  type InputsOf,
  type NumericVolume,
  type OutputsOf,
  type ParametersOf,
  type TypedContext,
} from './app/define-app.ts';
export {
  type DicomFormat,
  dicomFormats,
  formatsOf,
  type Input,
  type InputType,
  inputSchema,
  isDicomFormat,
  isReadBack,
  isSeriesFormat,
  type Label,
  labelSchema,
  mediaTypes,
  type Output,
  type OutputFormat,
  type OutputType,
  outputFormats,
  outputSchema,
  outputSchemas,
  type SeriesFormat,
  type StoredOutput,
  seriesFormats,
} from './app/elements.ts';
export { buildDicomObject, type DicomContext, type MeasuredLabelMap } from './app/encode-dicom.ts';
export { chooseFormat, type EncodeOptions, encodeOutput, type InputForm } from './app/encode-output.ts';
export {
  type Estimate,
  estimatePrediction,
  largestThatFits,
  type RunBytesOf,
  type VolumeFactsOf,
} from './app/estimate.ts';
export { explainEmpty, isExplained, type Observation, observe, type VolumeSummary } from './app/explain.ts';
export {
  type ComputePolicy,
  computePolicies,
  type DeviceKind,
  deviceKinds,
  type FileSpec,
  hasOwnNetworks,
  isFileSpec,
  isNetworkSpec,
  type Manifest,
  type ModelSpec,
  manifestSchema,
  modelServersOf,
  primaryOutput,
  requestWords,
  reservedWords,
  type SelfTest,
  type ServedSpec,
  verifiedDevices,
  volumeInputs,
} from './app/manifest.ts';
export { type ModelServerAddress, parseModelServer } from './app/model-server.ts';
export { channelCount, modelsFor } from './app/networks.ts';
export {
  describeParity,
  judge,
  leastJudgedVoxels,
  type Parity,
  paritySchema,
  type Verdict,
  verdicts,
  worstVerdict,
} from './app/parity.ts';
export { type ManifestFault, parseManifest } from './app/parse-manifest.ts';
export {
  type AppContext,
  type EncodedOutput,
  type LoadedModel,
  type PredictionContext,
  type PredictionRequest,
  predict,
} from './app/predict.ts';
export { type OutputSource, type ReadOutput, readOutput } from './app/read-output.ts';
export { type Stage, type StageTimes, stages, type Trace } from './app/stages.ts';
export type { Step } from './app/step.ts';
export { keepsStoredOrder, labelsWith, pipelineSteps } from './app/steps.ts';
export { acceptSuv, computesSuv } from './app/suv-inputs.ts';
export { stageOfInput, traceStages } from './app/trace.ts';
export {
  defaultValue,
  type InputValue,
  isFileInput,
  type OutputValue,
  type Parameter,
  parameterSchema,
  parseParameter,
  parseParameters,
} from './app/values.ts';
export { type NetworkReport, verifyNetwork } from './app/verify.ts';
export {
  type CheckedYaml,
  type DataFault,
  type FileFault,
  faultsOfSchema,
  listFaults,
  readYaml,
  soundPart,
} from './checked-yaml.ts';
export { type Belonging, belongingOf, isSamePatient } from './dicom/belonging.ts';
export type { Code } from './dicom/build.ts';
export { checkResult, isSameResult, type ResultOrigin } from './dicom/check-result.ts';
export type { DicomFile } from './dicom/dataset.ts';
export type { DecodedFrame, DecodeFrame, FrameShape } from './dicom/decoders.ts';
export type { DeidentificationReport, Outcome, ReportedAttribute } from './dicom/deidentification-report.ts';
export {
  createDeidentifier,
  type Deidentified,
  type DeidentifyOptions,
  deidentify,
} from './dicom/deidentify.ts';
export {
  type DeidentifiedImage,
  type DeidentifyFilesOptions,
  deidentifyFiles,
  refuseIdentity,
} from './dicom/deidentify-files.ts';
export { type DicomHeader, readDicomFile, readDicomHeader, type UnreadFile } from './dicom/dicom-files.ts';
export { representationOf } from './dicom/dictionary.ts';
export { type DicomDisplay, displayOf, type StoredWindow } from './dicom/display.ts';
export { encodeDicomFile } from './dicom/encode-file.ts';
export type { DicomImage } from './dicom/frames.ts';
export { buildKeyPicture, type KeyPictureOptions } from './dicom/key-picture.ts';
export { buildMeasurementReport, type MeasurementReportOptions } from './dicom/measurement-report.ts';
export { hasDicomWord, isDicom, parseDicom } from './dicom/parse.ts';
export type { Picture } from './dicom/picture.ts';
export type { Predecessor } from './dicom/predecessor.ts';
export { drawPreview, type PreviewOptions } from './dicom/preview.ts';
export {
  chooseDicom,
  type DicomFindings,
  type DicomReadOptions,
  type DicomVolumeHeader,
  dicomSourceOf,
  distinctFiles,
  inspectDicom,
  maxFileBytes,
  readDicomImage,
  readDicomVolume,
} from './dicom/read-dicom.ts';
export { type ReadSegmentation, readSegmentationFile } from './dicom/read-segmentation.ts';
export type { Maker } from './dicom/result-modules.ts';
export { defaultCategory, type SegmentLabel } from './dicom/segment-description.ts';
export { buildSegmentation, type SegmentationOptions } from './dicom/segmentation.ts';
export {
  identifySegmentation,
  type SegmentationIdentity,
  type SegmentationIdentityOptions,
  type SegmentationType,
  type SegmentReference,
} from './dicom/segmentation-identity.ts';
export { type DicomSeries, type LeftOut, listSeries, type SeriesList } from './dicom/series.ts';
export type { DicomSource, DisplayWindow, SliceReference } from './dicom/source.ts';
export { buildStructureSet, type StructureSetOptions } from './dicom/structure-set.ts';
export { createUidKey, createUidMapper, formatUidKey, parseUidKey, type UidMapper } from './dicom/uid-key.ts';
export { matchOriginals, uidMapOf } from './dicom/uid-map.ts';
export {
  type CodecModule,
  type CodecName,
  type CodecOptions,
  createFrameDecoder,
  quietCodec,
} from './dicom/wasm-codecs.ts';
export { type DicomObject, writeDicomFile } from './dicom/write-file.ts';
export {
  describeError,
  type ErrorCode,
  type ErrorData,
  errorCodes,
  TomaatError,
  withField,
} from './errors.ts';
export { base64Length, decodeBase64Text, encodeBase64 } from './formats/base64.ts';
export { type FileGeometry, fileGeometrySchema } from './formats/file-geometry.ts';
export { checkAffine } from './formats/header.ts';
export {
  fileEndingOf,
  findIdentifyingText,
  type IdentifyingField,
  type IdentifyingText,
  neutralDataName,
  neutralNames,
  type Rewrite,
  type TextSource,
  writeStripped,
} from './formats/identifying-text.ts';
export { crc32 } from './formats/inflate-members.ts';
export {
  type InspectOptions,
  inspectFiles,
  inspectStart,
  readPrefix,
  type SortedFiles,
  sortFiles,
} from './formats/inspect-files.ts';
export { readMesh } from './formats/mesh-reader.ts';
export { meshToStl, meshToVtk } from './formats/mesh-writer.ts';
export { formatPoints, parsePoints } from './formats/points.ts';
export {
  createStoredZip,
  type StoredZip,
  type StoredZipOptions,
  writeStoredZip,
  type ZipMember,
} from './formats/stored-zip.ts';
export { isText } from './formats/strangers.ts';
export {
  endingOf,
  extensionOf,
  formatList,
  formatNames,
  holdsVoxelsAlone,
  isVolumeMediaType,
  isVolumeUnlikeBase64,
  readableEndings,
  supportedExtensions,
  type VolumeExtension,
  type VolumeFormat,
  type VolumeHeader,
  volumeEndings,
  volumeFormats,
  withoutVolumeEnding,
} from './formats/table.ts';
export {
  readTransform,
  type SpatialTransform,
  type TransformExtension,
  transformEndings,
  transformExtensions,
  writeTransform,
  writeTransformMat,
} from './formats/transform-file.ts';
export {
  collectBytes,
  type FilePrefix,
  inspectVolume,
  type ReadLimits,
  type ReadOptions,
  type ReadVolume,
  readVolume,
  type SourceFile,
  sourceFromBytes,
  type WriteOptions,
  writeVolume,
} from './formats/volume-file.ts';
export type { DataFileField, FileEnding, VolumeFormatRow } from './formats/volume-format.ts';
export { webPlatform } from './formats/web-platform.ts';
export { isZip, maxZipEntries, openZip } from './formats/zip.ts';
export { type Zlib, zlibPlatform } from './formats/zlib-platform.ts';
export {
  type Affine,
  affinesEqual,
  applyAffine,
  composeAffine,
  determinant,
  directionOf,
  identity,
  invert,
  multiply,
  orientationOf,
  originOf,
  spacingOf,
  type Vec3,
} from './geometry/affine.ts';
export {
  type DerivedGrid,
  type DeriveOptions,
  deriveCase,
  deriveGrids,
} from './geometry/derive-cases.ts';
export {
  type PointTransform,
  resampleThrough,
  transformPoint,
  transformPoints,
} from './geometry/displacement.ts';
export { cropOrPad, flip, type PadOptions, reorient } from './geometry/exact.ts';
export { resizedGrid, sameGrid } from './geometry/grid.ts';
export {
  type Interpolation,
  type ResampleOptions,
  resample,
  resampleArgmax,
  resampleThreshold,
} from './geometry/resample.ts';
export { restore } from './geometry/restore.ts';
export { convertVolume } from './geometry/voxel-type.ts';
export { infer } from './inferers/inferer.ts';
export {
  chooseInput,
  chooseOutput,
  convertOutput,
  type NetworkValue,
  networkValuesOf,
  saysOutOfMemory,
  toHalf,
} from './inferers/network-values.ts';
export {
  type InfererSpec,
  type InferOptions,
  type InferResult,
  infererSchema,
  type NetworkSession,
  type Reduction,
  type SlidingWindowSpec,
  type WindowsLeft,
} from './inferers/spec.ts';
export {
  type Agreement,
  compareLabels,
  describeAgreement,
  describeWhere,
  formatAgreement,
  type LabelAgreement,
  type Whereabouts,
  worstLabel,
} from './labels/agreement.ts';
export {
  type ComparedLabel,
  type ComparedNames,
  compareLabelMaps,
  differenceLabels,
  differenceMap,
  type LabelComparison,
} from './labels/comparison.ts';
export {
  type Components,
  type Connectivity,
  type FillOptions,
  fillHoles,
  findComponents,
  keepLargestComponent,
  type LargestOptions,
  removeSmallObjects,
  type SmallObjectOptions,
} from './labels/components.ts';
export { dice, diceOfLabels } from './labels/dice.ts';
export { meanIntensities, withMeanIntensity } from './labels/intensity.ts';
export { codesOfName } from './labels/label-codes.ts';
export {
  type LabelName,
  type LabelVoxels,
  labelTypeFor,
  labelVoxels,
  roundLabels,
  scanLabels,
} from './labels/label-map.ts';
export { labelColors, labelPalette } from './labels/label-palette.ts';
export { formatMl, type LabelMeasurement, measureLabels, mmDigits, volumeReport } from './labels/measure.ts';
export {
  measurementsToCsv,
  measurementsToTsv,
  parseMeasurementsCsv,
  textCell,
} from './labels/measurement-csv.ts';
export {
  closeLabels,
  dilateLabels,
  erodeLabels,
  type MorphologyOptions,
  openLabels,
} from './labels/morphology.ts';
export { mostNumberedLabels, numberLabels } from './labels/number-labels.ts';
export {
  findOutliers,
  type LabelVolume,
  leastCompared,
  type Outlier,
  type OutlierReason,
  orderByOutlier,
  outlierThreshold,
} from './labels/outliers.ts';
export {
  buildSurface,
  type DecimateOptions,
  decimateMesh,
  joinMeshes,
  type Mesh,
  type SurfaceOptions,
  surfaceOf,
} from './labels/surface.ts';
export { type SurfaceDistance, surfaceDistances } from './labels/surface-distance.ts';
export { filterLabels, labelTransforms, mapLabels } from './labels/table.ts';
export type { Bytes, Compression, Platform } from './platform.ts';
export { type LabelTensor, type Tensor, volumeToTensor } from './tensor.ts';
export { withoutTrailingSlashes } from './text.ts';
export { imageTransforms } from './transforms/table.ts';
export type { TransformContext, VolumeTransform } from './transforms/transform.ts';
export { escapeUnseen, hasUnseen, withoutUnseen } from './unseen.ts';
export {
  bytesPerVoxel,
  componentOf,
  createVoxels,
  type Grid,
  type NumericVoxels,
  numericVoxels,
  type Size,
  type SuvScale,
  type Volume,
  type Voxels,
  type VoxelType,
  voxelCount,
  voxelTypeOf,
  voxelTypes,
} from './volume.ts';
