/**
 * What strangers send on purpose: bombs, headers that lie, names that lead elsewhere, requests that two programs read
 * differently. And what shows whether a server stood it: memory of all its processes, calls of its system, files.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { findStrace } from '../../../test/programs.ts';
import { goodFile, type Kind } from '../../core/test/bad-files.ts';
import { deflateBomb } from './bomb.ts';

// Memory

/** A process and all that it has started, and what those have started. Linux only; else the process alone. */
export function processesOf(pid: number): number[] {
  const found = [pid];
  for (let i = 0; i < found.length; i++) {
    const file = `/proc/${found[i]}/task/${found[i]}/children`;
    if (existsSync(file)) found.push(...readFileSync(file, 'utf8').split(' ').filter(Boolean).map(Number));
  }
  return found;
}

export interface MemoryWatch {
  /** By how much any of the processes has grown beyond what it had at the beginning; new ones count beyond a child at rest. */
  growthBytes(): number;
}

/** Watches the peak memory of a server and its children from now on. */
export function watchMemory(pid: number): MemoryWatch {
  const kb = (id: number, name: string) => {
    try {
      const text = readFileSync(`/proc/${id}/status`, 'utf8');
      return Number(new RegExp(`${name}:\\s+(\\d+)`).exec(text)?.[1] ?? 0) * 1024;
    } catch {
      return 0;
    }
  };
  const before = new Map<number, number>();
  for (const id of processesOf(pid)) {
    try {
      writeFileSync(`/proc/${id}/clear_refs`, '5');
    } catch {
      continue;
    }
    before.set(id, kb(id, 'VmRSS'));
  }
  return {
    growthBytes: () =>
      Math.max(0, ...processesOf(pid).map((id) => kb(id, 'VmHWM') - (before.get(id) ?? 150e6))),
  };
}

// Calls of the system

export const hasStrace = process.platform === 'linux' && findStrace() !== undefined;

/** Calls that open, make, move or remove files, of a process and all that it starts from now on. */
export async function traceFiles(pid: number, outFile: string): Promise<{ end(): Promise<FileCall[]> }> {
  const calls =
    'openat,open,creat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat';
  const tracer: ChildProcess = spawn(
    'strace',
    ['-f', '-qq', '-s', '4096', '-y', '-e', `trace=${calls}`, '-o', outFile, '-p', String(pid)],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  const traced = () =>
    Number(/TracerPid:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) > 0;
  for (let waits = 0; !traced(); waits++) {
    if (waits > 200 || tracer.exitCode !== null) throw new Error('strace could not attach');
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  return {
    async end() {
      tracer.kill('SIGINT');
      await once(tracer, 'exit');
      return parseCalls(readFileSync(outFile, 'latin1'));
    },
  };
}

export interface FileCall {
  call: string;
  /** The paths that it names, as they were given. */
  paths: string[];
  /** Whether it makes, changes, moves or removes something. */
  writes: boolean;
  line: string;
}

export function parseCalls(text: string): FileCall[] {
  return text.split('\n').flatMap((line) => {
    const call = /^\d+\s+(\w+)\(/.exec(line)?.[1];
    if (!call) return [];
    const paths = [...line.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, path]) => path);
    const writes = !/^open/.test(call) || /O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_TMPFILE/.test(line);
    return [{ call, paths, writes, line }];
  });
}

/** All files of a folder, with those of uploads that are not whole. */
export async function filesIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => !entry.isDirectory()).map((entry) => join(entry.parentPath, entry.name));
}

// Bombs

export const bombShapes = [
  'zeros',
  'lies',
  'too large',
  'members',
  'nested',
  'truncated',
  'surplus',
] as const;
export type BombShape = (typeof bombShapes)[number];

/** 2 GB of zeros, packed. */
const zeros = 2 * 2 ** 30;

/** What a packed stream holds, by shape: `head` is the right beginning, `whole` all that belongs there. */
function packedAs(
  shape: BombShape,
  head: Uint8Array,
  whole: Uint8Array,
  pack: (bytes: Uint8Array) => Buffer,
  wrapper: 'gzip' | 'zlib',
): Buffer {
  if (shape === 'zeros') return Buffer.from(deflateBomb(head, zeros, wrapper));
  if (shape === 'members')
    return Buffer.concat([pack(whole), deflateBomb(new Uint8Array(0), zeros, wrapper)]);
  if (shape === 'nested') return pack(deflateBomb(head, zeros, wrapper));
  const packed = pack(whole);
  if (shape === 'truncated') return packed.subarray(0, packed.length - Math.min(packed.length >> 1, 40));
  if (shape === 'surplus') return Buffer.concat([packed, Buffer.alloc(5000, 65)]);
  return packed;
}

