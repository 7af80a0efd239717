import { readdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type Volume, voxelCount } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { version } from '../src/version.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { leftFiles } from './left-files.ts';
import { fineNames, nrrdHeader, organAt, readInferred, readMap, writeOrgans } from './monailabel-fixture.ts';
import { encode, obliqueAffine, phantom } from './phantom.ts';
import { databaseBytes } from './support/tested-database.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* /monailabel as its clients use it, and what a client may not do with it. */

let folder: string;
let server: TestServer;
let base: string;
let volume: Uint8Array<ArrayBuffer>;

beforeAll(async () => {
  folder = await temporaryFolder();
  volume = Uint8Array.from(await encode(phantom(), 'nii.gz'));
  const many = Array.from({ length: 255 }, (_, k) => ({ value: k + 1, name: `label ${k + 1}` }));
  const apps = [
    await writeOrgans(folder),
    await writeApp(folder, 'two-volumes', {
      inputs: { t1: { type: 'volume' }, t2: { type: 'volume' } },
      labels: [{ value: 1, name: 'one' }],
      infer: inferBright,
    }),
    await writeApp(folder, 'many', { labels: many, infer: inferBright }),
    await writeApp(folder, 'nameless', { infer: inferBright }),
    await writeApp(folder, 'slip', {
      labels: [{ value: 2, name: 'two' }],
      infer: inferBright,
    }),
  ];
  server = await startTestServer(apps, { faces: ['monailabel'], allowOrigin: ['https://viewer.example'] });
  base = `${server.url}/monailabel`;
}, 60_000);
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

interface Sent {
  params?: object;
  file?: Uint8Array<ArrayBuffer>;
  fileName?: string;
  part?: string;
  headers?: Record<string, string>;
  to?: string;
  signal?: AbortSignal;
}

function send(
  method: string,
  path: string,
  { params, file, fileName = 'MRHead.nii.gz', part = 'file', headers, to = base, signal }: Sent = {},
): Promise<Response> {
  const form = new FormData();
  if (params) form.append('params', JSON.stringify(params));
  if (file) form.append(part, new Blob([file]), fileName);
  return fetch(`${to}${path}`, { method, body: form, headers, signal });
}
const upload = (image: string, more: Sent = {}) =>
  send('PUT', `/datastore/?image=${encodeURIComponent(image)}`, {
    params: { client_id: 'user-1' },
    file: volume,
    ...more,
  });
const infer = (query: string, more: Sent = {}) =>
  send('POST', `/infer/organs${query}`, {
    ...more,
    params: { client_id: 'user-1', result_extension: '.nrrd', result_dtype: 'uint8', ...more.params },
  });
const detailOf = async (response: Response) => ((await response.json()) as { detail: string }).detail;
const filesOf = ({ dataFolder }: { dataFolder: string }) => leftFiles(dataFolder);

/** Voxel by voxel at the same place of the world: both are on the grid of the phantom. */
function expectOrgans(map: Volume, numberOf: (x: number, y: number, z: number) => number): void {
  const { size } = phantom();
  expect(map.size).toEqual(size);
  map.affine.forEach((value, i) => {
    expect(value).toBeCloseTo(obliqueAffine[i], 4);
  });
  expect(map.voxels).toBeInstanceOf(Uint8Array);
  const expected = Uint8Array.from({ length: voxelCount(phantom()) }, (_, i) =>
    numberOf(i % size[0], Math.floor(i / size[0]) % size[1], Math.floor(i / size[0] / size[1])),
  );
  expect(Buffer.compare(map.voxels as Uint8Array, expected)).toBe(0);
}
const values = [3, 7, 40, 300];
const fineNumber = (x: number, y: number, z: number) => values.indexOf(organAt(x, y, z)) + 1;

