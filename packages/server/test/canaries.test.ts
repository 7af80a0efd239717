import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync, gzipSync, inflateSync } from 'node:zlib';
import { collectBytes, writeVolume } from '@tomaat/core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { dicomFile, sliceElements } from '../../core/test/dicom-files.ts';
import { type ZipEntry, zipOf } from '../../core/test/zip-files.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { ownNodeOptions } from '../src/source.ts';
import { phantom } from './phantom.ts';
import { databaseBytes, onPostgres, sharedOptions } from './support/tested-database.ts';
import { appFolder, temporaryFolder } from './test-server.ts';

/**
 * Identifiers are planted wherever a caller can put text, in requests that succeed, fail and are cancelled, at the most
 * talkative log level. None may be in a log, a metric, a result or an error; after retention, none anywhere in the data folder.
 */

let next = 0;
const planted: string[] = [];
/** A name that nothing else has: digits of its own behind one stem. */
function canary(): string {
  const text = `CANARY${String(next++).padStart(3, '0')}ROE`;
  planted.push(text);
  return text;
}

let child: ReturnType<typeof spawn>;
let url: string;
let dataFolder: string;
let log = '';

beforeAll(async () => {
  dataFolder = await temporaryFolder();
  const options = {
    appFolders: [appFolder('threshold')],
    port: 0,
    tlsPort: 0,
    dataFolder,
    resultTtlMs: 3000,
    uploadTtlMs: 3000,
    sweepMs: 300,
    ...(await sharedOptions(dataFolder)),
  };
  child = spawn(
    process.execPath,
    [
      ...ownNodeOptions,
      fileURLToPath(new URL('./server-process.ts', import.meta.url)),
      JSON.stringify(options),
    ],
    { env: { ...process.env, TEST_LOG: 'trace' }, stdio: ['ignore', 'pipe', 'pipe', 'ipc'] },
  );
  child.stdout?.on('data', (chunk) => {
    log += chunk;
  });
  child.stderr?.on('data', (chunk) => {
    log += chunk;
  });
  [{ url }] = (await once(child, 'message')) as [{ url: string }];
}, 120_000);
afterAll(async () => {
  child?.kill('SIGKILL');
  await rm(dataFolder, { recursive: true, force: true });
});

const made = async (extension: 'nii' | 'mha' | 'nrrd') =>
  Buffer.from(await collectBytes(writeVolume(phantom(), extension, nodePlatform, { level: 0 })));

function niftiWithText(file: Buffer): Buffer {
  const header = Buffer.from(file.subarray(0, 352));
  for (const [at, length] of [
    [4, 10],
    [14, 18],
    [148, 80],
    [228, 24],
    [328, 16],
  ] as const)
    header.write(canary().slice(0, length), at, 'latin1');
  planted.push(header.toString('latin1', 4, 14));
  const extensions = Buffer.alloc(96);
  for (const at of [0, 48]) {
    extensions.writeInt32LE(48, at);
    extensions.writeInt32LE(at === 0 ? 6 : 2, at + 4);
    extensions.write(canary(), at + 8, 'latin1');
    extensions.write(canary(), at + 28, 'latin1');
  }
  header[348] = 1;
  header.writeFloatLE(352 + 96, 108);
  return Buffer.concat([header, extensions, file.subarray(352)]);
}

function packed(bytes: Buffer): Buffer {
  const gzip = gzipSync(bytes);
  const head = Buffer.from(gzip.subarray(0, 10));
  head[3] = 4 | 8 | 16;
  const extra = Buffer.from(canary());
  const length = Buffer.from([extra.length, 0]);
  return Buffer.concat([
    head,
    length,
    extra,
    Buffer.from(`${canary()}.nii\0${canary()}\0`),
    gzip.subarray(10),
  ]);
}

const metaKeys = 'Comment Name ID ParentID AcquisitionDate PatientID Modality'.split(' ');
const metaWithText = (file: Buffer) =>
  Buffer.from(
    file
      .toString('latin1')
      .replace(
        'ElementDataFile',
        () =>
          `${metaKeys.map((key) => `${key} = ${canary()}\n`).join('')}${canary()} = ${canary()}\nElementDataFile`,
      ),
    'latin1',
  );
const nrrdWithText = (file: Buffer) =>
  Buffer.from(
    file
      .toString('latin1')
      .replace(
        '\n\n',
        () =>
          `\n# ${canary()}\ncontent: ${canary()}\n${canary()}:=${canary()}\nlabels: "${canary()}" "" ""\nsample units: "${canary()}"\n${canary()}: ${canary()}\n\n`,
      ),
    'latin1',
  );

const answers: string[] = [];

async function ask(path: string, init: RequestInit & { duplex?: 'half' } = {}) {
  const response = await fetch(`${url}${path}`, {
    ...init,
    headers: { 'user-agent': canary(), referer: `http://${canary()}.example/`, ...init.headers },
  });
  const bytes = Buffer.from(await response.arrayBuffer());
  return { status: response.status, bytes, text: bytes.toString('latin1'), headers: response.headers };
}