/** Sizes that a header claims: within the limit but not in the file, or beyond the limit. */
const claimed = (shape: BombShape): readonly number[] | undefined =>
  shape === 'lies' ? [1000, 1000, 1000] : shape === 'too large' ? [1800, 1800, 1657] : undefined;

/** A packed NIfTI file of this shape. */
export async function niftiBomb(kind: 'nii' | 'nifti2', shape: BombShape): Promise<Buffer> {
  const file = Buffer.from(await goodFile(kind));
  const sizes = claimed(shape);
  sizes?.forEach((n, i) => {
    if (kind === 'nii') file.writeInt16LE(n, 42 + 2 * i);
    else file.writeBigInt64LE(BigInt(n), 24 + 8 * i);
  });
  return packedAs(shape, file.subarray(0, 544), file, (bytes) => gzipSync(bytes), 'gzip');
}

/** A MetaImage or NRRD file whose packed voxels have this shape. */
export async function textBomb(kind: 'mha' | 'nrrd', shape: BombShape): Promise<Buffer> {
  const raw = Buffer.from(await goodFile(`${kind} raw` as Kind));
  const voxels = raw.subarray(raw.length - 5880);
  const { deflateSync } = await import('node:zlib');
  const isMha = kind === 'mha';
  const packed = packedAs(
    shape,
    voxels.subarray(0, 100),
    voxels,
    (bytes) => (isMha ? deflateSync(bytes) : gzipSync(bytes)),
    isMha ? 'zlib' : 'gzip',
  );
  const sizes = claimed(shape)?.join(' ');
  let header = raw.subarray(0, raw.length - 5880).toString('latin1');
  header = isMha
    ? header.replace('CompressedData = False', `CompressedData = True\nCompressedDataSize = ${packed.length}`)
    : header.replace('encoding: raw', 'encoding: gzip');
  if (sizes)
    header = header.replace(
      isMha ? /DimSize = .*/ : /sizes: .*/,
      `${isMha ? 'DimSize =' : 'sizes:'} ${sizes}`,
    );
  return Buffer.concat([Buffer.from(header, 'latin1'), packed]);
}

/** The two files of a NIfTI pair whose image has this shape. */
export async function pairBomb(shape: BombShape): Promise<{ header: Buffer; image: Buffer }> {
  const file = Buffer.from(await goodFile('nii'));
  file.write('ni1', 344, 'latin1');
  file.writeFloatLE(0, 108);
  claimed(shape)?.forEach((n, i) => void file.writeInt16LE(n, 42 + 2 * i));
  const voxels = file.subarray(352);
  const image = packedAs(shape, voxels.subarray(0, 100), voxels, (bytes) => gzipSync(bytes), 'gzip');
  return { header: file.subarray(0, 348), image };
}

// Headers that lie

export interface HeaderLie {
  kind: Kind;
  what: string;
  file: Uint8Array;
  /** No more than a field that nothing depends on: the file is read as if it were right. */
  harmless?: boolean;
}

const sizes = [
  '0',
  '-1',
  '1',
  '32767',
  '65536',
  '2147483647',
  '4294967296',
  '9007199254740993',
  'nan',
  '1e999',
];

