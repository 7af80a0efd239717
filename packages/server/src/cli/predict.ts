import { stat } from 'node:fs/promises';
import { decideIdentity } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { machineId } from '../trust/machine-id.ts';
import { createProgress, plain, reportsOf } from './console.ts';
import { checkSeriesFormats } from './dicom-result.ts';
import { findService } from './find-service.ts';
import { checkIdentityFlags, wantedOf } from './identity-flags.ts';
import { statInput, volumesIn } from './input-files.ts';
import { openInterrupt } from './interrupt.ts';
import type { PredictFlags } from './outcome.ts';
import { type Elements, planInputs } from './plan-inputs.ts';
import { type PredictionPlan, predictVolume } from './predict-volume.ts';
import { printOutcome } from './print-outcome.ts';
import { checkTargets, planResults } from './result-files.ts';
import { askOnTerminal } from './terminal.ts';

/** `tomaat predict`: returns the exit code. */
export async function predict(
  wanted: string,
  given: readonly string[],
  flags: PredictFlags,
): Promise<number> {
  const batch = batchOf(given, flags);
  const progress = await createProgress(Boolean(flags.quiet || flags.json));
  let running = false;
  let isBatch = batch !== undefined;
  using interrupt = openInterrupt(() => {
    progress.clear();
    if (isBatch && !flags.quiet)
      console.error('Cancelling the jobs in flight … (press Ctrl-C again to leave them on the server)');
    else if (running && !flags.quiet)
      console.error('Cancelling the job … (press Ctrl-C again to exit at once)');
  });
  const { signal } = interrupt;
  try {
    progress.show('find', `Looking for ${plain(wanted)}`);
    const { note } = reportsOf(progress, flags, signal);
    const ask = (question: string) => {
      progress.clear();
      return askOnTerminal(question);
    };
    const found = await findService(wanted, { ...flags, signal, note, ask });
    if (batch && found.kind === 'v1') {
      throw new TomaatError(
        'BAD_INPUT',
        'A TOMAAT v1 service takes one volume at a time. Give --volume FILE.',
      );
    }
    if (found.kind === 'v1') {
      const { predictV1 } = await import('./predict-v1.ts');
      const outcome = await predictV1(found, { ...flags, ask }, progress, signal);
      progress.clear();
      if (flags.onFile) flags.onFile(outcome.files[0].file);
      else printOutcome(outcome, flags);
      return 0;
    }
    const scans = batch ?? ((await holdsMany(flags, found.service)) ? [flags.volume!] : undefined);
    if (scans && flags.onFile === undefined) {
      isBatch = true;
      const { predictBatch } = await import('./batch/run-batch.ts');
      return await predictBatch(found, scans, flags, progress, signal);
    }
    const inputs = await planInputs(found.service, flags, reportsOf(progress, flags, signal));
    const results = await planResults(found.service, flags, inputs.many);
    const { volumes } = inputs;
    const [volume] = volumes;
    if (volumes.length > 1)
      throw new TomaatError(
        'BAD_INPUT',
        'With -, one result goes to stdout. Choose a series with --series NUMBER.',
      );
    await checkIdentityFlags(flags, inputs);
    checkSeriesFormats(results.outputs, volumes);
    const identity = decideIdentity({
      processing: found.service.processing,
      address: found.client.baseUrl,
      machine: await machineId(),
      wanted: wantedOf(flags),
    });
    const plan: PredictionPlan = {
      service: found.service,
      client: found.client,
      flags,
      inputs,
      results,
      identity,
    };
    if (flags.receipt !== undefined && !flags.force && (await stat(flags.receipt).catch(() => undefined))) {
      throw new TomaatError('CONFLICT', `${flags.receipt} already exists. Use --force to overwrite it.`);
    }
    await checkTargets(results, volume.resultPath, {
      force: flags.force,
      isDicom: volume.dicom !== undefined,
    });
    const outcome = await predictVolume(plan, volume, {
      prefix: '',
      progress,
      signal,
      onJob: ({ state }) => {
        running = state === 'queued' || state === 'running';
      },
    });
    progress.clear();
    if (flags.onFile) flags.onFile(outcome.files[0].file);
    else printOutcome(outcome, flags);
    return 0;
  } finally {
    progress.clear();
  }
}

/** Whether --volume names several scans: a folder with volume files, or all series of DICOM. */
async function holdsMany(
  { volume, series }: PredictFlags,
  { outputs }: Pick<Elements, 'outputs'>,
): Promise<boolean> {
  if (volume === undefined || series === 'all') return volume !== undefined;
  if (series !== undefined || !(await statInput(volume)).isDirectory()) return false;
  const names = outputs.map(({ name }) => name);
  return (await volumesIn(volume, names)).length > 0;
}

/** What is predicted as a batch: several inputs, or one with a flag that only a batch has. Undefined for --volume alone. */
function batchOf(given: readonly string[], flags: PredictFlags): readonly string[] | undefined {
  const isBatch =
    flags.recursive ||
    flags.jobs ||
    flags.csv ||
    flags.report ||
    flags.skipExisting ||
    flags.bids !== undefined;
  if (given.length > 0 && flags.volume !== undefined)
    throw new TomaatError(
      'BAD_INPUT',
      '--volume and paths behind the service say the same. Give one of them.',
    );
  if ((given.length > 0 || (isBatch && flags.volume !== undefined)) && flags.out === undefined)
    throw new TomaatError('BAD_INPUT', 'The results of many scans need a folder of their own. Give -o DIR.');
  if (given.length > 0) return given;
  if (!isBatch) return undefined;
  if (flags.volume === undefined)
    throw new TomaatError(
      'BAD_INPUT',
      '--recursive, --jobs, --csv, --report, --skip-existing and --bids are for many scans. Name their files or folders behind the service.',
    );
  return [flags.volume];
}
