import { describe, expect, it } from 'vitest';
import { type MadeSource, madeFiles, madeSource } from '../../test/dicom-source.ts';
import { ascii } from '../dicom/build.ts';
import { type Dataset, firstItem, itemsOf, number, text, type ValueElement, word } from '../dicom/dataset.ts';
import { parseDicom } from '../dicom/parse.ts';
import { readSegmentationFile } from '../dicom/read-segmentation.ts';
import { tags } from '../dicom/tags.ts';
import { collectBytes, readVolume, sourceFromBytes } from '../formats/volume-file.ts';
import { webPlatform } from '../formats/web-platform.ts';
import type { Volume } from '../volume.ts';
import { isReadBack, isSeriesFormat, outputFormats } from './elements.ts';
import {
  labelled,
  level,
  levels,
  networkOf,
  type Output,
  program,
  programOf,
  run,
  scanFiles,
} from './fixtures.ts';

/* Predictions on DICOM series, whose label maps are segmentations of their images. */

const size = [6, 5, 4] as const;
const pixels = Int16Array.from({ length: 120 }, (_, i) => (i * 7 + Math.floor(i / 30) * 3) % 31);
const labels = [
  {
    value: 1,
    name: 'Middle',
    color: '#3cb44b',
    code: { scheme: 'SCT', value: '10200004', meaning: 'Liver' },
  },
  { value: 2, name: 'High' },
];
const manifest = programOf({
  labels,
  name: 'Levels',
  outputs: { levels: { type: 'LabelVolume', label: 'Levels found' } },
});
const model = program(({ volume }) => ({ levels: labelled(volume as Volume, level) }));

const filesOf = async (made: MadeSource = {}) => ({
  volume: (await madeFiles({ size, ...made }, pixels)).map((bytes, i) => sourceFromBytes(`${i}.dcm`, bytes)),
});
/** From 0 to 40. */
const window = [
  ascii(tags.windowCenter, 'DS', 20),
  ascii(tags.windowWidth, 'DS', 40),
  ascii(tags.voiLutFunction, 'CS', 'LINEAR_EXACT'),
];
const dataOf = ({ data }: Output): Dataset => parseDicom(data)!.dataset;

