import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { modelsFolder } from '../../../test/real-data.ts';
import { labelsOf, writeFileApp, writeServedApp } from './oip-fixture.ts';
import { bytesOf } from './oip-peer.ts';
import { phantom } from './phantom.ts';
import { temporaryFolder } from './test-server.ts';

/** A real Triton, which `.ci/extra triton` installs: the variable names the Python that has it. */
const python = process.env.TOMAAT_TRITON_PYTHON;
const models = modelsFolder();

async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'));
  await Promise.all(servers.map((server) => once(server, 'listening')));
  const ports = servers.map((server) => (server.address() as { port: number }).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

describe.skipIf(!python || !models)('Triton', { timeout: 600_000 }, () => {
  const file = models && join(models, 'torchio-unet/torchio_unet_patches.onnx');
  let triton: ReturnType<typeof spawn>;
  let folder: string;
  let [http, grpc]: number[] = [];

  beforeAll(async () => {
    folder = await temporaryFolder();
    let metrics: number;
    [http, grpc, metrics] = await freePorts(3);
    const script = fileURLToPath(new URL('./triton.py', import.meta.url));
    triton = spawn(python!, [script, file!, `${http}`, `${grpc}`, `${metrics}`], {
      // The stub of Triton's Python back end takes the first Python on the PATH.
      env: { ...process.env, PATH: '/usr/bin:/bin' },
      stdio: 'ignore',
    });
    await vi.waitFor(
      async () => {
        const answer = await fetch(`http://127.0.0.1:${http}/v2/models/echo/ready`);
        if (!answer.ok) throw new Error(`Triton is not ready: ${answer.status}`);
      },
      { timeout: 120_000, interval: 200 },
    );
  }, 150_000);
  afterAll(async () => {
    if (triton?.exitCode === null) {
      triton.kill('SIGTERM');
      await once(triton, 'exit');
    }
    await rm(folder, { recursive: true, force: true });
  });

  it.each(['grpc', 'http'])('gives the labels of the same network in a file, by %s', async (protocol) => {
    const volume = phantom(undefined, [70, 40, 30]);
    const inferer = { type: 'slidingWindow', roiSize: [64, 48, 32], overlap: 0.25 };
    const url = `${protocol}://127.0.0.1:${protocol === 'grpc' ? grpc : http}`;
    const served = await labelsOf(
      await writeServedApp(folder, 'served', { url, model: 'network', inferer }),
      volume,
    );
    const own = await labelsOf(await writeFileApp(folder, 'own', await readFile(file!), { inferer }), volume);
    expect(new Set(own.voxels as Uint8Array).size).toBe(2);
    expect(served.affine).toEqual(own.affine);
    expect(Buffer.compare(bytesOf(served.voxels as Uint8Array), bytesOf(own.voxels as Uint8Array))).toBe(0);
  });
});