/** More than 300 headers whose fields contradict each other, the file, or sense. */
export async function headerLies(): Promise<HeaderLie[]> {
  const lies: HeaderLie[] = [];
  const nii = Buffer.from(await goodFile('nii'));
  const two = Buffer.from(await goodFile('nifti2'));
  const mha = Buffer.from(await goodFile('mha raw')).toString('latin1');
  const nrrd = Buffer.from(await goodFile('nrrd raw')).toString('latin1');

  const binary = (
    kind: 'nii' | 'nifti2',
    what: string,
    change: (bytes: Buffer) => void,
    harmless = false,
  ) => {
    const bytes = Buffer.from(kind === 'nii' ? nii : two);
    change(bytes);
    lies.push({ kind, what, file: bytes, harmless });
  };
  const text = (kind: 'mha raw' | 'nrrd raw', what: string, from: RegExp, to: string, harmless = false) => {
    const before = kind === 'mha raw' ? mha : nrrd;
    const after = before.replace(from, to);
    if (after === before) throw new Error(`${kind}: ${what} changes nothing`);
    lies.push({ kind, what, file: Buffer.from(after, 'latin1'), harmless });
  };

  // Sizes, per axis and of all axes at once.
  for (const axes of [[0], [1], [2], [0, 1, 2]]) {
    for (const size of sizes) {
      const what = `size ${size} on ${axes.length === 3 ? 'every axis' : `axis ${axes[0]}`}`;
      const number = Number(size);
      if (Number.isInteger(number) && Math.abs(number) < 2 ** 16) {
        binary('nii', what, (b) => axes.forEach((a) => void b.writeUInt16LE(number & 0xffff, 42 + 2 * a)));
      }
      if (/^-?\d+$/.test(size)) {
        binary('nifti2', what, (b) => axes.forEach((a) => void b.writeBigInt64LE(BigInt(size), 24 + 8 * a)));
      }
      const list = [15, 14, 14].map((n, i) => (axes.includes(i) ? size : n)).join(' ');
      text('mha raw', what, /DimSize = .*/, `DimSize = ${list}`);
      text('nrrd raw', what, /sizes: .*/, `sizes: ${list}`);
    }
  }
  // Number of dimensions.
  for (const n of [-32768, -1, 0, 1, 2, 6, 8, 9, 256, 32767]) {
    binary('nii', `dim[0] = ${n}`, (b) => {
      b.writeInt16LE(n, 40);
      if (n === 6) [1, 1, 2].forEach((v, i) => void b.writeInt16LE(v, 48 + 2 * i));
    });
    binary('nifti2', `dim[0] = ${n}`, (b) => {
      b.writeBigInt64LE(BigInt(n), 16);
      if (n === 6) [1n, 1n, 2n].forEach((v, i) => void b.writeBigInt64LE(v, 48 + 8 * i));
    });
    text('mha raw', `NDims ${n}`, /NDims = 3/, `NDims = ${n}`);
    text('nrrd raw', `dimension ${n}`, /dimension: 3/, `dimension: ${n}`);
  }
  for (const frames of [0, -1, 3, 32767]) {
    binary(
      'nii',
      `${frames} frames`,
      (b) => [4, 15, 14, 14, frames].forEach((v, i) => void b.writeInt16LE(v, 40 + 2 * i)),
      // Some programs write 0 where there is one frame.
      frames === 0,
    );
  }
  // Types, and widths that contradict them.
  for (const code of [
    -1, 0, 1, 3, 5, 7, 8, 16, 32, 64, 128, 255, 257, 1024, 1280, 1536, 1792, 2048, 2304, 32767,
  ]) {
    binary('nii', `datatype ${code}`, (b) => void b.writeInt16LE(code, 70));
    binary('nifti2', `datatype ${code}`, (b) => void b.writeInt16LE(code, 12));
  }
  for (const bits of [0, -1, 8, 32, 64, 32767]) {
    binary('nii', `bitpix ${bits}`, (b) => void b.writeInt16LE(bits, 72), true);
    binary('nifti2', `bitpix ${bits}`, (b) => void b.writeInt16LE(bits, 14), true);
  }
  for (const type of [
    'MET_UCHAR',
    'MET_FLOAT',
    'MET_DOUBLE',
    'MET_LONG_LONG',
    'MET_STRING',
    'MET_NONE',
    'SHORT',
    '',
    '__proto__',
    'constructor',
  ])
    text('mha raw', `ElementType ${type}`, /ElementType = .*/, `ElementType = ${type}`);
  for (const type of [
    'uint8',
    'float',
    'double',
    'int64',
    'block',
    'int17',
    'string',
    '__proto__',
    'constructor',
  ])
    text('nrrd raw', `type ${type}`, /type: .*/, `type: ${type}`);
  // Where the voxels begin.
  for (const offset of [
    -1,
    1,
    100,
    351.5,
    353,
    368,
    1e6,
    2 ** 31,
    1e12,
    3e38,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    Number.NEGATIVE_INFINITY,
  ]) {
    binary('nii', `vox_offset ${offset}`, (b) => void b.writeFloatLE(offset, 108));
  }
  for (const offset of [-1n, 1n, 543n, 545n, 560n, 2n ** 31n, 2n ** 53n + 1n, 2n ** 63n - 1n, -(2n ** 63n)]) {
    binary('nifti2', `vox_offset ${offset}`, (b) => void b.writeBigInt64LE(offset, 168));
  }
  for (const size of ['-2', '1', '10', '99999999', '9007199254740993', '1e999', 'nan', '0x10'])
    text('mha raw', `HeaderSize ${size}`, /DimSize/, `HeaderSize = ${size}\nDimSize`);
  text('mha raw', 'HeaderSize -1, which is right here', /DimSize/, 'HeaderSize = -1\nDimSize', true);
  for (const [field, values] of [
    ['byte skip', ['-2', '1', '99999999', '9007199254740993', '1e999', 'nan']],
    ['line skip', ['-1', '1000', '99999999', '9007199254740993', 'nan']],
  ] as const) {
    for (const value of values)
      text('nrrd raw', `${field} ${value}`, /encoding/, `${field}: ${value}\nencoding`);
  }
  text('nrrd raw', 'byte skip -1, which is right here', /encoding/, 'byte skip: -1\nencoding', true);
  // Scale.
  for (const inter of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    binary('nii', `scl_inter ${inter}`, (b) =>
      [2, inter].forEach((v, i) => void b.writeFloatLE(v, 112 + 4 * i)),
    );
    binary('nifti2', `scl_inter ${inter}`, (b) =>
      [2, inter].forEach((v, i) => void b.writeDoubleLE(v, 176 + 8 * i)),
    );
  }
  for (const slope of [0, Number.NaN, Number.POSITIVE_INFINITY]) {
    binary('nii', `scl_slope ${slope}, which means none`, (b) => void b.writeFloatLE(slope, 112), true);
    binary('nifti2', `scl_slope ${slope}, which means none`, (b) => void b.writeDoubleLE(slope, 176), true);
  }
  // Geometry.
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 3e38, 1e30]) {
    for (const row of [0, 1, 2]) {
      binary('nii', `sform row ${row} of ${value}`, (b) => void b.writeFloatLE(value, 280 + 16 * row));
      binary('nifti2', `sform row ${row} of ${value}`, (b) => void b.writeDoubleLE(value, 400 + 32 * row));
    }
  }
  for (const row of [0, 1, 2]) {
    binary('nii', `sform row ${row} of zeros`, (b) => void b.fill(0, 280 + 16 * row, 296 + 16 * row));
    binary('nifti2', `sform row ${row} of zeros`, (b) => void b.fill(0, 400 + 32 * row, 432 + 32 * row));
    binary(
      'nii',
      `sform row ${row} twice`,
      (b) => void b.copy(b, 280 + 16 * ((row + 1) % 3), 280 + 16 * row, 296 + 16 * row),
    );
  }
  for (const value of [0, Number.NaN, Number.POSITIVE_INFINITY]) {
    for (const axis of [1, 2, 3]) {
      binary('nii', `pixdim[${axis}] ${value} and nothing else`, (b) => {
        b.writeInt32LE(0, 252);
        b.writeFloatLE(value, 76 + 4 * axis);
      });
    }
  }
  for (const value of [1.5, -2, Number.NaN, Number.POSITIVE_INFINITY]) {
    binary('nii', `a quaternion of ${value}`, (b) => {
      b.writeInt16LE(1, 252);
      b.writeInt16LE(0, 254);
      b.writeFloatLE(value, 256);
    });
  }
  for (const value of ['0', '-1', 'nan', 'inf', '1e999', '1e300', '0x1', '']) {
    text('mha raw', `a spacing of "${value}"`, /ElementSpacing = \S+/, `ElementSpacing = ${value}`);
    // A direction of -1 is one.
    if (value === '-1') continue;
    text(
      'nrrd raw',
      `a direction of "${value}"`,
      /space directions: \([^)]*\)/,
      `space directions: (${value},0,0)`,
    );
  }
  for (const value of ['nan', 'inf', '1e999', '1e300', '', 'x']) {
    text('mha raw', `an offset of "${value}"`, /\nOffset = \S+/, `\nOffset = ${value}`);
    text('nrrd raw', `an origin of "${value}"`, /space origin: \([^,]*/, `space origin: (${value}`);
    text('mha raw', `a matrix of "${value}"`, /TransformMatrix = \S+/, `TransformMatrix = ${value}`);
  }
  for (const n of ['0', '-1', '2', '65536', '4294967296', 'nan'])
    text('mha raw', `${n} channels`, /DimSize/, `ElementNumberOfChannels = ${n}\nDimSize`);
  // Encodings, lists, references.
  for (const encoding of ['gzip', 'bzip2', 'hex', 'zrl', '', '../raw'])
    text('nrrd raw', `encoding ${encoding}`, /encoding: raw/, `encoding: ${encoding}`);
  for (const endian of ['middle', '', '__proto__'])
    text('nrrd raw', `endian ${endian}`, /endian: \w+/, `endian: ${endian}`);
  for (const list of [
    'LIST',
    'LIST 2',
    'slice%d.raw 1 14 1',
    '/etc/passwd',
    '../../../etc/passwd',
    'file:///etc/passwd',
    'b.raw',
  ]) {
    text('mha raw', `ElementDataFile ${list}`, /= LOCAL/, `= ${list}`);
    text('nrrd raw', `data file ${list}`, /encoding/, `data file: ${list}\nencoding`);
  }
  text('mha raw', 'CompressedData of what is not packed', /CompressedData = False/, 'CompressedData = True');
  text('mha raw', 'text of what is binary', /BinaryData = True/, 'BinaryData = False');
  for (const magic of ['NRRD0000', 'NRRD0006', 'NRRD0009'])
    text('nrrd raw', `magic ${magic}`, /^NRRD0005/, magic);
  return lies;
}

