import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { goodFile } from '../../core/test/bad-files.ts';
import { type FileCall, hasStrace, hostileNames, traceFiles } from './hostile.ts';
import { multipartType, type RealServer, rawRequest, sendRaw, startRealServer } from './real-server.ts';
import { onPostgres } from './support/tested-database.ts';
import { appFolder } from './test-server.ts';

/*
 * Names that clients send (of files, fields, uploads, data files in headers) are text to show and nothing else: whatever they
 * are, nothing is made, changed, moved or removed outside the data folder, and no file that a header names is opened.
 */

// Compiled code would be written outside the data folder, too.
delete process.env.NODE_COMPILE_CACHE;

let server: RealServer;
let house: string;
let canary: string;
let trace: Awaited<ReturnType<typeof traceFiles>> | undefined;
let before: string[];

beforeAll(async () => {
  house = await mkdtemp(join(tmpdir(), 'tomaat-names-'));
  canary = join(house, 'canary.raw');
  await writeFile(canary, Buffer.alloc(5880, 7));
  const dataFolder = join(house, 'data');
  await mkdir(dataFolder);
  server = await startRealServer([appFolder('threshold')], { dataFolder });
  // The child starts before the calls are watched, which makes it slow; the next one does not.
  await alone(Buffer.from(await goodFile('nii.gz')));
  before = await outside();
  if (hasStrace) trace = await traceFiles(server.pid, join(house, 'calls'));
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(house, { recursive: true, force: true });
});

/** What lies beside the data folder, and in the folders above that relative names lead to. */
async function outside(): Promise<string[]> {
  const names: string[] = [];
  for (const folder of [house, dirname(house), process.cwd(), '/']) {
    for (const name of await readdir(folder)) {
      // Other programs of the machine make theirs meanwhile.
      if (folder === dirname(house) && !/escaped|^(a|b|con|nul)\b/i.test(name)) continue;
      if (name !== 'calls') names.push(join(folder, name));
    }
  }
  return names.sort();
}

const boundary = multipartType.split('=')[1];
/** A part with this disposition as it is: raw bytes of a name, a quote escaped as browsers do. */
const part = (disposition: string, value: Uint8Array) =>
  Buffer.concat([
    Buffer.from(`--${boundary}\r\nContent-Disposition: form-data; ${disposition}\r\n\r\n`, 'utf8'),
    value,
    Buffer.from('\r\n'),
  ]);
