import { type Job, type JobIn, verifyReceipt } from '@tomaat/client';
import { type OutputFormat, TomaatError } from '@tomaat/core';
import { client } from '../site.ts';
import { entryOf, findLocalResult, type LocalResult } from '../store.ts';
import { isLocalJob, keyOfLocal } from './local-id.ts';

/**
 * Jobs that this browser computed itself. They look like those of a server, so that their results open, are saved and
 * compared alike; what differs is where they come from.
 */

/** The settled job with its results. NOT_FOUND if this browser, or the user who is logged in, has none. */
export async function requireLocalResult(jobId: string): Promise<LocalResult> {
  const found = entryOf(jobId) && (await findLocalResult(keyOfLocal(jobId)));
  if (found) return found;
  throw new TomaatError(
    'NOT_FOUND',
    'This browser does not have this result: it was computed in another one, was deleted, or is older than a week. Compute it again.',
  );
}

/** A job, wherever it was computed. */
export const findJob = async (id: string, { signal }: { signal?: AbortSignal } = {}): Promise<Job> =>
  isLocalJob(id) ? (await requireLocalResult(id)).job : client.job(id, { signal });

/** An output of a job in a format; without one, as it is stored. */
export interface OpenedOutput {
  readonly fileName: string;
  blob(): Promise<Blob>;
}

/** Opens an output of a job, wherever it was computed. */
export async function openOutput(
  jobId: string,
  name: string,
  { format, signal }: { format?: string; signal?: AbortSignal } = {},
): Promise<OpenedOutput> {
  if (!isLocalJob(jobId)) return client.output(jobId, name, { format, signal });
  const { job, outputs, labels } = await requireLocalResult(jobId);
  const output = outputs.find((one) => one.name === name);
  if (!output) throw new TomaatError('NOT_FOUND', `The job has no output ${name}.`);
  const to = (format ?? output.format) as OutputFormat;
  const fileName = `${(job as JobIn<'succeeded'>).service}_${name}.${to}`;
  if (to === output.format) return { fileName, blob: async () => output.blob };
  const { openComputer } = await import('../compute/session.ts');
  const computer = openComputer();
  try {
    const { type, format: from, geometry, blob } = output;
    const converted = await computer.call(
      'convert',
      { type, format: from, geometry, blob, to, labels },
      { signal },
    );
    return { fileName, blob: async () => converted };
  } finally {
    computer.close();
  }
}

/** The version of the service that computed a result, which may have another one by now; undefined if nothing says it. */
export async function computedVersion(jobId: string, signal?: AbortSignal): Promise<string | undefined> {
  try {
    if (isLocalJob(jobId)) {
      const { record } = await requireLocalResult(jobId);
      return (record as { service?: { version?: string } } | undefined)?.service?.version;
    }
    return (await verifyReceipt(await client.receipt(jobId, { signal }))).receipt.service.version;
  } catch {
    // The result is shown without it.
    return undefined;
  }
}
