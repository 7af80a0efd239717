import { closeSync, openSync, utimesSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { auditChain, auditLineOf, sha256Of, textOf } from '../../test/audit-lines.ts';
import { openIdentity } from '../identity.ts';
import {
  anchorFile,
  auditFiles,
  firstHead,
  hashOf,
  headOfLine,
  inOrder,
  isAuditFile,
  lastHeadOf,
  lastLine,
  lastLineEnd,
  linesOf,
  newestHead,
  readAnchor,
  sequenceOf,
} from './audit-files.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-audit-files-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const at = (name: string) => join(folder, name);
const put = async (name: string, bytes: string | Uint8Array) => {
  await writeFile(at(name), bytes);
  return at(name);
};
const read = async (path: string) => {
  const lines: [string, boolean][] = [];
  for await (const { text, torn } of linesOf(path)) lines.push([text, torn]);
  return lines;
};
const zeros = '0'.repeat(64);

describe('headOfLine()', () => {
  const { text, sha256 } = auditLineOf(7, sha256Of('before'));

  it('reads number and hashes of a line whose hash holds', () => {
    expect(hashOf('abc')).toBe('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
    expect(firstHead).toEqual({ sequence: 0, sha256: zeros });
    expect(headOfLine(text)).toEqual({ sequence: 7, prev: sha256Of('before'), sha256 });
    expect(headOfLine(auditLineOf(123_456_789_012_345, zeros).text)?.sequence).toBe(123_456_789_012_345);
  });

  it.each([
    ['', 'nothing'],
    [text.slice(1), 'no beginning'],
    [text.slice(0, -1), 'no end'],
    [`${text} `, 'more behind it'],
    [text.replace('"seq":7', '"seq":8'), 'another number'],
    [text.replace(sha256, sha256.toUpperCase()), 'a hash in capitals'],
    [text.replace(sha256, sha256Of('other')), 'another hash'],
    [auditLineOf(7, 'no hash').text, 'no hash of the line before'],
    [auditLineOf(7, zeros.slice(1)).text, 'a short hash of the line before'],
    [auditLineOf(1e15, zeros).text, 'a number of 16 digits'],
    [auditLineOf(-1, zeros).text, 'a negative number'],
  ])('reads none of another one: %#, %s', (line) => {
    expect(headOfLine(line)).toBeUndefined();
  });
});

describe('sequenceOf()', () => {
  it.each([
    ['{"seq":1,"x":2}', 1],
    ['{"seq":999999999999999,', 999_999_999_999_999],
    ['{"seq":1000000000000000,', undefined],
    ['{"seq":,', undefined],
    ['{"seq":1}', undefined],
    [' {"seq":1,', undefined],
  ])('reads the number of %s', (line, expected) => {
    expect(sequenceOf(line)).toBe(expected);
  });

  it('lastHeadOf() uses what is readable of a broken line', () => {
    const { text, sha256 } = auditLineOf(7, zeros);
    expect(lastHeadOf(text)).toMatchObject({ sequence: 7, sha256 });
    const broken = text.replace('job', 'jab');
    expect(lastHeadOf(broken)).toEqual({ sequence: 7, sha256: sha256Of(broken) });
    expect(lastHeadOf('what')).toEqual({ sequence: 0, sha256: sha256Of('what') });
  });
});

describe('isAuditFile()', () => {
  it.each([
    ['audit.jsonl', true],
    ['audit-0000000123.jsonl', true],
    ['audit.jsonl.1', true],
    ['audit.jsonl-20260131.gz', true],
    ['audit.jsonl.123.part', false],
    ['audit.head', false],
    ['audit.pending', false],
    ['audits.jsonl', false],
    ['my-audit.jsonl', false],
  ])('knows %s: %s', (name, expected) => {
    expect(isAuditFile(name)).toBe(expected);
  });

  it('auditFiles() gives the paths of those in a folder', async () => {
    for (const name of ['audit.jsonl', 'audit.head', 'audit.jsonl.1']) await put(name, '');
    expect((await auditFiles(folder)).sort()).toEqual([at('audit.jsonl'), at('audit.jsonl.1')]);
  });
});

describe('inOrder()', () => {
  const lines = auditChain(12);

  it('goes by the first lines, and leaves out files without one', async () => {
    const second = await put('audit.jsonl', textOf(lines.slice(2)));
    const first = await put('audit.jsonl.9', textOf(lines.slice(0, 2)));
    const tenth = await put('audit.jsonl.8', textOf(lines.slice(9)));
    const empty = await put('audit.jsonl.7', '');
    const emptyPacked = await put('audit.jsonl.6.gz', gzipSync(''));
    const torn = await put('audit.jsonl.5', lines[4].text);
    expect(await inOrder([second, empty, tenth, torn, emptyPacked, first])).toEqual([
      ...[first, second, torn, tenth],
    ]);
  });

  it('orders a damaged file by its name if standard, and others last', async () => {
    const strange = await put('strange.jsonl', 'what\n');
    const named = await put('audit-0000000005.jsonl', 'what\n');
    const short = await put('audit-5.jsonl', 'what\n');
    const first = await put('audit.jsonl.1', textOf(lines.slice(0, 1)));
    const last = await put('audit.jsonl', textOf(lines.slice(6)));
    expect(await inOrder([strange, last, named, first, short])).toEqual([first, named, last, strange, short]);
  });

  it('prefers the plain one of two that begin with the same line', async () => {
    const text = textOf(lines.slice(0, 3));
    const plain = await put('audit.jsonl.1', text);
    const packed = await put('audit.jsonl-2026.gz', gzipSync(text));
    const packedAgain = await put('audit.jsonl-2027.zst', zstdCompressSync(text));
    expect(await inOrder([packed, plain])).toEqual([plain]);
    expect(await inOrder([plain, packed])).toEqual([plain]);
    expect(await inOrder([packed, packedAgain])).toEqual([packedAgain]);
    const twice = await put('audit.jsonl.2', text);
    await expect(inOrder([plain, twice])).rejects.toMatchObject({
      code: 'BAD_REQUEST',
      message: expect.stringContaining(`${plain} and ${twice}`),
    });
  });

  it('ignores a file being compressed beside its original', async () => {
    const plain = await put('audit.jsonl.1', textOf(lines));
    const half = await put('audit.jsonl.1.gz', gzipSync(textOf(lines)).subarray(0, 15));
    expect(await inOrder([half, plain])).toEqual([plain]);
    // Alone it is an unknown one: what it lacks is found when all of it is read.
    expect(await inOrder([half])).toEqual([half]);
    const unreadable = await put('audit.jsonl.2.xz', Uint8Array.of(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0));
    await expect(inOrder([unreadable])).rejects.toMatchObject({ code: 'UNSUPPORTED_FORMAT' });
    await expect(inOrder([at('none')])).rejects.toMatchObject({ code: 'ENOENT' });
  });
});

describe('linesOf()', () => {
  it('reads lines across chunks of one byte, and marks a torn last one', async () => {
    expect(await read(await put('x', ''))).toEqual([]);
    expect(await read(await put('x', 'a\n\nb\n'))).toEqual([
      ['a', false],
      ['', false],
      ['b', false],
    ]);
    const long = 'x'.repeat(2 ** 20 - 3);
    expect(await read(await put('x', `${long}\nabcdef\ntorn`))).toEqual([
      [long, false],
      ['abcdef', false],
      ['torn', true],
    ]);
    expect(await read(await put('x', Uint8Array.of(0xff, 0xc3, 0xa9, 10)))).toEqual([
      ['\xff\xc3\xa9', false],
    ]);
  });

  it.each([
    ['gzip', gzipSync],
    ['zstd', zstdCompressSync],
  ])('unpacks %s', async (_name, pack) => {
    expect(await read(await put('x', pack('a\nb')))).toEqual([
      ['a', false],
      ['b', true],
    ]);
    const bytes = pack(textOf(auditChain(50)));
    await expect(read(await put('x', bytes.subarray(0, bytes.length - 20)))).rejects.toThrow();
  });

  it.each([
    ['xz', [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]],
    ['bzip2', [0x42, 0x5a, 0x68, 0x39, 0, 0]],
  ])('refuses %s by name', async (name, bytes) => {
    await expect(read(await put('x', Uint8Array.from(bytes)))).rejects.toMatchObject({
      code: 'UNSUPPORTED_FORMAT',
      message: expect.stringContaining(name),
    });
  });

  it.each([[[0x1f]], [[0x28, 0xb5, 0x2f]], [[0xfd, 0x37, 0x7a, 0x58]], [[0x42, 0x5a]]])(
    'takes the beginning of a magic number for text: %j',
    async (bytes) => {
      expect(await read(await put('x', Uint8Array.from([...bytes, 1, 1, 1])))).toHaveLength(1);
    },
  );

  it('collects no more than 4 MiB of a line', async () => {
    const text = 'x'.repeat(2 ** 22);
    expect((await read(await put('x', text)))[0]).toEqual([text, true]);
    await expect(read(await put('x', `${text}x`))).rejects.toMatchObject({
      code: 'BAD_SIGNATURE',
      message: expect.stringContaining('4194304 bytes'),
    });
  });
});

describe('lastLine()', () => {
  const withFile = async <T>(text: string, work: (fd: number, size: number) => T): Promise<T> => {
    const fd = openSync(await put('x', text), 'r');
    try {
      return work(fd, Buffer.byteLength(text));
    } finally {
      closeSync(fd);
    }
  };

  it.each([
    ['', 0, undefined],
    ['torn', 0, undefined],
    ['a\n', 2, 'a'],
    ['a\nbc\n', 5, 'bc'],
    ['a\nbc\ntorn', 5, 'bc'],
    ['é\nü\n', 6, 'ü'],
    [`${'x'.repeat(2 ** 20)}\nlast\ntorn`, 2 ** 20 + 6, 'last'],
  ])('lies before the last newline: case %#', async (text, end, line) => {
    expect(await withFile(text, lastLineEnd)).toBe(end);
    expect(await withFile(text, (fd) => lastLine(fd, end))).toBe(line);
  });
});

describe('newestHead()', () => {
  const lines = auditChain(9);
  const headAt = (sequence: number) => ({ sequence, sha256: lines[sequence - 1].sha256 });

  it('finds the newest line of all files, whole ones alone', async () => {
    expect(await newestHead(folder, undefined)).toBeUndefined();
    await put('audit.jsonl', '');
    await put('audit.jsonl.1', textOf(lines.slice(3, 5)));
    await put('audit.jsonl.2', textOf(lines.slice(0, 3)));
    expect(await newestHead(folder, undefined)).toMatchObject(headAt(5));
    await put('audit.jsonl.3.gz', gzipSync(`${textOf(lines.slice(5, 8))}{"seq":9,`));
    expect(await newestHead(folder, undefined)).toMatchObject(headAt(8));
  });

  it('unpacks only what was written after the signature', async () => {
    const signed = { ...headAt(4), thumbprint: 'x' };
    await put(anchorFile, '');
    utimesSync(at(anchorFile), 1000, 1000);
    expect(await newestHead(folder, signed)).toEqual(headAt(4));
    await put('audit.jsonl.1.gz', gzipSync(textOf(lines.slice(0, 6))));
    utimesSync(at('audit.jsonl.1.gz'), 999, 999);
    expect(await newestHead(folder, signed)).toEqual(headAt(4));
    utimesSync(at('audit.jsonl.1.gz'), 1000, 1000);
    expect(await newestHead(folder, signed)).toMatchObject(headAt(6));
    // An older one says nothing new.
    expect(await newestHead(folder, { ...headAt(7), thumbprint: 'x' } as never)).toEqual(headAt(7));
    await put('audit.jsonl', textOf(lines.slice(6, 9)));
    utimesSync(at('audit.jsonl'), 1, 1);
    expect(await newestHead(folder, signed)).toMatchObject(headAt(9));
  });
});

describe('readAnchor()', () => {
  it('reads the signed number and hash, and who signed', async () => {
    const identity = await openIdentity(folder);
    const head = { sequence: 3, sha256: sha256Of('x') };
    const sign = (payload: object) => identity.sign('tomaat-audit+jws', payload);
    expect(await readAnchor(at('none'))).toBeUndefined();
    const { thumbprint } = identity;
    for (const end of ['', '\n'])
      expect(await readAnchor(await put('x', `${await sign(head)}${end}`))).toEqual({ ...head, thumbprint });
    for (const wrong of [
      { ...head, sequence: 1.5 },
      { ...head, sequence: '3' },
      { ...head, sha256: 'x' },
      { ...head, sha256: `${head.sha256}0` },
      { sequence: 3 },
    ])
      await expect(readAnchor(await put('x', await sign(wrong)))).rejects.toMatchObject({
        code: 'BAD_SIGNATURE',
        message: expect.stringContaining('number and hash'),
      });
    const other = await identity.sign('tomaat-receipt+jws', head);
    for (const text of ['', 'x', other, `${await sign(head)}\n\n`])
      await expect(readAnchor(await put('x', text))).rejects.toMatchObject({ code: 'BAD_SIGNATURE' });
    await mkdir(at('folder'));
    await expect(readAnchor(at('folder'))).rejects.toMatchObject({ code: 'EISDIR' });
  });
});
