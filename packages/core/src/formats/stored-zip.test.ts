import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { findPython } from '../../../../test/programs.ts';
import { createStoredZip, writeStoredZip, type ZipMember } from './stored-zip.ts';
import { sourceFromBytes } from './volume-file.ts';
import { webPlatform } from './web-platform.ts';
import { openZip } from './zip.ts';

const python = findPython();

const pattern = (length: number, seed: number) =>
  Uint8Array.from({ length }, (_, i) => (i * 31 + seed * 7 + (i >> 8)) & 255);

/** In chunks of odd lengths. */
const member = (name: string, bytes: Uint8Array): ZipMember => ({
  name,
  async *read() {
    for (let at = 0; at < bytes.length; at += 333) yield bytes.subarray(at, at + 333);
  },
});

const contents: readonly [string, Uint8Array][] = [
  ['0001.dcm', pattern(1000, 1)],
  ['0002.dcm', new Uint8Array(0)],
  ['0003.dcm', pattern(1, 3)],
  ['0004.dcm', pattern(3_000_000, 4)],
];
const zip = () =>
  createStoredZip(
    'series.zip',
    contents.map(([name, bytes]) => member(name, bytes)),
  );

async function bytesOf(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of chunks) parts.push(part);
  return Buffer.concat(parts);
}

it('createStoredZip() writes an archive for openZip(), of the stated length', async () => {
  const file = await zip();
  const bytes = await bytesOf(file.stream());
  expect(bytes.length).toBe(file.sizeBytes);
  const files = await openZip(sourceFromBytes('series.zip', bytes), webPlatform);
  expect(files.map(({ name, sizeBytes }) => [name, sizeBytes])).toEqual(
    contents.map(([name, content]) => [name, content.length]),
  );
  for (const [i, one] of files.entries()) {
    expect((await bytesOf(one.open())).equals(contents[i][1])).toBe(true);
  }
});

it.skipIf(!python)(
  'createStoredZip() writes an archive in which zipfile of Python finds no fault',
  async () => {
    const path = join(mkdtempSync(join(tmpdir(), 'tomaat-zip-')), 'series.zip');
    writeFileSync(path, await bytesOf((await zip()).stream()));
    const code =
      'import zipfile,sys,json; z=zipfile.ZipFile(sys.argv[1]); print(json.dumps([z.testzip(), [[i.filename, i.file_size, i.compress_type, list(i.date_time)] for i in z.infolist()]]))';
    const found = JSON.parse(execFileSync(python!, ['-c', code, path], { encoding: 'utf8' }));
    rmSync(join(path, '..'), { recursive: true });
    expect(found).toEqual([
      null,
      contents.map(([name, { length }]) => [name, length, 0, [1980, 1, 1, 0, 0, 0]]),
    ]);
  },
);

it('createStoredZip() gives equal bytes from any offset, without reading earlier members', async () => {
  const reads: string[] = [];
  const watched = contents.map(([name, bytes]): ZipMember => {
    const { read } = member(name, bytes);
    return {
      name,
      read(signal) {
        reads.push(name);
        return read(signal);
      },
    };
  });
  const file = await createStoredZip('series.zip', watched);
  const whole = await bytesOf(file.stream());
  expect(whole.length).toBe(file.sizeBytes);
  for (const [start, end] of [
    [0, 1],
    [29, 31],
    [0, 1500],
    [1037, 1200],
    [1_234_567, 2_345_678],
    [file.sizeBytes - 30, file.sizeBytes],
    [0, file.sizeBytes],
  ]) {
    const part = await bytesOf(file.slice(start, end));
    expect(part.equals(whole.subarray(start, end)), `${start} to ${end}`).toBe(true);
  }
  reads.length = 0;
  await bytesOf(file.slice(2_000_000, 2_000_001));
  expect(reads).toEqual(['0004.dcm']);
});

it('createStoredZip() refuses a member that is another one when it is sent', async () => {
  let bytes = pattern(1000, 1);
  const changing: ZipMember = {
    name: '0001.dcm',
    async *read() {
      yield bytes;
    },
  };
  const file = await createStoredZip('series.zip', [changing]);
  for (const other of [pattern(1000, 2), pattern(999, 1), pattern(1001, 1)]) {
    bytes = other;
    await expect(bytesOf(file.stream())).rejects.toMatchObject({
      code: 'BAD_INPUT',
      message: 'A file changed while it was being sent. Send it again.',
    });
  }
});

it('createStoredZip() refuses what takes more bytes than it may', async () => {
  const members = contents.map(([name, bytes]) => member(name, bytes));
  const { sizeBytes } = await createStoredZip('series.zip', members);
  await expect(createStoredZip('series.zip', members, { maxBytes: sizeBytes })).resolves.toBeDefined();
  for (const maxBytes of [3_000_000, sizeBytes - 22 - 1]) {
    await expect(createStoredZip('series.zip', members, { maxBytes })).rejects.toMatchObject({
      code: 'UPLOAD_TOO_LARGE',
    });
  }
});

it('writeStoredZip() writes the archive of createStoredZip(), one member at a time', async () => {
  let open = 0;
  async function* members() {
    for (const [name, bytes] of contents) {
      expect(open).toBe(0);
      open++;
      yield member(name, bytes);
      open--;
    }
  }
  const whole = await bytesOf((await zip()).stream());
  expect((await bytesOf(writeStoredZip(members()))).equals(whole)).toBe(true);
});

it('writeStoredZip() refuses a member that is another one when it is read again', async () => {
  let reads = 0;
  const changing: ZipMember = {
    name: 'a.seg.dcm',
    async *read() {
      yield pattern(1000, ++reads);
    },
  };
  await expect(bytesOf(writeStoredZip([changing]))).rejects.toMatchObject({ code: 'BAD_INPUT' });
});
