import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { verifyReceipt } from '@tomaat/client';
import { type ModelSpec, readVolume, type Size, sourceFromBytes } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openApp } from '../src/apps.ts';
import { openDevice } from '../src/cli/device-flag.ts';
import { loadConfig } from '../src/config.ts';
import { memoryNeed } from '../src/http/memory-need.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { type ComputeDevice, type Device, processor } from '../src/runtimes/devices.ts';
import { createMemoryPolicy } from '../src/worker/memory-limit.ts';
import { openDevices } from '../src/worker/open-devices.ts';
import { unverifiedDevice } from '../src/worker/verify-app.ts';
import { writeApp } from './app-fixture.ts';
import { tomaat } from './cli-fixture.ts';
import { encodeModel, thresholdNetwork } from './onnx-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/*
 * `--device`. Where the libraries for CUDA are missing, the engine's provider is absent, as on most machines. WebGPU runs on Vulkan in software,
 * which Chromium brings along (SwiftShader): slow, but a second device that is not the processor.
 */

type NetworkSpec = Extract<ModelSpec, { runtime: 'onnx' }>;

const swiftShader = '/usr/lib/chromium';
const vulkan = {
  VK_ICD_FILENAMES: join(swiftShader, 'vk_swiftshader_icd.json'),
  LD_LIBRARY_PATH: swiftShader,
};
const hasVulkan = existsSync(join(swiftShader, 'libvk_swiftshader.so'));
const webgpu: ComputeDevice = { device: 'webgpu', title: 'webgpu', environment: vulkan };
const engine = dirname(createRequire(import.meta.url).resolve('onnxruntime-node/package.json'));
const hasCuda = existsSync(
  join(engine, `bin/napi-v6/${process.platform}/${process.arch}/libonnxruntime_providers_cuda.so`),
);

