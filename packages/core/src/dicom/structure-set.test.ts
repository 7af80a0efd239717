import { describe, expect, it } from 'vitest';
import { asymmetricLabels, type MadeSource, madeSource } from '../../test/dicom-source.ts';
import { collectBytes } from '../formats/volume-file.ts';
import { applyAffine, determinant } from '../geometry/affine.ts';
import { inverseAffine } from '../geometry/grid.ts';
import type { Volume } from '../volume.ts';
import { binary, bytesElement } from './build.ts';
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
import { buildSegmentation } from './segmentation.ts';
import { buildStructureSet, type StructureSetOptions } from './structure-set.ts';
import { type Tag, tags } from './tags.ts';
import { writeDicomFile } from './write-file.ts';

const options: StructureSetOptions = {
  labels: [
    { value: 1, name: 'Liver' },
    { value: 3, name: 'Spleen' },
  ],
  maker: { id: 'an-app', name: 'An app', version: '1.2.0' },
  description: 'Organs',
  role: 'organs',
  seed: 'a job',
};
type Made = ReturnType<typeof madeSource>;

/** The data set of the written file, parsed again. */
async function datasetOf(
  labelMap: Volume,
  { source }: Made,
  more: Partial<StructureSetOptions> = {},
): Promise<Dataset> {
  const object = await buildStructureSet(labelMap, source, { ...options, ...more });
  const file = parseDicom(await collectBytes(writeDicomFile(object)))!;
  expect(file.explicit).toBe(false);
  return file.dataset;
}

/** A series whose slices are in the other order: its affine is left-handed. */
function leftHanded(made: Made): Made {
  const { source, grid } = made;
  const { affine, size } = grid;
  const last = applyAffine(affine, [0, 0, size[2] - 1]);
  const rows = [0, 1, 2].flatMap((r) => [affine[4 * r], affine[4 * r + 1], -affine[4 * r + 2], last[r]]);
  return {
    source: { ...source, slices: source.slices.toReversed() },
    grid: { size, affine: [...rows, 0, 0, 0, 1] },
  };
}

const emptyOn = ({ grid }: Made): Volume => ({
  ...grid,
  components: 1,
  voxels: new Uint8Array(grid.size[0] * grid.size[1] * grid.size[2]),
});

const contoursOf = (roi: Dataset) => itemsOf(roi, tags.contourSequence);

/** The points of a contour as voxel indices, by their positions in the world (LPS mm). */
function indicesOf(contour: Dataset, { affine }: Volume): number[][] {
  const toIndex = inverseAffine(affine);
  const values = words(contour, tags.contourData).map(Number);
  return Array.from({ length: values.length / 3 }, (_, i) =>
    applyAffine(toIndex, [-values[3 * i], -values[3 * i + 1], values[3 * i + 2]]),
  );
}

/** The label map that the contours describe: voxels whose centres are inside an odd number of polygons of a label. */
function recount(dataset: Dataset, labelMap: Volume): Uint16Array {
  const found = new Uint16Array(labelMap.voxels.length);
  let offPlane = 0;
  for (const roi of itemsOf(dataset, tags.roiContourSequence)) {
    const inside = new Uint8Array(found.length);
    for (const contour of contoursOf(roi)) {
      const points = indicesOf(contour, labelMap);
      const z = Math.round(points[0][2]);
      offPlane = points.reduce((most, [, , k]) => Math.max(most, Math.abs(k - z)), offPlane);
      toggleInside(inside, points, z, labelMap);
    }
    const value = number(roi, tags.referencedRoiNumber)!;
    for (const [i, is] of inside.entries()) {
      if (is === 1 && found[i] !== 0) throw new Error(`${value} and ${found[i]} overlap in voxel ${i}`);
      if (is === 1) found[i] = value;
    }
  }
  expect(offPlane).toBeLessThan(0.001);
  return found;
}

/** Toggles the pixels of a slice from which a ray to the right crosses an edge, for each edge. */
function toggleInside(inside: Uint8Array, points: readonly number[][], z: number, { size }: Volume): void {
  const [nx, ny] = size;
  for (const [i, [ax, ay]] of points.entries()) {
    const [bx, by] = points[(i + 1) % points.length];
    for (let y = Math.max(0, Math.ceil(Math.min(ay, by))); y < Math.min(ny, Math.max(ay, by)); y++) {
      const crossing = ax + ((y - ay) / (by - ay)) * (bx - ax);
      for (let x = 0; x < Math.min(nx, crossing); x++) inside[(z * ny + y) * nx + x] ^= 1;
    }
  }
}

