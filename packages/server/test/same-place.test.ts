import { execFileSync } from 'node:child_process';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Job } from '@tomaat/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findPython } from '../../../test/programs.ts';
import { writeApp } from './app-fixture.ts';
import { tomaat } from './cli-fixture.ts';
import {
  mendedNiftiFiles,
  metaImageFiles,
  metaImageSeries,
  niftiFiles,
  niftiPlace,
  nrrdFiles,
  nrrdSeries,
  type PlacedFile,
} from './placed-files.ts';
import { appFolder, startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/*
 * A result lies on its input in every program: nibabel goes by the sform, ITK by the qform unless the sform is scanner's, both by
 * the numbers of NRRD and MetaImage whatever their unit. So a result states the place of its voxels as its input did.
 */

const nibabel = findPython('nibabel');
const simpleItk = findPython('SimpleITK');

let server: TestServer;
let folder: string;
beforeAll(async () => {
  folder = await temporaryFolder();
  const copy = await writeApp(folder, 'copy', {
    model: {
      runtime: 'command',
      command: ['sh', '-c', 'cp "$1/volume.nii.gz" "$2/segmentation.nii.gz"', 'sh'],
    },
  });
  server = await startTestServer(['threshold'], { appFolders: [appFolder('threshold'), copy] });
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

const formOf = ({ extension, bytes }: PlacedFile) => {
  const form = new FormData();
  form.append('volume', new Blob([bytes]), `scan.${extension}`);
  return form;
};

async function bytesOf(response: Response): Promise<Uint8Array> {
  const bytes = new Uint8Array(await response.arrayBuffer());
  expect(response.status, new TextDecoder().decode(bytes.subarray(0, 500))).toBe(200);
  return bytes;
}

/** The result of the promise, in the format of the input or the one that is asked for. */
async function predicted(file: PlacedFile, format?: string, address = '/threshold/any'): Promise<Uint8Array> {
  const query = new URLSearchParams({
    ...(file.frame !== undefined && { frame: String(file.frame) }),
    ...(format !== undefined && { format }),
  });
  return bytesOf(await fetch(`${server.url}${address}?${query}`, { method: 'POST', body: formOf(file) }));
}

interface Place {
  nibabel: Record<string, unknown> | null;
  itk: Record<string, unknown> | null;
}

/** What the libraries read of each input and of its result, by one start of Python. */
async function readPlaces(
  python: string,
  files: readonly PlacedFile[],
): Promise<Map<PlacedFile, { input: Place; result: Place }>> {
  const paths: string[] = [];
  for (const [i, file] of files.entries()) {
    const [input, result] = ['input', 'result'].map((name) => join(folder, `${i}-${name}.${file.extension}`));
    await writeFile(input, file.bytes);
    await writeFile(result, await predicted(file));
    paths.push(input, result);
  }
  const script = fileURLToPath(new URL('read-places.py', import.meta.url));
  const text = execFileSync(python, ['-W', 'ignore', script, ...paths], { encoding: 'utf8', stdio: 'pipe' });
  const places = JSON.parse(text) as Place[];
  return new Map(files.map((file, i) => [file, { input: places[2 * i], result: places[2 * i + 1] }]));
}

/** The lines of a header that say where the voxels are, in alphabetical order. */
function placeLines(bytes: Uint8Array): string[] {
  const [header] = Buffer.from(bytes)
    .toString('latin1')
    .split(/\n\n|ElementDataFile/);
  return header
    .split('\n')
    .filter((line) =>
      /^(space|spacings|axis|centers|units|TransformMatrix|Offset|ElementSpacing|DistanceUnits)/.test(line),
    )
    .sort();
}

describe('a result on the grid of its input', () => {
  it.each(niftiFiles)('NIfTI, $name: states forms, codes, pixdim and units again', async (file) => {
    const result = await predicted(file);
    expect(niftiPlace(result)).toEqual(niftiPlace(file.bytes));
  });

  it.each(nrrdFiles)('NRRD, $name: has the same numbers and the same unit', async (file) => {
    const written = Buffer.from(file.bytes).toString('latin1');
    const expected = placeLines(
      Buffer.from(
        written
          .replaceAll('\xc2\xb5m', 'um')
          // A word that is not in our list could be any text of a stranger.
          .replace('space units: "ell" "ell" "ell"\n', ''),
        'latin1',
      ),
    );
    expect(placeLines(await predicted(file))).toEqual(expected);
  });

  it('NRRD with time: has the first three of the four numbers', async () => {
    const [two, one] = nrrdSeries;
    const directions = 'space directions: (0.38,0.02,0) (-0.03,0.57,0) (0,0.1,1.9)';
    expect(placeLines(await predicted(two))).toEqual([
      'space dimension: 3',
      directions,
      'space origin: (1,2,3)',
    ]);
    expect(placeLines(await predicted(one))).toEqual([
      'space dimension: 3',
      directions,
      'space origin: (1,2,3)',
      'space units: "um" "um" "um"',
    ]);
  });

  it.each(metaImageFiles)('MetaImage, $name: has the same numbers and the same unit', async (file) => {
    const lines = placeLines(await predicted(file));
    const numbers = (name: string, instead: string) =>
      new RegExp(`^(?:${name}) = (.*)$`, 'm').exec(Buffer.from(file.bytes).toString('latin1'))?.[1] ??
      instead;
    const unit = numbers('DistanceUnits', '');
    expect(lines).toEqual([
      ...(unit ? [`DistanceUnits = ${unit}`] : []),
      `ElementSpacing = ${numbers('ElementSpacing', '1 1 1')}`,
      `Offset = ${numbers('Offset|Position', '0 0 0')}`,
      `TransformMatrix = ${numbers('TransformMatrix|Rotation', '1 0 0 0 1 0 0 0 1')}`,
    ]);
  });
});

describe('a result that differs in its forms', () => {
  const file = niftiFiles.find(({ name }) => name.includes('MNI'))!;
  const place = niftiPlace(file.bytes);

  async function settledJob(query = ''): Promise<Job> {
    const created = await fetch(`${server.url}/api/services/threshold/predictions${query}`, {
      method: 'POST',
      body: formOf(file),
      headers: { prefer: 'wait=60' },
    });
    const job = (await created.json()) as Job;
    expect(job.state).toBe('succeeded');
    return job;
  }
  const outputOf = async (job: Job, format: string) =>
    bytesOf(await fetch(`${server.url}/api/jobs/${job.id}/outputs/segmentation?format=${format}`));

  it('keeps them in a job, as stored and converted', async () => {
    const job = await settledJob();
    for (const format of ['nii', 'nii.gz']) {
      const bytes = await outputOf(job, format);
      const plain = format === 'nii' ? bytes : (await import('node:zlib')).gunzipSync(bytes);
      expect(niftiPlace(Uint8Array.from(plain)), format).toEqual(place);
    }
  });

  it('keeps them in a job that was stored as MetaImage', async () => {
    const job = await settledJob('?format=mha');
    expect(job.outputs[0].format).toBe('mha');
    expect(niftiPlace(await outputOf(job, 'nii'))).toEqual(place);
    // In the other formats: where we computed, in mm.
    expect(placeLines(await outputOf(job, 'nrrd'))).toContain('space units: "mm" "mm" "mm"');
  });

  it('is in mm in another format than the input’s', async () => {
    const microns = nrrdFiles.find(({ name }) => name === 'microns')!;
    const nifti = niftiPlace(await predicted(microns, 'nii'));
    expect(nifti.units).toBe(2);
    expect(nifti.sform[2]).toBeCloseTo(0, 9);
    expect(nifti.sform[0]).toBeCloseTo(-0.00038, 9);
    expect(placeLines(await predicted(microns, 'mha'))).toContain('Offset = 0.001 0.002 0.003');
  });

  it('keeps them by tomaat predict and tomaat run', async () => {
    const scan = join(folder, 'scan.nii');
    await writeFile(scan, file.bytes);
    const predictTo = join(folder, 'by-predict.nii');
    const runTo = join(folder, 'by-run.nii');
    const results = await Promise.all([
      tomaat(['predict', `${server.url}/threshold/any`, '--volume', scan, '-o', predictTo]),
      tomaat(['run', appFolder('threshold'), '--volume', scan, '-o', runTo]),
    ]);
    for (const { code, stderr } of results) expect(code, stderr).toBe(0);
    for (const path of [predictTo, runTo]) expect(niftiPlace(await readFile(path)), path).toEqual(place);
  });

  it('keeps them where a program wrote the label map', async () => {
    expect(niftiPlace(await predicted(file, 'nii', '/copy/any'))).toEqual(place);
  });
});

describe('a server that takes identifying text out of inputs', () => {
  let stripping: TestServer;
  beforeAll(async () => {
    stripping = await startTestServer(['threshold'], { stripInputs: true });
  });
  afterAll(() => stripping?.[Symbol.asyncDispose]());

  it.each([...niftiFiles, ...nrrdFiles, ...nrrdSeries, ...metaImageFiles, ...metaImageSeries])(
    'gives the same result: $extension, $name',
    async (file) => {
      const query = file.frame === undefined ? '' : `?frame=${file.frame}`;
      const answer = await fetch(`${stripping.url}/threshold/any${query}`, {
        method: 'POST',
        body: formOf(file),
      });
      expect(Buffer.from(await bytesOf(answer)).equals(await predicted(file))).toBe(true);
    },
  );
});

describe('a NIfTI file with a form of no use', () => {
  it('is read by its qform where the sform is zeros, and loses the sform', async () => {
    const { bytes } = mendedNiftiFiles.sformOfZeros;
    const result = niftiPlace(await predicted(mendedNiftiFiles.sformOfZeros));
    expect(result).toEqual({ ...niftiPlace(bytes), sformCode: 0 });
  });

  it('gives a single slice the thickness in pixdim, at right angles', async () => {
    const { bytes } = mendedNiftiFiles.oneSlice;
    const input = niftiPlace(bytes);
    const result = niftiPlace(await predicted(mendedNiftiFiles.oneSlice));
    expect(result).toEqual({ ...input, sform: input.sform.map((v, i) => (i === 10 ? 5.5 : v)) });
  });
});

describe.skipIf(!nibabel)('nibabel', () => {
  const files = [...niftiFiles, mendedNiftiFiles.sformOfZeros];
  let places: Awaited<ReturnType<typeof readPlaces>>;
  beforeAll(async () => {
    places = await readPlaces(nibabel!, files);
  });

  it.each(niftiFiles)('finds the result on its input: $name', (file) => {
    const { input, result } = places.get(file)!;
    expect(result.nibabel).toEqual(input.nibabel);
    expect(result.nibabel?.affine).toHaveLength(4);
  });

  it('reads a result beside an sform of zeros by the qform', () => {
    const { input, result } = places.get(mendedNiftiFiles.sformOfZeros)!;
    expect(result.nibabel?.affine).toEqual(input.nibabel?.qform);
  });
});

describe.skipIf(!simpleItk)('SimpleITK', () => {
  const files = [
    // It does not read NIfTI-2.
    ...niftiFiles.filter(({ name }) => !name.startsWith('NIfTI-2')),
    mendedNiftiFiles.sformOfZeros,
    ...nrrdFiles,
    ...nrrdSeries,
    ...metaImageFiles,
    ...metaImageSeries,
  ];
  let places: Awaited<ReturnType<typeof readPlaces>>;
  beforeAll(async () => {
    places = await readPlaces(simpleItk!, files);
  });

  it.each(files)('finds the result on its input: $extension, $name', (file) => {
    const { input, result } = places.get(file)!;
    expect(input.itk).not.toBeNull();
    expect(result.itk).toEqual(input.itk);
  });
});
