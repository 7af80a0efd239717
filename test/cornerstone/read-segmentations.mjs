/*
 * What OHIF's own reader (@cornerstonejs/adapters) reads in segmentations, held against the label maps that they were made of.
 *
 * read-segmentations.mjs CASES: the same JSON file as check-segmentation.py takes. Prints a JSON list. It stands alone: it is
 * bundled in the folder where its packages are installed (see findCornerstone() of ../programs.ts).
 */
import { readFileSync } from 'node:fs';
import { adaptersSEG } from '@cornerstonejs/adapters';
import { metaData } from '@cornerstonejs/core';
import dcmjs from 'dcmjs';

const { DicomMessage, DicomMetaDictionary } = dcmjs.data;

/** The reader prints its progress. */
console.log = console.info = console.debug = () => {};

const first = (value) => (Array.isArray(value) ? value[0] : value);
const bufferOf = (path) => {
  const bytes = readFileSync(path);
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
};
const datasetOf = (path) => DicomMetaDictionary.naturalizeDataset(DicomMessage.readFile(bufferOf(path)).dict);

/** The images of a series, each frame of a multi-frame one by itself, with what the reader asks of them. */
function imagesOf(path, series) {
  const dataset = datasetOf(path);
  const groups = dataset.PerFrameFunctionalGroupsSequence;
  const shared = first(dataset.SharedFunctionalGroupsSequence);
  const plane = (group) => ({
    orientation: first(
      group?.PlaneOrientationSequence ?? shared?.PlaneOrientationSequence ?? dataset,
    ).ImageOrientationPatient.map(Number),
    position: first(group?.PlanePositionSequence ?? dataset).ImagePositionPatient.map(Number),
    spacing: first(group?.PixelMeasuresSequence ?? shared?.PixelMeasuresSequence ?? dataset).PixelSpacing.map(
      Number,
    ),
  });
  return (groups ?? [undefined]).map((group, i) => {
    const { orientation, position, spacing } = plane(group);
    const id = `file:${series}/${dataset.SOPInstanceUID}${groups ? `?frame=${i + 1}` : ''}`;
    const instance = { ...dataset, ImageOrientationPatient: orientation, ImagePositionPatient: position };
    return { id, position, instance, modules: modulesOf(dataset, orientation, position, spacing) };
  });
}

const modulesOf = (dataset, orientation, position, spacing) => ({
  generalImageModule: { sopInstanceUID: dataset.SOPInstanceUID },
  generalSeriesModule: { seriesInstanceUID: dataset.SeriesInstanceUID, modality: dataset.Modality },
  imagePlaneModule: {
    rows: dataset.Rows,
    columns: dataset.Columns,
    rowCosines: orientation.slice(0, 3),
    columnCosines: orientation.slice(3),
    imageOrientationPatient: orientation,
    imagePositionPatient: position,
    rowPixelSpacing: spacing[0],
    columnPixelSpacing: spacing[1],
    pixelSpacing: spacing,
    frameOfReferenceUID: dataset.FrameOfReferenceUID,
  },
  imagePixelModule: {
    rows: dataset.Rows,
    columns: dataset.Columns,
    bitsAllocated: 16,
    bitsStored: 16,
    highBit: 15,
    samplesPerPixel: 1,
    pixelRepresentation: 0,
    photometricInterpretation: 'MONOCHROME2',
  },
});

/** Where along z an image lies: the affine's third column leads from slice to slice, RAS mm; positions are LPS. */
function sliceOf(position, affine) {
  const column = [2, 6, 10].map((i) => affine[i]);
  const ras = [-position[0], -position[1], position[2]];
  const offset = ras.map((value, i) => value - affine[4 * i + 3]);
  const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  return dot(offset, column) / dot(column, column);
}

async function check({ segmentation, series, size, affine, labels, values }, index) {
  const [width, height, depth] = size;
  const images = series.flatMap((path) => imagesOf(path, index));
  const stack = Array.from({ length: depth }, (_, z) => {
    const found = images.filter((image) => Math.abs(sliceOf(image.position, affine) - z) < 0.02);
    if (found.length === 0) throw new Error(`no image lies at slice ${z}`);
    return found[0];
  });
  const byId = new Map(stack.map((image) => [image.id, image]));
  const get = (type, id) => (type === 'instance' ? byId.get(id)?.instance : byId.get(id)?.modules[type]);
  metaData.addProvider(get, 10_000 + index);
  const ids = stack.map(({ id }) => id);
  const { labelMapImages, segMetadata, overlappingSegments } =
    await adaptersSEG.Cornerstone3D.Segmentation.createFromDICOMSegBuffer(ids, bufferOf(segmentation), {
      metadataProvider: { get },
    });
  const read = labelMapImages[0].map((image) => image.voxelManager.getScalarData());
  const expected = readFileSync(labels);
  let wrong = 0;
  let labelled = 0;
  for (let z = 0; z < depth; z++) {
    for (let i = 0; i < width * height; i++) {
      const value = values[read[z][i]] ?? read[z][i];
      if (value !== expected[z * width * height + i]) wrong++;
      if (value !== 0) labelled++;
    }
  }
  return {
    wrong,
    labelled,
    overlapping: Boolean(overlappingSegments),
    maps: labelMapImages.length,
    names: segMetadata.data.filter(Boolean).map(({ SegmentLabel }) => SegmentLabel),
  };
}

const results = [];
for (const [index, one] of JSON.parse(readFileSync(process.argv[2], 'utf8')).entries()) {
  results.push(await check(one, index).catch((error) => ({ error: String(error?.message ?? error) })));
}
process.stdout.write(JSON.stringify(results), () => process.exit(0));
