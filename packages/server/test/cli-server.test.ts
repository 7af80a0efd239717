import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { collectBytes, readVolume, sourceFromBytes, type Volume, writeVolume } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodePlatform } from '../src/node-platform.ts';
import { bin, endsWithTest, temporaryFolder, tomaat } from './cli-fixture.ts';
import { databaseEnv } from './support/tested-database.ts';

const threshold = fileURLToPath(new URL('../../../apps/threshold', import.meta.url));

/** Half of it bright; of three sizes, anisotropic, left-handed, rotated. */
const volume: Volume = {
  voxels: Int16Array.from({ length: 60 }, (_, i) => (i % 3 === 0 ? 900 : 10)),
  size: [3, 4, 5],
  components: 1,
  affine: [0, -2, 0, 11, 0.8, 0, 0, -7, 0, 0, -3, 5, 0, 0, 0, 1],
};

let folder: { path: string; remove(): void };
let up: ChildProcess;
let addresses: { server: string; serverTls: string; registry: string; data: string };
let path: string;

beforeAll(async () => {
  folder = temporaryFolder();
  path = join(folder.path, 'a.nii.gz');
  writeFileSync(path, await collectBytes(writeVolume(volume, 'nii.gz', nodePlatform)));
  const ports = ['--port', '0', '--tls-port', '0', '--registry-port', '0'];
  const args = ['up', ...ports, '--data', join(folder.path, 'data'), '--json'];
  up = spawn(process.execPath, [...endsWithTest, bin, ...args], {
    env: { ...process.env, ...(await databaseEnv(args)) },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let line = '';
  for await (const chunk of up.stdout!) {
    line += chunk;
    if (line.includes('\n')) break;
  }
  addresses = JSON.parse(line);
});
afterAll(async () => {
  const ended = new Promise((resolve) => up.once('exit', resolve));
  up.kill('SIGTERM');
  await ended;
  folder.remove();
});

async function voxelsOf(file: string): Promise<number[]> {
  const read = await readVolume([sourceFromBytes(file, readFileSync(file))], nodePlatform);
  expect(read.volume.affine.map((x) => Math.round(x * 1e4) / 1e4)).toEqual([...volume.affine]);
  return [...read.volume.voxels].map(Number);
}
const bright = Array.from({ length: 60 }, (_, i) => (i % 3 === 0 ? 1 : 0));

describe('the command line with a real server and registry', () => {
  it('discover shows what predict then finds by name', async () => {
    const { stdout } = await tomaat(['discover', addresses.registry, '--task', 'threshold']);
    expect(stdout).toContain(`${addresses.server}/services/threshold`);
    const made = await tomaat([
      'predict',
      'threshold/any',
      '--registry',
      addresses.registry,
      '--volume',
      path,
    ]);
    expect(made.stderr).not.toContain('Error');
    expect(made.code).toBe(0);
    expect(made.stdout).toMatch(/bright +0\.096 ml/);
    expect(await voxelsOf(join(folder.path, 'a_segmentation.nii.gz'))).toEqual(bright);
  });

  it('predict uses HTTPS with the data folder’s self-signed certificate, and v1', async () => {
    const untrusted = await tomaat([
      'predict',
      `${addresses.serverTls}/services/threshold`,
      '--volume',
      path,
      '-o',
      join(folder.path, 'b.mha'),
    ]);
    expect(untrusted.stderr).toContain('is not trusted here');
    const out = join(folder.path, 'b.mha');
    const args = ['--volume', path, '--data', addresses.data, '--force', '-q'];
    const trusted = await tomaat([
      'predict',
      `${addresses.serverTls}/services/threshold`,
      ...args,
      '-o',
      out,
    ]);
    expect({ code: trusted.code, stderr: trusted.stderr }).toEqual({ code: 0, stderr: '' });
    expect(await voxelsOf(out)).toEqual(bright);
    const byV1 = await tomaat([
      'predict',
      `${addresses.serverTls}/services/threshold/predict`,
      ...args,
      '-o',
      out,
    ]);
    expect({ code: byV1.code, stderr: byV1.stderr }).toEqual({ code: 0, stderr: '' });
  });

  it('a damaged volume is the caller’s fault: 2, with the server’s words', async () => {
    const bytes = readFileSync(path);
    const damaged = join(folder.path, 'damaged.nii.gz');
    writeFileSync(damaged, bytes.subarray(0, bytes.length - 20));
    const { code, stderr } = await tomaat([
      'predict',
      `${addresses.server}/services/threshold`,
      '--volume',
      damaged,
      '-q',
    ]);
    expect(stderr).toMatch(/^Error: /);
    expect(code).toBe(2);
  });

  it('run gives without a server what predict gives with one', async () => {
    const out = join(folder.path, 'run.nii.gz');
    const { code, stderr } = await tomaat(['run', threshold, '--volume', path, '-o', out, '-q']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(await voxelsOf(out)).toEqual(bright);
  });
});
