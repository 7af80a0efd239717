import { describe, expect, it } from 'vitest';
import { asymmetricLabels, madeSource } from '../../test/dicom-source.ts';
import { collectBytes } from '../formats/volume-file.ts';
import type { Volume } from '../volume.ts';
import { ascii, bytesElement } from './build.ts';
import {
  type Dataset,
  firstItem,
  itemsOf,
  number,
  numbers,
  text,
  type ValueElement,
  word,
  words,
} from './dataset.ts';
import { parseDicom } from './parse.ts';
import { buildSegmentation, liesOnSource, type SegmentationOptions } from './segmentation.ts';
import { type Tag, tags } from './tags.ts';
import { writeDicomFile } from './write-file.ts';

const options: SegmentationOptions = {
  labels: [
    { value: 1, name: 'Liver' },
    { value: 3, name: 'Spleen' },
  ],
  maker: { id: 'an-app', name: 'An app', version: '1.2.0' },
  description: 'Organs',
  role: 'organs',
  seed: 'a job',
};

/** The data set of the written file, parsed again. */
async function datasetOf(
  labelMap: Volume,
  { source }: ReturnType<typeof madeSource>,
  more: Partial<SegmentationOptions> = {},
): Promise<Dataset> {
  const object = await buildSegmentation(labelMap, source, { ...options, ...more });
  return parseDicom(await collectBytes(writeDicomFile(object)))!.dataset;
}

const bytesAt = (dataset: Dataset, tag: Tag) => (dataset.get(tag) as ValueElement | undefined)?.bytes;
const empty = ({ grid }: ReturnType<typeof madeSource>): Volume => ({
  ...grid,
  components: 1,
  voxels: new Uint8Array(grid.size[0] * grid.size[1] * grid.size[2]),
});
const frames = (dataset: Dataset) => itemsOf(dataset, tags.perFrameFunctionalGroupsSequence);

