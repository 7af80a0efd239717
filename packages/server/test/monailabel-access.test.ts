import { readdirSync, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { readSegmentationFile } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { dicomFile, sliceElements } from '../../core/test/dicom-files.ts';
import { zipOf } from '../../core/test/zip-files.ts';
import type { ServerOptions } from '../src/server/options.ts';
import { makeKey } from './access-fixture.ts';
import { fineNames, organAt, readInferred, readMap, writeOrgans } from './monailabel-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { readAudit } from './support/tested-database.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* /monailabel with DICOM files that name a patient, with logins, and with uploads that expire. */

let folder: string;
let app: string;
beforeAll(async () => {
  folder = await temporaryFolder();
  app = await writeOrgans(folder);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const start = (options: Partial<ServerOptions> = {}) =>
  startTestServer([app], { faces: ['monailabel'], ...options });

/** Files of the data folder with what they hold. */
const filesOf = ({ dataFolder }: TestServer) =>
  readdirSync(dataFolder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
const blobsOf = ({ dataFolder }: TestServer) => readdirSync(join(dataFolder, 'blobs/sha256'));

const size = [4, 3, 5] as const;
const canary = 'Canary^Meyer';
const slices = Array.from({ length: size[2] }, (_, i) => {
  const elements = sliceElements({
    orientation: [1, 0, 0, 0, 1, 0],
    position: [-3, 7, 2.5 * i],
    instance: i + 1,
    more: { 1048592: ['PN', canary], 1048608: ['LO', 'Canary 7Q'] },
  });
  return Uint8Array.from(dicomFile(elements));
});
const archive = Uint8Array.from(zipOf(slices.map((data, i) => ({ name: `../../${canary}/${i}`, data }))));

const formOf = (
  name: string,
  files: readonly Uint8Array<ArrayBuffer>[],
  fileName = 'C:\\x\\a;b "c".nii.gz',
) => {
  const form = new FormData();
  form.append('params', '{"client_id": "u"}');
  for (const file of files) form.append(name, new Blob([file]), fileName);
  return form;
};
const put = (server: TestServer, path: string, body: FormData, headers = {}) =>
  fetch(`${server.url}/monailabel${path}`, { method: 'PUT', body, headers });
const infer = (server: TestServer, query: string, headers = {}) =>
  fetch(`${server.url}/monailabel/infer/organs${query}`, { method: 'POST', body: formOf('x', []), headers });
async function sessionOf(server: TestServer, files: readonly Uint8Array<ArrayBuffer>[], fileName: string) {
  const answer = await put(server, '/session/', formOf('files', files, fileName));
  expect(answer.status, await answer.clone().text()).toBe(200);
  return ((await answer.json()) as { session_id: string }).session_id;
}

describe('DICOM files', () => {
  it.each([
    ['in an archive, whatever its names', [archive], 'a.zip'],
    ['one by one', [...slices].reverse(), 'a.dcm'],
  ])(
    'are a volume like any other %s, and give a segmentation of the series',
    async (_what, files, fileName) => {
      await using server = await start();
      const id = await sessionOf(server, files, fileName);
      const { params, bytes } = await readInferred(await infer(server, `?session_id=${id}`));
      expect(params.label_names).toEqual(fineNames);
      const map = await readMap(bytes);
      expect(map.size).toEqual([...size]);
      // LPS to RAS; rows 0.75 and columns 1.5 mm apart.
      expect(map.affine).toEqual([-1.5, 0, 0, 3, 0, -0.75, 0, -7, 0, 0, 2.5, 0, 0, 0, 0, 1]);
      const values = [0, 3, 7, 40, 300];
      const expected = Array.from({ length: 60 }, (_, i) =>
        values.indexOf(organAt(i % 4, Math.floor(i / 4) % 3, Math.floor(i / 12))),
      );
      expect(Array.from(map.voxels as Uint8Array)).toEqual(expected);
      const segmentation = await infer(server, `?session_id=${id}&output=dicom_seg`);
      expect(segmentation.status, await segmentation.clone().text()).toBe(200);
      expect(segmentation.headers.get('content-type')).toBe('application/dicom');
      const { labels } = readSegmentationFile(new Uint8Array(await segmentation.arrayBuffer()));
      expect(labels.map(({ name }) => name)).toContain('liver');
      expect(filesOf(server).filter((file) => /canary/i.test(file))).toEqual([]);
    },
  );

  it('leave nothing of the patient with --strip-inputs', async () => {
    await using server = await start({ stripInputs: true });
    const ids = [
      await sessionOf(server, [archive], `${canary}.zip`),
      await sessionOf(server, slices, canary),
    ];
    expect(
      (await put(server, `/datastore/?image=${canary}`, formOf('file', [archive], `${canary}.zip`))).status,
    ).toBe(200);
    for (const query of [...ids.map((id) => `?session_id=${id}`), `?image=${canary}`]) {
      const { bytes } = await readInferred(await infer(server, query));
      expect((await readMap(bytes)).size).toEqual([...size]);
    }
    for (const file of filesOf(server)) {
      expect(file).not.toMatch(/canary|meyer/i);
      expect(readFileSync(file).toString('latin1'), file).not.toMatch(/Canary|Meyer/);
    }
  });

  it('are refused with --allow-identity no, and leave nothing', async () => {
    await using server = await start({ allowIdentity: 'no' });
    for (const answer of [
      await put(server, '/session/', formOf('files', [archive], 'a.zip')),
      await put(server, '/session/', formOf('files', slices, 'a.dcm')),
      await put(server, '/datastore/?image=a', formOf('file', [slices[0]], 'a.dcm')),
      await fetch(`${server.url}/monailabel/infer/organs`, {
        method: 'POST',
        body: formOf('file', [archive], 'a.zip'),
      }),
    ]) {
      expect(answer.status).toBe(403);
      expect(((await answer.json()) as { detail: string }).detail).not.toMatch(/Canary|Meyer/);
    }
    await expect.poll(() => blobsOf(server)).toEqual([]);
  });
});

describe('logging in', () => {
  it('takes a key as the password, for any user; a wrong one is counted and recorded', async () => {
    await using server = await start({ login: true, workers: 0 });
    const { app: http } = server;
    const { key, headers } = await makeKey(server.dataFolder, ['predict']);
    const worker = await makeKey(server.dataFolder, ['worker']);
    const token = (password: string, more = {}) =>
      http.inject({
        method: 'POST',
        url: '/monailabel/auth/token',
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
        payload: new URLSearchParams({ username: 'Dr. No', password, grant_type: 'password' }).toString(),
        ...more,
      });
    expect((await http.inject({ url: '/monailabel/auth/' })).json()).toEqual({ enabled: true });
    const answer = await token(` ${key} `);
    expect([answer.statusCode, answer.json()]).toEqual([200, { access_token: key, token_type: 'bearer' }]);
    const authorization = `bearer ${key}`;
    const valid = { url: '/monailabel/auth/token/valid' };
    expect((await http.inject({ ...valid, headers: { authorization } })).statusCode).toBe(200);
    for (const given of [{}, { authorization: 'bearer x' }])
      expect((await http.inject({ ...valid, headers: given })).statusCode).toBe(401);
    expect((await http.inject({ ...valid, headers: worker.headers })).statusCode).toBe(403);
    for (const wrong of ['', 'x', 'x'.repeat(900), worker.key])
      expect([(await token(wrong)).statusCode, (await token(wrong)).json()]).toEqual([
        401,
        { detail: expect.stringContaining('API key with the scope predict') },
      ]);
    expect((await token('x'.repeat(20_000))).statusCode).toBe(413);
    const tried: number[] = [];
    for (let i = 0; i < 70; i++)
      tried.push((await token('tmt_wrong', { remoteAddress: '192.0.2.1' })).statusCode);
    expect([...new Set(tried)]).toEqual([401, 429]);
    // Nor may an empty password fill the audit log.
    expect((await token('', { remoteAddress: '192.0.2.1' })).statusCode).toBe(429);
    const empty = await token('', { remoteAddress: '192.0.2.1', payload: 'username=a' });
    expect(empty.statusCode).toBe(429);
    expect((await token(key, { remoteAddress: '192.0.2.1' })).statusCode).toBe(200);
    // No page of another origin may try keys.
    const page = await token(key, { headers: { origin: 'https://evil.example' } });
    expect(page.statusCode).toBe(403);
    const log = await readAudit(server.dataFolder);
    expect(log).toMatch(/"login\.succeeded"/);
    expect(log).toMatch(/"login\.failed"/);
    expect(log).not.toContain(key);
    expect((await http.inject({ url: '/monailabel/info/', headers })).statusCode).toBe(200);
  });

  it('is off where everybody is admitted', async () => {
    await using server = await start({ workers: 0 });
    const answer = await server.app.inject({
      method: 'POST',
      url: '/monailabel/auth/token',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      payload: 'username=a&password=b',
    });
    expect([answer.statusCode, answer.json()]).toEqual([
      409,
      { detail: expect.stringContaining('Login is off') },
    ]);
  });

  it('keeps the sessions and images of keys apart', async () => {
    await using server = await start({ login: true, workers: 0 });
    const [mine, other] = [
      (await makeKey(server.dataFolder, ['predict'])).headers,
      (await makeKey(server.dataFolder, ['predict'])).headers,
    ];
    const volume = Uint8Array.from(await encode(phantom(), 'nii.gz'));
    const opened = await put(server, '/session/', formOf('files', [volume]), mine);
    const { session_id } = (await opened.json()) as { session_id: string };
    await put(server, '/datastore/?image=a', formOf('file', [volume]), mine);
    const session = (headers: object, method = 'GET') =>
      server.app.inject({
        method: method as 'GET',
        url: `/monailabel/session/${session_id}`,
        headers: { ...headers },
      });
    expect((await session(other)).json()).toEqual({});
    expect((await session(other, 'DELETE')).json()).toEqual({});
    expect((await session(mine)).json()).toMatchObject({ name: session_id });
    for (const query of [`?session_id=${session_id}`, '?image=a'])
      expect((await infer(server, query, other)).status).toBe(404);
  });
});

describe('images', () => {
  it('are deleted when nobody has used them for a while, with their files', async () => {
    await using server = await start({ uploadTtlMs: 300, sweepMs: 50, workers: 0 });
    const volume = Uint8Array.from(await encode(phantom(), 'nii.gz'));
    expect((await put(server, '/datastore/?image=a', formOf('file', [volume]))).status).toBe(200);
    await expect.poll(() => blobsOf(server), { timeout: 10_000 }).toEqual([]);
    expect((await infer(server, '?image=a')).status).toBe(404);
  });
});
