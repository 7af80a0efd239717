import { readdirSync, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createClient, type Problem } from '@tomaat/client';
import {
  applyAffine,
  extensionOf,
  invert,
  readSegmentationFile,
  readVolume,
  sourceFromBytes,
  type Vec3,
  type Volume,
} from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { dataFolder } from '../../../test/real-data.ts';
import { goodFile } from '../../core/test/bad-files.ts';
import { zipOf } from '../../core/test/zip-files.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { writeApp } from './app-fixture.ts';
import { leftFiles } from './left-files.ts';
import { encode, phantom } from './phantom.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* DICOM through the server, by every way in which files come: real series, against the same images in NIfTI. */

const root = dataFolder() ?? '';
const skip = root === '';

interface NamedFile {
  name: string;
  data: Uint8Array<ArrayBuffer>;
}
const filesIn = (...path: string[]): NamedFile[] => {
  const folder = join(root, ...path);
  return readdirSync(folder).map((name) => ({
    name,
    data: Uint8Array.from(readFileSync(join(folder, name))),
  }));
};
const cases = (name: string) => filesIn('dicom_cases', name);

let server: TestServer;
let folder: string;
let apps: string[];
beforeAll(async () => {
  folder = await temporaryFolder();
  apps = [
    // What lies above a threshold, so that values count as well as places.
    await writeApp(folder, 'above', {
      inputs: {
        volume: { type: 'volume' },
        level: { type: 'slider', minimum: -2000, maximum: 40_000, default: 100 },
      },
      infer: `const { level } = inputs;
        return { segmentation: { ...volume, voxels: Uint8Array.from(volume.voxels, (v) => (v > level ? 1 : 0)) } };`,
    }),
    await writeApp(folder, 'hot', {
      preprocess: ['standardUptakeValue'],
      infer: `return { segmentation: { ...volume, voxels: Uint8Array.from(volume.voxels, (v) => (v > 2.5 ? 1 : 0)) } };`,
    }),
  ];
  server = await startTestServer(apps);
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

const predictions = (query = '', to = server) => `${to.url}/above/any${query}`;
const bodyOf = (data: Uint8Array) => Uint8Array.from(data);

function formOf(files: readonly NamedFile[], fields: Record<string, string> = {}): FormData {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  for (const { name, data } of files) form.append('volume', new Blob([data]), name);
  return form;
}

async function resultOf(response: Response): Promise<Volume> {
  const bytes = new Uint8Array(await response.arrayBuffer());
  expect(response.status, new TextDecoder().decode(bytes.subarray(0, 800))).toBe(200);
  return (await readVolume([sourceFromBytes('result', bytes)], nodePlatform)).volume;
}

async function refusalOf(response: Response): Promise<Problem> {
  const problem = (await response.json()) as Problem;
  expect(response.status, problem.detail).toBeGreaterThanOrEqual(400);
  expect(response.status, problem.detail).toBeLessThan(500);
  expect(response.status).toBe(problem.status);
  return problem;
}

/** Files in the blob store, and those that are being written. */
const stored = (of = server) => leftFiles(of.dataFolder, ['blobs']).length;
const jobsOf = async (of: TestServer) => {
  const text = await (await fetch(`${of.url}/metrics`)).text();
  return [...text.matchAll(/^tomaat_(?:predictions_total|jobs)\S* ([1-9]\d*)$/gm)].map(([line]) => line);
};

const send = {
  'a form': (files: readonly NamedFile[], query: string, to = server) =>
    fetch(predictions(query, to), { method: 'POST', body: formOf(files) }),
  'a deflated zip in a form': (files: readonly NamedFile[], query: string, to = server) =>
    fetch(predictions(query, to), {
      method: 'POST',
      body: formOf([{ name: 'scan.zip', data: bodyOf(zipOf(files)) }]),
    }),
  'a stored zip as the body': (files: readonly NamedFile[], query: string, to = server) =>
    fetch(predictions(query, to), {
      method: 'POST',
      headers: { 'content-type': 'application/zip' },
      body: bodyOf(zipOf(files.map((file) => ({ ...file, name: `DICOM/ST0/${file.name}`, method: 0 })))),
    }),
  async uploads(files: readonly NamedFile[], query: string, to = server) {
    const client = createClient({ baseUrl: to.url });
    const refs = [];
    for (const { name, data } of files)
      refs.push(await client.upload({ name, bytes: data }, { keepText: true }));
    const words = Object.fromEntries(new URLSearchParams(query));
    const { level, frame, series, format } = words;
    return fetch(predictions('', to), {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        inputs: { volume: refs },
        parameters: { level: Number(level ?? 100) },
        ...(frame !== undefined && { frame: Number(frame) }),
        ...(series !== undefined && { series }),
        ...(format !== undefined && { format }),
      }),
    });
  },
} satisfies Record<
  string,
  (files: readonly NamedFile[], query: string, to?: TestServer) => Promise<Response>