describe('predict() on a DICOM series', () => {
  it.each([{}, { frames: true }, { shearMm: 0.9 }])(
    'gives a segmentation of its images (%j)',
    async (made) => {
      const files = await filesOf(made);
      const { outputs } = await run(manifest, model, { files });
      expect(outputs.levels.format).toBe('seg.dcm');
      const { volume } = await readVolume(files.volume, webPlatform);
      const read = readSegmentationFile(outputs.levels.data);
      const { suv: _, ...expected } = labelled(volume, level);
      expect(read.labelMap).toEqual({ ...expected, size: [...size] });
      expect(read.labels).toMatchObject(labels);
      const { slices } = madeSource({ size, ...made }).source;
      const dataset = dataOf(outputs.levels);
      expect(text(dataset, tags.seriesDescription)).toBe('Levels: Levels found');
      expect(text(dataset, tags.patientName)).toBe('Doe^Jane');
      for (const frame of itemsOf(dataset, tags.perFrameFunctionalGroupsSequence)) {
        const derivation = firstItem(frame, tags.derivationImageSequence)!;
        const image = firstItem(derivation, tags.sourceImageSequence)!;
        const place = word(firstItem(frame, tags.planePositionSequence)!, tags.imagePositionPatient)!;
        const slice = slices.find(({ position }) => position.join('\\') === place)!;
        expect(word(image, tags.referencedSopInstanceUid)).toBe(slice.sopInstanceUid);
        expect(number(image, tags.referencedFrameNumber)).toBe(slice.frameNumber);
      }
    },
  );

  it('has UIDs of its seed', async () => {
    const files = await filesOf();
    const uidOf = async (seed?: string) => {
      const { outputs } = await run(manifest, model, { files, seed });
      return word(dataOf(outputs.levels), tags.sopInstanceUid)!;
    };
    const first = await uidOf('a job');
    expect(await uidOf('a job')).toBe(first);
    expect(new Set([first, await uidOf('another'), await uidOf(), await uidOf()]).size).toBe(4);
  });

  it('gives the wanted format', async () => {
    const files = await filesOf();
    for (const format of ['labelmap.dcm', 'rtstruct.dcm', 'nii.gz', 'stl'] as const) {
      const { outputs } = await run(manifest, model, { files, formats: { levels: format } });
      expect(outputs.levels.format).toBe(format);
      if (format === 'labelmap.dcm')
        expect(word(dataOf(outputs.levels), tags.segmentationType)).toBe('LABELMAP');
      if (format === 'rtstruct.dcm') expect(word(dataOf(outputs.levels), tags.modality)).toBe('RTSTRUCT');
    }
  });

  const unread = outputFormats.LabelVolume.filter((format) => !isReadBack('LabelVolume', format));
  it.each(unread)('gives %s, and keeps the segmentation besides', async (format) => {
    const files = await filesOf();
    const { outputs } = await run(manifest, model, { files, formats: { levels: format }, seed: 'a job' });
    expect(outputs.levels.format).toBe(format);
    expect(outputs.levels.data.length).toBeGreaterThan(84);
    expect(outputs.levels.kept?.format).toBe('seg.dcm');
    const { volume } = await readVolume(files.volume, webPlatform);
    const { labelMap } = readSegmentationFile(await collectBytes(outputs.levels.kept!.bytes));
    expect(labelMap.voxels).toEqual(labelled(volume, level).voxels);
    expect([labelMap.size, labelMap.affine]).toEqual([[...size], volume.affine]);
  });

  it('keeps no second file of what can be read back', async () => {
    const files = await filesOf();
    for (const format of [undefined, 'labelmap.dcm', 'nii.gz'] as const) {
      const { outputs } = await run(manifest, model, { files, formats: format && { levels: format } });
      expect(outputs.levels).not.toHaveProperty('kept');
    }
  });

  it('gives a key picture of the image as it was read, whatever preprocessing made of it', async () => {
    const preprocess = [{ orientation: { axcodes: 'RAS' } }, 'normalizeIntensity'];
    const files = await filesOf({ more: window });
    const { outputs } = await run(networkOf({ preprocess }), levels, {
      files,
      formats: { segmentation: 'key.dcm' },
    });
    expect(outputs.segmentation.format).toBe('key.dcm');
    const dataset = dataOf(outputs.segmentation);
    const { bytes } = dataset.get(tags.pixelData) as ValueElement;
    const columns = number(dataset, tags.columns)!;
    // A pixel without a label: its column and row, from the middle of the first, in a picture of 6 × 0.5 mm by 5 × 0.8 mm.
    const slice =
      Number(word(firstItem(dataset, tags.sourceImageSequence)!, tags.referencedSopInstanceUid)!.slice(6)) -
      1;
    const free = Array.from({ length: 30 }, (_, i) => i).filter((i) => level(pixels[30 * slice + i]) === 0);
    const heading = 82;
    const left = (columns - 384) / 2;
    expect(free.length).toBeGreaterThan(3);
    for (const i of free) {
      const [x, y] = [left + ((i % 6) + 0.5) * 64, heading + (Math.floor(i / 6) + 0.5) * 102.4];
      const at = 3 * (Math.floor(y) * columns + Math.floor(x));
      expect(Math.abs(bytes[at] - (pixels[30 * slice + i] * 255) / 40)).toBeLessThan(6);
    }
  });

  it('gives a segmentation of its images on whatever grid the network computes', async () => {
    const preprocess = [{ orientation: { axcodes: 'RAS' } }, { divisiblePad: { k: 4 } }];
    const files = await filesOf();
    const { outputs } = await run(networkOf({ preprocess }), levels, { files });
    const { volume } = await readVolume(files.volume, webPlatform);
    expect(outputs.segmentation.format).toBe('seg.dcm');
    expect(readSegmentationFile(outputs.segmentation.data).labelMap.voxels).toEqual(
      labelled(volume, level).voxels,
    );
  });

  it('gives nii.gz of images without the UIDs that a segmentation refers to', async () => {
    const files = await filesOf({ frames: true, without: [tags.studyInstanceUid] });
    const { outputs } = await run(manifest, model, { files });
    expect(outputs.levels.format).toBe('nii.gz');
  });
});

