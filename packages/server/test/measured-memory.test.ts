import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import pino from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type App, openApp } from '../src/apps.ts';
import { requireMemory } from '../src/http/memory-need.ts';
import { processor } from '../src/runtimes/devices.ts';
import { measureApps } from '../src/worker/measure-apps.ts';
import { createMemoryPolicy } from '../src/worker/memory-limit.ts';
import { type ModelReport, verifyApp } from '../src/worker/verify-app.ts';
import { writeApp } from './app-fixture.ts';
import { encodeModel } from './onnx-fixture.ts';
import { startTestServer, temporaryFolder } from './test-server.ts';

/* What a network that takes the whole volume takes per voxel is measured before its app is served, and intake goes by it. */

/** Channels inside: two tensors of them are alive at the same time. */
const channels = 100;
/** A convolution to many channels, another one of those, and one to two classes. */
const wideNetwork = encodeModel({
  nodes: [
    { op: 'Conv', inputs: ['image', 'first'], outputs: ['a'] },
    { op: 'Conv', inputs: ['a', 'second'], outputs: ['b'], attributes: { group: channels } },
    { op: 'Conv', inputs: ['b', 'last'], outputs: ['scores'] },
  ],
  initializers: [
    { name: 'first', dims: [channels, 1, 1, 1, 1], data: new Float32Array(channels).fill(1) },
    { name: 'second', dims: [channels, 1, 1, 1, 1], data: new Float32Array(channels).fill(1) },
    { name: 'last', dims: [2, channels, 1, 1, 1], data: new Float32Array(2 * channels).fill(1) },
  ],
  inputs: [{ name: 'image', dims: [1, 1, 'z', 'y', 'x'] }],
  outputs: [{ name: 'scores', dims: [1, 2, 'z', 'y', 'x'] }],
});

// Only Linux says what a process takes.
describe.skipIf(!existsSync('/proc/self/clear_refs'))('a network that takes the whole volume', () => {
  const volume = {
    size: [200, 150, 100] as [number, number, number],
    affine: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1],
    components: 1,
    voxelType: 'int16' as const,
  };
  let folder: string;
  let app: App;
  const policy = createMemoryPolicy({ slots: 1, memoryMb: 1500 });
  let report: ModelReport;

  beforeAll(async () => {
    folder = await temporaryFolder();
    const sha256 = createHash('sha256').update(wideNetwork).digest('hex');
    const model = { runtime: 'onnx', file: 'net.onnx', sha256 };
    const path = await writeApp(folder, 'wide', { model, labels: [{ value: 1, name: 'one' }] });
    await writeFile(join(path, 'net.onnx'), wideNetwork);
    app = await openApp(path);
    // Nothing is known of it yet: the rough figure lets it in.
    await requireMemory(app, { volume }, {}, policy);
    [report] = await verifyApp(app, policy, AbortSignal.timeout(110_000));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it('is measured: two tensors of all its channels, its input and its scores', () => {
    expect(report.faults).toEqual([]);
    const atOnce = 2 * channels * 4;
    expect(report.runBytes).toBeGreaterThan(0.9 * atOnce);
    expect(report.runBytes).toBeLessThan(1.3 * atOnce);
    expect(report.summary).toContain(`a run takes ${report.runBytes} bytes per voxel`);
  });

  it('is refused at intake with need, limit and remedy, before it runs', async () => {
    // By hand: 3 million voxels at 800 bytes and more, where 1500 MB may be used.
    await expect(requireMemory(app, { volume }, {}, policy)).rejects.toMatchObject({
      code: 'TOO_MANY_VOXELS',
      field: 'volume',
      message: expect.stringMatching(
        /^A volume of 200 × 150 × 100 voxels needs about (2[5-9]|3[0-3])\d\d MB of memory, and 1500 MB may be used\. About \d+ × \d+ × \d+ voxels would fit\. Crop or resample the volume, or ask the operator to raise the limit \(--memory-mb\)\.$/,
      ),
    });
    const smaller = { ...volume, size: [100, 75, 100] as [number, number, number] };
    await requireMemory(app, { volume: smaller }, {}, policy);
  });

  it('is measured in spare time, and not again at the next start', async () => {
    const trials = process.env.TOMAAT_TRIALS;
    delete process.env.TOMAAT_TRIALS;
    try {
      const device = { ...processor, trialsFolder: join(folder, 'trials'), measures: false } as const;
      const signal = AbortSignal.timeout(110_000);
      const atStart = async () => (await verifyApp(app, policy, signal, { device }))[0].runBytes;
      expect(await atStart()).toBeUndefined();
      let times = 0;
      const spare = {
        run(work: (signal: AbortSignal) => Promise<void>) {
          times++;
          return work(signal);
        },
      };
      const measure = () =>
        measureApps([app], { memory: policy, devices: [device], spare, logger: pino({ level: 'silent' }) });
      await measure();
      await measure();
      expect(times).toBe(1);
      const atOnce = 2 * channels * 4;
      expect(await atStart()).toBeGreaterThan(0.9 * atOnce);
      expect(await atStart()).toBeLessThan(1.3 * atOnce);
    } finally {
      if (trials !== undefined) process.env.TOMAAT_TRIALS = trials;
    }
  });

  it('has the figure on its card, for pages that compute themselves', async () => {
    await using server = await startTestServer([app.folder]);
    const card = (await (await fetch(`${server.url}/api/services/wide`)).json()) as { runBytes?: object };
    expect(Object.values(card.runBytes ?? {})).toEqual([expect.any(Number)]);
  });
});