describe('buildSegmentation()', () => {
  it('sets the bits of each segment and slice, frame after frame', async () => {
    // 3 × 3 pixels: a frame ends within a byte.
    const made = madeSource({ size: [3, 3, 3] });
    const labelMap = { ...empty(made), voxels: new Uint8Array(27) };
    for (const [x, y, z, value] of [[0, 0, 0, 1], [2, 2, 0, 1], [1, 0, 2, 1], [2, 1, 0, 3], [0, 2, 1, 3]])
      labelMap.voxels[(z * 3 + y) * 3 + x] = value; // biome-ignore format: one table
    const dataset = await datasetOf(labelMap, made);
    expect(number(dataset, tags.numberOfFrames)).toBe(4);
    const bits = [...bytesAt(dataset, tags.pixelData)!].flatMap((byte) =>
      Array.from({ length: 8 }, (_, i) => (byte >> i) & 1),
    );
    expect(bits.slice(0, 36).join('')).toBe('100000001' + '010000000' + '000001000' + '000000100');
    expect(bits.slice(36).some((bit) => bit !== 0)).toBe(false);
    expect(
      frames(dataset).map((frame) => [
        number(firstItem(frame, tags.segmentIdentificationSequence)!, tags.referencedSegmentNumber),
        words(firstItem(frame, tags.planePositionSequence)!, tags.imagePositionPatient).map(Number),
        numbers(firstItem(frame, tags.frameContentSequence)!, tags.dimensionIndexValues),
      ]),
    ).toEqual([
      [1, made.source.slices[0].position, [1, 1]],
      [1, made.source.slices[2].position, [1, 3]],
      [2, made.source.slices[0].position, [2, 1]],
      [2, made.source.slices[1].position, [2, 2]],
    ]);
  });

  it('lists labels without voxels, and names values missing in the list', async () => {
    const made = madeSource();
    const labelMap = empty(made);
    (labelMap.voxels as Uint8Array).set([3, 7, 5]);
    const segments = itemsOf(await datasetOf(labelMap, made), tags.segmentSequence);
    expect(segments.map((one) => [number(one, tags.segmentNumber), text(one, tags.segmentLabel)])).toEqual([
      [1, 'Liver'],
      [2, 'Spleen'],
      [3, 'label 5'],
      [4, 'label 7'],
    ]);
  });

  it.each(['BINARY', 'LABELMAP'] as const)('has a frame as %s where no voxel has a label', async (type) => {
    const made = madeSource();
    const dataset = await datasetOf(empty(made), made, { type, compression: 'none' });
    const count = type === 'BINARY' ? 1 : 5;
    expect(number(dataset, tags.numberOfFrames)).toBe(count);
    expect(frames(dataset).length).toBe(count);
    const pixels = bytesAt(dataset, tags.pixelData)!;
    // An odd number of bytes is padded.
    expect(pixels.length).toBe(type === 'BINARY' ? 12 : 456);
    expect(pixels.every((byte) => byte === 0)).toBe(true);
    const unlabelled = await datasetOf(empty(made), made, { type, labels: [] });
    expect(itemsOf(unlabelled, tags.segmentSequence).length).toBe(type === 'BINARY' ? 1 : 2);
  });

  it('is a LABELMAP above the byte limit or on request', async () => {
    const made = madeSource({ size: [40, 30, 4] });
    const labelMap = asymmetricLabels(made.grid);
    const typeOf = async (more: Partial<SegmentationOptions>) =>
      word(await datasetOf(labelMap, made, more), tags.segmentationType);
    const binary = await datasetOf(labelMap, made);
    const bytes = (number(binary, tags.numberOfFrames)! * 1200) / 8;
    expect(await typeOf({ maxBinaryBytes: bytes })).toBe('BINARY');
    expect(await typeOf({ maxBinaryBytes: bytes - 1 })).toBe('LABELMAP');
    expect(await typeOf({ maxBinaryBytes: bytes - 1, type: 'BINARY' })).toBe('BINARY');
    expect(await typeOf({ type: 'LABELMAP' })).toBe('LABELMAP');
  });

  it('takes 16 bits for a LABELMAP with values above 255, and states its background', async () => {
    const made = madeSource();
    const labelMap = { ...empty(made), voxels: new Uint16Array(455) };
    labelMap.voxels.set([0x0102, 1], 13);
    const dataset = await datasetOf(labelMap, made, { type: 'LABELMAP', compression: 'none' });
    expect([tags.bitsAllocated, tags.bitsStored, tags.highBit].map((tag) => number(dataset, tag))).toEqual([
      16, 16, 15,
    ]);
    expect(number(dataset, tags.pixelPaddingValue)).toBe(0);
    expect(Array.from(bytesAt(dataset, tags.pixelData)!.subarray(24, 32))).toEqual([0, 0, 2, 1, 1, 0, 0, 0]);
    const numbersOf = itemsOf(dataset, tags.segmentSequence).map((one) => number(one, tags.segmentNumber));
    expect(numbersOf).toEqual([0, 1, 3, 0x0102]);
    const [first] = itemsOf(dataset, tags.segmentSequence);
    const type = firstItem(first, tags.segmentedPropertyTypeCodeSequence)!;
    expect([word(type, tags.codeValue), word(type, tags.codingSchemeDesignator)]).toEqual(['125040', 'DCM']);
  });

  it('copies patient and study byte for byte, required elements empty if missing', async () => {
    const odd = Uint8Array.of(0x44, 0xf6, 0xeb, 0x5e, 0x20, 0x20);
    const made = madeSource({
      characterSets: ['ISO_IR 100'],
      patientName: odd,
      more: [
        bytesElement(tags.studyDescription, 'LO', Uint8Array.of(0x4d, 0xe9, 0x20, 0x20)),
        ascii(tags.studyDate, 'DA', '20200229'),
        bytesElement(tags.timezoneOffsetFromUtc, 'SH', new TextEncoder().encode('+0530')),
      ],
    });
    const dataset = await datasetOf(asymmetricLabels(made.grid), made, {
      description: 'größer',
      time: new Date('2026-01-31T20:00:01.5Z'),
    });
    expect(words(dataset, tags.specificCharacterSet)).toEqual(['ISO_IR 100']);
    expect(bytesAt(dataset, tags.patientName)).toEqual(odd);
    expect(Array.from(bytesAt(dataset, tags.studyDescription)!)).toEqual([0x4d, 0xe9, 0x20, 0x20]);
    expect(bytesAt(dataset, tags.accessionNumber)?.length).toBe(0);
    expect(bytesAt(dataset, tags.patientBirthDate)?.length).toBe(0);
    expect(word(dataset, tags.studyDate)).toBe('20200229');
    expect(text(dataset, tags.seriesDescription)).toBe('größer');
    // In the time zone of the study.
    expect(word(dataset, tags.contentDate)).toBe('20260201');
    expect(word(dataset, tags.contentTime)).toBe('013001');
  });

  it('switches to UTF-8 where the source’s character set lacks a label’s name', async () => {
    const made = madeSource({ characterSets: ['ISO_IR 100'], patientName: Uint8Array.of(0x44, 0xf6) });
    const dataset = await datasetOf(asymmetricLabels(made.grid), made, {
      labels: [{ value: 1, name: '肝臓' }],
    });
    expect(words(dataset, tags.specificCharacterSet)).toEqual(['ISO_IR 192']);
    expect(text(dataset, tags.patientName)).toBe('Dö');
    const [segment] = itemsOf(dataset, tags.segmentSequence);
    expect(new TextDecoder().decode(bytesAt(segment, tags.segmentLabel))).toBe('肝臓');
  });

  it('refers to each image and frame that it was made from', async () => {
    const made = madeSource({ frames: true });
    const dataset = await datasetOf(asymmetricLabels(made.grid), made);
    const series = firstItem(dataset, tags.referencedSeriesSequence)!;
    expect(word(series, tags.seriesInstanceUid)).toBe('1.2.3.0');
    expect(itemsOf(series, tags.referencedInstanceSequence).length).toBe(1);
    for (const frame of frames(dataset)) {
      const derivation = firstItem(frame, tags.derivationImageSequence)!;
      const image = firstItem(derivation, tags.sourceImageSequence)!;
      const position = words(firstItem(frame, tags.planePositionSequence)!, tags.imagePositionPatient);
      const slice = made.source.slices[number(image, tags.referencedFrameNumber)! - 1];
      expect(word(image, tags.referencedSopInstanceUid)).toBe('1.2.3.4');
      expect(position.map(Number)).toEqual(slice.position);
    }
  });

  it('states slice spacing along the normal, and 3D only for aligned slices', async () => {
    for (const shearMm of [0, 0.9]) {
      const made = madeSource({ shearMm });
      const dataset = await datasetOf(asymmetricLabels(made.grid), made, { type: 'LABELMAP' });
      const shared = firstItem(dataset, tags.sharedFunctionalGroupsSequence)!;
      const measures = firstItem(shared, tags.pixelMeasuresSequence)!;
      expect(number(measures, tags.spacingBetweenSlices)).toBeCloseTo(3, 8);
      expect(words(measures, tags.pixelSpacing)).toEqual(['0.8', '0.5']);
      expect(word(dataset, tags.dimensionOrganizationType)).toBe(shearMm === 0 ? '3D' : undefined);
    }
  });

  it('has equal UIDs for equal seed and role, and different UIDs otherwise', async () => {
    const made = madeSource({ without: [tags.frameOfReferenceUid] });
    const labelMap = asymmetricLabels(made.grid);
    const uidsOf = async (more: Partial<SegmentationOptions>) => {
      const dataset = await datasetOf(labelMap, made, more);
      const segments = itemsOf(dataset, tags.segmentSequence).map((one) => word(one, tags.trackingUid)!);
      const own = [tags.sopInstanceUid, tags.seriesInstanceUid, tags.frameOfReferenceUid];
      return [...own.map((tag) => word(dataset, tag)!), ...segments];
    };
    const first = await uidsOf({});
    expect(new Set(first).size).toBe(6);
    expect(await uidsOf({})).toEqual(first);
    const others = [
      await uidsOf({ seed: 'another' }),
      await uidsOf({ seed: undefined }),
      await uidsOf({ seed: undefined }),
    ];
    expect(new Set([first, ...others].flat()).size).toBe(24);
    // Two outputs of a job share their place in the world alone.
    const role = await uidsOf({ role: 'vessels' });
    expect(role.filter((uid) => first.includes(uid))).toEqual([first[2]]);
  });

  it('refuses a label map on another grid, whose frames would show other tissue', async () => {
    const made = madeSource();
    const { affine, size } = made.grid;
    const moved = (axis: number, mm: number) => affine.map((v, i) => (i === 4 * axis + 3 ? v + mm : v));
    const flipped = affine.map((v, i) => (i % 4 === 2 && i < 12 ? -v : v));
    const labelMap = asymmetricLabels(made.grid);
    const grids = [
      { affine: moved(0, 0.5), size },
      { affine: moved(2, -3), size },
      { affine: moved(1, 0.2), size },
      { affine: flipped, size },
      { affine, size: [13, 5, 7] as const },
    ];
    for (const grid of grids) {
      expect(liesOnSource(grid, made.source)).toBe(false);
      await expect(datasetOf({ ...labelMap, ...grid }, made)).rejects.toMatchObject({ code: 'APP_OUTPUT' });
    }
    expect(liesOnSource(made.grid, made.source)).toBe(true);
  });

  it('refuses a source without the UIDs that a result refers to', async () => {
    for (const tag of [tags.studyInstanceUid, tags.seriesInstanceUid]) {
      const made = madeSource({ without: [tag] });
      await expect(datasetOf(asymmetricLabels(made.grid), made)).rejects.toMatchObject({
        code: 'NOT_ACCEPTABLE',
        field: 'format',
      });
    }
  });

  it.each([new Int16Array(455).fill(-1), new Float32Array(455).fill(1.5), new Int32Array(455).fill(65_536)])(
    'refuses values that are not 16-bit labels: %#',
    async (voxels) => {
      const made = madeSource();
      await expect(datasetOf({ ...empty(made), voxels }, made)).rejects.toMatchObject({ code: 'BAD_INPUT' });
    },
  );
});