/** A slice with planted text, of a person and of a system, public and private. */
const dicomWithText = (instance: number) =>
  dicomFile(
    sliceElements({
      instance,
      position: [0, 0, instance],
      orientation: [1, 0, 0, 0, 1, 0],
      more: {
        524416: ['LO', canary()],
        528432: ['LO', canary()],
        528446: ['LO', canary()],
        589840: ['LO', canary()],
        593921: ['UN', Buffer.from(canary())],
        1048592: ['PN', canary()],
        1048608: ['LO', canary()],
        1064960: ['LT', canary()],
      },
    }),
  );

function dicomForm(): FormData {
  const data = new FormData();
  for (const instance of [1, 2, 3])
    data.append('volume', new Blob([dicomWithText(instance)]), `${canary()}.dcm`);
  return data;
}

/** An archive with one file of a series that has a fault, or none. */
const zipForm = (fault: Partial<ZipEntry>): FormData =>
  form(
    Buffer.from(
      zipOf([
        { name: `${canary()}/${canary()}`, data: dicomWithText(1) },
        { name: `${canary()}/${canary()}.dcm`, data: dicomWithText(2), ...fault },
      ]),
    ),
    '.zip',
  );

/** An answer in which no planted text may be; a name of the caller's own is given back to him in Content-Disposition alone. */
async function askClean(path: string, init: RequestInit = {}) {
  const answer = await ask(path, init);
  answers.push(answer.text);
  if (answer.bytes[0] === 0x1f && answer.bytes[1] === 0x8b)
    answers.push(gunzipSync(answer.bytes).toString('latin1'));
  return answer;
}

function form(file: Buffer, ending: string, more: Record<string, string> = {}): FormData {
  const data = new FormData();
  for (const [name, value] of Object.entries(more)) data.set(name, value);
  data.set('volume', new Blob([file as Uint8Array<ArrayBuffer>]), `${canary()}${ending}`);
  return data;
}

