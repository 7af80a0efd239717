/*
 * In which order OHIF stacks the images of series (@cornerstonejs/core).
 *
 * sort-images.mjs CASES: a JSON file with a list of lists of paths, one list for each series. Prints a JSON list: for each series the images
 * in that order, with position and directions (LPS, mm), spacing and size. A frame of a multi-frame object is an image. It is bundled as
 * read-segmentations.mjs is.
 */
import { readFileSync } from 'node:fs';
import { metaData, utilities } from '@cornerstonejs/core';
import dcmjs from 'dcmjs';

const { DicomMessage, DicomMetaDictionary } = dcmjs.data;
console.log = console.info = console.debug = () => {};

const first = (value) => (Array.isArray(value) ? value[0] : value);

function imagesOf(path, series) {
  const bytes = readFileSync(path);
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  const dataset = DicomMetaDictionary.naturalizeDataset(DicomMessage.readFile(buffer).dict);
  const shared = first(dataset.SharedFunctionalGroupsSequence);
  const frames = dataset.PerFrameFunctionalGroupsSequence ?? [undefined];
  return frames.map((frame, i) => {
    const of = (name) => first(frame?.[name] ?? shared?.[name] ?? dataset);
    return {
      id: `wadors:${series}/${dataset.SOPInstanceUID}/frames/${i + 1}`,
      columns: dataset.Columns,
      rows: dataset.Rows,
      imagePositionPatient: of('PlanePositionSequence').ImagePositionPatient.map(Number),
      imageOrientationPatient: of('PlaneOrientationSequence').ImageOrientationPatient.map(Number),
      pixelSpacing: of('PixelMeasuresSequence').PixelSpacing.map(Number),
    };
  });
}

const sorted = JSON.parse(readFileSync(process.argv[2], 'utf8')).map((paths, series) => {
  const images = new Map(paths.flatMap((path) => imagesOf(path, series)).map((image) => [image.id, image]));
  const provider = (type, id) => (type === 'imagePlaneModule' ? images.get(id) : undefined);
  metaData.addProvider(provider, 10_000 + series);
  return utilities.sortImageIdsAndGetSpacing([...images.keys()]).sortedImageIds.map((id) => images.get(id));
});
process.stdout.write(JSON.stringify(sorted));
process.exit();
