import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { goodFile } from '../../core/test/bad-files.ts';
import { type BombShape, bombShapes, niftiBomb, pairBomb, textBomb, watchMemory } from './hostile.ts';
import {
  multipart,
  multipartType,
  type RealServer,
  rawRequest,
  sendRaw,
  startRealServer,
} from './real-server.ts';
import { appFolder } from './test-server.ts';

/*
 * What unpacks to gigabytes, or says so: every way to carry it × every shape. Refused with the right code, within a second
 * of its last byte, with 64 MB more memory at most in the server or in any of its children, and nothing stays on the disk.
 */

const limitBytes = 64e6;

let server: RealServer;
let good: Uint8Array;
beforeAll(async () => {
  server = await startRealServer([appFolder('threshold')], { maxUploadBytes: 64 * 2 ** 20 });
  good = await goodFile('nii.gz');
  for (let i = 0; i < 15; i++) expect((await post({}, good)).status).toBe(200);
});
afterAll(() => server?.[Symbol.asyncDispose]());

interface Answer {
  status: number;
  code?: string;
  message: string;
}

async function post(
  headers: Record<string, string>,
  body: Uint8Array,
  path = '/threshold/any',
): Promise<Answer> {
  const all = { 'Content-Type': 'application/octet-stream', ...headers };
  const answer = await sendRaw(server.port, rawRequest('POST', path, all, body));
  if (!answer) throw new Error('the connection ended without an answer');
  const text = answer.body.toString();
  if (answer.status === 200 && !text.startsWith('[')) return { status: 200, message: 'taken' };
  const { code, detail, content } = [JSON.parse(text)].flat()[0];
  return { status: answer.status, code, message: detail ?? content };
}

/** The whole of an upload by tus, and the id under which it is. */
async function upload(file: Uint8Array): Promise<string> {
  const tus = { 'tus-resumable': '1.0.0' };
  const created = await fetch(`${server.url}/api/uploads`, {
    method: 'POST',
    headers: { ...tus, 'upload-length': String(file.length) },
  });
  expect(created.status).toBe(201);
  const location = created.headers.get('location')!;
  const sent = await fetch(`${server.url}${location}`, {
    method: 'PATCH',
    headers: { ...tus, 'upload-offset': '0', 'content-type': 'application/offset+octet-stream' },
    body: Buffer.from(file),
  });
  expect(sent.status).toBe(204);
  return location;
}

const coding = (name: string, pack: (bytes: Uint8Array) => Buffer) => async (shape: BombShape) => {
  const bomb = await niftiBomb('nii', shape);
  // Packed once more as a whole, as a proxy would; nobody here unpacks that.
  return post({ 'Content-Encoding': name }, pack(bomb.subarray(0, 2e6)));
};

const carriers: Record<string, (shape: BombShape) => Promise<Answer>> = {
  '.nii.gz': async (shape) => post({}, await niftiBomb('nii', shape)),
  'NIfTI-2, packed': async (shape) => post({}, await niftiBomb('nifti2', shape)),
  MetaImage: async (shape) => post({}, await textBomb('mha', shape)),
  NRRD: async (shape) => post({}, await textBomb('nrrd', shape)),
  'the .img.gz of a pair': async (shape) => {
    const { header, image } = await pairBomb(shape);
    const form = multipart([
      ['volume', header, 'a.hdr'],
      ['volume', image, 'a.img.gz'],
    ]);
    return post({ 'Content-Type': multipartType }, form);
  },
  'a resumable upload': async (shape) => {
    const location = await upload(await niftiBomb('nii', shape));
    const body = JSON.stringify({ inputs: { volume: { upload: location.split('/').at(-1) } } });
    const answer = await post({ 'Content-Type': 'application/json' }, Buffer.from(body));
    const deleted = await fetch(`${server.url}${location}`, {
      method: 'DELETE',
      headers: { 'tus-resumable': '1.0.0' },
    });
    expect(deleted.status).toBe(204);
    return answer;
  },
  'base64 of TOMAAT v1': async (shape) => {
    const text = (await niftiBomb('nii', shape)).toString('base64').replace(/.{76}/g, '$&\n');
    return post({ 'Content-Type': multipartType }, multipart([['volume', text]]), '/predict');
  },
  'Content-Encoding: gzip': coding('gzip', gzipSync),
  'Content-Encoding: deflate': coding('deflate', deflateSync),
  'Content-Encoding: br': coding('br', (bytes) => brotliCompressSync(bytes, { params: { 1: 1 } })),
};