let folder: string;
let scan: string;
let bright: string;
beforeAll(async () => {
  folder = await temporaryFolder();
  scan = join(folder, 'scan.nii');
  await writeFile(scan, await encode(phantom(), 'nii'));
  bright = await writeNetwork('bright', thresholdNetwork(0.1));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function writeNetwork(
  id: string,
  bytes: Uint8Array,
  { roiSize = [8, 6, 4], ...more }: { roiSize?: number[]; devices?: string[] } = {},
): Promise<string> {
  await mkdir(join(folder, id), { recursive: true });
  await writeFile(join(folder, id, 'net.onnx'), bytes);
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  return writeApp(folder, id, {
    preprocess: ['scaleIntensity'],
    model: {
      runtime: 'onnx',
      file: 'net.onnx',
      sha256,
      inferer: { type: 'slidingWindow', roiSize },
    },
    labels: [{ value: 1, name: 'one' }],
    ...more,
  });
}

/** On a machine with one card, which nvidia-smi numbers 1. */
const open = (devices: readonly Device[], environment: NodeJS.ProcessEnv = {}) =>
  openDevices(devices, {
    signal: new AbortController().signal,
    environment,
    cards: async () => [{ index: 1, uuid: 'GPU-abc', name: 'NVIDIA A2', totalMb: 16_101, freeMb: 9000 }],
  });

describe('--device of a device that is absent', () => {
  it.skipIf(hasCuda)('is refused with the files that are missing, and nothing runs', async () => {
    const out = join(folder, 'out.nii');
    const args = ['run', bright, '--volume', scan, '-o', out, '--device', 'cuda'];
    // No nvidia-smi, whatever this machine has.
    const { code, stdout, stderr } = await tomaat(args, { env: { PATH: '/bin' } });
    expect(stderr).toMatch(
      /The device cuda:0 cannot be used: .*libraries for CUDA.*Put libonnxruntime_providers_shared\.so and libonnxruntime_providers_cuda\.so into .*onnxruntime-node.*or give --device cpu/,
    );
    expect(stdout).toBe('');
    expect(code).toBe(2);
    expect(existsSync(out)).toBe(false);
  });

  it('is refused where nvidia-smi does not list the card', async () => {
    await expect(open(['cuda:3'])).rejects.toThrow(
      'There is no cuda:3: nvidia-smi lists the cards 1 (NVIDIA A2). Choose one of them, or give --device cpu.',
    );
  });

  it('is refused where CUDA_VISIBLE_DEVICES hides the card', async () => {
    await expect(open(['cuda:1'], { CUDA_VISIBLE_DEVICES: 'GPU-abc' })).rejects.toThrow(
      'There is no cuda:1: CUDA_VISIBLE_DEVICES names 1 card. Available: cuda:0 to cuda:0.',
    );
    await expect(open(['cuda:0'], { CUDA_VISIBLE_DEVICES: '' })).rejects.toThrow('names 0 cards');
  });

  it.skipIf(hasCuda)('is counted as CUDA_VISIBLE_DEVICES does', async () => {
    // The variable's first card is the one that nvidia-smi numbers 1.
    const opened = open(['cuda:0'], { CUDA_VISIBLE_DEVICES: '1' });
    await expect(opened).rejects.toThrow('The device cuda:0 (NVIDIA A2, 16101 MB) cannot be used');
  });

  it.skipIf(process.env.VK_ICD_FILENAMES !== undefined || existsSync('/dev/dri'))(
    'is refused without a driver for WebGPU',
    async () => {
      await expect(open(['webgpu'])).rejects.toThrow(
        /The device webgpu cannot be used: Failed to get a WebGPU adapter.*Install the driver .*libvulkan\.so\.1/,
      );
    },
  );
});

describe('--device', () => {
  it('does not go with another number of --workers', async () => {
    const served = await tomaat(['serve', bright, '--device', 'cuda:0,1', '--workers', '3']);
    expect(served.stderr).toContain(
      '--workers 3 does not fit --device cuda:0,1, which computes 2 predictions at a time. Leave --workers out',
    );
    expect(served.code).toBe(2);
    const faulty = (env: NodeJS.ProcessEnv) => () => loadConfig({ env: { TOMAAT_DATA: folder, ...env } });
    expect(faulty({ TOMAAT_DEVICE: 'webgpu', TOMAAT_WORKERS: '0' })).toThrow(/--workers 0 does not fit/);
    expect(faulty({ TOMAAT_DEVICE: 'gpu' })).toThrow(/TOMAAT_DEVICE: “gpu” must be one of: cpu, cuda/);
    const { config } = loadConfig({ flags: { device: 'cuda:1,0' }, env: { TOMAAT_DATA: folder } });
    expect(config.device).toEqual(['cuda:1', 'cuda:0']);
  });

  it('names one card where one prediction is made', async () => {
    const { signal } = new AbortController();
    await expect(openDevice({ device: 'cuda:0,1' }, signal)).rejects.toThrow(
      'names 2 cards, and this command makes one',
    );
    await expect(openDevice({ device: 'gpu' }, signal)).rejects.toThrow(
      /--device “gpu” must be one of: cpu, cuda .*webgpu/,
    );
  });
});

describe('memoryNeed()', () => {
  const facts = (size: Size) => ({ volume: { ...phantom(undefined, size), voxelType: 'int16' as const } });
  const wholeVolume = async () => {
    const app = await openApp(bright);
    const [spec] = app.manifest.model as NetworkSpec[];
    return {
      ...app,
      manifest: { ...app.manifest, model: [{ ...spec, inferer: { type: 'simple' as const } }] },
    };
  };
  const cards = [{ ...webgpu, title: 'cuda:0 (NVIDIA A2, 16101 MB)', memoryMb: 100 }];

  it('refuses by the memory of the card, and says what would fit', async () => {
    const app = await wholeVolume();
    const memory = createMemoryPolicy({ slots: 1, memoryMb: 0, devices: cards });
    const need = await memoryNeed(app, facts([200, 100, 50]), {}, memory);
    // A voxel of this network takes 48 + 1 + 2 numbers of 4 bytes on the card.
    expect(need).toMatchObject({ neededMb: 204, allowedMb: 100 });
    expect(need.tooBig).toMatch(
      /^A volume of 200 × 100 × 50 voxels needs about 204 MB of the memory of cuda:0 \(NVIDIA A2, 16101 MB\), of which 100 MB are free for it\. About 159 × 79 × 39 voxels would fit\. .*--device cpu\.$/,
    );
    expect((await memoryNeed(app, facts([159, 79, 39]), {}, memory)).tooBig).toBeUndefined();
  });

  it('asks for no memory of a card where windows fit, or there is no card', async () => {
    const onCard = createMemoryPolicy({ slots: 1, memoryMb: 0, devices: cards });
    expect(
      (await memoryNeed(await openApp(bright), facts([200, 100, 50]), {}, onCard)).tooBig,
    ).toBeUndefined();
    const onProcessor = createMemoryPolicy({ slots: 1, memoryMb: 0 });
    const need = await memoryNeed(await wholeVolume(), facts([200, 100, 50]), {}, onProcessor);
    expect([need.tooBig, need.allowedMb]).toEqual([undefined, undefined]);
  });
});

describe.skipIf(!hasVulkan)('WebGPU', () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer([bright], { devices: [webgpu] });
  }, 120_000);
  afterAll(() => server?.[Symbol.asyncDispose]());

  it('gives the labels of the processor, and the receipt names the device', {
    timeout: 120_000,
  }, async () => {
    const body = new Uint8Array(await encode(phantom(), 'nii'));
    const headers = { 'content-type': 'application/octet-stream', prefer: 'wait=60' };
    const address = `${server.url}/api/services/bright/predictions`;
    const job = (await (await fetch(address, { method: 'POST', headers, body })).json()) as { id: string };
    const result = await fetch(`${server.url}/api/jobs/${job.id}/outputs/segmentation?format=nii`);
    const bytes = new Uint8Array(await result.arrayBuffer());
    const { volume } = await readVolume([sourceFromBytes('out.nii', bytes)], nodePlatform);
    const expected = Array.from(phantom().voxels as Int16Array, (value) => (value > 100 ? 1 : 0));
    expect(expected).toContain(1);
    expect(Array.from(volume.voxels as Uint8Array)).toEqual(expected);
    const { receipt } = await verifyReceipt(
      await (await fetch(`${server.url}/api/jobs/${job.id}/receipt`)).text(),
    );
    expect(receipt.service.models).toMatchObject([
      { runtime: 'onnx', device: 'webgpu', verifiedOn: ['cpu'] },
    ]);
    const card = (await (await fetch(`${server.url}/api/services/bright`)).json()) as Record<string, unknown>;
    expect(card).toMatchObject({ devices: ['cpu'], processing: { devices: ['webgpu'] } });
  });

  it('is checked against the processor, and warned of where unverified', { timeout: 120_000 }, async () => {
    const { code, stdout } = await tomaat(['check', bright, '--device', 'webgpu'], { env: vulkan });
    expect(stdout).toContain('2 classes, 0 of 192 labels differ from those of the processor');
    expect(stdout).toContain('has compared the results of bright on cpu, not on webgpu');
    expect(code).toBe(0);
    const told = { manifest: { ...(await openApp(bright)).manifest, devices: ['webgpu' as const] } };
    expect(unverifiedDevice(told, webgpu)).toBeUndefined();
    expect(unverifiedDevice(told, processor)).toContain('on webgpu, not on cpu');
  });

  it('is refused where it computes other labels', { timeout: 120_000 }, async () => {
    // The sine of large numbers is another one on every engine.
    const sine = encodeModel({
      nodes: [
        { op: 'Mul', inputs: ['image', 'k'], outputs: ['angle'] },
        { op: 'Sin', inputs: ['angle'], outputs: ['scores'] },
      ],
      initializers: [{ name: 'k', dims: [1, 2, 1, 1, 1], data: Float32Array.of(0, 3e7) }],
      inputs: [{ name: 'image', dims: [1, 1, 'z', 'y', 'x'] }],
      outputs: [{ name: 'scores', dims: [1, 2, 'z', 'y', 'x'] }],
    });
    const app = await writeNetwork('sine', sine, { roiSize: [24, 20, 16] });
    const { code, stdout } = await tomaat(['check', app, '--device', 'webgpu'], { env: vulkan });
    expect(stdout).toMatch(
      /WRONG +model: .*On webgpu \d+ of 7680 voxels \([\d.]+ %\) get another label than from the processor, and 0\.01 % may\. .*give --device cpu/,
    );
    expect(code).toBe(1);
  });

  it('says OUT_OF_MEMORY with what may fit when the card is full', { timeout: 120_000 }, async () => {
    // 3000 classes of 64³ voxels are 3.1 GB, more than the device gives for one buffer.
    const wide = encodeModel({
      nodes: [{ op: 'Expand', inputs: ['image', 'shape'], outputs: ['scores'] }],
      initializers: [{ name: 'shape', dims: [5], data: BigInt64Array.of(1n, 3000n, 1n, 1n, 1n) }],
      inputs: [{ name: 'image', dims: [1, 1, 'z', 'y', 'x'] }],
      outputs: [{ name: 'scores', dims: [1, 3000, 'z', 'y', 'x'] }],
    });
    const app = await writeNetwork('wide', wide, { roiSize: [64, 64, 64] });
    const { code, stderr } = await tomaat(
      ['run', app, '--volume', scan, '-o', join(folder, 'wide.nii'), '--device', 'webgpu'],
      { env: vulkan },
    );
    expect(stderr).toMatch(
      /net\.onnx ran out of the memory of webgpu on a tensor of 1 × 1 × 64 × 64 × 64\. About 50 × 50 × 50 voxels at once may fit/,
    );
    expect(code).not.toBe(0);
  });
});