const end = Buffer.from(`--${boundary}--\r\n`);
const quoted = (name: string) => name.replace(/"/g, '%22');
const post = async (path: string, type: string, body: Uint8Array) => {
  const answer = await sendRaw(server.port, rawRequest('POST', path, { 'Content-Type': type }, body), {
    limitMs: 60_000,
  });
  if (!answer) throw new Error('the connection ended without an answer');
  return answer;
};

type Carrier = (name: string) => Promise<{ status: number }[]>;

const carriers: Record<string, Carrier> = {
  'the file name of a part': async (name) => {
    const file = await goodFile('nii.gz');
    const plain = await post(
      '/threshold/any',
      multipartType,
      Buffer.concat([part(`name="volume"; filename="${quoted(name)}"`, file), end]),
    );
    const disposition = plain.headers['content-disposition'];
    if (plain.status === 200)
      expect(disposition).toMatch(/^attachment; filename="[\w.-]+"; filename\*=UTF-8''[^/\\]+$/);
    const extended = await post(
      '/threshold/any',
      multipartType,
      Buffer.concat([part(`name="volume"; filename*=UTF-8''${encodeURIComponent(name)}`, file), end]),
    );
    return [plain, extended];
  },
  'the name of a field': async (name) => [
    await post(
      '/threshold/any',
      multipartType,
      Buffer.concat([part(`name="${quoted(name)}"; filename="a.nii"`, Buffer.from('x')), end]),
    ),
  ],
  'the metadata of an upload': async (name) => {
    const file = await goodFile('nii.gz');
    const tus = { 'tus-resumable': '1.0.0' };
    const created = await fetch(`${server.url}/api/uploads`, {
      method: 'POST',
      headers: {
        ...tus,
        'upload-length': String(file.length),
        'upload-metadata': `filename ${Buffer.from(name).toString('base64')}`,
      },
    });
    // PostgreSQL stores no NUL.
    if (onPostgres && name.includes('\0')) return [created];
    expect(created.status).toBe(201);
    const location = created.headers.get('location')!;
    expect(location).toMatch(/^\/api\/uploads\/[\w-]{22}$/);
    await fetch(`${server.url}${location}`, {
      method: 'PATCH',
      headers: { ...tus, 'upload-offset': '0', 'content-type': 'application/offset+octet-stream' },
      body: Buffer.from(file),
    });
    const body = JSON.stringify({ inputs: { volume: { upload: basename(location) } } });
    const answer = await post('/threshold/any', 'application/json', Buffer.from(body));
    expect((await fetch(`${server.url}${location}`, { method: 'DELETE', headers: tus })).status).toBe(204);
    return [answer];
  },
  'ElementDataFile of an .mhd': async (name) => {
    const file = Buffer.from(await goodFile('mha raw'));
    const header = Buffer.concat([
      file.subarray(0, -5880 - 'LOCAL\n'.length),
      Buffer.from(`${name.replace(/[\r\n]/g, '')}\n`),
    ]);
    return [await pair(header, 'a.mhd', file.subarray(-5880), 'b.raw'), await alone(header)];
  },
  'data file of an .nhdr': async (name) => {
    const file = Buffer.from(await goodFile('nrrd raw'));
    const header = Buffer.from(
      file
        .subarray(0, -5880)
        .toString('latin1')
        .replace('encoding', () => `data file: ${name.replace(/[\r\n]/g, '')}\nencoding`),
    );
    return [await pair(header, 'a.nhdr', file.subarray(-5880), 'b.raw'), await alone(header)];
  },
  'the names of a .hdr and .img pair': async (name) => {
    const file = Buffer.from(await goodFile('nii'));
    file.write('ni1', 344, 'latin1');
    file.writeFloatLE(0, 108);
    return [await pair(file.subarray(0, 348), `${name}.hdr`, file.subarray(352), `${name}.img`)];
  },
};

const pair = (header: Buffer, headerName: string, data: Buffer, dataName: string) =>
  post(
    '/threshold/any',
    multipartType,
    Buffer.concat([
      part(`name="volume"; filename="${quoted(headerName)}"`, header),
      part(`name="volume"; filename="${quoted(dataName)}"`, data),
      end,
    ]),
  );
const alone = (header: Buffer) => post('/threshold/any', 'application/octet-stream', header);

it.each(Object.entries(carriers))('%s is never a path', { timeout: 300_000 }, async (_what, carrier) => {
  expect(hostileNames.length).toBeGreaterThanOrEqual(60);
  // The canary by its whole path, and by one that leads to it from the job's folder.
  for (const name of [...hostileNames, canary, '../canary.raw', '../../canary.raw', '../../../canary.raw']) {
    for (const { status } of await carrier(name)) {
      expect(status === 200 || (status >= 400 && status < 500), `${JSON.stringify(name)}: ${status}`).toBe(
        true,
      );
    }
  }
  expect(await outside()).toEqual(before);
});

it.skipIf(!hasStrace)('no system call writes outside the data folder or opens named files', async () => {
  const calls = await trace!.end();
  // There was something to see.
  expect(calls.filter(({ writes }) => writes).length).toBeGreaterThan(500);
  expect(
    calls
      .filter(({ paths }) => paths.some((path) => path.includes(basename(canary))))
      .map((call) => call.line),
  ).toEqual([]);
  expect(calls.filter((call) => call.writes && !isAtHome(call)).map((call) => call.line)).toEqual([]);
  expect(
    calls
      .filter(({ paths }) => paths.some((path) => /escaped|passwd|authorized_keys/.test(path)))
      .map(({ line }) => line),
  ).toEqual([]);
});

/** Within the data folder by a path without "..", or a device. */
const isAtHome = ({ paths }: FileCall) =>
  paths.every(
    (path) =>
      (path.startsWith(`${server.dataFolder}/`) && !path.split('/').includes('..')) ||
      /^\/dev\/|^\/proc\//.test(path),
  );

it('the canary is as it was', async () => {
  expect(await readFile(canary)).toEqual(Buffer.alloc(5880, 7));
});