describe('/info', () => {
  it('describes what can be offered, its labels numbered, numbers of parameters as text', async () => {
    for (const path of ['/info', '/info/']) {
      const response = await fetch(`${base}${path}`);
      expect(await response.json()).toEqual({
        name: 'TOMAAT',
        description: expect.any(String),
        version,
        labels: [...Object.keys(fineNames), 'two'],
        models: {
          organs: {
            type: 'segmentation',
            labels: fineNames,
            dimension: 3,
            description: 'organs: Made for a test.',
            version: '1.0.0',
            config: { detail: ['fine', 'coarse'], flip: false, level: '6' },
          },
          slip: expect.objectContaining({ labels: { two: 1 }, config: {} }),
        },
        trainers: {},
        strategies: {},
        scoring: {},
        train_stats: {},
        datastore: { total: 0, completed: 0, label_tags: {} },
      });
    }
  });

  it('refuses models that it does not offer, and says why', async () => {
    for (const id of ['two-volumes', 'many', 'nameless']) {
      const response = await send('POST', `/infer/${id}?image=x`, { params: {}, file: volume });
      expect(response.status).toBe(404);
      expect(await detailOf(response)).toMatch(/1 to 254 named labels.*Available: organs, slip\./);
    }
    const unknown = await send('POST', '/infer/..%2Forgans?image=x', { params: {}, file: volume });
    expect(unknown.status).toBe(404);
    expect(await detailOf(unknown)).toContain('Available: organs, slip.');
  });
});

describe('the rest of the protocol', () => {
  it('is answered as its clients expect', async () => {
    const json = async (path: string, init?: RequestInit) => {
      const response = await fetch(`${base}${path}`, init);
      return [response.status, await response.json()];
    };
    expect(await json('/auth/')).toEqual([200, { enabled: false }]);
    expect(await json('/datastore/?output=all')).toEqual([
      200,
      { name: 'TOMAAT', description: '', images_dir: '', labels_dir: '', objects: {} },
    ]);
    for (const path of ['/datastore/', '/datastore/?output=stats'])
      expect(await json(path)).toEqual([200, { total: 0, completed: 0, label_tags: {} }]);
    const post = { method: 'POST', body: '{"client_id": "user-1"}' };
    expect(
      await json('/activelearning/random', { ...post, headers: { 'content-type': 'application/json' } }),
    ).toEqual([200, {}]);
    // Anything but 200: otherwise 3D Slicer waits for the training to end.
    for (const [path, method] of [
      ['/train/?check_if_running=true', 'GET'],
      ['/train/organs', 'POST'],
      ['/datastore/label?image=a&tag=b', 'PUT'],
      ['/infer/wsi/organs', 'POST'],
      ['/logs/', 'GET'],
    ])
      expect([path, (await fetch(`${base}${path}`, { method })).status]).toEqual([path, 404]);
  });

  it('is not there unless asked for', async () => {
    await using other = await startTestServer(['threshold'], { faces: ['v1'], workers: 0 });
    for (const path of ['/info/', '/auth/', '/datastore/', '/session/x', '/train/'])
      expect((await fetch(`${other.url}/monailabel${path}`)).status).toBe(404);
    for (const [method, path] of [
      ['PUT', '/datastore/?image=a'],
      ['PUT', '/session/'],
      ['POST', '/infer/threshold?image=a'],
      ['POST', '/infer'],
      ['POST', '/auth/token'],
    ]) {
      const to = `${other.url}/monailabel`;
      expect([path, (await send(method, path, { file: volume, to })).status]).toEqual([path, 404]);
    }
    expect(filesOf(other)).toEqual([]);
  });

  it('may be read by pages of --allow-origin, and by no others', async () => {
    const origin = 'https://viewer.example';
    const asked = {
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'content-type',
    };
    const before = await server.app.inject({
      method: 'OPTIONS',
      url: '/monailabel/infer/organs',
      headers: { origin, ...asked },
    });
    expect(before.statusCode).toBe(204);
    expect(before.headers['access-control-allow-origin']).toBe(origin);
    const info = await server.app.inject({ url: '/monailabel/info/', headers: { origin } });
    expect(info.headers['access-control-allow-origin']).toBe(origin);
    const other = await server.app.inject({
      url: '/monailabel/info/',
      headers: { origin: 'https://evil.example' },
    });
    expect(other.statusCode).toBe(403);
    expect(other.headers['access-control-allow-origin']).toBeUndefined();
    expect(other.json().detail).toContain('--allow-origin');
  });
});

