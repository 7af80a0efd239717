import { describe, expect, it } from 'vitest';
import { read, slices } from '../../test/dicom-series.ts';
import { type MadeSource, madeSource } from '../../test/dicom-source.ts';
import { collectBytes } from '../formats/volume-file.ts';
import { ascii } from './build.ts';
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
import { buildKeyPicture, type KeyPictureOptions } from './key-picture.ts';
import { parseDicom } from './parse.ts';
import { createPicture, drawText, type Picture } from './picture.ts';
import { buildSegmentation } from './segmentation.ts';
import type { DicomSource, DisplayWindow } from './source.ts';
import { tags } from './tags.ts';
import { writeDicomFile } from './write-file.ts';

/* Its pixels, by their places, are held against those of real series in test/dicom-key-picture.test.ts. */

const options: Omit<KeyPictureOptions, 'readSlice'> = {
  labels: [
    { value: 1, name: 'Liver', color: '#e6194b' },
    { value: 3, name: 'Spleen', color: '#3cb44b' },
  ],
  maker: { id: 'an-app', name: 'An app', version: '1.2.0' },
  description: 'Organs',
  role: 'organs',
  seed: 'a job',
};

const plane = 13 * 7;
/** A block of 1 in slices 1 and 3, larger in 3; 3 only in slice 2. */
function labelMapOf(set: (voxels: Uint8Array) => void, made: MadeSource = {}) {
  const voxels = new Uint8Array(plane * 5);
  set(voxels);
  return { ...madeSource(made).grid, components: 1, voxels };
}
const block = (voxels: Uint8Array) => {
  voxels.fill(1, plane, plane + 4);
  voxels.fill(1, 3 * plane + 13, 3 * plane + 20);
  voxels.fill(3, 2 * plane + 5, 2 * plane + 8);
};

interface Given extends Partial<KeyPictureOptions> {
  made?: MadeSource;
  /** The value of every pixel, by the slice. */
  value?: (slice: number, pixel: number) => number;
  window?: DisplayWindow;
  set?: (voxels: Uint8Array) => void;
}

async function make({ made = {}, value = (_, i) => i, window, set = block, ...more }: Given = {}) {
  const plain = madeSource(made).source;
  const source: DicomSource = { ...plain, slices: plain.slices.map((slice) => ({ ...slice, window })) };
  const asked: number[] = [];
  const readSlice = async (slice: number) => {
    asked.push(slice);
    return Float32Array.from({ length: plane }, (_, i) => value(slice, i));
  };
  const object = await buildKeyPicture(labelMapOf(set, made), source, { readSlice, ...options, ...more });
  const { dataset } = parseDicom(await collectBytes(writeDicomFile(object)))!;
  const [width, height] = [number(dataset, tags.columns)!, number(dataset, tags.rows)!];
  const picture: Picture = { width, height, rgb: (dataset.get(tags.pixelData) as ValueElement).bytes };
  return { dataset, picture, asked, source };
}

/** Red of a pixel, by the place in the picture from 0 to 1. */
const redAt = ({ width, height, rgb }: Picture, x: number, y: number) =>
  rgb[3 * (Math.floor(y * height) * width + Math.floor(x * width))];

/** Where a line of text begins, by every pixel of it. */
function findText({ width, height, rgb }: Picture, line: string): [x: number, y: number] | undefined {
  const letters = createPicture(12 * line.length, 18);
  drawText(letters, line, [0, 0], [255, 255, 255]);
  const isSet = (at: number) => Math.max(rgb[3 * at], rgb[3 * at + 1], rgb[3 * at + 2]) > 100;
  for (let y = 0; y + letters.height <= height; y++) {
    for (let x = 0; x + letters.width <= width; x++) {
      let matches = true;
      for (let i = 0; matches && i < letters.width * letters.height; i++) {
        const at = (y + Math.floor(i / letters.width)) * width + x + (i % letters.width);
        matches = letters.rgb[3 * i] > 0 === isSet(at);
      }
      if (matches) return [x, y];
    }
  }
  return undefined;
}

const uidsOf = (dataset: Dataset) =>
  [tags.sopInstanceUid, tags.seriesInstanceUid].map((tag) => word(dataset, tag));

