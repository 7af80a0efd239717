import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Job, Problem } from '@tomaat/client';
import { readVolume, sourceFromBytes } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { dicomFile, sliceElements } from '../../core/test/dicom-files.ts';
import { zipOf } from '../../core/test/zip-files.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { writeApp } from './app-fixture.ts';
import { sharedOptions } from './support/tested-database.ts';
import { temporaryFolder } from './test-server.ts';

/* A series of 2,000 files, as a form and as an archive, to a server in a process of its own: its time and its memory. */

const count = 2000;
const [columns, rows] = [16, 12];
const valueAt = (x: number, y: number, z: number) => ((x + y * columns) * 7 + z) % 150;
const sliceOf = (z: number) =>
  dicomFile(
    sliceElements({
      instance: z + 1,
      position: [10, -20, 0.5 * z],
      orientation: [1, 0, 0, 0, 1, 0],
      rows,
      columns,
      values: Array.from({ length: rows * columns }, (_, at) =>
        valueAt(at % columns, Math.floor(at / columns), z),
      ),
    }),
  );
// By their names, the last slice comes first.
const files = Array.from({ length: count }, (_, i) => ({
  name: `IM${String(i).padStart(5, '0')}`,
  data: sliceOf(count - 1 - i),
}));

let folder: string;
let data: string;
let child: ChildProcess;
let url: string;
async function start(): Promise<void> {
  const shared = await sharedOptions(data);
  const options = { appFolders: [join(folder, 'bright')], port: 0, tlsPort: 0, dataFolder: data, ...shared };
  child = fork(new URL('server-process.ts', import.meta.url), [JSON.stringify(options)]);
  [{ url }] = (await once(child, 'message')) as [{ url: string }];
}
async function end(signal?: NodeJS.Signals): Promise<void> {
  const ended = once(child, 'exit');
  child.kill(signal);
  await ended;
}
beforeAll(async () => {
  folder = await temporaryFolder();
  data = join(folder, 'data');
  await writeApp(folder, 'bright', {
    inputs: {
      volume: { type: 'volume' },
      waitMs: { type: 'slider', minimum: 0, maximum: 60_000, default: 0 },
    },
    infer: `await sleep(inputs.waitMs);
      return { segmentation: bright(volume) };`,
  });
  await start();
});
afterAll(async () => {
  await end();
  await rm(folder, { recursive: true, force: true });
});

/** Most memory that the server had in RAM at a time, MB; undefined where the system does not tell. */
function peakMb(): number | undefined {
  if (process.platform !== 'linux') return undefined;
  const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
  return Number(/VmHWM:\s+(\d+)/.exec(status)?.[1]) / 1000;
}

function formOf(parts: readonly { name: string; data: Uint8Array<ArrayBuffer> }[]): FormData {
  const form = new FormData();
  for (const part of parts) form.append('volume', new Blob([part.data]), part.name);
  return form;
}

const ask = (body: BodyInit, headers: Record<string, string> = {}) =>
  fetch(`${url}/api/services/bright/predictions?format=nii`, { method: 'POST', body, headers });
const zipped = () => Uint8Array.from(zipOf(files));
const asZip = { 'content-type': 'application/zip' };

/** Of a series of the first slices in the stack. */
async function expectResult(job: Job, slices = count): Promise<void> {
  expect(job).toMatchObject({ state: 'succeeded' });
  const response = await fetch(`${url}/api/jobs/${job.id}/outputs/segmentation`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  const { volume } = await readVolume([sourceFromBytes('a', bytes)], nodePlatform);
  expect(volume.size).toEqual([columns, rows, slices]);
  let wrong = 0;
  for (let z = 0, at = 0; z < slices; z++)
    for (let y = 0; y < rows; y++)
      for (let x = 0; x < columns; x++) if (volume.voxels[at++] !== (valueAt(x, y, z) > 100 ? 1 : 0)) wrong++;
  expect(wrong).toBe(0);
  expect((await fetch(`${url}/api/jobs/${job.id}`, { method: 'DELETE' })).status).toBe(204);
}

const blobs = () => readdirSync(join(data, 'blobs', 'sha256'));

describe('a series of 2,000 files', () => {
  it('is computed in 90 s either way, in constant memory', async () => {
    const peaks: (number | undefined)[] = [];
    for (let round = 0; round < 2; round++) {
      for (const [body, headers] of [
        [formOf(files), {}],
        [zipped(), asZip],
      ] as [BodyInit, Record<string, string>][]) {
        const startedMs = performance.now();
        const response = await ask(body, { ...headers, prefer: 'wait=120' });
        await expectResult((await response.json()) as Job);
        expect(performance.now() - startedMs).toBeLessThan(90_000);
      }
      peaks.push(peakMb());
    }
    const [first, second] = peaks;
    // Besides the heap of the server there are those of the threads that read headers.
    if (first !== undefined && second !== undefined) expect(second - first).toBeLessThan(100);
    await expect.poll(() => blobs()).toEqual([]);
  });

  it('survives kill -9: the job is computed after the next start', async () => {
    const some = files.slice(-400);
    const form = formOf(some);
    form.append('waitMs', '2000');
    const response = await ask(form);
    expect(response.status).toBe(202);
    const { id } = (await response.json()) as Job;
    await end('SIGKILL');
    expect(blobs()).toHaveLength(some.length);
    await start();
    const show = async () => (await (await fetch(`${url}/api/jobs/${id}`)).json()) as Job;
    await expect.poll(async () => (await show()).state, { timeout: 60_000 }).toBe('succeeded');
    await expectResult(await show(), some.length);
    await expect.poll(() => blobs()).toEqual([]);
  });

  it('is refused with a file too many, or many files without images', async () => {
    const [{ data: slice }] = files;
    const many = Array.from({ length: 4097 }, (_, i) => ({ name: `${i}`, data: slice }));
    const texts = Array.from({ length: 70 }, (_, i) => ({ name: `${i}.txt`, data: new Uint8Array(9) }));
    for (const [parts, message] of [
      [many, /more than 4096 files. Send them as one zip archive/],
      [texts, /does not begin like|more than 64 files, and one of them is not a DICOM file/],
      [[...files.slice(0, 64), ...texts], /more than 64 files, and one of them is not a DICOM file/],
    ] as const) {
      const response = await ask(formOf(parts));
      const problem = (await response.json()) as Problem;
      expect(response.status, problem.detail).toBeLessThan(500);
      expect(problem.detail).toMatch(message);
      await expect.poll(() => blobs()).toEqual([]);
    }
  });
});
