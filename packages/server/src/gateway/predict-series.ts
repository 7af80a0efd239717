import {
  type Client,
  type FileSource,
  type Job,
  type JobIn,
  type PreparedSeries,
  requireSuccess,
} from '@tomaat/client';
import { describeError, TomaatError } from '@tomaat/core';
import type { AuditFacts } from '../audit/events.ts';
import type { SeriesDependencies } from './dependencies.ts';
import { fewAttempts, passing } from './faults.ts';
import type { FetchedSeries } from './fetch-series.ts';
import { jobKeyOf } from './seed.ts';
import type { SeriesContext, SeriesRow } from './series.ts';
import type { OpenService } from './service.ts';

/* The second step: the job at the service, which sees the series without the patient's identity. */

/** A larger archive is sent by an upload that resumes after an interruption. */
const resumableAboveBytes = 16 * 1024 * 1024;

/**
 * Sends a series, and returns the job. The same seed finds the same job, however often this is repeated.
 *
 * @throws TomaatError FRAME_NEEDED for a 4-D series, where the service takes one volume; what the service refuses
 */
export async function startJob(
  { id: rowId }: Pick<SeriesRow, 'id'>,
  { chosen, digest, instances }: FetchedSeries,
  seed: string,
  { client, service, input, parameters }: OpenService,
  { rule, signal }: SeriesContext,
  deps: SeriesDependencies,
  facts: AuditFacts,
): Promise<Job> {
  const { frames } = chosen.series;
  if (frames > 1 && !(input.type === 'volume' && input.frames === 'all')) {
    throw new TomaatError(
      'FRAME_NEEDED',
      `The series has ${frames} volumes (time points, echoes or b-values), and the service ${service.id} takes one. Exclude such series in the rule, by description or number of slices, or send the one that is meant as a series of its own.`,
      { detail: { frames } },
    );
  }
  const prepared = await chosen.prepare({
    deidentify: !rule.keepIdentity && {
      key: deps.uidKey,
      keepPatientCharacteristics: rule.keepPatientCharacteristics,
      shiftDates: true,
    },
    signal,
  });
  await deps.audit('series.sent', {
    ...facts,
    deidentified: !rule.keepIdentity,
    digest: `sha256:${digest}`,
    count: instances.size,
  });
  return await sendSeries(client, prepared, signal, (file, attempt) =>
    client.predict(service.id, {
      volumes: { [input.name]: file },
      values: parameters,
      // The objects are made here: no need for the server to make its own of files whose UIDs mean nothing.
      formats: Object.fromEntries(
        service.outputs.flatMap(({ name, type }) => (type === 'LabelVolume' ? [[name, 'nii.gz']] : [])),
      ),
      idempotencyKey: jobKeyOf(attempt === 0 ? seed : `${seed} ${rowId}`, deps.uidKey),
      urgency: rule.urgency,
      keepText: true,
      signal,
    }),
  );
}

type SentFile = FileSource | NonNullable<Awaited<ReturnType<Client['upload']>>>;

/**
 * Sends the files by themselves if they are large. Such an upload is deleted: the job has its own copy. Where the service
 * still has a job of the key that was sent other bytes, for instance by an older version, the row gets one of its own.
 */
async function sendSeries(
  client: Client,
  prepared: PreparedSeries,
  signal: AbortSignal,
  predict: (file: SentFile, attempt: 0 | 1) => Promise<Job>,
): Promise<Job> {
  const uploaded =
    prepared.sizeBytes > resumableAboveBytes ? await client.upload(prepared, { signal }) : undefined;
  const file = uploaded ?? prepared;
  const job = await predict(file, 0).catch((error: unknown) => {
    const isTaken = error instanceof TomaatError && error.code === 'CONFLICT';
    if (isTaken) return predict(file, 1);
    throw error;
  });
  if (uploaded && 'upload' in uploaded) await client.removeUpload(uploaded.upload, { signal });
  return job;
}

/**
 * Waits for a job.
 *
 * @returns undefined if the service does not have it any longer
 * @throws TomaatError the job's error; passing where it was the service's fault, for the first attempts. Such a job is
 *   removed: the next attempt makes another
 */
export async function waitForJob(
  client: Client,
  id: string,
  { attempts }: Pick<SeriesRow, 'attempts'>,
  { rule, signal }: SeriesContext,
): Promise<JobIn<'succeeded'> | undefined> {
  let job: Job;
  try {
    job = await client.wait(id, { signal });
  } catch (error) {
    if (error instanceof TomaatError && error.code === 'NOT_FOUND') return undefined;
    throw error;
  }
  if (job.state === 'succeeded') return job;
  await client.remove(id, { signal });
  throw jobFault(job, attempts, rule.keepIdentity);
}

function jobFault(job: Job, attempts: number, knowsPatient: boolean): TomaatError {
  const fault = faultOf(job);
  const isOurs = describeError(fault.code).retryable || fault.code === 'OUT_OF_MEMORY';
  if (isOurs && attempts < fewAttempts) return passing(`The job failed. ${fault.message}`, fault);
  // A code that the runner would try again is not the one of a last attempt.
  const code = describeError(fault.code).retryable ? 'APP_FAILED' : fault.code;
  // An app writes its own messages, and may repeat what it was given.
  const isSaid = !knowsPatient || describeError(fault.code).fault !== 'app';
  const message = isSaid
    ? fault.message
    : 'The app failed on this series. Its message is not repeated here, because the series was sent with the patient’s identity: the log of the server has it.';
  return new TomaatError(code, message, { cause: fault, field: fault.field });
}

function faultOf(job: Job): TomaatError {
  try {
    requireSuccess(job);
  } catch (error) {
    if (error instanceof TomaatError) return error;
    throw error;
  }
  return new TomaatError('INTERNAL', 'The job did not end.');
}
