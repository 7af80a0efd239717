import { chmod, mkdir, mkdtemp, rename, rm, symlink, truncate, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { dicomFile, type Slice, sliceElements } from '../../../../core/test/dicom-files.ts';
import type { SeenSeries, Source } from '../series.ts';
import { openFolderSource } from './folder-source.ts';

const quietMs = 10_000;
const { signal } = new AbortController();

let root: string;
let aheadMs: number;
let source: Source;
const open = (more = {}) =>
  openFolderSource({
    name: 'inbox',
    path: root,
    quietMs,
    maxFileBytes: 1e6,
    now: () => Date.now() + aheadMs,
    monotonicMs: () => performance.now() + aheadMs,
    ...more,
  });

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'tomaat-folder-'));
  aheadMs = 0;
  source = open();
});
afterEach(() => rm(root, { recursive: true, force: true }));

const bytesOf = (slice: Slice) => dicomFile(sliceElements(slice));
async function put(name: string, bytes: Uint8Array): Promise<string> {
  const path = join(root, name);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, bytes);
  return path;
}
const later = () => {
  aheadMs += quietMs;
};
async function search(): Promise<SeenSeries[]> {
  const all: SeenSeries[] = [];
  for await (const seen of source.search(signal)) all.push(seen);
  return all.sort((a, b) => Number(a.series > b.series) - 0.5);
}
async function fetched(series: string): Promise<Buffer[]> {
  const all: Buffer[] = [];
  for await (const { bytes } of source.fetch('1.2.3', series, signal)) all.push(Buffer.from(bytes));
  return all;
}