// Names

const long = 'x'.repeat(300);
/** Names that mean another place, or nothing, to some system. */
export const hostileNames: readonly string[] = [
  '../escaped.nii',
  '../../escaped.nii',
  '../../../../../../../../tmp/tomaat-escaped.nii',
  '/tmp/tomaat-escaped.nii',
  '//tmp/tomaat-escaped.nii',
  '/etc/passwd',
  './escaped.nii',
  'a/../../escaped.nii',
  'a/b/c/escaped.nii',
  '....//....//escaped.nii',
  '..;/escaped.nii',
  '..\\escaped.nii',
  '..\\..\\escaped.nii',
  'C:\\escaped.nii',
  'C:escaped.nii',
  'C:/Windows/escaped.nii',
  '\\\\server\\share\\escaped.nii',
  '\\\\?\\C:\\escaped.nii',
  '\\\\.\\COM1',
  'file:///tmp/tomaat-escaped.nii',
  'http://127.0.0.1:1/escaped.nii',
  '%2e%2e%2fescaped.nii',
  '%2e%2e/escaped.nii',
  '..%2fescaped.nii',
  '..%5cescaped.nii',
  '%252e%252e%252fescaped.nii',
  '..%c0%afescaped.nii',
  '..%u2215escaped.nii',
  '\xc0\xae\xc0\xae\xc0\xafescaped.nii',
  '..\xc0\xafescaped.nii',
  '\u2025\u2215escaped.nii',
  '\uff0e\uff0e\uff0fescaped.nii',
  'a\0.nii',
  '../a\0.nii',
  'a.nii\0.png',
  '%00.nii',
  'a%00/../b.nii',
  'a\u202egpj.nii',
  'a\u200b.nii',
  'CON',
  'con.nii',
  'PRN.nii',
  'AUX.nii.gz',
  'NUL',
  'COM1.nii',
  'LPT9.mha',
  'a.nii:stream',
  'a.nii::$DATA',
  'a.nii ',
  ' a.nii',
  'a.nii.',
  '.',
  '..',
  '...',
  '.htaccess',
  '.ssh/authorized_keys',
  '~/escaped.nii',
  '~root/escaped.nii',
  '$HOME/escaped.nii',
  '`touch escaped`.nii',
  '$(touch escaped).nii',
  'a;touch escaped;.nii',
  'a|touch escaped.nii',
  '-rf.nii',
  '--help',
  '*.nii',
  '?.nii',
  '<script>.nii',
  "' OR 1=1 --.nii",
  `${long}.nii`,
  `${'../'.repeat(60)}tmp/tomaat-escaped.nii`,
  `${'a/'.repeat(120)}b.nii`,
  'server.db',
  'tomaat.key',
  '__proto__',
  'constructor.nii',
];

