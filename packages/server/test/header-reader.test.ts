import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { formatUidKey, inspectFiles, sourceFromBytes } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { goodFile } from '../../core/test/bad-files.ts';
import { dicomFile, sliceElements } from '../../core/test/dicom-files.ts';
import { openHeaderReader } from '../src/intake/header-reader.ts';
import { nodePlatform } from '../src/node-platform.ts';

const limits = { maxVoxels: 2 ** 30 };
const fileOf = (name: string, path = '', sizeBytes = 1) => [{ name, path, sizeBytes }];

/** A thread that hangs, fails or answers, by the name of the file: what no parser here is known to do. */
const faultyThread = `
import { parentPort } from 'node:worker_threads';
const say = (answer) => parentPort.postMessage(answer);
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
parentPort.on('message', async ({ files, file }) => {
  const { name } = files ? files[0] : file;
  if (name === 'regex') /^(a+)+$/.test('a'.repeat(60) + 'b');
  if (name === 'loop') for (;;);
  if (name === 'fault') throw new TypeError('a fault of ours');
  for (let i = 0; i < 20 && name === 'slow disk'; i++) { await wait(50); say({ kind: 'alive' }); }
  say({ kind: 'done', value: name });
});
say({ kind: 'ready' });
`;

describe('openHeaderReader()', () => {
  let folder: string;
  let thread: URL;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tomaat-headers-'));
    thread = pathToFileURL(join(folder, 'faulty.mjs'));
    await writeFile(thread, faultyThread);
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it.each(['regex', 'loop'])('ends a header that hangs (%s), and reads others meanwhile', async (name) => {
    await using reader = openHeaderReader({ deadlineMs: 1000, thread });
    let isOver = false;
    const hanging = reader.inspect(fileOf(name), { limits }).finally(() => {
      isOver = true;
    });
    const refused = expect(hanging).rejects.toMatchObject({
      code: 'BAD_HEADER',
      message: expect.stringContaining('more than 1 s'),
    });
    // This event loop turns, and another thread takes what comes next.
    expect(await reader.inspect(fileOf('a'), { limits })).toBe('a');
    expect(isOver).toBe(false);
    await refused;
    expect(await reader.inspect(fileOf('b'), { limits })).toBe('b');
  });

  it('keeps working when as many headers hang as threads exist', async () => {
    await using reader = openHeaderReader({ deadlineMs: 300, thread });
    const hanging = Array.from({ length: 7 }, () =>
      expect(reader.inspect(fileOf('loop'), { limits })).rejects.toMatchObject({ code: 'BAD_HEADER' }),
    );
    expect(await reader.inspect(fileOf('a'), { limits })).toBe('a');
    await Promise.all(hanging);
  });

  it('passes on a fault of the reader, and reads the next header', async () => {
    await using reader = openHeaderReader({ thread });
    await expect(reader.inspect(fileOf('fault'), { limits })).rejects.toThrow('a fault of ours');
    expect(await reader.inspect(fileOf('a'), { limits })).toBe('a');
  });

  it('waits for a thread that says that it is alive', async () => {
    await using reader = openHeaderReader({ deadlineMs: 500, thread });
    const stored = { path: '', name: 'slow disk', sizeBytes: 1, dataFiles: {} };
    expect(await reader.identify(stored)).toBe('slow disk');
  });

  it('leaves a thread to headers while files are looked through', async () => {
    await using reader = openHeaderReader({ deadlineMs: 60_000, thread });
    let done = 0;
    const stored = { path: '', name: 'slow disk', sizeBytes: 1, dataFiles: {} };
    const slow = Array.from({ length: 4 }, () => reader.identify(stored).then(() => done++));
    await reader.inspect(fileOf('a'), { limits });
    expect(done).toBeLessThan(4);
    await Promise.all(slow);
  });

  it('refuses what waits when it is closed, and what comes later', async () => {
    const reader = openHeaderReader({ deadlineMs: 60_000, thread });
    const waiting = ['loop', 'loop', 'loop', 'a'].map((name) =>
      expect(reader.inspect(fileOf(name), { limits })).rejects.toMatchObject({ code: 'BUSY' }),
    );
    await reader[Symbol.asyncDispose]();
    await Promise.all(waiting);
    await expect(reader.inspect(fileOf('a'), { limits })).rejects.toMatchObject({ code: 'BUSY' });
  });

  it('fails where its thread does not start', async () => {
    const missing = pathToFileURL(join(folder, 'none.mjs'));
    await using reader = openHeaderReader({ thread: missing });
    await expect(reader.inspect(fileOf('a'), { limits })).rejects.toThrow('none.mjs');
  });

  it('leaves a thread to others while long series are inspected', async () => {
    await using reader = openHeaderReader({ deadlineMs: 60_000, thread });
    let done = 0;
    const slow = Array.from({ length: 4 }, () =>
      reader.inspect(fileOf('slow disk'), { limits }, true).then(() => done++),
    );
    await reader.inspect(fileOf('a'), { limits });
    await reader.start({ name: 'a', prefix: new Uint8Array(1) }, limits);
    expect(done).toBeLessThan(4);
    await Promise.all(slow);
  });

  it('gives what inspectFiles() and inspectStart() give, and their errors', async () => {
    await using reader = openHeaderReader();
    for (const extension of ['nii', 'nii.gz', 'mha', 'nrrd'] as const) {
      const name = `a.${extension}`;
      const bytes = await goodFile(extension);
      const path = join(folder, name);
      await writeFile(path, bytes);
      const header = await inspectFiles([sourceFromBytes(name, bytes)], nodePlatform);
      expect(header.size).toHaveLength(3);
      expect(await reader.inspect(fileOf(name, path, bytes.length), { limits })).toEqual(header);
      await reader.start({ name, prefix: bytes }, limits);
      const cut = bytes.subarray(0, 20);
      await writeFile(path, cut);
      const error = await inspectFiles([sourceFromBytes(name, cut)], nodePlatform).catch((fault) => fault);
      expect(error).toMatchObject({ name: 'TomaatError' });
      await expect(reader.inspect(fileOf(name, path, 20), { limits })).rejects.toEqual(error);
      await expect(reader.start({ name, prefix: cut, sizeBytes: 20 }, limits)).rejects.toEqual(error);
    }
  });

  it('ends a thread that hangs while it removes an identity', async () => {
    await using reader = openHeaderReader({ deadlineMs: 300, thread });
    const files = fileOf('loop').map((file) => ({ ...file, into: '' }));
    await expect(reader.clean(files, '', limits)).rejects.toMatchObject({ code: 'BAD_HEADER' });
    await expect(reader.refuseIdentity(fileOf('regex'), limits)).rejects.toMatchObject({
      code: 'BAD_HEADER',
    });
  });

  it('leaves a thread to headers while identities are removed', async () => {
    await using reader = openHeaderReader({ deadlineMs: 60_000, thread });
    let done = 0;
    const files = fileOf('slow disk').map((file) => ({ ...file, into: '' }));
    const slow = Array.from({ length: 4 }, () => reader.clean(files, '', limits).then(() => done++));
    await reader.inspect(fileOf('a'), { limits });
    expect(done).toBeLessThan(4);
    await Promise.all(slow);
  });

  it.each([
    ['maxBytes', 'UPLOAD_TOO_LARGE'],
    ['spareBytes', 'DISK_FULL'],
  ])('cleans no more bytes than %s, of all files together', async (limit, code) => {
    await using reader = openHeaderReader();
    const bytes = dicomFile(sliceElements({}));
    const path = join(folder, `${limit}.dcm`);
    await writeFile(path, bytes);
    const key = formatUidKey(new Uint8Array(32));
    const filesTo = (ending: string) =>
      [0, 1].map((i) => ({ name: 'a', path, sizeBytes: bytes.length, into: `${path}${ending}${i}` }));
    const whole = await reader.clean(filesTo('.whole'), key, limits);
    const cleanedBytes = whole.reduce((sum, file) => sum + (file?.sizeBytes ?? 0), 0);
    expect(cleanedBytes).toBeGreaterThan(0);
    const fits = { ...limits, [limit]: cleanedBytes };
    expect(await reader.clean(filesTo('.fits'), key, fits)).toEqual(whole);
    const short = { ...limits, [limit]: cleanedBytes - 1 };
    await expect(reader.clean(filesTo('.short'), key, short)).rejects.toMatchObject({ code });
  });

  it('refuses a key that is damaged, and a disk on which nothing can be written', async () => {
    await using reader = openHeaderReader();
    const bytes = dicomFile(sliceElements({ more: { 1048592: ['PN', 'Meyer'] } }));
    const path = join(folder, 'a.dcm');
    await writeFile(path, bytes);
    const file = { name: 'a', path, sizeBytes: bytes.length, into: join(folder, 'none', 'b') };
    await expect(reader.clean([file], 'short', limits)).rejects.toMatchObject({ code: 'BAD_INPUT' });
    const key = formatUidKey(new Uint8Array(32));
    await expect(reader.clean([file], key, limits)).rejects.toMatchObject({ code: 'INTERNAL' });
    const into = join(folder, 'b.dcm');
    const [cleaned] = await reader.clean([{ ...file, into }], key, limits);
    const written = await readFile(into);
    expect(cleaned).toEqual({
      digest: `sha256:${createHash('sha256').update(written).digest('hex')}`,
      sizeBytes: written.length,
    });
    expect(written.includes('Meyer')).toBe(false);
  });

  it('finds identifying text in a file on the disk', async () => {
    await using reader = openHeaderReader();
    const path = join(folder, 'a.mhd');
    const text = 'NDims = 3\nComment = ROE\nElementType = MET_UCHAR\nElementDataFile = Roe.RAW\n';
    await writeFile(path, text);
    const stored = { path, name: 'a.mhd', sizeBytes: text.length, dataFiles: { 'roe.raw': 'volume.raw' } };
    const rewrite = await reader.identify(stored);
    expect(Buffer.from(rewrite?.head ?? []).toString()).toBe(
      'NDims = 3\nx       =    \nElementType = MET_UCHAR\nElementDataFile = volume.raw\n',
    );
  });
});