describe('openFolderSource()', () => {
  it('groups images by their headers, wherever they lie and whatever their names', async () => {
    const more = {
      528446: ['LO', 'T2 ax'],
      528432: ['LO', 'Head'],
      1572885: ['CS', 'BRAIN'],
    } as const;
    const slices = [1, 2, 3].map((instance) => bytesOf({ instance, more }));
    await put('a/b/one', slices[0]);
    await put('two.dcm', slices[1]);
    await put('a/three.txt', slices[2]);
    // A copy counts once.
    await put('copy', slices[2]);
    await put('a/x', bytesOf({ series: '8', instance: 1 }));
    await put('notes.txt', Buffer.from('not DICOM'));
    await put('.hidden/x', bytesOf({ series: '7' }));
    later();
    const seen = { source: 'inbox', study: '1.2.3', modality: 'MR' };
    expect(await search()).toEqual([
      { ...seen, series: '1.2.3.8', instances: 1 },
      {
        ...seen,
        series: '1.2.3.9',
        instances: 3,
        bodyPart: 'BRAIN',
        description: 'T2 ax',
        studyDescription: 'Head',
      },
    ]);
    expect((await source.instances('1.2.3', '1.2.3.9', signal)).sort()).toEqual([
      '1.2.3.9.1',
      '1.2.3.9.2',
      '1.2.3.9.3',
    ]);
    const files = await fetched('1.2.3.9');
    expect(files).toHaveLength(4);
    for (const slice of slices) expect(files.some((file) => file.equals(slice))).toBe(true);
    expect(await source.look('1.2.3', '1.2.3.1', signal)).toBeUndefined();
  });

  it('does not read a file before it is quiet, and not the series beside it', async () => {
    await put('s/1', bytesOf({ instance: 1 }));
    await put('t/1', bytesOf({ series: '8' }));
    later();
    expect(await search()).toHaveLength(2);
    // As it is copied: longer at each look, with the time of its original.
    aheadMs = 0;
    const path = await put('s/2', bytesOf({ instance: 2 }).subarray(0, 400));
    await utimes(path, new Date(0), new Date(0));
    aheadMs = 2000;
    source = open();
    expect(await search()).toEqual([]);
    await writeFile(path, bytesOf({ instance: 2 }).subarray(0, 500));
    await utimes(path, new Date(0), new Date(0));
    aheadMs = quietMs - 2000;
    expect(await search()).toEqual([]);
    expect((await source.look('1.2.3', '1.2.3.9', signal))?.instances).toBeUndefined();
    await writeFile(path, bytesOf({ instance: 2 }));
    aheadMs = quietMs + 1000;
    expect(await search()).toMatchObject([{ series: '1.2.3.8' }, { series: '1.2.3.9', instances: 2 }]);
  });

  it('counts a new file beside a series, so that its quiet time begins again', async () => {
    await put('s/1', bytesOf({ instance: 1 }));
    later();
    expect(await search()).toMatchObject([{ instances: 1 }]);
    // By its clock in the future.
    const path = await put('s/2', bytesOf({ instance: 2 }));
    await utimes(path, new Date('2100-01-01'), new Date('2100-01-01'));
    aheadMs += 1500;
    expect(await search()).toEqual([]);
    expect((await source.look('1.2.3', '1.2.3.9', signal))?.instances).toBe(2);
  });

  it('takes a file whose time lies in the future once it has not changed', async () => {
    const path = await put('1', bytesOf({}));
    await utimes(path, new Date('2100-01-01'), new Date('2100-01-01'));
    expect(await search()).toEqual([]);
    later();
    expect(await search()).toHaveLength(1);
  });

  it('follows no link', async () => {
    const outside = await mkdtemp(join(tmpdir(), 'tomaat-outside-'));
    await writeFile(join(outside, 'x'), bytesOf({}));
    await symlink(join(outside, 'x'), join(root, 'file'));
    await symlink(outside, join(root, 'folder'));
    await symlink(root, join(root, 'loop'));
    later();
    expect(await search()).toEqual([]);
    const path = await put('1', bytesOf({}));
    later();
    expect(await search()).toHaveLength(1);
    // Put in its place after the search.
    await rm(path);
    await symlink(join(outside, 'x'), path);
    await expect(fetched('1.2.3.9')).rejects.toMatchObject({ code: 'BUSY' });
    await rm(outside, { recursive: true });
  });

  it('refuses a file that changes between search and transfer, or is too large', async () => {
    const path = await put('1', bytesOf({}));
    later();
    expect(await search()).toHaveLength(1);
    await truncate(path, 300);
    await expect(fetched('1.2.3.9')).rejects.toMatchObject({ code: 'BUSY' });
    await put('1', bytesOf({}));
    later();
    source = open({ maxFileBytes: 500 });
    later();
    await expect(fetched('1.2.3.9')).rejects.toMatchObject({
      code: 'UPLOAD_TOO_LARGE',
      message: expect.stringContaining('limits.maxSeriesBytes (500)'),
    });
  });

  it('names damaged files as its fault, without their names, and gives other series', async () => {
    await put('good/1', bytesOf({ series: '1' }));
    await put('bad/1', bytesOf({ series: '2', instance: 1 }));
    const bytes = bytesOf({ series: '2', instance: 2 });
    await put('bad/DOE^JANE', bytes.subarray(0, 300));
    later();
    const found: SeenSeries[] = [];
    const searching = (async () => {
      for await (const seen of source.search(signal)) found.push(seen);
    })();
    await expect(searching).rejects.toMatchObject({
      code: 'UPSTREAM',
      message: expect.stringMatching(/^1 files in (?!.*DOE).*Replace or remove/),
    });
    expect(found.map(({ series }) => series)).toEqual(['1.2.3.1']);
    await put('bad/DOE^JANE', bytes);
    later();
    later();
    expect(await search()).toMatchObject([{ series: '1.2.3.1' }, { series: '1.2.3.2', instances: 2 }]);
  });

  it('says that its folder is missing, and finds files that were moved', async () => {
    await put('1', bytesOf({}));
    later();
    expect(await search()).toHaveLength(1);
    await rename(root, `${root}-moved`);
    later();
    await expect(search()).rejects.toMatchObject({
      code: 'UPSTREAM',
      message: expect.stringContaining('(ENOENT)'),
    });
    await rename(`${root}-moved`, root);
    await mkdir(join(root, 'sub'));
    await rename(join(root, '1'), join(root, 'sub', '1'));
    later();
    later();
    expect(await search()).toHaveLength(1);
    expect(await fetched('1.2.3.9')).toHaveLength(1);
  });

  it.skipIf(process.geteuid?.() === 0)('waits with a series of which it may not read a file', async () => {
    await put('1', bytesOf({ instance: 1 }));
    await chmod(await put('2', bytesOf({ instance: 2 })), 0);
    later();
    await expect(search()).rejects.toMatchObject({ code: 'UPSTREAM' });
  });

  it('does not end a search of others when one is stopped', async () => {
    for (let instance = 1; instance <= 50; instance++) await put(String(instance), bytesOf({ instance }));
    later();
    const stop = new AbortController();
    const stopped = source.look('1.2.3', '1.2.3.9', stop.signal);
    const other = source.look('1.2.3', '1.2.3.9', signal);
    stop.abort(new Error('dropped'));
    await expect(stopped).rejects.toThrow('dropped');
    expect((await other)?.instances).toBe(50);
  });
});