describe('predict() with sr.dcm for measurements', () => {
  const outputs = {
    levels: { type: 'LabelVolume' },
    upper: { type: 'LabelVolume' },
    volumes: { type: 'Measurements', from: 'upper', label: 'Volumes' },
  };
  const two = programOf({ labels, name: 'Levels', outputs });
  const high = (value: number) => (value > 20 ? 2 : 0);
  const both = program(({ volume }) => ({
    levels: labelled(volume as Volume, level),
    upper: labelled(volume as Volume, high),
  }));
  /** Volume, class and UID of the segmentation, segment number and tracking UID of each group. */
  const groupsOf = (report: Dataset) => {
    const container = itemsOf(report, tags.contentSequence).at(-1)!;
    return itemsOf(container, tags.contentSequence).map((group) => {
      const items = itemsOf(group, tags.contentSequence);
      const find = (tag: number) => items.flatMap((one) => firstItem(one, tag) ?? [])[0];
      const image = find(tags.referencedSopSequence);
      return {
        volume: Number(word(find(tags.measuredValueSequence), tags.numericValue)),
        segmentation: [
          word(image, tags.referencedSopClassUid),
          word(image, tags.referencedSopInstanceUid),
          number(image, tags.referencedSegmentNumber),
        ],
        tracking: items.map((one) => word(one, tags.uid)).find((uid) => uid !== undefined),
      };
    });
  };
  const segmentsOf = (segmentation: Dataset) =>
    itemsOf(segmentation, tags.segmentSequence)
      .filter((one) => number(one, tags.segmentNumber) !== 0)
      .map((one) => ({
        segmentation: [
          word(segmentation, tags.sopClassUid),
          word(segmentation, tags.sopInstanceUid),
          number(one, tags.segmentNumber),
        ],
        tracking: word(one, tags.trackingUid),
      }));

  it.each([
    [undefined, 'a job'],
    [undefined, undefined],
    ['labelmap.dcm', 'a job'],
  ] as const)('refers to the segments of the label map as %s, by the seed %s', async (upper, seed) => {
    const files = await filesOf({ shearMm: 0.9 });
    const formats = { volumes: 'sr.dcm', ...(upper && { upper }) } as const;
    const { outputs } = await run(two, both, { files, seed, formats });
    expect(outputs.volumes).toMatchObject({ format: 'sr.dcm', type: 'Measurements' });
    const report = dataOf(outputs.volumes);
    expect(text(report, tags.seriesDescription)).toBe('Levels: Volumes');
    const groups = groupsOf(report);
    expect(groups).toMatchObject(segmentsOf(dataOf(outputs.upper)));
    expect(groups.map(({ segmentation }) => segmentation[1])).not.toContain(
      word(dataOf(outputs.levels), tags.sopInstanceUid),
    );
    // Voxels of 0.8 × 0.5 × 3 mm, whatever the shear.
    const count = pixels.filter((value) => value > 20).length;
    expect(groups[0].volume).toBe(0);
    expect(groups[1].volume).toBeCloseTo(count * 0.0012, 9);
  });

  it('is json unless a report is asked for', async () => {
    const { outputs } = await run(two, both, { files: await filesOf() });
    expect(outputs.volumes.format).toBe('json');
  });

  it('refuses a report of no series or no label map before the model runs', async () => {
    let hasRun = false;
    const spy = program(() => {
      hasRun = true;
      return { volumes: [] };
    });
    const alone = programOf({ labels, outputs: { volumes: { type: 'Measurements' } } });
    const formats = { volumes: 'sr.dcm' } as const;
    const refusal = { code: 'NOT_ACCEPTABLE', field: 'format' };
    await expect(run(two, spy, { files: await scanFiles(), formats })).rejects.toMatchObject({
      ...refusal,
      message: expect.stringContaining('Send a DICOM series, or choose one of: json, csv.'),
    });
    await expect(run(alone, spy, { files: await filesOf(), formats })).rejects.toMatchObject({
      ...refusal,
      message: expect.stringContaining('the app returns no label map. Choose json or csv.'),
    });
    expect(hasRun).toBe(false);
  });
});

describe('predict() on another volume', () => {
  it('keeps the label map of a surface in the input’s extension', async () => {
    const files = await scanFiles('mha');
    const { outputs } = await run(manifest, model, { files, formats: { levels: 'vtk' } });
    expect(outputs.levels.kept?.format).toBe('mha');
    const bytes = await collectBytes(outputs.levels.kept!.bytes);
    const { volume } = await readVolume([sourceFromBytes('kept.mha', bytes)], webPlatform);
    const { volume: scan } = await readVolume(files.volume, webPlatform);
    expect(volume).toEqual(labelled(scan, level));
  });

  const ofSeries = outputFormats.LabelVolume.filter(isSeriesFormat);
  it.each(ofSeries)('refuses %s before the model runs', async (format) => {
    let hasRun = false;
    const spy = program(({ volume }) => {
      hasRun = true;
      return { levels: labelled(volume as Volume, level) };
    });
    await expect(
      run(manifest, spy, { files: await scanFiles(), formats: { levels: format } }),
    ).rejects.toMatchObject({
      code: 'NOT_ACCEPTABLE',
      field: 'format',
      message: expect.stringContaining(
        'The input is not a DICOM series. Send a DICOM series, or choose one of: nii.gz',
      ),
    });
    expect(hasRun).toBe(false);
  });
});
