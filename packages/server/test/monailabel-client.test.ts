import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findMonaiLabel } from '../../../test/programs.ts';
import { makeKey } from './access-fixture.ts';
import { writeApp } from './app-fixture.ts';
import { fineNames, organAt, readMap, writeOrgans } from './monailabel-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { type RealServer, startRealServer } from './real-server.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* /monailabel by the client of 3D Slicer's module, as its authors published it. */

const found = findMonaiLabel();
const driver = fileURLToPath(new URL('drive-monailabel.py', import.meta.url));

let folder: string;
let server: TestServer;
let volume: string;
let apps: string[];

/** The name of this file has what a client's path may have. */
const fileName = 'head; größer scan.nii.gz';

beforeAll(async () => {
  if (!found) return;
  folder = await temporaryFolder();
  volume = join(folder, fileName);
  await writeFile(volume, await encode(phantom(), 'nii.gz'));
  const labels = Array.from({ length: 10 }, (_, k) => ({ value: 10 * k + 11, name: `region ${k}` }));
  apps = [
    await writeOrgans(folder),
    // Ten regions of bands: voxel i of a line along x has label (x + y + 2z) % 11.
    await writeApp(folder, 'regions', {
      labels,
      infer: `
        const { size: [nx, ny, nz] } = volume;
        const voxels = new Uint8Array(volume.voxels.length);
        let i = 0;
        for (let z = 0; z < nz; z++) for (let y = 0; y < ny; y++) for (let x = 0; x < nx; x++) {
          const k = (x + y + 2 * z) % 11;
          voxels[i++] = k === 0 ? 0 : 10 * k + 1;
        }
        return { segmentation: { ...volume, voxels } };`,
    }),
  ];
  server = await startTestServer(apps, { faces: ['monailabel'] });
}, 60_000);
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  if (folder) await rm(folder, { recursive: true, force: true });
});

interface Answer {
  names?: string[];
  error?: string;
  [key: string]: unknown;
}

function start(
  arguments_: object,
  url = `${server.url}/monailabel`,
): { child: ChildProcess; answer: Promise<Answer> } {
  const all = JSON.stringify({ model: 'organs', volume, out: join(folder, 'result.nrrd'), ...arguments_ });
  const child = spawn(found!.python, ['-W', 'ignore', driver, found!.client, url, all]);
  let [out, complaint] = ['', ''];
  child.stdout.on('data', (text) => (out += text));
  child.stderr.on('data', (text) => (complaint += text));
  const answer = new Promise<Answer>((resolve, reject) => {
    child.once('close', () => {
      if (out.startsWith('{')) resolve(JSON.parse(out));
      else reject(new Error(complaint || 'it was ended'));
    });
  });
  return { child, answer };
}
const drive = (arguments_: object, url?: string) => start(arguments_, url).answer;
const resultOf = async (name = 'result.nrrd') => readMap(Uint8Array.from(await readFile(join(folder, name))));

async function expectOrgans(name?: string): Promise<void> {
  const map = await resultOf(name);
  const { size, affine } = phantom();
  expect(map.size).toEqual(size);
  map.affine.forEach((value, i) => {
    expect(value).toBeCloseTo(affine[i], 4);
  });
  const values = [3, 7, 40, 300];
  const expected = Array.from(
    map.voxels as Uint8Array,
    (_, i) =>
      values.indexOf(
        organAt(i % size[0], Math.floor(i / size[0]) % size[1], Math.floor(i / size[0] / size[1])),
      ) + 1,
  );
  expect(Array.from(map.voxels as Uint8Array)).toEqual(expected);
}

