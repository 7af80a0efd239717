import { mkdir, readFile, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { arch, availableParallelism, cpus } from 'node:os';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { ownerOf } from '../store/files/folder-owner.ts';
import { writeWhole } from '../store/files/whole-file.ts';
import { version } from '../version.ts';
import type { ComputeDevice } from './devices.ts';
import type { FormTrial, TrialRecord } from './faster-form.ts';

/*
 * What is measured of a network, once for each model, engine, processor and version of TOMAAT, and kept in the data folder: a file of JSON for each
 * model. Its times decide about time alone, its memory about what is refused, neither about results: a file that is missing, damaged, old or of another
 * machine is measured again.
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
  form: z
    .object({ plainMs: positive, timedMs: positive, bytesPerVoxel: z.number().min(0).max(1e9) })
    .optional(),
  run: z.object({ rewrites: z.array(z.string().max(40)).max(20), bytesPerVoxel: positive }).optional(),
  isWhole: z.boolean(),
});

/** What a run of a network takes in one of its forms. */
export interface RunMemory {
  /** The rewrites of the form. */
  readonly rewrites: readonly string[];
  /** Memory of the process for each voxel of the input. */
  readonly bytesPerVoxel: number;
}

export interface Measured {
  readonly form?: FormTrial;
  readonly run?: RunMemory;
  /** Whether nothing is left to measure. */
  readonly isWhole: boolean;
}

/** What is known of one network on this machine. */
export interface MeasuredRecord extends TrialRecord {
  /** Undefined if nothing is known that holds. */
  measured(): Promise<Measured | undefined>;
  /** Adds to what is known; errors are no errors: what cannot be kept is measured again. */
  add(more: Partial<Measured>): Promise<void>;
}

/** What a record holds for. */
export interface RecordPlace {
  readonly folder: string;
  /** SHA-256 of the model file, hexadecimal. */
  readonly digest: string;
  readonly threads: number;
  /** Version of onnxruntime; the installed one if missing. */
  readonly engine?: string;
  /** The kind of processor; that of this machine if missing. */
  readonly processor?: string;
  readonly now?: () => number;
}

/** The record of a model where a device keeps it; undefined if it keeps none. `TOMAAT_TRIALS` is one folder for all processes of a machine. */
export function recordOf(
  digest: string,
  device: Pick<ComputeDevice, 'trialsFolder'> | undefined,
  threads = availableParallelism(),
): MeasuredRecord | undefined {
  const folder = process.env.TOMAAT_TRIALS ?? device?.trialsFolder;
  return folder === undefined ? undefined : openRecord({ folder, digest, threads });
}

export function openRecord({
  folder,
  digest,
  threads,
  engine = engineVersion(),
  processor = `${arch()} ${cpus()[0]?.model ?? ''}`.trim(),
  now = Date.now,
}: RecordPlace): MeasuredRecord {
  const file = join(folder, `${digest}.json`);
  const place = { version, engine, processor, threads };

  async function measured(): Promise<Measured | undefined> {
    const found = fileSchema.safeParse(await readJson(file)).data;
    if (!found) return undefined;
    const isSame = Object.entries(place).every(([key, value]) => found[key as keyof typeof place] === value);
    const ageMs = now() - Date.parse(found.measuredAt);
    if (!isSame || ageMs < 0 || ageMs > maxAgeMs) return undefined;
    const { form, run, isWhole } = found;
    return { ...(form && { form }), ...(run && { run }), isWhole };
  }

  async function add(more: Partial<Measured>): Promise<void> {
    const known = (await measured()) ?? { isWhole: false };
    const measuredAt = new Date(now()).toISOString();
    const text = `${JSON.stringify({ ...place, measuredAt, ...known, ...more })}\n`;
    // A file that root leaves in the folder of another user's server would be in its way.
    const owner = ownerOf(dirname(folder));
    if (owner && process.geteuid && owner.uid !== process.geteuid()) return;
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      await writeWhole(file, text);
    } catch {
      // A folder that cannot be written costs another measurement, and no prediction.
    }
  }

  return {
    measured,
    add,
    recall: async () => (await measured())?.form,
    keep: (form) => add({ form }),
  };
}

/** Read from its package: loading the engine takes longer. */
const engineVersion = (): string =>
  (createRequire(import.meta.url)('onnxruntime-node/package.json') as { version: string }).version;

/** Undefined if there is no such file, or it is damaged. */
async function readJson(file: string): Promise<unknown> {
  try {
    if ((await stat(file)).size > maxBytes) return undefined;
    return JSON.parse(await readFile(file, 'utf8'));
  } catch {
    return undefined;
  }
}