>;
type Way = keyof typeof send;
const ways = Object.keys(send) as Way[];

/** How many voxels of two label maps differ at one place of the world; infinity where the voxels of one are not those of the other. */
function differences(a: Volume, b: Volume): number {
  const toB = invert(b.affine);
  const indexOf = (voxel: Vec3) => applyAffine(toB, applyAffine(a.affine, voxel));
  const [nx, ny, nz] = a.size;
  const origin = indexOf([0, 0, 0]);
  const ends = [indexOf([nx - 1, 0, 0]), indexOf([0, ny - 1, 0]), indexOf([0, 0, nz - 1])];
  const isVoxel = (place: Vec3) =>
    place.every((value, axis) => {
      const index = Math.round(value);
      return Math.abs(value - index) < 0.02 && index >= 0 && index < b.size[axis];
    });
  if (![origin, ...ends].every(isVoxel)) return Number.POSITIVE_INFINITY;
  const flat = ([i, j, k]: Vec3) => Math.round(i) + b.size[0] * (Math.round(j) + b.size[1] * Math.round(k));
  const start = flat(origin);
  const [dx, dy, dz] = ends.map((end, axis) => (flat(end) - start) / Math.max(1, a.size[axis] - 1));
  let count = 0;
  for (let z = 0, at = 0; z < nz; z++)
    for (let y = 0; y < ny; y++)
      for (let x = 0; x < nx; x++, at++)
        if (b.voxels[start + x * dx + y * dy + z * dz] !== a.voxels[at]) count++;
  return count;
}

/** Series that are there in NIfTI too, with a level that lies within their values. */
const sameInNifti: [name: string, level: number, frame?: number][] = [
  ['ct_ffs', -200],
  ['ct_hfdr', -200],
  ['ct_oblique', -200],
  ['ct_rescale_per_slice', -200],
  ['ct_tilt_regular', -200],
  ['mr9_enhanced_shuffled', 500],
  ['mr9_nonsquare', 500],
  ['mr_hfdl_sagittal', 60],
  ['pet_bqml_suv', 5000],
  ['philips_fmri_oblique_4d', 500, 1],
];

describe.skipIf(skip)('a DICOM series gives the result of its NIfTI', () => {
  it.each(sameInNifti)('%s', async (name, level, frame) => {
    const query = `?format=nii&level=${level}${frame === undefined ? '' : `&frame=${frame}`}`;
    const nifti = readFileSync(join(root, 'dicom_cases', `${name}_truth.nii.gz`));
    const truth = await resultOf(
      await send['a form']([{ name: 'a.nii.gz', data: Uint8Array.from(nifti) }], query),
    );
    const marked = (truth.voxels as Uint8Array).reduce((sum, v) => sum + v, 0);
    expect(marked).toBeGreaterThan(truth.voxels.length * 0.005);
    expect(marked).toBeLessThan(truth.voxels.length * 0.995);
    const [first, ...others] = ways;
    const result = await resultOf(await send[first](cases(name), query));
    expect(result.voxels.length).toBe(truth.voxels.length);
    expect(differences(result, truth)).toBe(0);
    for (const way of others)
      expect(await resultOf(await send[way](cases(name), query)), way).toEqual(result);
  });

  it('as one enhanced file, whatever the body is called', async () => {
    const [{ data }] = cases('mr9_enhanced_shuffled');
    const expected = await resultOf(
      await send['a form'](cases('mr9_enhanced_shuffled'), '?format=nii&level=500'),
    );
    for (const type of ['application/dicom', 'application/octet-stream']) {
      const response = await fetch(predictions('?format=nii&level=500'), {
        method: 'POST',
        headers: { 'content-type': type },
        body: data,
      });
      expect(differences(await resultOf(response), expected), type).toBe(0);
    }
  });

  it('with texts, a DICOMDIR, a localizer and captures among its files, in any order', async () => {
    const files = cases('ct_folder_with_surview');
    const inOrder = [
      ...files.filter(({ name }) => name === 'README.txt'),
      ...files.filter(({ name }) => name === 'DIRFILE'),
      ...files.filter(({ name }) => !/README|DIRFILE/.test(name)).reverse(),
    ];
    for (const way of ways) {
      const result = await resultOf(await send[way](inOrder, '?format=nii&level=-200'));
      expect(result.size, way).toEqual([192, 192, 6]);
    }
  });

  it('as a DICOM segmentation by default, with the voxels of the NIfTI', async () => {
    const files = cases('mr9_nonsquare');
    const expected = await resultOf(await send['a form'](files, '?format=nii&level=500'));
    for (const way of ways) {
      const response = await send[way](files, '?level=500');
      const bytes = new Uint8Array(await response.arrayBuffer());
      expect([response.status, response.headers.get('content-type')]).toEqual([200, 'application/dicom']);
      const { labelMap } = readSegmentationFile(bytes);
      const marked = (of: Volume) => Array.from(of.voxels, Number).reduce((sum, v) => sum + v, 0);
      expect(marked(labelMap), way).toBe(marked(expected));
    }
  });

  it('names the result after the file, or the series', async () => {
    const nameOf = async (response: Response) => {
      await response.arrayBuffer();
      return response.headers.get('content-disposition');
    };
    const files = cases('mr9_nonsquare');
    expect(await nameOf(await send['a form'](files, ''))).toContain('"series_segmentation.');
    expect(await nameOf(await send['a deflated zip in a form'](files, ''))).toContain('"scan_segmentation.');
  });
});