describe.skipIf(!found)('the client of 3D Slicer', () => {
  it('sees no training, no images and no login, and segments a volume that it uploads', async () => {
    expect(await drive({ what: 'panel' })).toEqual({
      train: false,
      next: {},
      datastore: expect.objectContaining({ objects: {} }),
      auth: false,
    });
    for (const image of ['MRHead', '../größer & mehr; "x"']) {
      const answer = await drive({ what: 'segment', image });
      expect(answer).toEqual({
        names: Object.keys(fineNames),
        file: 'result.nrrd',
        models: ['organs', 'regions'],
        upload: { image },
      });
      await expectOrgans();
    }
    // Its name is its own: another user's client has no such image.
    const other = await drive({ what: 'infer', client: 'user-other' });
    expect(other.error).toContain('There is no such image of yours');
  }, 60_000);

  it('segments in a session, and starts a new one when it is gone', async () => {
    expect(await drive({ what: 'session' })).toMatchObject({ names: Object.keys(fineNames), left: {} });
    await expectOrgans();
  }, 60_000);

  it('shows our messages', async () => {
    const garbage = join(folder, 'garbage.nii.gz');
    await writeFile(garbage, 'no image at all, '.repeat(1000));
    expect((await drive({ what: 'segment', volume: garbage })).error).toMatch(
      /^Status: 415; Response: \{"detail"/,
    );
    const refused = await drive({ what: 'segment', params: { level: '1000' } });
    expect(refused.error).toMatch(/^Status: 422.*level is 1000, but it must be a number from -200 to 200/);
  }, 60_000);

  it('reads 256³ voxels with ten labels', async () => {
    const n = 256;
    const size = [n, n, n] as const;
    const large = { ...phantom(), size, voxels: Int16Array.from({ length: n ** 3 }, (_, i) => i % 800) };
    const path = join(folder, 'large.nii.gz');
    await writeFile(path, await encode(large, 'nii.gz'));
    const answer = await drive({ what: 'segment', model: 'regions', volume: path, image: 'large' });
    expect(answer.names).toEqual(Array.from({ length: 10 }, (_, k) => `region ${k}`));
    const map = await resultOf();
    expect(map.size).toEqual(size);
    const voxels = map.voxels as Uint8Array;
    let wrong = 0;
    for (let z = 0, i = 0; z < n; z++)
      for (let y = 0; y < n; y++)
        for (let x = 0; x < n; x++, i++) if (voxels[i] !== (x + y + 2 * z) % 11) wrong++;
    expect(wrong).toBe(0);
  }, 180_000);

  it('logs in with a key, and each key has its own images', async () => {
    await using closed = await startTestServer(apps, { faces: ['monailabel'], login: true, legacyPort: 0 });
    const url = `${closed.url}/monailabel`;
    const [mine, other] = [
      await makeKey(closed.dataFolder, ['predict']),
      await makeKey(closed.dataFolder, ['predict']),
    ];
    const none = await drive({ what: 'panel', password: 'tmt_wrong' }, url);
    expect(none.error).toMatch(/^Status: 401.*The password must be an API key/);
    expect(await drive({ what: 'segment', password: mine.key }, url)).toMatchObject({ file: 'result.nrrd' });
    await expectOrgans();
    expect(await drive({ what: 'infer', password: mine.key }, url)).toMatchObject({ file: 'result.nrrd' });
    expect((await drive({ what: 'infer', password: other.key }, url)).error).toContain(
      'no such image of yours',
    );
    // At the legacy port, where nobody logs in, it has what it uploads there.
    const legacy = `${closed.legacyUrl}/monailabel`;
    expect((await drive({ what: 'infer' }, legacy)).error).toContain('no such image of yours');
    expect(await drive({ what: 'segment' }, legacy)).toMatchObject({ file: 'result.nrrd' });
    const past = await fetch(`${closed.url}/monailabel/info/`);
    expect([past.status, ((await past.json()) as { detail: string }).detail]).toEqual([
      401,
      expect.stringContaining('API key'),
    ]);
  }, 120_000);

  it('cancels its job when it is closed, and is told when the queue is full', async () => {
    await using full = await startTestServer(apps, { faces: ['monailabel'], maxQueued: 1, workers: 1 });
    const url = `${full.url}/monailabel`;
    await drive({ what: 'segment', client: 'a' }, url);
    const slow = { what: 'infer', client: 'a', params: { level: '-150' } };
    const state = async (name: string) =>
      Number(
        new RegExp(`^tomaat_jobs\\{state="${name}"\\} (\\d+)$`, 'm').exec(
          await (await fetch(`${full.url}/metrics`)).text(),
        )?.[1] ?? 0,
      );
    const counts = async () => [await state('running'), await state('queued')];
    const begin = () => {
      const one = start(slow, url);
      one.answer.catch(() => {});
      return one;
    };
    const first = begin();
    // Until it runs, it is the one that may wait.
    await expect.poll(counts, { timeout: 30_000 }).toEqual([1, 0]);
    const second = begin();
    await expect.poll(counts, { timeout: 30_000 }).toEqual([1, 1]);
    const third = await drive({ what: 'infer', client: 'a' }, url);
    expect(third.error).toMatch(/^Status: 503; Response: \{"detail":"/);
    for (const one of [second, first]) one.child.kill('SIGKILL');
    await expect.poll(counts, { timeout: 30_000 }).toEqual([0, 0]);
    expect(await drive({ what: 'infer', client: 'a' }, url)).toMatchObject({ file: 'result.nrrd' });
  }, 120_000);

  it.skipIf(!existsSync('/proc/self/stat'))(
    'finds its image on a server that was killed in mid-job',
    async () => {
      const dataFolder = join(folder, 'killed');
      let real: RealServer = await startRealServer(apps, { dataFolder, faces: ['monailabel'] });
      try {
        await drive({ what: 'segment' }, `${real.url}/monailabel`);
        const lost = start({ what: 'infer', params: { level: '-150' } }, `${real.url}/monailabel`);
        const ended = expect(lost.answer).rejects.toThrow(/Remote|reset|closed|aborted/i);
        const running = async () =>
          (await (await fetch(`${real.url}/metrics`)).text()).includes('tomaat_jobs{state="running"} 1');
        await expect.poll(running, { timeout: 30_000 }).toBe(true);
        await real.kill('SIGKILL');
        await ended;
        real = await startRealServer(apps, { dataFolder, faces: ['monailabel'], workers: 2 });
        expect(await drive({ what: 'infer' }, `${real.url}/monailabel`)).toMatchObject({
          file: 'result.nrrd',
        });
        await expectOrgans();
      } finally {
        await real.kill('SIGKILL');
      }
    },
    120_000,
  );
});