describe('buildKeyPicture()', () => {
  it('shows the slice with the largest labelled area, and refers to its image', async () => {
    const { dataset, asked, source } = await make();
    expect(asked).toEqual([3]);
    const reference = firstItem(dataset, tags.sourceImageSequence)!;
    expect(word(reference, tags.referencedSopInstanceUid)).toBe(source.slices[3].sopInstanceUid);
    expect(word(reference, tags.referencedFrameNumber)).toBeUndefined();
    expect(text(dataset, tags.derivationDescription)).toBe(
      'Slice 4 of 5 with outlines of labels found by An app 1.2.0. Not for diagnosis.',
    );
  });

  it('names the frame of an image with several', async () => {
    const { dataset } = await make({ made: { frames: true } });
    const [reference, ...more] = itemsOf(dataset, tags.sourceImageSequence);
    expect(more).toEqual([]);
    expect(number(reference, tags.referencedFrameNumber)).toBe(4);
  });

  it('is a secondary capture of the patient and study, marked as derived', async () => {
    const { dataset } = await make();
    expect(word(dataset, tags.sopClassUid)).toBe('1.2.840.10008.5.1.4.1.1.7');
    expect(words(dataset, tags.imageType)).toEqual(['DERIVED', 'SECONDARY']);
    expect(word(dataset, tags.conversionType)).toBe('WSD');
    expect(word(dataset, tags.burnedInAnnotation)).toBe('NO');
    expect(text(dataset, tags.patientName)).toBe('Doe^Jane');
    expect(word(dataset, tags.studyInstanceUid)).toBe('1.2.3');
    // Turned by 17 degrees about the feet, then by 11 about a row: from the angles 0.3 and 0.2 by hand.
    expect(words(dataset, tags.patientOrientation)).toEqual(['LP', 'PR']);
  });

  it('says that text is burned in where the image says so', async () => {
    const { dataset } = await make({ made: { more: [ascii(tags.burnedInAnnotation, 'CS', 'YES')] } });
    expect(word(dataset, tags.burnedInAnnotation)).toBe('YES');
  });

  it('has UIDs of its seed and role, others than a segmentation of them', async () => {
    const first = uidsOf((await make()).dataset);
    expect(uidsOf((await make()).dataset)).toEqual(first);
    const others = [
      await make({ seed: 'another' }),
      await make({ role: 'another' }),
      await make({ seed: undefined }),
    ];
    const { dataset } = await buildSegmentation(labelMapOf(block), madeSource().source, options);
    const all = [first, ...others.map((one) => uidsOf(one.dataset)), uidsOf(dataset)].flat();
    expect(new Set(all).size).toBe(10);
  });

  it('has square pixels in mm', async () => {
    const { dataset, picture } = await make();
    // 13 columns of 0.5 mm and 7 rows of 0.8 mm: 6.5 × 5.6 mm in 512 × 441 pixels.
    expect(picture.width).toBe(512);
    const [down, across] = numbers(dataset, tags.pixelSpacing)!;
    expect(across).toBeCloseTo(6.5 / 512, 9);
    expect(down).toBeCloseTo(5.6 / 441, 9);
  });

  it('says what it is, and which labels it shows, in the picture', async () => {
    const { picture } = await make();
    expect(findText(picture, 'Not for diagnosis')).toEqual([8, 8]);
    expect(findText(picture, 'An app 1.2.0')).toEqual([8, 30]);
    expect(findText(picture, 'Slice 4 of 5')?.[0]).toBe(8);
    // 11 voxels of 0.5 × 0.8 × 3 mm.
    expect(findText(picture, 'Liver  0.013 ml')).toBeDefined();
    expect(findText(picture, '1 more in other slices')).toBeDefined();
    expect(findText(picture, 'Spleen')).toBeUndefined();
  });

  it('shows the middle slice where there is no label', async () => {
    const { picture, asked } = await make({ set: () => {} });
    expect(asked).toEqual([2]);
    expect(findText(picture, 'No label found')).toBeDefined();
  });

  it('lists the twelve largest labels of a slice in the order of the list, and counts the rest', async () => {
    const set = (voxels: Uint8Array) => {
      for (let value = 1; value <= 14; value++)
        voxels.fill(value, 6 * value, 6 * value + (value < 3 ? 1 : 6));
    };
    const labels = Array.from({ length: 14 }, (_, i) => ({
      value: 14 - i,
      name: `Part ${String.fromCharCode(78 - i)}`,
    }));
    const { picture } = await make({ set, labels });
    expect(findText(picture, 'and 2 more in this slice')).toBeDefined();
    const [first, last] = ['Part N', 'Part C'].map((name) => findText(picture, name)![1]);
    expect(last - first).toBe(11 * 22);
    expect(findText(picture, 'Part B')).toBeUndefined();
  });

  it.each([
    ['LINEAR', 50, 129],
    ['LINEAR_EXACT', 50, 128],
    ['SIGMOID', 50, 128],
    // 1 / (1 + 1/e) of 255
    ['SIGMOID', 75.25, 186],
    ['LINEAR', 100, 255],
    ['LINEAR', -1, 0],
  ] as const)('has the brightness of the %s window of its image at %f', async (shape, at, expected) => {
    // Half of the pixels lie in the window, so that it counts.
    const { picture } = await make({
      set: () => {},
      window: { center: 50, width: 101, shape },
      value: (_, i) => (i % 13 < 6 ? at : 50),
    });
    expect(redAt(picture, 0.2, 0.6)).toBe(expected);
  });

  it('is inverted where the image is', async () => {
    const window: DisplayWindow = { center: 50, width: 100, shape: 'LINEAR_EXACT' };
    const value = (_: number, i: number) => (i % 13 < 6 ? 95 : 20);
    const made = { more: [ascii(tags.photometricInterpretation, 'CS', 'MONOCHROME1')] };
    const { picture } = await make({ set: () => {}, window, value, made });
    expect([redAt(picture, 0.2, 0.6), redAt(picture, 0.8, 0.6)]).toEqual([13, 204]);
  });

  it('takes percentiles without a window, or with one that shows nothing', async () => {
    const value = (_: number, i: number) => 1000 + (i % 13) * 10;
    for (const window of [undefined, { center: 4, width: 2, shape: 'LINEAR' } as const]) {
      const { picture } = await make({ set: () => {}, window, value });
      expect(findText(picture, 'W 120  L 1060')).toBeDefined();
      expect([redAt(picture, 0.01, 0.4), redAt(picture, 0.99, 0.4)]).toEqual([0, 255]);
    }
  });

  it('draws a slice of one value, and voxels that are not finite', async () => {
    const { picture } = await make({ set: () => {}, value: (_, i) => (i === 20 ? Number.NaN : 7) });
    expect(picture.width).toBe(512);
  });

  it('loses no label of a slice that is larger than the picture', async () => {
    const { source, grid } = madeSource({ size: [1500, 1100, 1] });
    const voxels = new Uint8Array(1500 * 1100);
    const labels = [[0, 0], [777, 333], [1499, 1099]].map(([x, y], i) => {
      voxels[y * 1500 + x] = i + 1;
      return { value: i + 1, name: 'spot', color: ['#ff0000', '#00ff00', '#0000ff'][i] };
    }); // biome-ignore format: one table
    const readSlice = async () => new Uint8Array(1500 * 1100).fill(9, 1);
    const { dataset } = await buildKeyPicture({ ...grid, components: 1, voxels }, source, {
      ...options,
      labels,
      readSlice,
    });
    const { bytes } = dataset.get(tags.pixelData) as ValueElement;
    // 750 × 880 mm in 1024 rows: 1.074 rows and 1.72 columns of the slice for each of the picture.
    const width = number(dataset, tags.columns)!;
    expect(width).toBe(874);
    const colorAt = (x: number, y: number) => [...bytes.subarray(3 * ((82 + y) * width + x)).slice(0, 3)];
    expect(colorAt(0, 0)).toEqual([255, 0, 0]);
    expect(colorAt(Math.floor(777.5 / (1500 / 873)), Math.floor(333.5 / (1100 / 1024)))).toEqual([0, 255, 0]);
    expect(colorAt(872, 1023)).toEqual([0, 0, 255]);
  });

  it('refuses a label map elsewhere, and a series without UIDs', async () => {
    const readSlice = async () => new Float32Array(plane);
    const labelMap = labelMapOf(block);
    const moved = { ...labelMap, affine: labelMap.affine.map((value, i) => (i === 3 ? value + 1 : value)) };
    const { source } = madeSource();
    await expect(
      buildKeyPicture(moved as typeof labelMap, source, { ...options, readSlice }),
    ).rejects.toMatchObject({ code: 'APP_OUTPUT' });
    const bare = madeSource({ without: [tags.studyInstanceUid] }).source;
    await expect(buildKeyPicture(labelMap, bare, { ...options, readSlice })).rejects.toMatchObject({
      code: 'NOT_ACCEPTABLE',
      field: 'format',
    });
  });
});

describe('readVolume() of windows', () => {
  const windowOf = async (more: Record<number, readonly ['DS' | 'CS', string]>) => {
    const { source } = await read(slices([0, 2.5], { more }));
    return source!.slices.map(({ window }) => window);
  };

  it('gives the first window of each slice', async () => {
    const window = { center: 40, width: 400.5, shape: 'LINEAR' };
    expect(await windowOf({ 2625616: ['DS', '40\\-600'], 2625617: ['DS', '400.5\\1500'] })).toEqual([
      window,
      window,
    ]);
    const sigmoid = await windowOf({
      2625616: ['DS', '40'],
      2625617: ['DS', '9'],
      2625622: ['CS', 'SIGMOID'],
    });
    expect(sigmoid[0]?.shape).toBe('SIGMOID');
  });

  it.each([
    ['no numbers', { 2625616: ['DS', 'NaN'], 2625617: ['DS', '400'] }],
    ['no width', { 2625616: ['DS', '40'], 2625617: ['DS', '0'] }],
    ['no center', { 2625617: ['DS', '400'] }],
  ] as const)('ignores one with %s', async (_what, more) => {
    expect(await windowOf(more)).toEqual([undefined, undefined]);
  });
});
