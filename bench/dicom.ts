import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readDicomHeader, readVolume, type SourceFile } from '@tomaat/core';
import { dicomFile, type Slice, sliceElements, syntaxes } from '../packages/core/test/dicom-files.ts';
import { nodePlatform } from '../packages/server/src/node-platform.ts';
import { filePieces } from '../packages/server/src/store/file-pieces.ts';
import { type BenchOptions, type BenchResult, type Line, median } from './report.ts';

const side = 512;
const slices = 300;
/** This many different slices, each in several files: encoding takes longer than reading. */
const different = 6;
const volumeMb = (2 * side * side * slices) / 1e6;

/** 12 bits as from a scanner: smooth structures, and 4 bits of noise. */
function makeSlice(z: number): Uint16Array<ArrayBuffer> {
  let seed = z + 1;
  return Uint16Array.from({ length: side * side }, (_, i) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) | 0;
    return 800 + ((((i % side) >> 4) * ((i >> 9) >> 5) + z * 3) % 1200) + (seed >>> 28);
  });
}

/** PS3.5 annex G, without runs shorter than three. */
function encodeRle(samples: Uint16Array): Uint8Array {
  const segments = [8, 0].map((shift) => packBits(Uint8Array.from(samples, (value) => value >> shift)));
  const header = Buffer.alloc(64);
  header.writeUInt32LE(2, 0);
  header.writeUInt32LE(64, 4);
  header.writeUInt32LE(64 + segments[0].length, 8);
  return Buffer.concat([header, ...segments]);
}

function packBits(bytes: Uint8Array): Buffer {
  const out: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    const runAt = (from: number) => {
      let end = from;
      while (end < bytes.length && bytes[end] === bytes[from] && end - from < 128) end++;
      return end - from;
    };
    const run = runAt(at);
    if (run >= 3) {
      out.push(257 - run, bytes[at]);
      at += run;
      continue;
    }
    let end = at;
    while (end < bytes.length && end - at < 128 && runAt(end) < 3) end++;
    out.push(end - at - 1, ...bytes.subarray(at, end));
    at = end;
  }
  if (out.length % 2 === 1) out.push(128);
  return Buffer.from(out);
}

interface Encoder {
  getDecodedBuffer(frame: object): Uint8Array;
  setNearLossless(value: number): void;
  encode(): void;
  getEncodedBuffer(): Uint8Array;
  delete(): void;
}

async function openJpegLs(): Promise<(samples: Uint16Array) => Uint8Array> {
  const require = createRequire(new URL('../packages/server/src/node-platform.ts', import.meta.url));
  const create: () => Promise<{
    JpegLSEncoder: new () => Encoder;
  }> = require('@cornerstonejs/codec-charls/wasmjs');
  const { JpegLSEncoder } = await create();
  return (samples) => {
    const encoder = new JpegLSEncoder();
    const frame = { width: side, height: side, bitsPerSample: 16, componentCount: 1, isSigned: false };
    encoder.getDecodedBuffer(frame).set(new Uint8Array(samples.buffer));
    encoder.setNearLossless(0);
    encoder.encode();
    const bytes = new Uint8Array(encoder.getEncodedBuffer());
    encoder.delete();
    return bytes;
  };
}

type Encode = (samples: Uint16Array<ArrayBuffer>) => Uint8Array;

async function writeSeries(folder: string, syntax: string, encode: Encode | undefined): Promise<void> {
  await mkdir(folder);
  const pixels = Array.from({ length: different }, (_, z): Slice['more'] => {
    const samples = makeSlice(z);
    return {
      2145386512: encode
        ? ['OB', { fragments: [new Uint8Array(0), encode(samples)] }]
        : ['OW', new Uint8Array(samples.buffer)],
    };
  });
  for (let z = 0; z < slices; z++) {
    const path = join(folder, `${z}.dcm`);
    const slice = {
      position: [0, 0, z],
      orientation: [1, 0, 0, 0, 1, 0],
      rows: side,
      columns: side,
      instance: z + 1,
    };
    const elements = sliceElements({ ...slice, values: [], intercept: '-1024', more: pixels[z % different] });
    await writeFile(path, dicomFile(elements, { syntax }));
  }
}

/** As in the process that computes. */
async function sourceOf(path: string): Promise<SourceFile> {
  const sizeBytes = (await stat(path)).size;
  return {
    name: path,
    sizeBytes,
    open: (start, room) => filePieces(path, sizeBytes, { start, room }),
  };
}

interface Reading {
  readonly headersS: number;
  readonly volumeS: number;
  readonly peakMb: number;
}

/** In a separate process: reads the series in a folder several times. */
async function readInside(folder: string, rounds: number): Promise<Reading> {
  const cpuSeconds = async (work: () => Promise<unknown>) => {
    const before = process.cpuUsage();
    await work();
    const { user, system } = process.cpuUsage(before);
    return (user + system) / 1e6;
  };
  const files = await Promise.all((await readdir(folder)).map((name) => sourceOf(join(folder, name))));
  const headers = async () => {
    for (const file of files) await readDicomHeader(file, nodePlatform);
  };
  const times: { headersS: number; volumeS: number }[] = [];
  for (let i = 0; i < rounds; i++) {
    times.push({
      headersS: await cpuSeconds(headers),
      volumeS: await cpuSeconds(() => readVolume(files, nodePlatform)),
    });
  }
  return {
    headersS: median(times.map(({ headersS }) => headersS)),
    volumeS: median(times.map(({ volumeS }) => volumeS)),
    peakMb: process.resourceUsage().maxRSS / 1e3,
  };
}

async function read(folder: string, rounds: number): Promise<Reading> {
  const child = fork(fileURLToPath(import.meta.url), ['--read', folder, String(rounds)], {
    execArgv: ['--conditions=tomaat-source'],
  });
  const [reading] = await Promise.race([once(child, 'message'), once(child, 'exit')]);
  if (typeof reading !== 'object' || reading === null) throw new Error('reading failed');
  return reading as Reading;
}

/**
 * CPU and memory of reading a CT of 512 × 512 × 300, by transfer syntax. The targets are the reader's design targets.
 */
export async function run({ quick }: BenchOptions): Promise<BenchResult> {
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-bench-'));
  const lines: Line[] = [];
  try {
    const kinds: [name: string, syntax: string, encode: Encode | undefined, target: number][] = [
      ['uncompressed', syntaxes.explicit, undefined, 0.3],
      ['RLE', syntaxes.rle, encodeRle, 0.6],
      ['JPEG-LS', '1.2.840.10008.1.2.4.80', await openJpegLs(), 2],
    ];
    for (const [name, syntax, encode, target] of kinds) {
      await writeSeries(join(folder, name), syntax, encode);
      const one = await read(join(folder, name), 1);
      const { headersS, volumeS } = quick ? one : await read(join(folder, name), 4);
      if (!encode)
        lines.push({ point: '300 DICOM headers, CPU', measured: headersS, target: 0.2, unit: 's' });
      lines.push({
        point: `DICOM CT of 512 × 512 × 300, ${name}, CPU`,
        measured: volumeS,
        target,
        unit: 's',
      });
      lines.push({
        point: `DICOM ${name}, memory above the volume`,
        measured: one.peakMb - volumeMb,
        target: 150,
        unit: 'MB',
      });
    }
    return { lines };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const [flag, folderToRead, rounds] = process.argv.slice(2);
if (flag === '--read') {
  process.send?.(await readInside(folderToRead, Number(rounds)));
  // Nothing else keeps this process alive.
  process.disconnect?.();
}
