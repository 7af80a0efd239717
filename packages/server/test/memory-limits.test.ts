import { existsSync } from 'node:fs';
import { readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { Fit, Job, Problem } from '@tomaat/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { dataFolder } from '../../../test/real-data.ts';
import { openApp } from '../src/apps.ts';
import { createMemoryPolicy } from '../src/worker/memory-limit.ts';
import { runApp } from '../src/worker/run-app.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { leftFiles } from './left-files.ts';
import { encode, phantom } from './phantom.ts';
import { type RealServer, startRealServer } from './real-server.ts';
import { appFolder, startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* Memory is limited where no author has thought of it. */

let folder: string;
beforeAll(async () => {
  folder = await temporaryFolder();
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** A NIfTI of zeros, however many: uint64 (1280), int16 (4) … packed to next to nothing. */
async function zeros(
  size: readonly [number, number, number],
  type: number,
  bits: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const header = Buffer.from(await encode(phantom(undefined, [3, 4, 5]), 'nii')).subarray(0, 352);
  for (const [i, n] of size.entries()) header.writeInt16LE(n, 42 + 2 * i);
  header.writeInt16LE(type, 70);
  header.writeInt16LE(bits, 72);
  const bytes = (size[0] * size[1] * size[2] * bits) / 8;
  return Uint8Array.from(gzipSync(Buffer.concat([header, Buffer.alloc(bytes)]), { level: 1 }));
}

describe('a volume that needs more memory than a prediction may take', () => {
  let server: TestServer;
  let large: Uint8Array<ArrayBuffer>;
  const size = [300, 250, 200] as const;
  beforeAll(async () => {
    const small = await writeApp(folder, 'small', { infer: inferBright, limits: { memoryMb: 256 } });
    const frugal = 'return { segmentation: { ...volume, voxels: new Uint8Array(volume.voxels.length) } };';
    server = await startTestServer([await writeApp(folder, 'plain', { infer: frugal }), small], {
      memoryMb: 300,
    });
    large = await zeros(size, 1280, 64);
  });
  afterAll(() => server?.[Symbol.asyncDispose]());

  const octets = { 'content-type': 'application/octet-stream' };
  const form = () => {
    const made = new FormData();
    made.set('volume', new Blob([large]), 'scan.nii.gz');
    return made;
  };
  const ask = async (path: string, body: BodyInit, headers: Record<string, string> = {}) => {
    const response = await fetch(`${server.url}${path}`, { method: 'POST', body, headers });
    return {
      status: response.status,
      answer: (await response.json()) as Problem & { facts: { fittingSize: number[] } },
    };
  };

  it('is refused at the intake, with what would fit and what to do', async () => {
    for (const { status, answer } of [
      await ask('/api/services/plain/predictions', form()),
      await ask('/api/services/plain/predictions', large, octets),
      await ask('/plain/any', form()),
    ]) {
      expect([status, answer.code, answer.field]).toEqual([413, 'TOO_MANY_VOXELS', 'volume']);
      expect(answer.detail).toMatch(
        /^A volume of 300 × 250 × 200 voxels needs about \d+ MB of memory, and 300 MB may be used\. About \d+ × \d+ × \d+ voxels would fit\. Crop or resample the volume, or ask the operator to raise the limit \(--memory-mb\)\.$/,
      );
      expect(answer.facts.fittingSize).toHaveLength(3);
    }
    const v1 = await ask('/services/plain/predict', form());
    expect(JSON.stringify(v1.answer)).toContain('would fit');
    await expect.poll(() => leftFiles(server.dataFolder, ['blobs'])).toEqual([]);
  });

  it('gets the same answer from fit as from the intake', async () => {
    const fit = async (voxels: readonly number[]) => {
      const body = JSON.stringify({ inputs: { volume: { size: voxels, voxelType: 'uint64' } } });
      return (await (
        await fetch(`${server.url}/api/services/plain/fit`, { method: 'POST', body })
      ).json()) as Fit;
    };
    const { answer } = await ask('/plain/any', form());
    const refused = await fit(size);
    expect([refused.verdict, refused.reason]).toEqual(['too big', answer.detail]);
    expect(refused.allowedMb).toBe(300);
    // What would fit does, and is as large as may be.
    const fitting = answer.facts.fittingSize;
    expect((await fit(fitting)).verdict).toBe('fits');
    expect((await fit(fitting.map((n) => Math.ceil(n * 1.03)))).verdict).toBe('too big');
    const [x, y, z] = fitting as [number, number, number];
    const accepted = await fetch(`${server.url}/api/services/plain/predictions`, {
      method: 'POST',
      body: await zeros([x, y, z], 1280, 64),
      headers: { ...octets, prefer: 'wait=60' },
    });
    const done = (await accepted.json()) as Job;
    expect([done.state, done.error?.detail]).toEqual(['succeeded', undefined]);
  });

  it('is compared with what the manifest allows, if that says', async () => {
    const { answer } = await ask('/small/any', form());
    expect(answer.detail).toMatch(/256 MB may be used.*raise limits\.memoryMb of the app’s manifest/);
  });

  it('counts all frames of a volume only where the service takes them', async () => {
    const fit = async (frames: number) => {
      const body = JSON.stringify({
        inputs: { volume: { size: [100, 100, 100], frames, voxelType: 'int16' } },
      });
      return (await (
        await fetch(`${server.url}/api/services/plain/fit`, { method: 'POST', body })
      ).json()) as Fit;
    };
    expect((await fit(200)).verdict).toBe('fits');
  });
});

describe('an app without its own limit', () => {
  let server: RealServer;
  const grow = 'const all = []; for (;;) { all.push(new Uint8Array(2e7).fill(1)); await sleep(1); }';
  const script = `echo '{"fraction":0.5}'; cat /proc/self/oom_score_adj >&2; sleep 60`;
  beforeAll(async () => {
    server = await startRealServer(
      [
        await writeApp(folder, 'grows', { infer: grow }),
        await writeApp(folder, 'good', { infer: inferBright }),
        await writeApp(folder, 'waits', { infer: 'await sleep(60_000);' }),
        await writeApp(folder, 'program', {
          model: { runtime: 'command', command: ['sh', '-c', script, 'sh'] },
        }),
      ],
      { memoryMb: 400, workers: 2 },
    );
  });
  afterAll(() => server?.[Symbol.asyncDispose]());

  const submit = async (service: string, wait = 0) => {
    const response = await fetch(`${server.url}/api/services/${service}/predictions`, {
      method: 'POST',
      body: Uint8Array.from(await encode(phantom(), 'nii.gz')),
      headers: { 'content-type': 'application/octet-stream', prefer: `wait=${wait}` },
    });
    return (await response.json()) as Job;
  };

  it('fails its job alone when it takes more than the limit', async () => {
    const { error } = await submit('grows', 60);
    expect(error).toMatchObject({
      code: 'OUT_OF_MEMORY',
      detail: expect.stringMatching(/400 MB that a prediction may use.*--memory-mb/),
    });
    expect((await submit('good', 60)).state).toBe('succeeded');
  });

  it.skipIf(!existsSync('/proc/self/oom_score_adj'))(
    'dies before the server when the machine is out of memory',
    async () => {
      const jobs = [await submit('waits'), await submit('program')];
      const scoreOf = async (pid: number | string) =>
        Number(await readFile(`/proc/${pid}/oom_score_adj`, 'utf8').catch(() => 'NaN'));
      const childrenOf = async (pid: number | string) =>
        (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => ''))
          .split(' ')
          .filter(Boolean);
      const own = await scoreOf(server.pid);
      const programs = async () => {
        const children = await childrenOf(server.pid);
        const scores = await Promise.all(children.map(scoreOf));
        const below = (await Promise.all(children.map(childrenOf))).flat();
        return { scores, below: await Promise.all(below.map(scoreOf)) };
      };
      // A process that has just started has not raised its score yet.
      await expect.poll(programs).toEqual({
        scores: expect.toSatisfy((scores: number[]) => scores.length >= 2 && scores.every((n) => n === 800)),
        below: [800],
      });
      expect(own).toBeLessThan(800);
      for (const { id } of jobs) await fetch(`${server.url}/api/jobs/${id}`, { method: 'DELETE' });
    },
  );
});

describe('the share of a 4 GB machine with two concurrent predictions', () => {
  const memory = createMemoryPolicy({ slots: 2, machineMb: 4000 });

  async function run(path: string, parameters: Record<string, unknown>): Promise<number> {
    const app = await openApp(appFolder('brain'));
    const files = { volume: [{ path, sizeBytes: (await stat(path)).size }] };
    await using result = await runApp({ app, files, parameters, memory });
    return result.outputs.length;
  }

  it('is enough for the brain app on its sample', async () => {
    expect(await run(join(appFolder('brain'), 'sample.nii.gz'), { resolution: 'fine' })).toBe(4);
  });

  it.skipIf(!dataFolder())('is enough for the brain app on a real head of 256³ voxels', async () => {
    expect(await run(join(dataFolder()!, 'brain', 'synth01_t1.nii.gz'), { resolution: 'fine' })).toBe(4);
  });
});
