import { describe, expect, it } from 'vitest';
import { type MadeSource, madeFiles, madeSource } from '../../test/dicom-source.ts';
import { ascii } from '../dicom/build.ts';
import { type Dataset, firstItem, itemsOf, number, text, type ValueElement, word } from '../dicom/dataset.ts';
import { parseDicom } from '../dicom/parse.ts';
import { readSegmentationFile } from '../dicom/read-segmentation.ts';
import { tags } from '../dicom/tags.ts';
import { readVolume, sourceFromBytes } from '../formats/volume-file.ts';
import { webPlatform } from '../formats/web-platform.ts';
import type { Volume } from '../volume.ts';
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
    for (const format of ['labelmap.dcm', 'nii.gz', 'stl'] as const) {
      const { outputs } = await run(manifest, model, { files, formats: { levels: format } });
      expect(outputs.levels.format).toBe(format);
      if (format === 'labelmap.dcm')
        expect(word(dataOf(outputs.levels), tags.segmentationType)).toBe('LABELMAP');
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

describe('predict() on another volume', () => {
  it.each(['seg.dcm', 'labelmap.dcm', 'key.dcm'] as const)(
    'refuses %s before the model runs',
    async (format) => {
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
    },
  );
});
