import { createReadStream, createWriteStream } from 'node:fs';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { pathToFileURL } from 'node:url';
import { createGunzip } from 'node:zlib';
import { readVolume, type SourceFile, writeVolume } from '../packages/core/src/formats/volume-file.ts';
import { nodePlatform } from '../packages/server/src/node-platform.ts';

const size = [512, 512, 300] as const;
const runs = 7;

/** 157 MB of int16 like a scan's: smooth structures and 6 bits of noise. */
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

/** What reading cannot be faster than: the file unpacked by zlib's stream into one buffer made before. */
async function gunzipOnly(path: string, bytes: number): Promise<void> {
  const target = new Uint8Array(bytes);
  const stream = createGunzip();
  let at = 0;
  const reading = pipeline(createReadStream(path), stream);
  for await (const chunk of stream) {
    target.set(chunk as Uint8Array, at);
    at += (chunk as Uint8Array).length;
  }
  await reading;
  if (at !== bytes) throw new Error(`${at} bytes instead of ${bytes}`);
}

const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1];

/** Prints how long readVolume() takes for a `.nii.gz` against zlib alone: the median of interleaved pairs of runs. */
export async function run(): Promise<void> {
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
      open: (start) => createReadStream(path, { start }),
    };
    const bytes = 352 + 2 * size[0] * size[1] * size[2];
    const pairs: [number, number][] = [];
    for (let i = -1; i < runs; i++) {
      const times = { read: 0, gunzip: 0 };
      for (const what of i % 2 ? (['read', 'gunzip'] as const) : (['gunzip', 'read'] as const)) {
        const start = performance.now();
        if (what === 'read') await readVolume([file], nodePlatform);
        else await gunzipOnly(path, bytes);
        times[what] = performance.now() - start;
      }
      if (i >= 0) pairs.push([times.read, times.gunzip]);
    }
    const read = median(pairs.map(([r]) => r));
    const gunzip = median(pairs.map(([, g]) => g));
    const ratio = median(pairs.map(([r, g]) => r / g));
    console.log(
      `read-gzip: ${(bytes / 1e6).toFixed(0)} MB int16 .nii.gz (${(file.sizeBytes! / 1e6).toFixed(0)} MB packed): ` +
        `readVolume ${read.toFixed(0)} ms, gunzip alone ${gunzip.toFixed(0)} ms, ratio ${ratio.toFixed(2)} (at most 1.15)`,
    );
  } finally {
    await rm(folder, { recursive: true });
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await run();
