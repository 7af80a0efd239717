import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { deflateSync, gunzipSync, gzipSync, inflateSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/*
 * Every element of TOMAAT v1, both ways, by a client that shares no code with the product: its MetaImage, NIfTI,
 * MATLAB and VTK are written and read here, in the frames that 3D Slicer uses (files LPS, points and meshes RAS).
 */

const manifest = {
  schemaVersion: 1,
  id: 'everything',
  name: 'Everything',
  description: 'Takes and gives one of each.',
  version: '1',
  modality: 'any',
  anatomy: 'any',
  task: 'test',
  authors: ['Nobody'],
  licence: 'Apache-2.0',
  intendedUse: 'Tests.',
  inputs: {
    image: { type: 'volume', label: 'A scan' },
    level: { type: 'slider', minimum: -50, maximum: 1000, default: 100 },
    dark: { type: 'checkbox', label: 'What is dark', default: false },
    side: { type: 'radiobutton', label: 'Which side', options: ['left', 'the right one', 'both'] },
    seeds: { type: 'fiducials' },
    matrix: { type: 'transform' },
    field: { type: 'transform' },
    warp: { type: 'transform' },
  },
  model: { runtime: 'module', file: 'app.ts' },
  outputs: {
    labels: { type: 'LabelVolume', label: 'Labels' },
    surface: { type: 'VTKMesh', label: 'Surface', from: 'labels', smooth: false, keepTriangles: 1 },
    report: { type: 'PlainText', label: 'What came in' },
    points: { type: 'Fiducials', label: 'Points' },
    rows: { type: 'Measurements', label: 'Rows', from: 'labels' },
    fieldOut: { type: 'TransformGrid', label: 'Field' },
    warpOut: { type: 'TransformBSpline', label: 'Warp' },
    matrixOut: { type: 'TransformLinear', label: 'Matrix' },
  },
};

const code = `
export function infer(inputs, { parameters }) {
  const { image, matrix, field, warp } = inputs;
  const { level, dark, side, seeds } = parameters;
  const voxels = Uint8Array.from(image.voxels, (v) => (dark ? v <= level : v > level) ? 1 : 0);
  const { displacement } = field;
  const n = displacement.voxels.length / 3;
  const vector = [0, 1, 2].map((c) => displacement.voxels[c * n + 1]);
  return {
    labels: { ...image, voxels },
    report: JSON.stringify({ level, dark, side, seeds, affine: image.affine, matrix: matrix.matrix, fieldAffine: displacement.affine, vector }),
    points: seeds.map(([x, y, z]) => [x + 1, y + 2, z + 3]),
    fieldOut: field,
    warpOut: warp,
    matrixOut: matrix,
  };
}
`;

let server: TestServer;
let folder: string;
beforeAll(async () => {
  folder = await temporaryFolder();
  const app = join(folder, 'everything');
  await mkdir(app);
  await writeFile(join(app, 'tomaat.yaml'), JSON.stringify(manifest)); // JSON is YAML.
  await writeFile(join(app, 'app.ts'), code);
  server = await startTestServer([app], { v1DelayMs: 30_000 });
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

// The scan: oblique, anisotropic, left-handed; geometry as a MetaImage has it, LPS mm.

const size = [9, 7, 5] as const;
const spacing = [1.5, 0.8, 2.5] as const;
const [c, s] = [Math.cos(0.4), Math.sin(0.4)];
/** The direction of each axis, LPS. */
const axes = [
  [c, s, 0],
  [-s * 0.8, c * 0.8, 0.6],
  [-s * 0.6, c * 0.6, -0.8],
] as const;
const origin = [12.5, -33.25, 47] as const;
/** One block: first and last voxel along x, y, z. */
const block = [
  [2, 6],
  [1, 2],
  [1, 3],
] as const;

const voxels = Int16Array.from({ length: 9 * 7 * 5 }, (_, i) => {
  const at = [i % 9, Math.floor(i / 9) % 7, Math.floor(i / 63)];
  return at.every((v, k) => v >= block[k][0] && v <= block[k][1]) ? 500 : 20 - at[0];
});

/** Where a voxel index lies, RAS mm. */
function placeOf(index: readonly number[]): number[] {
  const lps = [0, 1, 2].map(
    (r) => origin[r] + index.reduce((sum, v, k) => sum + v * spacing[k] * axes[k][r], 0),
  );
  return [-lps[0], -lps[1], lps[2]];
}

function writeMha(): Buffer {
  const data = deflateSync(Buffer.from(voxels.buffer));
  const header = [
    'ObjectType = Image',
    'NDims = 3',
    'BinaryData = True',
    'BinaryDataByteOrderMSB = False',
    'CompressedData = True',
    `CompressedDataSize = ${data.length}`,
    `TransformMatrix = ${axes.flat().join(' ')}`,
    `Offset = ${origin.join(' ')}`,
    'CenterOfRotation = 0 0 0',
    'AnatomicalOrientation = RAI',
    `ElementSpacing = ${spacing.join(' ')}`,
    `DimSize = ${size.join(' ')}`,
    'ElementType = MET_SHORT',
    'ElementDataFile = LOCAL',
    '',
  ];
  return Buffer.concat([Buffer.from(header.join('\n')), data]);
}

function readMha(bytes: Buffer): { fields: Record<string, string>; data: Buffer } {
  const end = bytes.indexOf('ElementDataFile = LOCAL\n') + 'ElementDataFile = LOCAL\n'.length;
  const lines = bytes.toString('latin1', 0, end).trim().split('\n');
  const fields = Object.fromEntries(lines.map((line) => line.split(' = ').map((word) => word.trim())));
  return { fields, data: inflateSync(bytes.subarray(end)) };
}

// A linear transform: MATLAB v4, 12 parameters and 3 fixed ones, LPS.

const matParameters = [0.9, -0.1, 0.05, 0.2, 1.1, -0.3, 0.02, 0.15, 0.95, 5, -8, 13];

function writeMat(): Buffer {
  const part = (name: string, numbers: readonly number[]) => {
    const bytes = Buffer.alloc(20 + name.length + 1 + 8 * numbers.length);
    [0, numbers.length, 1, 0, name.length + 1].forEach((v, i) => void bytes.writeInt32LE(v, 4 * i));
    bytes.write(name, 20);
    numbers.forEach((v, i) => void bytes.writeDoubleLE(v, 20 + name.length + 1 + 8 * i));
    return bytes;
  };
  return Buffer.concat([part('AffineTransform_double_3_3', matParameters), part('fixed', [0, 0, 0])]);
}

function readMat(bytes: Buffer): Record<string, number[]> {
  const parts: Record<string, number[]> = {};
  for (let at = 0; at < bytes.length; ) {
    const [type, rows, columns, , length] = [0, 1, 2, 3, 4].map((i) => bytes.readInt32LE(at + 4 * i));
    expect(type).toBe(0);
    const name = bytes.toString('latin1', at + 20, at + 20 + length - 1);
    const start = at + 20 + length;
    parts[name] = Array.from({ length: rows * columns }, (_, i) => bytes.readDoubleLE(start + 8 * i));
    at = start + 8 * rows * columns;
  }
  return parts;
}

/** RAS to RAS, 4×4, of parameters in LPS. */
const rasMatrix = (p: readonly number[]) => [
  p[0],
  p[1],
  -p[2],
  -p[9],
  p[3],
  p[4],
  -p[5],
  -p[10],
  -p[6],
  -p[7],
  p[8],
  p[11],
  0,
  0,
  0,
  1,
];

// A displacement grid: NIfTI-1, dim 5 of 3, intent VECTOR (1007), vectors LPS as ITK writes them.

const fieldSize = [2, 3, 2] as const;
const fieldAffine = [-6, 0, 0, 20, 0, 7, 0, -30, 0, 0, 8, 10];
/** Vector of voxel i, LPS mm. */
const vectorAt = (i: number) => [1 + i / 8, -2 + i / 4, 3 - i / 2];
const fieldCount = 12;

function writeField(): Buffer {
  const bytes = Buffer.alloc(352 + 4 * 3 * fieldCount);
  bytes.writeInt32LE(348, 0);
  [5, ...fieldSize, 1, 3, 1, 1].forEach((v, i) => void bytes.writeInt16LE(v, 40 + 2 * i));
  bytes.writeInt16LE(1007, 68);
  bytes.writeInt16LE(16, 70);
  bytes.writeInt16LE(32, 72);
  [-1, 6, 7, 8, 0, 0, 0, 0].forEach((v, i) => void bytes.writeFloatLE(v, 76 + 4 * i));
  bytes.writeFloatLE(352, 108);
  bytes.writeFloatLE(1, 112);
  bytes[123] = 2;
  bytes.writeInt16LE(1, 254);
  fieldAffine.forEach((v, i) => void bytes.writeFloatLE(v, 280 + 4 * i));
  bytes.write('n+1\0', 344, 'latin1');
  for (let i = 0; i < fieldCount; i++) {
    vectorAt(i).forEach((v, k) => void bytes.writeFloatLE(v, 352 + 4 * (k * fieldCount + i)));
  }
  return gzipSync(bytes);
}

const warp = Buffer.concat([
  Buffer.from('894844460d0a1a0a', 'hex'),
  Buffer.from(Array.from({ length: 500 }, (_, i) => (i * 31) % 256)),
]);

// The client.

const base64Lines = (bytes: Buffer) => `${bytes.toString('base64').replace(/.{76}/g, '$&\n')}\n`;

interface Element {
  type: string;
  content: string;
  label: string;
}

const fields = (): Record<string, string> => ({
  image: base64Lines(writeMha()),
  level: '100.5',
  dark: 'False',
  side: 'the right one',
  seeds: '1.5,-2,3;-40,50.25,-60;',
  matrix: `mat\n${base64Lines(writeMat())}`,
  field: `nii.gz\n${base64Lines(writeField())}`,
  warp: `h5\n${base64Lines(warp)}`,
  module_version: 'Slicer-v2',
});

async function send(
  changed: Record<string, string> = {},
  encoding: 'multipart' | 'urlencoded' = 'multipart',
): Promise<Element[]> {
  const all = { ...fields(), ...changed };
  const boundary = '----1234567890';
  const parts = Object.entries(all).map(
    ([name, value]) => `--${boundary}\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`,
  );
  const response = await fetch(`${server.url}/predict`, {
    method: 'POST',
    body:
      encoding === 'multipart' ? `${parts.join('')}--${boundary}--\r\n` : new URLSearchParams(all).toString(),
    headers: {
      'content-type':
        encoding === 'multipart'
          ? `multipart/form-data; boundary=${boundary}`
          : 'application/x-www-form-urlencoded',
    },
  });
  expect(response.status).toBe(200);
  const text = await response.text();
  expect(response.headers.get('content-length')).toBe(String(Buffer.byteLength(text)));
  return JSON.parse(text) as Element[];
}

function only(elements: readonly Element[], type: string): Element {
  const found = elements.filter((element) => element.type === type);
  expect(found, JSON.stringify(elements).slice(0, 400)).toHaveLength(1);
  expect(typeof found[0].label).toBe('string');
  return found[0];
}

function fileOf(element: Element): Buffer {
  for (const line of element.content.split('\n')) {
    expect(line.length).toBeLessThanOrEqual(76);
    expect(line).toMatch(/^[A-Za-z0-9+/]*={0,2}$/);
  }
  return Buffer.from(element.content, 'base64');
}

function expectClose(found: readonly number[], expected: readonly number[], digits = 4): void {
  expect(found).toHaveLength(expected.length);
  for (const [i, v] of expected.entries()) expect(found[i]).toBeCloseTo(v, digits);
}

const reportOf = (elements: readonly Element[]) =>
  JSON.parse(only(elements, 'PlainText').content) as Record<string, never>;

describe('v1 input elements', () => {
  it('GET /interface names each with the keys of the protocol', async () => {
    const elements = (await (await fetch(`${server.url}/interface`)).json()) as Record<string, unknown>[];
    const transform = (destination: string) => ({ type: 'transform', destination });
    const expected = [
      { type: 'volume', destination: 'image' },
      { type: 'slider', destination: 'level', minimum: -50, maximum: 1000 },
      { type: 'checkbox', destination: 'dark', text: 'What is dark' },
      {
        type: 'radiobutton',
        destination: 'side',
        text: 'Which side',
        options: ['left', 'the right one', 'both'],
      },
      { type: 'fiducials', destination: 'seeds' },
      transform('matrix'),
      transform('field'),
      transform('warp'),
    ];
    expect(elements).toHaveLength(expected.length);
    for (const [i, element] of expected.entries()) expect(elements[i]).toMatchObject(element);
  });

  it.each(['multipart', 'urlencoded'] as const)('arrive as the app needs them, %s', async (encoding) => {
    const report = reportOf(await send({}, encoding));
    expect(report).toMatchObject({
      level: 100.5,
      dark: false,
      side: 'the right one',
      seeds: [
        [1.5, -2, 3],
        [-40, 50.25, -60],
      ],
    });
    const columns = [0, 1, 2].map((k) => {
      const [a, b] = [placeOf([0, 0, 0]), placeOf([0, 1, 2].map((i) => (i === k ? 1 : 0)))];
      return b.map((v, r) => v - a[r]);
    });
    const affine = [0, 1, 2].flatMap((r) => [...columns.map((column) => column[r]), placeOf([0, 0, 0])[r]]);
    expectClose(report.affine, [...affine, 0, 0, 0, 1]);
    expectClose(report.matrix, rasMatrix(matParameters), 9);
    expectClose(report.fieldAffine, [...fieldAffine, 0, 0, 0, 1]);
    const [x, y, z] = vectorAt(1);
    expectClose(report.vector, [-x, -y, z]);
  });

  it.each([
    ['True', true],
    ['False', false],
    ['true', true],
    ['false', false],
  ] as const)('a checkbox is %s', async (text, value) => {
    expect(reportOf(await send({ dark: text })).dark).toBe(value);
  });

  it.each([
    ['level', '1001', 'from -50 to 1000'],
    ['level', 'much', 'from -50 to 1000'],
    ['dark', 'perhaps', 'true or false'],
    ['side', 'middle', 'left, the right one, both'],
    ['seeds', '1,2;3', 'Point 1'],
    ['matrix', base64Lines(Buffer.from('x')), 'nii.gz, h5 or mat'],
    [
      'matrix',
      `mat\n${base64Lines(Buffer.from('no matrix at all, but long enough for one'))}`,
      'not a supported transform',
    ],
  ])('a wrong %s is explained: %s', async (name, value, words) => {
    const [element, ...others] = await send({ [name]: value });
    expect(others).toEqual([]);
    expect(element).toMatchObject({ type: 'PlainText', label: 'Error!' });
    expect(element.content).toContain(words);
  });
});

describe('v1 output elements', () => {
  let elements: Element[];
  beforeAll(async () => {
    elements = await send();
  });

  it('come in the app’s order, without those that v1 does not support', () => {
    expect(elements.map(({ type, label }) => [type, label])).toEqual([
      ['LabelVolume', 'Labels'],
      ['VTKMesh', 'Surface'],
      ['PlainText', 'What came in'],
      ['Fiducials', 'Points'],
      ['TransformGrid', 'Field'],
      ['TransformBSpline', 'Warp'],
      ['TransformLinear', 'Matrix'],
    ]);
  });

  it('LabelVolume is a compressed .mha on the grid of the input', () => {
    const { fields, data } = readMha(fileOf(only(elements, 'LabelVolume')));
    expect(fields.CompressedData).toBe('True');
    expect(fields.DimSize).toBe(size.join(' '));
    expect(fields.ElementType).toBe('MET_UCHAR');
    const numbers = (text: string) => text.split(' ').map(Number);
    expectClose(numbers(fields.TransformMatrix), axes.flat(), 5);
    expectClose(numbers(fields.Offset ?? fields.Position), origin, 5);
    expectClose(numbers(fields.ElementSpacing), spacing, 5);
    expect(Array.from(data)).toEqual(Array.from(voxels, (v) => (v > 100.5 ? 1 : 0)));
  });

  it('VTKMesh is legacy ASCII polydata in RAS mm, and declares that', () => {
    const text = fileOf(only(elements, 'VTKMesh')).toString('latin1');
    const lines = text.split('\n');
    expect(lines[0]).toMatch(/^# vtk DataFile Version [0-9.]+$/);
    expect(lines[1]).toContain('SPACE=RAS');
    expect(lines[1].length).toBeLessThan(256);
    expect(lines.slice(2, 4)).toEqual(['ASCII', 'DATASET POLYDATA']);
    const [, count, kind] = /^POINTS (\d+) (float|double)$/m.exec(text) ?? [];
    expect(kind).toBe('float');
    const words = text
      .slice(text.indexOf(`POINTS ${count}`))
      .split(/\s+/)
      .slice(3, 3 + 3 * Number(count))
      .map(Number);
    expect(words.every(Number.isFinite)).toBe(true);
    const points = Array.from({ length: Number(count) }, (_, i) => words.slice(3 * i, 3 * i + 3));
    // The corners of the block's outer faces, RAS: the surface reaches from one to the other along every axis.
    const corners = [0, 1, 2, 3, 4, 5, 6, 7].map((bits) =>
      placeOf([0, 1, 2].map((k) => ((bits >> k) & 1 ? block[k][1] + 0.5 : block[k][0] - 0.5))),
    );
    for (const axis of [0, 1, 2]) {
      const [a, b] = [points, corners].map((list) => list.map((p) => p[axis]));
      expect(Math.abs(Math.min(...a) - Math.min(...b))).toBeLessThan(1.5);
      expect(Math.abs(Math.max(...a) - Math.max(...b))).toBeLessThan(1.5);
    }
    const middle = [0, 1, 2].map((axis) => points.reduce((sum, p) => sum + p[axis], 0) / points.length);
    expectClose(middle, placeOf([4, 1.5, 2]), 1);
    const [, cells, total] = /^POLYGONS (\d+) (\d+)$/m.exec(text) ?? [];
    expect(Number(total)).toBe(4 * Number(cells));
  });

  it('Fiducials are x,y,z;… in RAS mm', () => {
    const points = only(elements, 'Fiducials')
      .content.trim()
      .replace(/;$/, '')
      .split(';')
      .map((p) => p.split(',').map(Number));
    expect(points).toEqual([
      [2.5, 0, 6],
      [-39, 52.25, -57],
    ]);
  });

  it('TransformLinear is a MATLAB v4 file, LPS', () => {
    const parts = readMat(fileOf(only(elements, 'TransformLinear')));
    const [name] = Object.keys(parts);
    expect(name).toBe('AffineTransform_double_3_3');
    expectClose(parts[name], matParameters, 9);
    expectClose(parts.fixed, [0, 0, 0]);
  });

  it('TransformGrid is a NIfTI vector image, LPS', () => {
    const bytes = gunzipSync(fileOf(only(elements, 'TransformGrid')));
    expect(bytes.readInt32LE(0)).toBe(348);
    expect(Array.from({ length: 6 }, (_, i) => bytes.readInt16LE(40 + 2 * i))).toEqual([
      5,
      ...fieldSize,
      1,
      3,
    ]);
    expect(bytes.readInt16LE(68)).toBe(1007);
    expect(bytes.readInt16LE(70)).toBe(16);
    expect(bytes.readInt16LE(254)).toBeGreaterThan(0);
    expectClose(
      Array.from({ length: 12 }, (_, i) => bytes.readFloatLE(280 + 4 * i)),
      fieldAffine,
    );
    const start = bytes.readFloatLE(108);
    for (let i = 0; i < fieldCount; i++) {
      expectClose(
        [0, 1, 2].map((k) => bytes.readFloatLE(start + 4 * (k * fieldCount + i))),
        vectorAt(i),
      );
    }
  });

  it('TransformBSpline is the HDF5 file, byte for byte', () => {
    expect(fileOf(only(elements, 'TransformBSpline')).equals(warp)).toBe(true);
  });
});
