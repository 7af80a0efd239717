import { createHash } from 'node:crypto';
import { mkdir, readFile, stat } from 'node:fs/promises';
import { arch, cpus } from 'node:os';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { ownerOf } from '../store/folder-owner.ts';
import { writeWhole } from '../store/whole-file.ts';
import { version } from '../version.ts';
import type { FormTrial, TrialRecord } from './faster-form.ts';

/*
 * What a network takes with the timed rewrites is measured once for each model, engine, processor and version of TOMAAT, and kept in the data folder: a file of
 * JSON for each model. It decides about time alone, never about results: a file that is missing, damaged, old or of another machine is measured again.
 */

const maxAgeMs = 90 * 24 * 3600 * 1000;
const maxBytes = 4096;
const positive = z.number().positive().max(1e9);

const fileSchema = z.object({
  version: z.string(),
  engine: z.string(),
  processor: z.string(),
  threads: z.number(),
  measuredAt: z.iso.datetime(),
  plainMs: positive,
  timedMs: positive,
  bytesPerVoxel: z.number().min(0).max(1e9),
});

/** What a trial holds for. */
export interface TrialPlace {
  readonly folder: string;
  /** The bytes of its file. */
  readonly model: Uint8Array;
  /** Version of onnxruntime. */
  readonly engine: string;
  readonly threads: number;
  /** The kind of processor; that of this machine if missing. */
  readonly processor?: string;
  readonly now?: () => number;
}

export function trialRecord({
  folder,
  model,
  engine,
  threads,
  processor = `${arch()} ${cpus()[0]?.model ?? ''}`.trim(),
  now = Date.now,
}: TrialPlace): TrialRecord {
  const digest = createHash('sha256').update(model).digest('hex');
  const file = join(folder, `${digest}.json`);
  const place = { version, engine, processor, threads };
  return {
    async recall() {
      const found = fileSchema.safeParse(await readJson(file)).data;
      if (!found) return undefined;
      const isSame = Object.entries(place).every(
        ([key, value]) => found[key as keyof typeof place] === value,
      );
      const ageMs = now() - Date.parse(found.measuredAt);
      if (!isSame || ageMs < 0 || ageMs > maxAgeMs) return undefined;
      const { plainMs, timedMs, bytesPerVoxel } = found;
      return { plainMs, timedMs, bytesPerVoxel };
    },
    async keep(trial: FormTrial) {
      const measuredAt = new Date(now()).toISOString();
      const text = `${JSON.stringify({ ...place, measuredAt, ...trial })}\n`;
      // A file that root leaves in the folder of another user's server would be in its way.
      const owner = ownerOf(dirname(folder));
      if (owner && process.geteuid && owner.uid !== process.geteuid()) return;
      try {
        await mkdir(folder, { recursive: true, mode: 0o700 });
        await writeWhole(file, text);
      } catch {
        // A folder that cannot be written costs another trial at the next load, and no prediction.
      }
    },
  };
}

/** Undefined if there is no such file, or it is damaged. */
async function readJson(file: string): Promise<unknown> {
  try {
    if ((await stat(file)).size > maxBytes) return undefined;
    return JSON.parse(await readFile(file, 'utf8'));
  } catch {
    return undefined;
  }
}