describe.skipIf(skip)('non-volumes are refused before a job is created', () => {
  it.each([
    ['mr9_missing_slice', /between slice 4 at 25\.208 mm and slice 5 at 41\.208 mm/],
    ['mr9_dup_position', /slice 4 of 9, at 25\.208 mm/],
  ])('%s', async (name, message) => {
    await using fresh = await startTestServer(apps);
    // Uploads stay for a while, so that they come last.
    for (const way of ways) {
      const problem = await refusalOf(await send[way](cases(name), '', fresh));
      expect(problem, way).toMatchObject({ code: 'BAD_HEADER', field: 'volume', status: 422 });
      expect(problem.detail, way).toMatch(message);
      if (way !== 'uploads') await expect.poll(() => stored(fresh), { message: way }).toBe(0);
    }
    expect(await jobsOf(fresh)).toEqual([]);
    await resultOf(await send['a form'](cases('mr9_nonsquare'), '?format=nii', fresh));
    expect(await jobsOf(fresh)).not.toEqual([]);
  });

  it('two series, which are listed; series chooses one', async () => {
    const files = cases('mr9_two_series');
    for (const way of ways) {
      const problem = await refusalOf(await send[way](files, ''));
      expect(problem, way).toMatchObject({ code: 'BAD_INPUT', field: 'volume', status: 422 });
      expect(problem.detail).toMatch(/77: .*201: MR EPI_asc \(64 × 64, 9 images\)/);
      expect(problem.detail).toContain('?series=');
      const listed = problem.facts?.series as { uid: string; number: number }[];
      expect(listed.map(({ number }) => number)).toEqual([77, 201]);
      const sizes = [];
      for (const series of ['77', '201', listed[0].uid])
        sizes.push((await resultOf(await send[way](files, `?format=nii&series=${series}`))).size[2]);
      expect(sizes, way).toEqual([6, 9, 6]);
      expect((await refusalOf(await send[way](files, '?series=78'))).detail).toMatch(/No series has that/);
    }
    const field = await fetch(predictions('?format=nii'), {
      method: 'POST',
      body: formOf(files, { series: '77' }),
    });
    expect((await resultOf(field)).size[2]).toBe(6);
  });

  it('the same key with another series is another request', async () => {
    const files = cases('mr9_two_series');
    const ask = (series: string) =>
      fetch(`${server.url}/api/services/above/predictions?series=${series}`, {
        method: 'POST',
        headers: { 'idempotency-key': 'one-of-two', prefer: 'wait=60' },
        body: formOf(files),
      });
    const first = await (await ask('77')).json();
    expect(first).toMatchObject({ state: 'succeeded' });
    expect(await (await ask('77')).json()).toMatchObject({ id: first.id });
    expect(await refusalOf(await ask('201'))).toMatchObject({ code: 'CONFLICT' });
  });
});

