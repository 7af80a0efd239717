import { type ChildProcess, fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { readSegmentationFile } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { dicomFile, sliceElements } from '../../core/test/dicom-files.ts';
import { writeApp } from './app-fixture.ts';
import { bin } from './cli-fixture.ts';
import { processesOf } from './hostile.ts';
import { sharedOptions } from './support/tested-database.ts';
import { temporaryFolder } from './test-server.ts';

/*
 * The largest series that a server takes with its default limits, 2 GiB in 2,000 files, from the command line and back. It takes
 * minutes, 5 GB of memory and 5 GB of disk: with TOMAAT_SLOW=1 alone.
 */

const [columns, rows, count] = [736, 728, 2000];
const plane = columns * rows;
const limitBytes = 2 * 1024 ** 3;

/** Values without any symmetry; in each slice one pixel says which slice it is. */
function sliceValues(z: number): Uint16Array<ArrayBuffer> {
  const values = Uint16Array.from(
    { length: plane },
    (_, i) => ((i % columns) * 7 + Math.floor(i / columns) * 3 + (z % 5)) & 4095,
  );
  values[z * 11] ^= 2048;
  return values;
}
const isLabelled = (value: number) => (value & 2048) !== 0;
/** Slices of equal values but for that pixel. */
const patterns = Array.from({ length: 5 }, (_, z) => sliceValues(z));
function valuesOf(z: number): Uint16Array<ArrayBuffer> {
  const values = patterns[z % 5].slice();
  values[(z % 5) * 11] ^= 2048;
  values[z * 11] ^= 2048;
  return values;
}

/** Most memory that a process had in RAM at a time, MB; 0 where the system does not tell, or the process is gone. */
function peakMb(pid: number): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    return Math.round((Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) * 1024) / 1e6);
  } catch {
    return 0;
  }
}

let folder: string;
let server: ChildProcess;
let url: string;
let seriesBytes = 0;

beforeAll(async () => {
  if (!process.env.TOMAAT_SLOW) return;
  folder = await temporaryFolder();
  const series = join(folder, 'series');
  await mkdir(series);
  for (let z = 0; z < count; z++) {
    const elements = sliceElements({
      instance: z + 1,
      position: [10, -20, 0.5 * z],
      orientation: [1, 0, 0, 0, 1, 0],
      rows,
      columns,
      values: [],
      more: { 2145386512: ['OW', new Uint8Array(valuesOf(z).buffer)] },
    });
    const path = join(series, `IM${z}`);
    await writeFile(path, dicomFile(elements));
    seriesBytes += (await stat(path)).size;
  }
  // No copy but the result.
  const infer = `const { voxels } = volume;
    const found = new Uint8Array(voxels.length);
    for (let i = 0; i < found.length; i++) found[i] = (voxels[i] >> 11) & 1;
    return { segmentation: { ...volume, voxels: found } };`;
  await writeApp(folder, 'bit', { infer });
  const data = join(folder, 'data');
  const shared = await sharedOptions(data);
  const options = { appFolders: [join(folder, 'bit')], port: 0, tlsPort: 0, dataFolder: data, ...shared };
  server = fork(new URL('server-process.ts', import.meta.url), [JSON.stringify(options)]);
  [{ url }] = (await once(server, 'message')) as [{ url: string }];
}, 600_000);
afterAll(async () => {
  if (!server) return;
  const ended = once(server, 'exit');
  server.kill();
  await ended;
  await rm(folder, { recursive: true, force: true });
});

describe.skipIf(!process.env.TOMAAT_SLOW)('a series of 2 GiB', () => {
  it('goes through the command line and a server in bounded memory', async () => {
    expect(seriesBytes).toBeGreaterThan(0.995 * limitBytes);
    const out = join(folder, 'result.seg.dcm');
    const args = ['predict', url, '--volume', join(folder, 'series'), '-o', out];
    const startMs = performance.now();
    const client = spawn(process.execPath, [bin, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    const peaks = { server: 0, child: 0, client: 0 };
    const watch = setInterval(() => {
      const [own, ...children] = processesOf(server.pid!);
      peaks.server = Math.max(peaks.server, peakMb(own));
      peaks.child = Math.max(peaks.child, ...children.map(peakMb));
      peaks.client = Math.max(peaks.client, ...processesOf(client.pid!).map(peakMb));
    }, 100);
    let said = '';
    client.stderr.on('data', (chunk) => {
      said += chunk;
    });
    const [code] = await once(client, 'exit');
    clearInterval(watch);
    expect(code, said).toBe(0);
    console.log(
      'Most memory, MB:',
      peaks,
      `of ${seriesBytes} bytes in ${Math.round(performance.now() - startMs)} ms`,
    );
    const { labelMap } = readSegmentationFile(await readFile(out));
    expect(labelMap.size).toEqual([columns, rows, count]);
    let wrong = 0;
    for (let z = 0, at = 0; z < count; z++) {
      const values = valuesOf(z);
      for (let i = 0; i < plane; i++) if (labelMap.voxels[at++] !== Number(isLabelled(values[i]))) wrong++;
    }
    expect(wrong).toBe(0);
    expect(peaks.server).toBeLessThan(600);
    // The label map: the client makes the segmentation, since it sent the images without their identity.
    expect(peaks.client).toBeLessThan((plane * count) / 1e6 + 500);
    // The volume, and the label map in half as many bytes.
    expect(peaks.child).toBeLessThan((3 * plane * count) / 1e6 + 500);
  }, 900_000);
});