it('leaves no caller’s text in logs, metrics, results, errors, or expired data', async () => {
  const post = (path: string, body: FormData, headers: Record<string, string> = {}) =>
    askClean(path, { method: 'POST', body, headers });
  const predictions = '/api/services/threshold/predictions';
  const files: [Buffer, string][] = [];
  for (let round = 0; round < 3; round++) {
    files.push(
      [niftiWithText(await made('nii')), '.nii'],
      [packed(niftiWithText(await made('nii'))), '.nii.gz'],
      [metaWithText(await made('mha')), '.mha'],
      [nrrdWithText(await made('nrrd')), '.nrrd'],
    );
  }
  // Success, by the promise and by jobs.
  const service = JSON.parse((await ask('/api/services/threshold')).text) as {
    task: string;
    anatomy: string;
  };
  for (const [file, ending] of files) {
    const answer = await post(`/${service.task}/${service.anatomy}`, form(file, ending));
    expect(answer.status, answer.text.slice(0, 300)).toBe(200);
    const started = await ask(predictions, {
      method: 'POST',
      body: form(file, ending),
      headers: { 'idempotency-key': canary(), prefer: 'wait=60' },
    });
    const job = JSON.parse(started.text) as { id: string; state: string; outputs: { url: string }[] };
    expect(job.state).toBe('succeeded');
    for (const output of job.outputs) expect((await askClean(output.url)).status).toBe(200);
    expect((await askClean(`/api/jobs/${job.id}/receipt`)).status).toBe(200);
  }
  // DICOM, whose results state no patient in other formats; and archives, with names.
  for (const body of [dicomForm(), zipForm({}), zipForm({ extra: Buffer.from(canary()) })]) {
    const path = `/${service.task}/${service.anatomy}?format=nii.gz`;
    const answer = await post(path, body);
    expect(answer.status, answer.text.slice(0, 300)).toBe(200);
  }
  // Refusals: names and values of fields, the query, broken headers, file names.
  const [nifti] = files[0];
  const refused = [
    post(predictions, form(nifti, '.nii', { [canary()]: canary() })),
    post(`${predictions}?${canary()}=${canary()}`, form(nifti, '.nii')),
    post(`${predictions}?format=${canary()}`, form(nifti, '.nii')),
    post(`${predictions}?frame=${canary()}`, form(nifti, '.nii')),
    post(`/${service.task}/${service.anatomy}?service=${canary()}`, form(nifti, '.nii')),
    post(predictions, form(nifti, '.nii', { threshold: canary() })),
    post(predictions, form(Buffer.from(canary()), '.nii')),
    post(predictions, form(nifti.subarray(0, 2000), '.nii')),
    post(`${predictions}?series=${canary()}`, dicomForm()),
    post(predictions, form(Buffer.from(dicomWithText(1)), '.dcm', { series: canary() })),
    ...[{ flags: 1 }, { mode: 0o120777 }, { method: 12 }, { crc: 1 }, { sizes: { unpacked: 1e9 } }].map(
      (fault) => post(`/${service.task}/${service.anatomy}`, zipForm(fault)),
    ),
    askClean(predictions, {
      method: 'POST',
      body: JSON.stringify({
        inputs: { [canary()]: { upload: canary() } },
        parameters: { [canary()]: canary() },
      }),
      headers: { 'content-type': 'application/json' },
    }),
    askClean(predictions, { method: 'POST', body: 'x', headers: { 'content-type': 'text/plain' } }),
    askClean(`/api/jobs/${canary()}`),
    askClean(`/api/uploads/${canary()}`, { method: 'HEAD', headers: { 'tus-resumable': '1.0.0' } }),
  ];
  const mha = (await made('mha')).toString('latin1');
  const nrrd = (await made('nrrd')).toString('latin1');
  for (const key of [
    'ElementType',
    'DimSize',
    'ElementSpacing',
    'TransformMatrix',
    'NDims',
    'ObjectType',
    'ElementDataFile',
    'Offset',
  ]) {
    const broken = mha.replace(new RegExp(`^${key} = .*$`, 'm'), () => `${key} = ${canary()}`);
    refused.push(post(predictions, form(Buffer.from(broken, 'latin1'), '.mha')));
  }
  for (const key of [
    'type',
    'sizes',
    'space',
    'encoding',
    'space directions',
    'space origin',
    'dimension',
    'endian',
    'kinds',
  ]) {
    const broken = nrrd.replace(new RegExp(`^${key}: .*$`, 'm'), () => `${key}: ${canary()}`);
    refused.push(post(predictions, form(Buffer.from(broken, 'latin1'), '.nrrd')));
  }
  const detached = nrrd.replace(/^encoding/m, () => `data file: ${canary()}.raw\nencoding`);
  refused.push(post(predictions, form(Buffer.from(detached, 'latin1'), '.nhdr')));
  for (const answer of await Promise.all(refused)) {
    expect(answer.status, answer.text).toBeGreaterThanOrEqual(400);
    expect(answer.status, answer.text).toBeLessThan(500);
  }
  // Damaged voxels: accepted, and failed by the child.
  const damaged = packed(nifti);
  damaged.fill(7, damaged.length - 60, damaged.length - 8);
  const failed = await post(predictions, form(damaged, '.nii.gz'), { prefer: 'wait=60' });
  expect(JSON.parse(failed.text)).toMatchObject({ state: 'failed' });
  // Cancelled.
  const canceled = await ask(predictions, { method: 'POST', body: form(nifti, '.nii') });
  await askClean(`/api/jobs/${(JSON.parse(canceled.text) as { id: string }).id}`, { method: 'DELETE' });
  // An upload that ends, and one that does not.
  for (const bytes of [nifti, nifti.subarray(0, 3000)]) {
    const metadata = `filename ${Buffer.from(`${canary()}.nii`).toString('base64')},${canary()} ${Buffer.from(canary()).toString('base64')}`;
    const begun = await ask('/api/uploads', {
      method: 'POST',
      headers: {
        'tus-resumable': '1.0.0',
        'upload-length': String(nifti.length),
        'upload-metadata': metadata,
      },
    });
    await askClean(begun.headers.get('location')!, {
      method: 'PATCH',
      body: bytes as Uint8Array<ArrayBuffer>,
      headers: {
        'tus-resumable': '1.0.0',
        'upload-offset': '0',
        'content-type': 'application/offset+octet-stream',
      },
    });
  }
  await askClean('/metrics');

  expect(planted.length).toBeGreaterThanOrEqual(200);
  const isThere = (text: string) => planted.filter((one) => text.includes(one));
  expect(log).toContain('"level":20');
  expect(isThere(log)).toEqual([]);
  for (const answer of answers) expect(isThere(answer), answer.slice(0, 500)).toEqual([]);

  // It is there before retention, so the search can find it.
  expect(await searchFolder(dataFolder)).not.toEqual([]);
  await expect.poll(() => searchFolder(dataFolder), { timeout: 60_000, interval: 500 }).toEqual([]);
  expect(isThere(log)).toEqual([]);
}, 240_000);

/** Files of the folder in which something planted is, and the database if it is elsewhere. */
async function searchFolder(folder: string): Promise<string[]> {
  const found: string[] = [];
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    const bytes = await readFile(path).catch(() => Buffer.alloc(0));
    if (holdsPlanted(bytes, entry.name)) found.push(path);
  }
  if (onPostgres && holdsPlanted(await databaseBytes(folder))) found.push('the database');
  return found;
}

/** Whether something planted is there, as it is, in UTF-16, in base64 or packed. */
function holdsPlanted(bytes: Buffer, name = ''): boolean {
  const texts = [bytes.toString('latin1'), name];
  try {
    if (bytes[0] === 0x1f && bytes[1] === 0x8b) texts.push(gunzipSync(bytes).toString('latin1'));
    if (bytes[0] === 0x78) texts.push(inflateSync(bytes).toString('latin1'));
  } catch {
    // It is no whole packed file; as it is it was searched.
  }
  const stem = 'CANARY';
  const forms = [stem, Buffer.from(stem, 'utf16le').toString('latin1'), Buffer.from(stem).toString('base64')];
  return texts.some((text) => forms.some((form) => text.includes(form)));
}
