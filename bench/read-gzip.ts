import { createReadStream, createWriteStream } from 'node:fs';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { readVolume, type SourceFile, writeVolume } from '../packages/core/src/formats/volume-file.ts';
import { nodePlatform } from '../packages/server/src/node-platform.ts';
import { type BenchOptions, type BenchResult, inTurn, median } from './report.ts';

const size = [512, 512, 300] as const;

/** 157 MB of int16 as from a scanner: smooth structures and 6 bits of noise. */
function makeVoxels(): Int16Array {
  const voxels = new Int16Array(size[0] * size[1] * size[2]);
  let seed = 1;
  for (let i = 0, z = 0; z < size[2]; z++) {
    for (let y = 0; y < size[1]; y++) {
      for (let x = 0; x < size[0]; x++, i++) {
        seed = (Math.imul(seed, 1664525) + 1013904223) | 0;
        voxels[i] = (((x >> 4) * (y >> 5) + z * 3) % 1200) + (seed >>> 26);
      }
    }
  }
  return voxels;
}

/** The lower bound for reading: the file unpacked by zlib's stream into one preallocated buffer. */
async function gunzipOnly(path: string, bytes: number): Promise<void> {
  const target = new Uint8Array(bytes);
  // Large chunks: with zlib's default of 16 KiB the baseline would take twice as long, which would flatter the
  // reader.
  const stream = createGunzip({ chunkSize: 2 ** 18 });
  let at = 0;
  const reading = pipeline(createReadStream(path, { highWaterMark: 2 ** 20 }), stream);
  for await (const chunk of stream) {
    target.set(chunk as Uint8Array, at);
    at += (chunk as Uint8Array).length;
  }
  await reading;
  if (at !== bytes) throw new Error(`${at} bytes instead of ${bytes}`);
}

/** Prints how long readVolume() takes for a `.nii.gz` against zlib alone: the median of interleaved pairs of runs. */
export async function run({ quick }: BenchOptions): Promise<BenchResult> {
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-bench-'));
  try {
    const path = join(folder, 'scan.nii.gz');
    const affine = [0.7, 0, 0, -180, 0, 0.7, 0, -180, 0, 0, 1, -150, 0, 0, 0, 1];
    await pipeline(
      writeVolume({ voxels: makeVoxels(), size, components: 1, affine }, 'nii.gz', nodePlatform),
      createWriteStream(path),
    );
    const file: SourceFile = {
      name: path,
      sizeBytes: (await stat(path)).size,
      open: (start) => createReadStream(path, { start, highWaterMark: 2 ** 20 }),
    };
    const bytes = 352 + 2 * size[0] * size[1] * size[2];
    const measure = async (work: () => Promise<unknown>) => {
      const cpu = process.cpuUsage();
      const start = performance.now();
      await work();
      const ms = performance.now() - start;
      const { user, system } = process.cpuUsage(cpu);
      return { ms, cpuMs: (user + system) / 1000 };
    };
    const read = () => measure(() => readVolume([file], nodePlatform));
    const gunzip = () => measure(() => gunzipOnly(path, bytes));
    await inTurn(1, read, gunzip);
    const pairs = await inTurn(quick ? 3 : 9, read, gunzip);
    const ratio = median(pairs.map(([r, g]) => r.ms / g.ms));
    const cpuRatio = median(pairs.map(([r, g]) => r.cpuMs / g.cpuMs));
    console.log(
      `read-gzip: ${(bytes / 1e6).toFixed(0)} MB int16 .nii.gz (${(file.sizeBytes! / 1e6).toFixed(0)} MB packed): ` +
        `readVolume ${median(pairs.map(([r]) => r.ms)).toFixed(0)} ms, gunzip alone ${median(pairs.map(([, g]) => g.ms)).toFixed(0)} ms, ` +
        `ratio ${ratio.toFixed(2)}, of CPU ${cpuRatio.toFixed(2)}`,
    );
    return {
      lines: [
        { point: 'reading .nii.gz over unpacking it, time', measured: ratio, target: 1.15 },
        { point: 'reading .nii.gz over unpacking it, CPU', measured: cpuRatio, target: 1.15 },
      ],
    };
  } finally {
    await rm(folder, { recursive: true });
  }
}