// Requests that two programs read differently

export interface Vector {
  what: string;
  /** Status of the refusal; 0 where hanging up without a word is right. */
  statuses: readonly number[];
  /** The bytes of a prediction at this address with this body, and what smuggles. */
  bytes(path: string, body: Buffer, type: string): Buffer;
}

const smuggled = 'DELETE /api/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n';

export const smugglingVectors: readonly Vector[] = (() => {
  const head = (path: string, type: string, lines: string, version = '1.1', method = 'POST') =>
    Buffer.from(
      `${method} ${path} HTTP/${version}\r\nHost: localhost\r\nContent-Type: ${type}\r\n${lines}\r\n`,
      'latin1',
    );
  const chunked = (body: Buffer, size = body.length.toString(16), end = '0\r\n\r\n') =>
    Buffer.concat([Buffer.from(`${size}\r\n`, 'latin1'), body, Buffer.from(`\r\n${end}`, 'latin1')]);
  const vector = (
    what: string,
    statuses: readonly number[],
    lines: (body: Buffer) => string,
    framed: (body: Buffer) => Buffer = (body) => body,
    version = '1.1',
    method = 'POST',
  ): Vector => ({
    what,
    statuses,
    bytes: (path, body, type) =>
      Buffer.concat([head(path, type, lines(body), version, method), framed(body), Buffer.from(smuggled)]),
  });
  const length = (body: Buffer) => `Content-Length: ${body.length}\r\n`;
  const te = () => 'Transfer-Encoding: chunked\r\n';
  return [
    vector(
      'Content-Length and chunks',
      [400],
      (b) => length(b) + te(),
      (b) => chunked(b),
    ),
    vector(
      'chunks and Content-Length',
      [400],
      (b) => te() + length(b),
      (b) => chunked(b),
    ),
    vector(
      'two Content-Lengths that differ',
      [400],
      (b) => `${length(b)}Content-Length: ${b.length + 5}\r\n`,
    ),
    vector('a list of Content-Lengths', [400], (b) => `Content-Length: ${b.length}, ${b.length + 5}\r\n`),
    vector(
      'xchunked',
      [400, 501],
      () => 'Transfer-Encoding: xchunked\r\n',
      (b) => chunked(b),
    ),
    vector(
      'chunked, identity',
      [400, 501],
      () => 'Transfer-Encoding: chunked, identity\r\n',
      (b) => chunked(b),
    ),
    vector(
      'Transfer-Encoding twice',
      [400],
      () => `${te()}Transfer-Encoding: identity\r\n`,
      (b) => chunked(b),
    ),
    vector(
      'a folded Transfer-Encoding',
      [400],
      () => 'Transfer-Encoding:\r\n chunked\r\n',
      (b) => chunked(b),
    ),
    vector(
      'a space before the colon',
      [400],
      () => 'Transfer-Encoding : chunked\r\n',
      (b) => chunked(b),
    ),
    vector('a Content-Length that begins with a space on a line of its own', [400], (b) => ` ${length(b)}`),
    vector('a bare CR', [400], (b) => `X-A: b\r${length(b)}`),
    vector('bare LFs', [400], (b) => `X-A: b\n${length(b)}`),
    vector('CR CR instead of a line break at the end', [400], (b) => `${length(b)}\r\r`),
    vector('a chunk size that ends with LF alone', [400], te, (b) =>
      Buffer.concat([Buffer.from(`${b.length.toString(16)}\n`), b, Buffer.from('\r\n0\r\n\r\n')]),
    ),
    vector('a chunk extension of 1 MB', [400, 413], te, (b) =>
      chunked(b, `${b.length.toString(16)};${'x'.repeat(1e6)}`),
    ),
    vector('a chunk size of -1', [400], te, (b) => chunked(b, '-1')),
    vector('a chunk size of 0x', [400], te, (b) => chunked(b, `0x${b.length.toString(16)}`)),
    vector('a chunk size of 17 digits', [400, 413], te, (b) => chunked(b, `1${'0'.repeat(16)}`)),
    vector('a negative Content-Length', [400], () => 'Content-Length: -1\r\n'),
    vector('a Content-Length with a sign', [400], (b) => `Content-Length: +${b.length}\r\n`),
    vector('a Content-Length of 10^20', [400, 413], () => `Content-Length: 1${'0'.repeat(20)}\r\n`),
    vector('a NUL in a header', [400], (b) => `${length(b)}X-A: a\0b\r\n`),
    vector('a second Host', [400], (b) => `${length(b)}Host: example.org\r\n`),
    vector('GET with a body', [400, 404, 405], length, (b) => b, '1.1', 'GET'),
    vector('chunks in HTTP/1.0', [400], te, (b) => chunked(b), '1.0'),
    vector('a header of 17 KiB', [431], (b) => `${length(b)}X-A: ${'x'.repeat(17 * 1024)}\r\n`),
  ];
})();