describe('/infer', () => {
  it('answers with the names of this run and the label map, numbered, on the grid of the volume', async () => {
    const startedMs = performance.now();
    expect(await (await upload('MRHead')).json()).toEqual({ image: 'MRHead' });
    const response = await infer('?image=MRHead');
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toMatch(/^multipart\/form-data; boundary=[0-9a-f]+$/);
    expect(response.headers.get('transfer-encoding')).toBeNull();
    expect(response.headers.get('content-encoding')).toBeNull();
    expect(Number(response.headers.get('content-length'))).toBeGreaterThan(500);
    const { params, fileName, bytes } = await readInferred(response);
    expect(params.label_names).toEqual(fineNames);
    expect(Object.keys(params.label_names)).toEqual(Object.keys(fineNames));
    expect(Object.values(params.original_values)).toEqual([3, 7, 40, 300, 301]);
    const { infer: inferSeconds, total } = params.latencies;
    expect(inferSeconds).toBeGreaterThan(0);
    expect(total).toBeGreaterThanOrEqual(inferSeconds);
    expect(total).toBeLessThan((performance.now() - startedMs) / 1000 + 0.1);
    expect(fileName).toBe('result.nrrd');
    const header = nrrdHeader(bytes);
    expect(header).toContain('type: uint8');
    expect(header).toContain('space: left-posterior-superior');
    expect(header).toContain('encoding: gzip');
    // OHIF's reader fails on lists of quoted words.
    expect(header.filter((line) => /^[a-z ]+:[^=].*"/.test(line))).toEqual([]);
    expectOrgans(await readMap(bytes), fineNumber);
    // The promise gives the same voxels, with the app's own values.
    const own = await fetch(`${server.url}/organs/any`, {
      method: 'POST',
      body: volume,
      headers: { 'content-type': 'application/octet-stream' },
    });
    const map = await readMap(new Uint8Array(await own.arrayBuffer()));
    const numbers = Array.from(map.voxels as Uint16Array, (value) => values.indexOf(value) + 1);
    const shown = await readMap(bytes);
    expect(Array.from(shown.voxels as Uint8Array)).toEqual(numbers);
  });

  it('takes a file, a session, several files of a session, and another name of the same bytes', async () => {
    const check = async (response: Response) => {
      expect(response.status, await response.clone().text()).toBe(200);
      expectOrgans(await readMap((await readInferred(response)).bytes), fineNumber);
    };
    await check(await infer('?image=never-uploaded', { file: volume }));
    const opened = await send('PUT', '/session/', { part: 'files', file: volume });
    const { session_id, session_info } = (await opened.json()) as {
      session_id: string;
      session_info: Record<string, unknown>;
    };
    expect(session_info).toMatchObject({ name: session_id, path: '', image: '', meta: {}, expiry: 3600 });
    expect(await (await fetch(`${base}/session/${session_id}`)).json()).toMatchObject({ name: session_id });
    await check(await infer(`?image=never-uploaded&session_id=${session_id}`));
    expect(await (await fetch(`${base}/session/${session_id}`, { method: 'DELETE' })).json()).toEqual({});
    expect(await (await fetch(`${base}/session/${session_id}`)).json()).toEqual({});
    const late = await infer(`?image=MRHead&session_id=${session_id}`);
    expect([late.status, await detailOf(late)]).toEqual([404, expect.stringContaining('PUT /session/')]);

    const { hdr, img } = await pairOf(phantom());
    const form = new FormData();
    form.append('files', new Blob([hdr]), 'C:\\scans\\a.hdr');
    form.append('files', new Blob([img]), 'C:\\scans\\a.img');
    const pair = await fetch(`${base}/session/`, { method: 'PUT', body: form });
    const { session_id: both } = (await pair.json()) as { session_id: string };
    await check(await infer(`?session_id=${both}`));
    expect((await upload('again')).status).toBe(200);
    await check(await infer('?image=again'));
  });

  it('takes forms as Python’s clients write them: paths as they are, a dollar sign in the boundary', async () => {
    const boundary = '----------lImIt_of_THE_fIle_eW_$';
    for (const fileName of ['C:\\Users\\b c;d\\neu größer.nii.gz', '/tmp/übung/new.nii.gz', 'x.nii.gz']) {
      const part = (head: string, body: Uint8Array | string) =>
        Buffer.concat([
          Buffer.from(`--${boundary}\r\nContent-Disposition: form-data; ${head}\r\n\r\n`),
          Buffer.from(body),
          Buffer.from('\r\n'),
        ]);
      const payload = Buffer.concat([
        part('name="params"', '{"client_id": "user-1", "detail": "coarse"}'),
        part(`name="file"; filename="${fileName}"\r\nContent-Type: application/octet-stream`, volume),
        Buffer.from(`--${boundary}--\r\n\r\n`),
      ]);
      const headers = { 'content-type': `multipart/form-data; boundary=${boundary}` };
      const response = await fetch(`${base}/infer/organs?image=x&output=json`, {
        method: 'POST',
        body: payload,
        headers,
      });
      expect([response.status, await response.json()]).toEqual([
        200,
        expect.objectContaining({ label_names: { organ: 1 } }),
      ]);
    }
  });

  it('takes parameters as the form of 3D Slicer sends them, and ignores those of the client', async () => {
    const coarse = await readInferred(
      await infer('', {
        file: volume,
        params: { detail: 'coarse', flip: false, level: '', device: ['cpu'], result_compress: false },
      }),
    );
    expect(coarse.params.label_names).toEqual({ organ: 1 });
    expectOrgans(await readMap(coarse.bytes), (x, y, z) => Number(organAt(x, y, z) > 0));
    for (const params of [
      { flip: true, level: 6 },
      { flip: 'true', level: '6.0', detail: ['fine', 'coarse'] },
    ]) {
      const flipped = await readInferred(await infer('', { file: volume, params }));
      expectOrgans(await readMap(flipped.bytes), (x, y, z) => fineNumber(x + 1, y, z));
    }
    for (const [params, message] of [
      [{ detail: 'finest' }, 'detail must be one of: coarse, fine.'],
      [{ level: '1000' }, 'level is 1000, but it must be a number from -200 to 200.'],
    ] as const) {
      const refused = await infer('', { file: volume, params });
      expect([refused.status, await detailOf(refused)]).toEqual([422, message]);
    }
  });

  it('gives the image alone, the names alone, and other formats', async () => {
    const image = await infer('?output=image', { file: volume, params: { result_extension: '.nii.gz' } });
    expect(image.headers.get('content-type')).toBe('application/octet-stream');
    expect(image.headers.get('content-disposition')).toBe('attachment; filename="result.nii.gz"');
    const bytes = new Uint8Array(await image.arrayBuffer());
    expect(Number(image.headers.get('content-length'))).toBe(bytes.length);
    expect([...bytes.subarray(0, 2)]).toEqual([0x1f, 0x8b]);
    expectOrgans(await readMap(bytes), fineNumber);
    const names = await infer('?output=json', { file: volume });
    expect(await names.json()).toMatchObject({ label_names: fineNames });
    for (const [query, params, status, field] of [
      ['?output=dicom_seg', {}, 406, 'DICOM series'],
      ['?output=dsa', {}, 422, 'output is not one of: all, image, json, dicom_seg'],
      ['', { result_extension: '.exe' }, 406, 'Available: .nii, .nii.gz, .mha, .nrrd.'],
    ] as const) {
      const refused = await infer(query, { file: volume, params });
      expect([refused.status, await detailOf(refused)]).toEqual([status, expect.stringContaining(field)]);
    }
  });

  it('says what is wrong in the words of the protocol, and leaves nothing behind', async () => {
    const before = filesOf(server).filter((file) => !file.includes('/converted/'));
    const garbage = Uint8Array.from({ length: 5000 }, (_, i) => (i * 7919) % 251);
    const cases: [Promise<Response>, number, RegExp][] = [
      [infer('?image=unknown'), 404, /no such image of yours.*PUT \/datastore\//],
      [infer('?image='), 422, /name of the image is empty/],
      [infer('', { file: garbage }), 415, /./],
      [upload('garbage', { file: garbage }), 415, /./],
      [upload('empty', { file: new Uint8Array(0) }), 422, /is empty/],
      [upload('', {}), 422, /name of the image is empty/],
      [upload('x'.repeat(1001)), 422, /longer than 1000/],
      [upload('none', { file: undefined }), 422, /no file.*as the part file/],
      [upload('other', { part: 'label' }), 422, /not part of the image.*as file/],
      [send('PUT', '/session/', { file: volume }), 422, /as files/],
      [send('PUT', '/session/', { part: 'files', file: garbage }), 415, /./],
      [infer('', { file: volume, params: { level: 199 } }), 422, /no such level/],
      [
        send('POST', '/infer/slip', { file: volume, params: {} }),
        422,
        /value 1, which the app’s labels do not name/,
      ],
      [fetch(`${base}/infer/organs`, { method: 'POST', body: '{}' }), 415, /the part params/],
      [fetch(`${base}/infer/organs`, { method: 'POST' }), 422, /name of the image is empty/],
    ];
    for (const [asked, status, detail] of cases) {
      const response = await asked;
      const text = await response.text();
      expect([response.status, Object.keys(JSON.parse(text))], text).toEqual([status, ['detail']]);
      expect(JSON.parse(text).detail).toMatch(detail);
    }
    for (const text of ['[1]', '{', '7', '{"a":'.repeat(80)]) {
      const form = new FormData();
      form.append('params', text);
      form.append('file', new Blob([volume]), 'a.nii.gz');
      const response = await fetch(`${base}/infer/organs`, { method: 'POST', body: form });
      expect([text, response.status]).toEqual([text, 400]);
    }
    await expect.poll(() => filesOf(server).filter((file) => !before.includes(file))).toEqual([]);
  });

  it('cancels the job of a client that disconnects', async () => {
    const lost = new AbortController();
    const asked = infer('', { file: volume, params: { level: -150 }, signal: lost.signal });
    asked.catch(() => {});
    await expect.poll(running, { timeout: 20_000 }).toBe(1);
    lost.abort();
    await expect(asked).rejects.toThrow();
    await expect.poll(running, { timeout: 20_000 }).toBe(0);
    await expect.poll(jobs, { timeout: 20_000 }).toEqual([]);
  });
});

const metrics = async () => (await fetch(`${server.url}/metrics`)).text();
const running = async () => Number(/^tomaat_jobs\{state="running"\} (\d+)$/m.exec(await metrics())?.[1]);
const jobs = async () => (await metrics()).match(/^tomaat_jobs\S* [1-9]\d*$/gm) ?? [];

async function pairOf(image: Volume) {
  const nii = Buffer.from(await encode(image, 'nii'));
  const hdr = Uint8Array.from(nii.subarray(0, 348));
  // "ni1": the voxels are in a file of their own, from its first byte on.
  hdr.set([0x6e, 0x69, 0x31, 0], 344);
  new DataView(hdr.buffer).setFloat32(108, 0, true);
  return { hdr, img: Uint8Array.from(nii.subarray(352)) };
}

describe('a full queue', () => {
  it('is told with the time to try again', async () => {
    const apps = [join(folder, 'organs')];
    await using full = await startTestServer(apps, { faces: ['monailabel'], maxQueued: 1, workers: 1 });
    const to = `${full.url}/monailabel`;
    const gone = new AbortController();
    const slow = { file: volume, params: { level: -150 }, signal: gone.signal, to };
    const begin = () => infer('', slow).catch(() => undefined);
    const counts = async () =>
      (await (await fetch(`${full.url}/metrics`)).text()).match(/^tomaat_jobs\S* [1-9]\d*$/gm) ?? [];
    const waiting = [begin()];
    // Until it runs, it is the one that may wait.
    await expect.poll(counts, { timeout: 30_000 }).toEqual(['tomaat_jobs{state="running"} 1']);
    waiting.push(begin());
    await expect.poll(counts, { timeout: 30_000 }).toHaveLength(2);
    const refused = await infer('', { file: volume, to });
    expect([refused.status, Number(refused.headers.get('retry-after'))]).toEqual([503, 5]);
    expect(await detailOf(refused)).toMatch(/again/);
    gone.abort();
    await Promise.all(waiting);
    await expect.poll(counts, { timeout: 30_000 }).toEqual([]);
  });
});

describe('images and sessions', () => {
  it('of two clients, addresses or pages never meet, whatever their names', async () => {
    const other = Uint8Array.from(
      await encode({ ...phantom(obliqueAffine, [23, 17, 9]), affine: obliqueAffine }, 'nii.gz'),
    );
    await upload('same', { params: { client_id: 'a' } });
    await upload('same', { params: { client_id: 'b' }, file: other });
    const sizeOf = async (client_id: string, headers = {}) => {
      const response = await infer('?image=same', { params: { client_id }, headers });
      return response.ok ? (await readMap((await readInferred(response)).bytes)).size[2] : response.status;
    };
    expect([await sizeOf('a'), await sizeOf('b'), await sizeOf('c')]).toEqual([11, 9, 404]);
    expect(await sizeOf('a', { origin: 'https://viewer.example' })).toBe(404);
    // The same client has replaced its image.
    await upload('same', { params: { client_id: 'a' }, file: other });
    expect(await sizeOf('a')).toBe(9);
  });

  it.each([
    '../../../escaped',
    '..\\..\\escaped',
    '%2e%2e%2f%2e%2e%2fescaped',
    '..%2fescaped',
    '/etc/escaped',
    'C:\\escaped',
    '.',
    'con',
    'a\r\nx-escaped: 1',
    "'; DROP TABLE upload; --escaped",
    '$(touch escaped)',
    '__proto__',
  ])('named %j are found by that name, and open nothing', async (name) => {
    const twice = encodeURIComponent(name);
    for (const query of [`image=${twice}&tag=${twice}`, `image=${encodeURIComponent(twice)}`]) {
      const put = await send('PUT', `/datastore/?${query}`, {
        params: { client_id: name },
        file: volume,
        fileName: `${name}.nii.gz`,
      });
      expect(put.status).toBe(200);
      const found = await infer(`?${query}&output=json`, { params: { client_id: name } });
      expect(found.status).toBe(200);
      const session = await server.app.inject({ url: `/monailabel/session/${twice}` });
      expect([200, 404, 405]).toContain(session.statusCode);
      expect((await infer(`?session_id=${twice}`)).status).toBe(404);
    }
    for (const file of filesOf(server)) expect(file).not.toMatch(/escaped/i);
    for (const up of [server.dataFolder, join(server.dataFolder, '..'), process.cwd(), '/etc'])
      expect(readdirSync(up).filter((entry) => /escaped/i.test(entry))).toEqual([]);
  });

  it('of a name with NUL are refused; a name is not stored as it is', async () => {
    const nul = await upload('a\0../../escaped');
    expect([nul.status, await detailOf(nul)]).toEqual([422, expect.stringContaining('NUL')]);
    await upload('Meyer^Canary');
    const kept = await databaseBytes(server.dataFolder);
    expect([kept.includes('sha256:'), kept.includes('Meyer^Canary')]).toEqual([true, false]);
  });

  it('in an archive of links or of paths outside are refused, and nothing is unpacked', async () => {
    const before = filesOf(server).length;
    for (const archive of [tarOf('../../escaped', '2', '/etc/passwd'), tarOf('/etc/escaped', '0', '')]) {
      const tar = await send('PUT', '/session/?uncompress=true', {
        part: 'files',
        file: archive,
        fileName: 'a.tar',
      });
      expect(tar.status).toBe(415);
    }
    expect(filesOf(server)).toHaveLength(before);
  });

  it('are bounded in number: the least recently used ones of the caller go first', async () => {
    await using small = await startTestServer([join(folder, 'organs')], {
      faces: ['monailabel'],
      workers: 0,
    });
    const to = `${small.url}/monailabel`;
    for (let k = 0; k < 40; k++)
      expect((await upload(`image ${k}`, { to, file: await oddVolume(k) })).status).toBe(200);
    // Each with other bytes: what is left of a deleted one shows.
    await expect.poll(() => filesOf(small).length, { timeout: 20_000 }).toBe(32);
  }, 60_000);
});

async function oddVolume(k: number) {
  const image = phantom();
  image.voxels[k] = 1000;
  return Uint8Array.from(await encode(image, 'nii.gz'));
}

/** A tar archive (POSIX ustar) with one member of that type: 0 a file, 2 a symbolic link. */
function tarOf(name: string, type: string, link: string): Uint8Array<ArrayBuffer> {
  const bytes = Buffer.alloc(2048);
  bytes.write(name, 0);
  bytes.write('0000644\x000000\x000000\x0000000000\x0000000000\0', 100);
  bytes.write(' '.repeat(8), 148);
  bytes.write(type, 156);
  bytes.write(link, 157);
  bytes.write('ustar\x0000', 257);
  const sum = bytes.subarray(0, 512).reduce((total, byte) => total + byte, 0);
  bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return Uint8Array.from(bytes);
}
