import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createClient, type Job, verifyReceipt } from '@tomaat/client';
import {
  isReadBack,
  openZip,
  outputFormats,
  parseDicom,
  parseMeasurementsCsv,
  readSegmentationFile,
  readVolume,
  sourceFromBytes,
  type Volume,
} from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { madeFiles, madeSource } from '../../core/test/dicom-source.ts';
import { openApp } from '../src/index.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { tomaat } from './cli-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { readAudit } from './support/tested-database.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/*
 * Results of DICOM series in formats from which the values cannot be read again, and the file that is kept besides:
 * through the server, the SDK, the command line, and without a server.
 */

const size = [11, 7, 6] as const;
const made = { size, shearMm: 0.7 };
const voxels = Int16Array.from({ length: 11 * 7 * 6 }, (_, i) => (i % 11) * 20 + Math.floor(i / 77) * 3);
/** What the app marks: 100 and more. */
const expected = Uint8Array.from(voxels, (value) => Number(value > 100));
/** Of voxels of 0.8 × 0.5 × 3 mm, whatever the shear. */
const volumeMl = expected.reduce((sum, value) => sum + value, 0) * 0.0012;

let folder: string;
let app: string;
let server: TestServer;
let files: Uint8Array<ArrayBuffer>[];
beforeAll(async () => {
  folder = await temporaryFolder();
  app = await writeApp(folder, 'app', {
    infer: inferBright,
    labels: [{ value: 1, name: 'Größe', color: '#3cb44b' }],
    outputs: { segmentation: { type: 'LabelVolume' }, volumes: { type: 'Measurements' } },
  });
  server = await startTestServer([app]);
  files = await madeFiles(made, voxels);
  mkdirSync(join(folder, 'series'));
  for (const [i, bytes] of files.entries()) writeFileSync(join(folder, 'series', `${i}.dcm`), bytes);
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

const client = () => createClient({ baseUrl: server.url });
const blobs = () => readdirSync(join(server.dataFolder, 'blobs', 'sha256'));

function formOf(bodies: readonly Uint8Array<ArrayBuffer>[]): FormData {
  const form = new FormData();
  for (const [i, body] of bodies.entries()) form.append('volume', new Blob([body]), `scan-${i}`);
  return form;
}
const post = (path: string, bodies: readonly Uint8Array<ArrayBuffer>[] = files) =>
  fetch(`${server.url}${path}`, { method: 'POST', body: formOf(bodies), headers: { prefer: 'wait=60' } });

async function predict(query: string): Promise<Job> {
  const job = (await (await post(`/api/services/app/predictions${query}`)).json()) as Job;
  expect(job.state, JSON.stringify(job)).toBe('succeeded');
  return job;
}

async function get(job: Job, query = '', output = 0) {
  const response = await fetch(`${server.url}${job.outputs[output].url}${query}`);
  return { response, bytes: new Uint8Array(await response.arrayBuffer()) };
}

/** By voxel and by place. */
function expectLabels(labels: Volume): void {
  const { grid } = madeSource(made);
  expect(labels.size).toEqual([...size]);
  for (const [i, value] of grid.affine.entries()) expect(labels.affine[i]).toBeCloseTo(value, 4);
  expect(Array.from(labels.voxels as Uint8Array)).toEqual(Array.from(expected));
}
const read = async (bytes: Uint8Array) =>
  (await readVolume([sourceFromBytes('labels.nii.gz', bytes)], nodePlatform)).volume;
const digestOf = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

function uidOf(bytes: Uint8Array): string {
  const element = parseDicom(bytes)!.dataset.get(0x00080018);
  return element?.kind === 'value' ? Buffer.from(element.bytes).toString('latin1').replace('\0', '') : '';
}

/** The files of an archive, by name. */
async function filesIn(bytes: Uint8Array): Promise<Map<string, Buffer>> {
  const found = new Map<string, Buffer>();
  for (const file of await openZip(sourceFromBytes('results.zip', bytes), nodePlatform)) {
    const parts: Uint8Array[] = [];
    for await (const part of file.open()) parts.push(part);
    found.set(file.name, Buffer.concat(parts));
  }
  return found;
}

const objects = outputFormats.LabelVolume.filter(
  (format) => format.endsWith('.dcm') && format !== 'labelmap.dcm',
);
const inArchive = [...objects, 'sr.dcm'].map((format) => `segmentation.${format}`).sort();

function expectArchive(archive: Map<string, Buffer>, patient: string): void {
  expect([...archive.keys()].sort()).toEqual(inArchive);
  for (const [name, bytes] of archive) expect(bytes.includes(patient), name).toBe(true);
  const segmentation = archive.get('segmentation.seg.dcm')!;
  expectLabels(readSegmentationFile(segmentation).labelMap);
  expect(archive.get('segmentation.sr.dcm')!.includes(uidOf(segmentation))).toBe(true);
}

// VTK takes the way of STL.
const unread = outputFormats.LabelVolume.filter(
  (format) => format !== 'vtk' && !isReadBack('LabelVolume', format),
);

describe('a label map in a format that cannot be read back', () => {
  it.each(unread)('is sent as %s without a word, and converted to all others', async (format) => {
    const job = await predict(`?format=${format}`);
    const [output] = job.outputs;
    const others = ['nii.gz', 'nii', 'mha', 'nrrd', 'vtk', 'stl', 'seg.dcm'];
    expect(new Set(output.formats)).toEqual(new Set([...others, format]));
    expect(output).toMatchObject({ format, fileName: `series_segmentation.${format}` });
    const { response, bytes } = await get(job);
    expect(response.headers.get('etag')).toBe(`"${output.digest}"`);
    expect([bytes.length, digestOf(bytes)]).toEqual([output.sizeBytes, output.digest]);
    expect((await get(job, `?format=${format}`)).bytes).toEqual(bytes);
    expectLabels(await read((await get(job, '?format=nii.gz')).bytes));
    const kept = await get(job, '?format=seg.dcm');
    expect(kept.response.headers.get('etag')).toBe(`"${digestOf(kept.bytes)}"`);
    expectLabels(readSegmentationFile(kept.bytes).labelMap);
  });

  it('is still no DICOM object that was not asked for', async () => {
    const job = await predict('?format=zip');
    const { response, bytes } = await get(job, '?format=labelmap.dcm');
    expect(response.status).toBe(406);
    expect(JSON.parse(new TextDecoder().decode(bytes)).detail).toMatch(
      /no longer available as labelmap\.dcm.*choose one of: nii\.gz, nii, mha, nrrd, vtk, stl, seg\.dcm, zip\./,
    );
  });

  it('goes with its job, and both files with it', async () => {
    const job = await predict('?format=zip');
    const kept = digestOf((await get(job, '?format=seg.dcm')).bytes);
    const own = [job.outputs[0].digest, kept].map((digest) => digest.replace('sha256:', ''));
    expect(blobs()).toEqual(expect.arrayContaining(own));
    await client().remove(job.id);
    // The server may still be at the end of the job.
    await expect.poll(() => blobs().filter((name) => own.includes(name))).toEqual([]);
  });
});

describe('formats of a request', () => {
  const formats = '?formats=segmentation:zip,volumes:sr.dcm';

  it('gives each output its own, and the receipt both files', async () => {
    const job = await predict(formats);
    expect(job.outputs.map(({ format }) => format)).toEqual(['zip', 'sr.dcm']);
    expect(job.outputs[1].formats).toEqual(['json', 'csv', 'sr.dcm']);
    const archive = await filesIn((await get(job)).bytes);
    expectArchive(archive, 'Doe^Jane');
    const report = Buffer.from((await get(job, '', 1)).bytes);
    expect(report.includes(uidOf(archive.get('segmentation.seg.dcm')!))).toBe(true);
    const { labels } = JSON.parse(Buffer.from((await get(job, '?format=json', 1)).bytes).toString());
    expect(labels).toMatchObject([{ value: 1, name: 'Größe' }]);
    expect(labels[0].volumeMl).toBeCloseTo(volumeMl, 9);
    const csv = parseMeasurementsCsv(Buffer.from((await get(job, '?format=csv', 1)).bytes).toString());
    expect(csv).toEqual(labels);
    const { receipt } = await verifyReceipt(await client().receipt(job.id));
    const kept = async (query: string, output: number) => {
      const { bytes } = await get(job, query, output);
      return { sizeBytes: bytes.length, digest: digestOf(bytes) };
    };
    expect(receipt.outputs.map((output) => output.kept)).toEqual([
      { format: 'seg.dcm', ...(await kept('?format=seg.dcm', 0)) },
      { format: 'json', ...(await kept('?format=json', 1)) },
    ]);
    const log = await readAudit(server.dataFolder);
    for (const { digest } of receipt.outputs.flatMap((output) => output.kept ?? []))
      expect(log).toContain(`"kept":"${digest}"`);
  });

  it('is an option of the SDK', async () => {
    const volume = files.map((bytes) => new Blob([bytes]));
    for (const resumableAboveBytes of [1e9, 1]) {
      const job = await client().predict('app', {
        ...{ volumes: { volume }, keepText: true, resumableAboveBytes },
        formats: { segmentation: 'rtstruct.dcm', volumes: 'csv' },
      });
      const { outputs } = await client().wait(job.id);
      expect(outputs.map(({ format }) => format)).toEqual(['rtstruct.dcm', 'csv']);
    }
  });

  it.each([
    ['?formats=segmentation', 422, 'NAME:FORMAT'],
    ['?formats=segmentation:zip:zip', 422, 'NAME:FORMAT'],
    ['?formats=other:zip', 422, 'Its outputs are: segmentation, volumes.'],
    ['?formats=volumes:zip', 406, 'Available: json, csv, sr.dcm.'],
  ])('refuses %s', async (query, status, detail) => {
    const response = await post(`/api/services/app/predictions${query}`);
    const said = (await response.json()) as { detail: string; field: string };
    expect([response.status, said.detail]).toEqual([status, expect.stringContaining(detail)]);
    expect(said.field).toMatch(/^formats?$/);
  });

  const ofSeries = ['format=seg.dcm', 'format=zip', 'formats=volumes:sr.dcm'];
  it.each(ofSeries)('refuses %s for another input before there is a job', async (query) => {
    const accepted = async () => (await readAudit(server.dataFolder)).split('prediction.accepted').length;
    const before = await accepted();
    const response = await post(`/api/services/app/predictions?${query}`, [
      Uint8Array.from(await encode(phantom(), 'nii')),
    ]);
    expect(response.status).toBe(406);
    expect(await response.json()).toMatchObject({
      code: 'NOT_ACCEPTABLE',
      field: 'format',
      detail: expect.stringMatching(
        /The input is not a DICOM series\. Send a DICOM series, or choose one of/,
      ),
    });
    expect(await accepted()).toBe(before);
  });
});

describe('the promise', () => {
  it('answers with the archive of all DICOM objects', async () => {
    const response = await post('/app/any?format=zip');
    expect([response.status, response.headers.get('content-type')]).toEqual([200, 'application/zip']);
    expect(response.headers.get('content-disposition')).toContain('series_segmentation.zip');
    expectArchive(await filesIn(new Uint8Array(await response.arrayBuffer())), 'Doe^Jane');
  });
});

describe('without a server', () => {
  it('openApp() gives the archive', async () => {
    await using local = await openApp(app);
    const volume = files.map((bytes, i) => ({ name: `${i}.dcm`, bytes }));
    const formats = { segmentation: 'zip', volumes: 'sr.dcm' } as const;
    const result = await local.predict({ volumes: { volume }, formats });
    expectArchive(await filesIn(await result.output().bytes()), 'Doe^Jane');
    await expect(result.output().volume()).rejects.toThrow(
      "The output segmentation is zip, not a volume. Request another format: formats: { segmentation: 'nii.gz' }.",
    );
    await expect(result.output('volumes').json()).rejects.toThrow("formats: { volumes: 'json' }");
  });

  it('tomaat run writes a report, and prints the volumes', async () => {
    const out = join(folder, 'run.sr.dcm');
    const { code, stdout, stderr } = await tomaat([
      'run',
      app,
      '--volume',
      join(folder, 'series'),
      '-o',
      out,
    ]);
    expect({ code, stderr }).toMatchObject({ code: 0 });
    expect(stdout).toContain('Größe');
    expect(readFileSync(out).includes('Doe^Jane')).toBe(true);
  });
});

describe('tomaat predict', () => {
  const run = (...args: string[]) =>
    tomaat(['predict', server.url, '--volume', join(folder, 'series'), '--deidentify', ...args], {
      env: { XDG_DATA_HOME: join(folder, 'user') },
    });

  it('makes the archive and a report of the originals, which it sends de-identified', async () => {
    const zip = await run('-o', join(folder, 'results.zip'), '--json');
    expect(zip).toMatchObject({ code: 0 });
    expectArchive(await filesIn(readFileSync(join(folder, 'results.zip'))), 'Doe^Jane');
    const { job } = JSON.parse(zip.stdout) as { job: string };
    const sent = await (await client().output(job, 'segmentation')).bytes();
    expect(Buffer.from(sent).includes('Doe^Jane')).toBe(false);
    const report = await run('--output', 'volumes', '--format', 'sr.dcm', '-o', join(folder, 'a.sr.dcm'));
    expect(report).toMatchObject({ code: 0 });
    const bytes = readFileSync(join(folder, 'a.sr.dcm'));
    expect(bytes.includes('Doe^Jane')).toBe(true);
    const { source } = madeSource(made);
    expect(bytes.includes(source.slices[0].sopInstanceUid)).toBe(true);
  });

  it('refuses a format of a series for another volume before it sends it', async () => {
    const volume = join(folder, 'scan.nii');
    writeFileSync(volume, await encode(phantom(), 'nii'));
    const { code, stderr } = await tomaat(['predict', server.url, '--volume', volume, '--format', 'zip']);
    expect(code).toBe(2);
    expect(stderr).toContain(`${volume} is not one. Give a series, or choose another format.`);
  });
});
