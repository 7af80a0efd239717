import { createHash, randomUUID } from 'node:crypto';
import { mkdir, open, readFile, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { type LabelMeasurement, TomaatError } from '@tomaat/core';
import { z } from 'zod';
import { lockFile } from '../../store/database/database.ts';
import type { ResultFile } from '../result-files.ts';

/** Name of the record in the folder of the results. */
export const ledgerName = 'tomaat-batch.jsonl';

/** What a result depends on. Two equal ones give the same result. */
export const basisSchema = z.object({
  /** SHA-256 over the files of all inputs. */
  digest: z.string(),
  service: z.string(),
  version: z.string(),
  /** SHA-256 of the files of the networks. */
  models: z.array(z.string()),
  /** Parameters, frame, outputs and their formats. */
  request: z.string(),
});
export type Basis = z.infer<typeof basisSchema>;

const lineSchema = z.object({
  /** The scan: its path without ending, below the folder of the results. */
  id: z.string(),
  state: z.enum(['started', 'done', 'failed']),
  basis: basisSchema,
  job: z.string().optional(),
  seconds: z.number().optional(),
  files: z
    .array(z.object({ output: z.string(), file: z.string(), format: z.string(), sizeBytes: z.number() }))
    .optional(),
  labels: z
    .array(z.object({ value: z.number(), name: z.string(), voxels: z.number(), volumeMl: z.number() }))
    .optional(),
});
export interface LedgerLine extends Omit<z.infer<typeof lineSchema>, 'files' | 'labels'> {
  files?: readonly ResultFile[];
  labels?: readonly LabelRow[];
}
export type LabelRow = Pick<LabelMeasurement, 'value' | 'name' | 'voxels' | 'volumeMl'>;

export interface Ledger {
  /** The last line of a scan. */
  last(id: string): LedgerLine | undefined;
  /** The same while a job may be the one of an earlier start; a new one after each end. */
  keyOf(id: string, basis: Basis): string;
  /** On the disk when this resolves. */
  add(line: LedgerLine): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * The record of a batch: JSON lines that are only appended. A line that a kill cut off is ignored, and the next one begins on a new line.
 *
 * @param file in memory alone if missing
 * @throws TomaatError CONFLICT while another process has it open
 */
export async function openLedger(file: string | undefined): Promise<Ledger> {
  if (file === undefined)
    return createLedger(
      '',
      async () => undefined,
      async () => undefined,
    );
  await mkdir(dirname(file), { recursive: true });
  const lockedFile = file.replace(/\.jsonl$/, '.lock');
  const lock = lockOf(lockedFile);
  try {
    return await readLedger(file, async () => {
      if (!lock) return;
      await rm(lockedFile, { force: true });
      lock[Symbol.dispose]();
    });
  } catch (error) {
    lock?.[Symbol.dispose]();
    throw error;
  }
}

/** Undefined on a file system without locks. */
function lockOf(file: string): Disposable | undefined {
  let lock: Disposable | undefined;
  try {
    lock = lockFile(file);
  } catch (error) {
    if (error instanceof TomaatError && error.code === 'INTERNAL') return undefined;
    throw error;
  }
  if (lock) return lock;
  throw new TomaatError(
    'CONFLICT',
    `Another batch is writing to ${dirname(file)}. Wait for its end, or choose another folder with -o.`,
  );
}

async function readLedger(file: string, unlock: () => Promise<void>): Promise<Ledger> {
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
    return '';
  });
  const handle = await open(file, 'a', 0o600);
  let isCutOff = text !== '' && !text.endsWith('\n');
  const append = async (line: string) => {
    const start = isCutOff ? '\n' : '';
    isCutOff = true;
    await handle.appendFile(`${start}${line}\n`);
    isCutOff = false;
    await handle.datasync();
  };
  return createLedger(text, append, async () => {
    await handle.close();
    await unlock();
  });
}

async function createLedger(
  text: string,
  append: (line: string) => Promise<void>,
  close: () => Promise<void>,
): Promise<Ledger> {
  const last = new Map<string, LedgerLine>();
  const ends = new Map<string, number>();
  let run: string | undefined;
  const note = (line: LedgerLine) => {
    last.set(line.id, line);
    if (line.state !== 'started') ends.set(line.id, (ends.get(line.id) ?? 0) + 1);
  };
  for (const line of text.split('\n')) {
    const data = parse(line);
    const parsed = lineSchema.safeParse(data);
    if (parsed.success) note(parsed.data);
    else if (typeof (data as { run?: unknown } | undefined)?.run === 'string')
      run ??= (data as { run: string }).run;
  }
  let written = Promise.resolve();
  const add = (line: object) => {
    // A line that could not be written, as on a full disk, leaves the next ones their chance.
    written = written.catch(() => undefined).then(() => append(JSON.stringify(line)));
    return written;
  };
  if (run === undefined) {
    run = randomUUID();
    await add({ run });
  }
  return {
    last: (id) => last.get(id),
    keyOf: (id, basis) =>
      createHash('sha256')
        .update(JSON.stringify([run, id, wordsOf(basis), ends.get(id) ?? 0]))
        .digest('hex'),
    add(line) {
      note(line);
      return add(line);
    },
    [Symbol.asyncDispose]: async () => {
      await written.catch(() => undefined);
      await close();
    },
  };
}

const wordsOf = ({ digest, service, version, models, request }: Basis) => [
  digest,
  service,
  version,
  models,
  request,
];

/** What has changed since a result was made; undefined if nothing has. */
export function changeOf(before: Basis, now: Basis): string | undefined {
  if (before.digest !== now.digest) return 'the input has changed';
  if (before.service !== now.service) return `it is a result of the service ${before.service}`;
  if (before.version !== now.version)
    return `it is a result of version ${before.version}, and the service has ${now.version} now`;
  if (before.models.join() !== now.models.join()) return 'the network of the service has changed';
  return before.request === now.request ? undefined : 'it was made with other parameters or outputs';
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