/** Labels like noise: saddles, holes and single voxels of every kind. */
function noisy({ grid }: Made): Volume {
  const { size } = grid;
  let state = 7;
  const voxels = Uint16Array.from({ length: size[0] * size[1] * size[2] }, () => {
    state = (state * 48_271) % 2_147_483_647;
    return [0, 0, 1, 1, 3, 700][state % 6];
  });
  return { ...grid, components: 1, voxels };
}

describe('buildStructureSet()', () => {
  const kinds: readonly (readonly [string, Made])[] = [
    ['an oblique series', madeSource({ size: [23, 17, 4] })],
    ['a left-handed one', leftHanded(madeSource({ size: [23, 17, 4] }))],
    ['a tilted gantry', madeSource({ size: [23, 17, 4], shearMm: 0.9 })],
    ['frames of one image', leftHanded(madeSource({ size: [23, 17, 4], frames: true }))],
  ];

  it.each(kinds)('outlines exactly the voxels of each label on %s', async (_, made) => {
    for (const labelMap of [noisy(made), asymmetricLabels(made.grid)]) {
      const dataset = await datasetOf(labelMap, made);
      expect(recount(dataset, labelMap)).toEqual(Uint16Array.from(labelMap.voxels as Uint8Array));
    }
  });

  it('is tested with grids of both hands', () => {
    expect(kinds.map(([, { grid }]) => Math.sign(determinant(grid.affine)))).toEqual([1, -1, 1, -1]);
  });

  it('gives each contour its image, its frame, and decimal strings that fit', async () => {
    for (const frames of [false, true]) {
      const made = leftHanded(madeSource({ frames }));
      const labelMap = asymmetricLabels(made.grid);
      const contours = itemsOf(await datasetOf(labelMap, made), tags.roiContourSequence).flatMap(contoursOf);
      expect(contours.length).toBeGreaterThan(5);
      for (const contour of contours) {
        const image = firstItem(contour, tags.contourImageSequence)!;
        const slice = made.source.slices[Math.round(indicesOf(contour, labelMap)[0][2])];
        expect(word(image, tags.referencedSopInstanceUid)).toBe(slice.sopInstanceUid);
        expect(number(image, tags.referencedFrameNumber)).toBe(slice.frameNumber);
        expect(word(contour, tags.contourGeometricType)).toBe('CLOSED_PLANAR');
        const values = words(contour, tags.contourData);
        expect(values.length).toBe(3 * number(contour, tags.numberOfContourPoints)!);
        expect(Math.max(...values.map(({ length }) => length))).toBeLessThanOrEqual(16);
      }
    }
  });

  it('writes contours above 64 KiB', async () => {
    const [nx, ny] = [100, 120];
    const made = madeSource({ size: [nx, ny, 1] });
    const labelMap = emptyOn(made);
    // A comb whose teeth have teeth: one outline with thousands of points.
    for (let y = 0; y < ny; y++)
      for (let x = 0; x < nx; x++)
        if (y === 0 || x % 4 === 0 || (x % 4 === 1 && y % 2 === 0)) labelMap.voxels[y * nx + x] = 1;
    const dataset = await datasetOf(labelMap, made);
    const longest = itemsOf(dataset, tags.roiContourSequence)
      .flatMap(contoursOf)
      .map((contour) => (contour.get(tags.contourData) as ValueElement).bytes.length)
      .reduce((a, b) => Math.max(a, b));
    expect(longest).toBeGreaterThan(65_536);
    expect(recount(dataset, labelMap)).toEqual(Uint16Array.from(labelMap.voxels as Uint8Array));
  });

  it('lists labels without voxels, and names values missing in the list', async () => {
    const made = madeSource();
    const labelMap = emptyOn(made);
    (labelMap.voxels as Uint8Array).set([3, 7]);
    const dataset = await datasetOf(labelMap, made);
    const structures = itemsOf(dataset, tags.structureSetRoiSequence);
    expect(structures.map((one) => [number(one, tags.roiNumber), text(one, tags.roiName)])).toEqual([
      [1, 'Liver'],
      [3, 'Spleen'],
      [7, 'label 7'],
    ]);
    const rois = itemsOf(dataset, tags.roiContourSequence);
    expect(rois.map((roi) => [number(roi, tags.referencedRoiNumber), contoursOf(roi).length])).toEqual([
      [1, 0],
      [3, 1],
      [7, 1],
    ]);
    const observations = itemsOf(dataset, tags.rtRoiObservationsSequence);
    expect(observations.map((one) => number(one, tags.referencedRoiNumber))).toEqual([1, 3, 7]);
    expect(observations.map((one) => number(one, tags.observationNumber))).toEqual([1, 2, 3]);
    const unlabelled = await datasetOf(emptyOn(made), made, { labels: [] });
    expect(itemsOf(unlabelled, tags.structureSetRoiSequence).length).toBe(1);
  });

  it('states name, colour and codes of a label, and ORGAN for anatomy', async () => {
    const made = madeSource({ characterSets: ['ISO_IR 100'], patientName: Uint8Array.of(0x44, 0xf6) });
    const long = '前立腺の移行域'.repeat(10);
    const dataset = await datasetOf(asymmetricLabels(made.grid), made, {
      labels: [
        {
          value: 1,
          name: long,
          color: '#e6194b',
          code: { scheme: 'SCT', value: '41216001', meaning: 'Prostate' },
          modifier: { scheme: 'SCT', value: '7771000', meaning: 'Left' },
        },
        {
          value: 2,
          name: 'Tumour',
          code: { scheme: 'SCT', value: '108369006', meaning: 'Neoplasm' },
          category: { scheme: 'SCT', value: '49755003', meaning: 'Morphologically Altered Structure' },
        },
        { value: 3, name: 'Something' },
      ],
      description: 'Organs and tumours',
    });
    expect(words(dataset, tags.specificCharacterSet)).toEqual(['ISO_IR 192']);
    expect(text(dataset, tags.patientName)).toBe('Dö');
    const utf8 = (item: Dataset, tag: Tag) =>
      new TextDecoder().decode((item.get(tag) as ValueElement).bytes).trimEnd();
    const [first, second] = itemsOf(dataset, tags.structureSetRoiSequence);
    expect(utf8(first, tags.roiName)).toBe([...long].slice(0, 64).join(''));
    expect(utf8(first, tags.roiDescription)).toBe(long);
    expect(second.has(tags.roiDescription)).toBe(false);
    expect(word(first, tags.roiGenerationAlgorithm)).toBe('AUTOMATIC');
    const colors = itemsOf(dataset, tags.roiContourSequence).map((roi) => numbers(roi, tags.roiDisplayColor));
    expect(colors).toEqual([[230, 25, 75], undefined, undefined]);
    const observations = itemsOf(dataset, tags.rtRoiObservationsSequence);
    expect(observations.map((one) => word(one, tags.rtRoiInterpretedType))).toEqual([
      'ORGAN',
      undefined,
      undefined,
    ]);
    const codes = observations.map((one) => firstItem(one, tags.rtRoiIdentificationCodeSequence));
    expect(codes.map((code) => code && word(code, tags.codeValue))).toEqual([
      '41216001',
      '108369006',
      undefined,
    ]);
    const side = firstItem(codes[0]!, tags.segmentedPropertyTypeModifierCodeSequence)!;
    expect(word(side, tags.codeValue)).toBe('7771000');
    // At most 16 characters.
    expect(text(dataset, tags.structureSetLabel)).toBe('Organs and tumou');
    expect(text(dataset, tags.structureSetName)).toBe('Organs and tumours');
  });

  it.each([
    ['every image', {}, 5, [undefined]],
    [
      'an image whose frames are all used',
      { frames: true, more: [binary(tags.numberOfFrames, 'US', 5)] },
      1,
      [undefined],
    ],
    [
      'the frames used of an image',
      { frames: true, more: [binary(tags.numberOfFrames, 'US', 9)] },
      1,
      ['1\\2\\3\\4\\5'],
    ],
  ] satisfies [string, MadeSource, number, unknown[]][])('refers to %s', async (_, like, count, frames) => {
    const made = leftHanded(madeSource(like));
    const dataset = await datasetOf(emptyOn(made), made);
    const frame = firstItem(dataset, tags.referencedFrameOfReferenceSequence)!;
    expect(word(frame, tags.frameOfReferenceUid)).toBe('1.2.3.9');
    const study = firstItem(frame, tags.rtReferencedStudySequence)!;
    expect(word(study, tags.referencedSopInstanceUid)).toBe('1.2.3');
    const series = firstItem(study, tags.rtReferencedSeriesSequence)!;
    expect(word(series, tags.seriesInstanceUid)).toBe('1.2.3.0');
    const images = itemsOf(series, tags.contourImageSequence);
    expect(new Set(images.map((image) => word(image, tags.referencedSopInstanceUid))).size).toBe(count);
    expect(images.length).toBe(count);
    expect([...new Set(images.map((image) => word(image, tags.referencedFrameNumber)))]).toEqual(frames);
  });

  it('states its time in the zone of the study, that nobody approved it, and who made it', async () => {
    const zone = bytesElement(tags.timezoneOffsetFromUtc, 'SH', new TextEncoder().encode('+0530'));
    const made = madeSource({ more: [zone] });
    const dataset = await datasetOf(emptyOn(made), made, { time: new Date('2026-01-31T20:00:01.5Z') });
    expect(word(dataset, tags.structureSetDate)).toBe('20260201');
    expect(word(dataset, tags.structureSetTime)).toBe('013001');
    expect(word(dataset, tags.approvalStatus)).toBe('UNAPPROVED');
    expect(text(dataset, tags.manufacturerModelName)).toBe('An app');
    const [structure] = itemsOf(dataset, tags.structureSetRoiSequence);
    expect(text(structure, tags.roiGenerationDescription)).toBe('An app 1.2.0');
  });

  it('has equal UIDs for equal seed and role, and others than a segmentation', async () => {
    const made = madeSource({ without: [tags.frameOfReferenceUid] });
    const labelMap = asymmetricLabels(made.grid);
    const own = [tags.sopInstanceUid, tags.seriesInstanceUid, tags.frameOfReferenceUid];
    const uidsOf = async (more: Partial<StructureSetOptions>) => {
      const dataset = await datasetOf(labelMap, made, more);
      const frame = firstItem(dataset, tags.referencedFrameOfReferenceSequence)!;
      expect(word(frame, tags.frameOfReferenceUid)).toBe(word(dataset, tags.frameOfReferenceUid));
      return own.map((tag) => word(dataset, tag)!);
    };
    const first = await uidsOf({});
    expect(await uidsOf({})).toEqual(first);
    const others = [await uidsOf({ seed: 'another' }), await uidsOf({ seed: undefined })];
    expect(new Set([first, ...others].flat()).size).toBe(9);
    const { dataset } = await buildSegmentation(labelMap, made.source, options);
    const segmentation = own.map((tag) => word(dataset, tag)!);
    // They share their place in the world alone.
    expect(segmentation.filter((uid) => first.includes(uid))).toEqual([first[2]]);
  });

  it('refuses a label map on another grid, values above 16 bits, a source without UIDs', async () => {
    const made = madeSource();
    const labelMap = asymmetricLabels(made.grid);
    const moved = { ...labelMap, affine: labelMap.affine.map((v, i) => (i === 3 ? v + 0.5 : v)) };
    await expect(datasetOf(moved, made)).rejects.toMatchObject({ code: 'APP_OUTPUT' });
    const large = { ...emptyOn(made), voxels: new Int32Array(455).fill(65_536) };
    await expect(datasetOf(large, made)).rejects.toMatchObject({ code: 'BAD_INPUT' });
    const { source } = madeSource({ without: [tags.studyInstanceUid] });
    await expect(datasetOf(labelMap, { ...made, source })).rejects.toMatchObject({
      code: 'NOT_ACCEPTABLE',
      field: 'format',
    });
  });

  it('refuses more contours than the limit of memory', async () => {
    const made = madeSource();
    const labelMap = noisy(made);
    await expect(datasetOf(labelMap, made, { maxContourBytes: 20_000 })).rejects.toMatchObject({
      code: 'NOT_ACCEPTABLE',
      field: 'format',
      message: expect.stringContaining('seg.dcm'),
    });
    await expect(datasetOf(labelMap, made, { maxContourBytes: 2_000_000 })).resolves.toBeDefined();
  });
});
