import { createHash } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { checkWhole, createDamageList, damagedError, statOf } from './damage.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tomaat-damage-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const sha256 = (text: string) => `sha256:${createHash('sha256').update(text).digest('hex')}`;

describe('createDamageList()', () => {
  it('recognizes a file by its identity, and forgets it once replaced', () => {
    const path = join(folder, 'blob');
    const stat = () => statSync(path, { bigint: true });
    const list = createDamageList();
    writeFileSync(path, 'abc');
    utimesSync(path, 1000, 1000);
    const before = stat();
    expect(list.has('x', before)).toBe(false);
    list.add('x', before);
    expect(list.has('x', stat())).toBe(true);
    expect(list.has('y', before)).toBe(false);
    utimesSync(path, 1000, 1001);
    expect(list.has('x', stat())).toBe(false);
    utimesSync(path, 1000, 1000);
    expect(list.has('x', stat())).toBe(false);
    list.add('x', before);
    writeFileSync(path, 'abcd');
    utimesSync(path, 1000, 1000);
    expect(list.has('x', stat())).toBe(false);
    list.add('x', stat());
    writeFileSync(join(folder, 'other'), 'abcd');
    utimesSync(join(folder, 'other'), 1000, 1000);
    expect(list.has('x', statSync(join(folder, 'other'), { bigint: true }))).toBe(false);
  });
});

describe('statOf()', () => {
  it('gives nanoseconds and sizes as big integers', () => {
    writeFileSync(join(folder, 'x'), 'abc');
    const fd = openSync(join(folder, 'x'), 'r');
    try {
      expect(statOf(fd)).toMatchObject({ size: 3n, mtimeNs: expect.any(BigInt) });
    } finally {
      closeSync(fd);
    }
  });
});

describe('damagedError()', () => {
  it('names the file in its cause alone', () => {
    const error = damagedError('/data/blobs/x', 'it is short');
    expect(error.code).toBe('DAMAGED');
    expect(error.message).not.toContain('/data');
    expect(String(error.cause)).toContain('/data/blobs/x is damaged: it is short');
  });
});

describe('checkWhole()', () => {
  async function read(chunks: readonly string[], of: string) {
    const seen: string[] = [];
    async function* source() {
      for (const chunk of chunks) {
        yield Buffer.from(chunk);
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
    const stream = checkWhole(Readable.from(source()), { digest: sha256(of) }, () => {
      return new Error('mismatch');
    });
    stream.on('data', (chunk) => seen.push(String(chunk)));
    await new Promise<void>((resolve) => {
      stream.on('end', resolve);
      stream.on('error', ({ message }) => {
        seen.push(message);
        resolve();
      });
    });
    return seen;
  }

  it('passes the bytes on that have the SHA-256', async () => {
    expect(await read(['ab', 'c', 'def'], 'abcdef')).toEqual(['ab', 'c', 'def']);
    expect(await read([], '')).toEqual([]);
  });

  it('errs before the last bytes of all others', async () => {
    expect(await read(['ab', 'c', 'deg'], 'abcdef')).toEqual(['ab', 'c', 'mismatch']);
    expect(await read(['abc'], 'abd')).toEqual(['mismatch']);
    expect(await read([], 'abc')).toEqual(['mismatch']);
  });

  it('errs with what it reads from', async () => {
    const broken = Readable.from(
      (async function* () {
        yield Buffer.from('ab');
        throw new Error('the disk fails');
      })(),
    );
    const checked = checkWhole(broken, { digest: sha256('ab') }, () => new Error('mismatch'));
    await expect(checked.toArray()).rejects.toThrow('the disk fails');
  });
});
