import type { ReadStream } from 'node:fs';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { encode, phantom } from '../../test/phantom.ts';
import { hashFile } from '../store/files/hash-file.ts';
import { type Conversion, type Converter, openConverter } from './converter.ts';

let folder: string;
let converter: Converter;
let conversion: Conversion;
const forever = new AbortController().signal;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-converter-'));
  converter = await openConverter(join(folder, 'converted'));
  const path = join(folder, 'stored');
  const source = phantom();
  const labels = { ...source, voxels: Uint8Array.from(source.voxels as Int16Array, (v) => Number(v > 10)) };
  await writeFile(path, await encode(labels, 'nii.gz'));
  const digest = `sha256:${await hashFile(path)}`;
  conversion = { path, digest, type: 'LabelVolume', from: 'nii.gz', to: 'nii', labels: [] };
});
afterEach(async () => {
  await converter.close();
  await rm(folder, { recursive: true, force: true });
});

/** Another conversion of the same file. */
const named = (name: string): Conversion => ({ ...conversion, labels: [{ value: 1, name }] });
const left = () => readdir(join(folder, 'converted'));

describe('openConverter()', () => {
  it('runs an owner’s equal conversions once, and gives each reader all bytes', async () => {
    const results = await Promise.all(
      Array.from({ length: 40 }, () => converter.convert(conversion, 'a', forever)),
    );
    expect(new Set(results.map(({ stream }) => (stream as ReadStream).path)).size).toBe(1);
    const bodies = await Promise.all(results.map(({ stream }) => buffer(stream)));
    for (const [i, body] of bodies.entries()) {
      expect(body.length).toBe(results[i].sizeBytes);
      expect(body.equals(bodies[0])).toBe(true);
    }
    expect(bodies[0].length).toBeGreaterThan(1000);
    await expect.poll(left).toEqual([]);
    // Another owner’s is its own.
    const own = await Promise.all(['a', 'b'].map((owner) => converter.convert(conversion, owner, forever)));
    expect(new Set(own.map(({ stream }) => (stream as ReadStream).path)).size).toBe(2);
    for (const { stream } of own) stream.destroy();
    await expect.poll(left).toEqual([]);
  });

  it('continues for the others when one reader leaves, and ends with the last', async () => {
    const gone = new AbortController();
    const first = converter.convert(conversion, 'a', gone.signal);
    const second = converter.convert(conversion, 'a', forever);
    gone.abort(new Error('Gone.'));
    await expect(first).rejects.toThrow('Gone.');
    expect((await buffer((await second).stream)).length).toBeGreaterThan(1000);
    const last = new AbortController();
    const alone = converter.convert(named('alone'), 'a', last.signal);
    last.abort(new Error('Gone, too.'));
    await expect(alone).rejects.toThrow('Gone, too.');
    await expect.poll(left).toEqual([]);
  });

  it('serves an owner at once whatever another one has asked for', { timeout: 60_000 }, async () => {
    const ended: string[] = [];
    const ask = async (owner: string, what: Conversion) => {
      const { stream } = await converter.convert(what, owner, forever);
      ended.push(owner);
      await buffer(stream);
    };
    const many = Array.from({ length: 12 }, (_, i) => ask('a', named(`label ${i}`)));
    await Promise.all([...many, ask('b', conversion)]);
    expect(ended.length).toBe(13);
    // In order of arrival it would be the last one.
    expect(ended.indexOf('b')).toBeLessThan(6);
    await expect.poll(left).toEqual([]);
  });

  it('refuses the newest of the owner with the most when too many wait', { timeout: 60_000 }, async () => {
    const answers = Array.from({ length: 40 }, (_, i) =>
      converter.convert(named(`label ${i}`), 'a', forever).then(
        ({ stream }) => void stream.destroy(),
        (error: { code: string }) => error.code,
      ),
    );
    const { stream } = await converter.convert(conversion, 'b', forever);
    stream.destroy();
    const refused = (await Promise.all(answers)).flatMap((code, i) => (code ? [[i, code]] : []));
    expect(refused.every(([, code]) => code === 'BUSY')).toBe(true);
    // Two at work and 32 that wait; then one of them makes room for b.
    expect(refused.map(([i]) => i)).toEqual([33, 34, 35, 36, 37, 38, 39]);
  });

  it('refuses a stored file with another digest', async () => {
    await expect(
      converter.convert({ ...conversion, digest: `sha256:${'0'.repeat(64)}` }, 'a', forever),
    ).rejects.toMatchObject({ code: 'DAMAGED' });
    await expect.poll(left).toEqual([]);
  });
});
