export * from './app/acceptance.ts';
export * from './app/define-app.ts';
export * from './app/elements.ts';
export * from './app/estimate.ts';
export * from './app/manifest.ts';
export * from './app/parse-manifest.ts';
export * from './app/predict.ts';
export * from './app/steps.ts';
export * from './app/values.ts';
export { type NetworkReport, verifyNetwork } from './app/verify.ts';
export * from './errors.ts';
export * from './formats/base64.ts';
export { type FileGeometry, fileGeometrySchema } from './formats/file-geometry.ts';
export { checkAffine } from './formats/header.ts';
export * from './formats/identifying-text.ts';
export * from './formats/mesh-file.ts';
export * from './formats/points.ts';
export { isText } from './formats/strangers.ts';
export {
  endingOf,
  formatList,
  formatNames,
  holdsVoxelsAlone,
  isVolumeMediaType,
  isVolumeUnlikeBase64,
  volumeEndings,
  volumeFormats,
  withoutVolumeEnding,
} from './formats/table.ts';
export * from './formats/transform-file.ts';
export * from './formats/volume-file.ts';
export type { DataFileField, FileEnding, VolumeFormatRow } from './formats/volume-format.ts';
export * from './formats/web-platform.ts';
export * from './formats/zlib-platform.ts';
export * from './geometry/affine.ts';
export * from './geometry/displacement.ts';
export * from './geometry/exact.ts';
export * from './geometry/grid.ts';
export * from './geometry/resample.ts';
export * from './geometry/restore.ts';
export * from './geometry/voxel-type.ts';
export * from './inferers/inferer.ts';
export * from './inferers/spec.ts';
export * from './labels/components.ts';
export * from './labels/dice.ts';
export {
  type LabelName,
  type LabelVoxels,
  labelTypeFor,
  labelVoxels,
  scanLabels,
} from './labels/label-map.ts';
export * from './labels/measure.ts';
export * from './labels/measurement-csv.ts';
export {
  closeLabels,
  dilateLabels,
  erodeLabels,
  type MorphologyOptions,
  openLabels,
} from './labels/morphology.ts';
export * from './labels/surface.ts';
export * from './labels/table.ts';
export type * from './platform.ts';
export * from './tensor.ts';
export * from './text.ts';
export * from './transforms/table.ts';
export * from './transforms/transform.ts';
export * from './unseen.ts';
export * from './volume.ts';