describe('an app of SUV', () => {
  const send = (files: readonly NamedFile[], to = server) =>
    fetch(`${to.url}/hot/any?format=nii.gz`, { method: 'POST', body: formOf(files) });

  it.skipIf(skip).each([false, true])(
    'is given those of a PET series, identity removed: %s',
    async (strips) => {
      await using stripping = strips ? await startTestServer(apps, { stripInputs: true }) : undefined;
      const response = await send(cases('pet_bqml_suv'), stripping);
      expect(response.status).toBe(200);
      expect(response.headers.get('tomaat-stripped')).toBe(strips ? 'volume' : null);
      const result = sourceFromBytes('result.nii.gz', bodyOf(new Uint8Array(await response.arrayBuffer())));
      const path = join(root, 'dicom_cases', 'pet_bqml_suv_suv_truth.nii.gz');
      const truth = sourceFromBytes(path, bodyOf(readFileSync(path)));
      const [found, suv] = await Promise.all([result, truth].map((file) => readVolume([file], nodePlatform)));
      const expected = Array.from(suv.volume.voxels as Float32Array, (value) => Number(value > 2.5));
      expect(expected).toContain(1);
      expect(Array.from(found.volume.voxels as Uint8Array)).toEqual(expected);
    },
  );

  it.skipIf(skip)('refuses another series before there is a job', async () => {
    const response = await send(cases('ct_oblique'));
    expect(response.status).toBe(422);
    expect(await response.json()).toMatchObject({
      field: 'volume',
      detail: expect.stringContaining('No SUV can be computed: the series is CT, not PET'),
    });
  });
});

describe('series', () => {
  it.each(['T2', '1.2.x', '1'.repeat(65), '-1', ' 1'])('%j is refused', async (series) => {
    const response = await send['a form'](
      [{ name: 'a.nii', data: bodyOf(await goodFile('nii')) }],
      `?series=${encodeURIComponent(series)}`,
    );
    expect(await refusalOf(response)).toMatchObject({ code: 'BAD_INPUT', field: 'series' });
  });

  it('is refused for volumes that are not a series', async () => {
    const response = await send['a form'](
      [{ name: 'a.nii', data: bodyOf(await goodFile('nii')) }],
      '?series=1',
    );
    expect(await refusalOf(response)).toMatchObject({ code: 'BAD_INPUT', field: 'series' });
  });
});

describe('a zip archive', () => {
  it.each(['nii', 'nii.gz', 'mha', 'nrrd'] as const)('with one .%s is that volume', async (extension) => {
    const data = await encode(phantom(), extension);
    const files = [{ name: `a/b.${extension}`, data: bodyOf(data) }];
    const response = await send['a deflated zip in a form'](files, '');
    expect(extensionOf(response.headers.get('content-disposition')!.split('"')[1])).toBe(extension);
    const result = await resultOf(response);
    expect((result.voxels as Uint8Array).reduce((sum, v) => sum + v, 0)).toBe(180);
  });

  it('with a header and its voxels is the volume of both', async () => {
    const files = ['volume.mhd', 'volume.raw'].map((name) => ({ name: `a/${name}`, data: pair()[name] }));
    const result = await resultOf(await send['a stored zip as the body'](files, '?level=3'));
    expect(Array.from(result.voxels as Uint8Array)).toEqual([0, 0, 0, 0, 1, 1]);
  });

  it('comes alone', async () => {
    const zip = bodyOf(zipOf([{ name: 'a.nii', data: await goodFile('nii') }]));
    const response = await send['a form'](
      [
        { name: 'a.zip', data: zip },
        { name: 'b.zip', data: zip },
      ],
      '',
    );
    expect(await refusalOf(response)).toMatchObject({ code: 'BAD_INPUT', field: 'volume' });
  });
});

/** A MetaImage in two files: 3 × 2 × 1 voxels, counted up. */
function pair(): Record<string, Uint8Array<ArrayBuffer>> {
  const header =
    'ObjectType = Image\nNDims = 3\nDimSize = 3 2 1\nElementType = MET_UCHAR\nElementDataFile = volume.raw\n';
  return { 'volume.mhd': new TextEncoder().encode(header), 'volume.raw': Uint8Array.of(0, 1, 2, 3, 4, 5) };
}
