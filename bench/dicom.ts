import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readDicomHeader, readVolume, type SourceFile } from '@tomaat/core';
import { buildSegmentation } from '../packages/core/src/dicom/segmentation.ts';
import { writeDicomFile } from '../packages/core/src/dicom/write-file.ts';
import { dicomFile, type Slice, sliceElements, syntaxes } from '../packages/core/test/dicom-files.ts';
import { madeSource } from '../packages/core/test/dicom-source.ts';
import { encodeJpegLossless } from '../packages/core/test/jpeg-lossless.ts';
import { nodePlatform } from '../packages/server/src/node-platform.ts';
import { filePieces } from '../packages/server/src/store/files/file-pieces.ts';
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

const encodeLossless = (samples: Uint16Array) =>
  encodeJpegLossless(samples, { rows: side, columns: side, precision: 12, predictor: 1 });

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

async function cpuSeconds(work: () => Promise<unknown>): Promise<number> {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}

/** In a separate process: reads the series in a folder several times. */
async function readInside(folder: string, rounds: number): Promise<Reading> {
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

/** In a separate process: makes a segmentation with a bit for each of 104 labels several times, and the bytes of its file. */
async function writeInside(rounds: number): Promise<{ writingS: number }> {
  const { source, grid } = madeSource({ size: [side, side, slices] });
  const [labelCount, inSlice] = [104, 20];
  const voxels = new Uint8Array(side * side * slices);
  for (let z = 0, at = 0; z < slices; z++)
    for (let y = 0; y < side; y++)
      for (let x = 0; x < side; x++, at++) {
        // Frayed at the sides, as segmentations are.
        const column = Math.floor((x + ((y * 7 + z * 3) % 5)) / 104);
        const value = inSlice * Math.floor(z / 58) + 4 * column + (y >> 7) + 1;
        voxels[at] = value <= labelCount ? value : 0;
      }
  const labels = Array.from({ length: labelCount }, (_, i) => ({ value: i + 1, name: `label ${i + 1}` }));
  const write = async () => {
    const object = await buildSegmentation({ voxels, ...grid, components: 1 }, source, {
      labels,
      maker: { id: 'bench', name: 'Bench', version: '1' },
      description: 'Bench',
      role: 'bench',
      type: 'BINARY',
    });
    let bytes = 0;
    for await (const { length } of writeDicomFile(object)) bytes += length;
    if (bytes < 150e6) throw new Error(`a segmentation of ${bytes} bytes`);
  };
  const times: number[] = [];
  for (let i = 0; i < rounds; i++) times.push(await cpuSeconds(write));
  return { writingS: median(times) };
}

async function inProcess<T>(...words: string[]): Promise<T> {
  const child = fork(fileURLToPath(import.meta.url), words, { execArgv: ['--conditions=tomaat-source'] });
  const [answer] = await Promise.race([once(child, 'message'), once(child, 'exit')]);
  if (typeof answer !== 'object' || answer === null) throw new Error(`${words[0]} failed`);
  return answer as T;
}

const read = (folder: string, rounds: number) => inProcess<Reading>('--read', folder, String(rounds));

/**
 * CPU and memory of reading a CT of 512 × 512 × 300, by transfer syntax, and of making a segmentation of it. The targets are the reader's design targets.
 */
export async function run({ quick }: BenchOptions): Promise<BenchResult> {
  const { writingS } = await inProcess<{ writingS: number }>('--write', String(quick ? 1 : 4));
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-bench-'));
  const lines: Line[] = [
    { point: 'DICOM SEG of 512 × 512 × 300, 104 labels, CPU', measured: writingS, target: 1, unit: 's' },
  ];
  try {
    const kinds: [name: string, syntax: string, encode: Encode | undefined, target?: number][] = [
      ['uncompressed', syntaxes.explicit, undefined, 0.3],
      ['RLE', syntaxes.rle, encodeRle, 0.6],
      ['JPEG-LS', '1.2.840.10008.1.2.4.80', await openJpegLs(), 2],
      ['JPEG lossless', syntaxes.jpegLossless, encodeLossless],
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

const [flag, ...words] = process.argv.slice(2);
if (flag === '--read' || flag === '--write') {
  process.send?.(
    flag === '--read' ? await readInside(words[0], Number(words[1])) : await writeInside(Number(words[0])),
  );
  // Nothing else keeps this process alive.
  process.disconnect?.();
}