/** What is said of each shape; v1 says it with status 200. */
const expected: Record<BombShape, [code: string, status: number, message: RegExp]> = {
  zeros: ['BAD_VOXELS', 422, /More than 15 bytes follow the 5880 bytes|damaged/],
  lies: ['BAD_VOXELS', 422, /cannot decompress/],
  'too large': ['TOO_MANY_VOXELS', 413, /5368680000 values/],
  members: ['BAD_VOXELS', 422, /More than 15 bytes follow the 5880 bytes|Other data follows/],
  nested: ['UNSUPPORTED_FORMAT', 415, /compressed with gzip twice/],
  truncated: ['BAD_VOXELS', 422, /damaged|cut off|cannot decompress|ends after/],
  surplus: ['BAD_VOXELS', 422, /follow/],
};
/** Where the header is not packed, what is packed twice is only the voxels: they do not fit. */
const voxelsOnly = ['MetaImage', 'NRRD', 'the .img.gz of a pair'];

it.each(Object.keys(carriers).flatMap((carrier) => bombShapes.map((shape) => [carrier, shape] as const)))(
  '%s, %s: refused, bounded, and gone',
  async (carrier, shape) => {
    const goodStart = performance.now();
    await post({}, good);
    // A second; on a machine that is busy with much else, as long as a few good requests take.
    const limitMs = Math.max(1000, 10 * (performance.now() - goodStart));
    const memory = watchMemory(server.pid);
    let answer: Answer | undefined;
    let tookMs = Number.POSITIVE_INFINITY;
    // Again where the machine was busy with something else. The making of the bomb is not counted in.
    for (let attempt = 0; attempt < 3 && tookMs > limitMs; attempt++) {
      const made = performance.now();
      await makeOnly(carrier, shape);
      const makingMs = performance.now() - made;
      const start = performance.now();
      answer = await carriers[carrier](shape);
      tookMs = performance.now() - start - makingMs;
    }
    expect(memory.growthBytes(), 'growth of the memory').toBeLessThan(limitBytes);
    expect(tookMs, 'ms').toBeLessThan(limitMs);
    if (carrier.startsWith('Content-Encoding')) {
      expect(answer).toMatchObject({ status: 415, code: 'UNSUPPORTED_MEDIA' });
    } else {
      const [code, status, message] =
        shape === 'nested' && voxelsOnly.includes(carrier)
          ? (['BAD_VOXELS', 422, /./] as const)
          : expected[shape];
      expect(answer!.message).toMatch(message);
      if (carrier === 'base64 of TOMAAT v1') expect(answer!.status).toBe(200);
      else expect(answer).toMatchObject({ status, code });
    }
    await expect.poll(() => server.files(), { timeout: 20_000, interval: 20 }).toEqual([]);
    expect(await readdir(join(server.dataFolder, 'uploads'))).toEqual([]);
    expect((await post({}, good)).status, 'a good request afterwards').toBe(200);
  },
);

/** The work of making a bomb alone, to be taken off. */
async function makeOnly(carrier: string, shape: BombShape): Promise<void> {
  if (carrier === 'MetaImage') await textBomb('mha', shape);
  else if (carrier === 'NRRD') await textBomb('nrrd', shape);
  else if (carrier.includes('pair')) await pairBomb(shape);
  else await niftiBomb('nii', shape);
}
