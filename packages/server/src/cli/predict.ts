import { stat } from 'node:fs/promises';
import { decideIdentity } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { machineId } from '../trust/machine-id.ts';
import { askOnTerminal } from './connect.ts';
import { createProgress, exitCodeOf, plain, printError, reportsOf } from './console.ts';
import { checkSeriesFormats } from './dicom-result.ts';
import { kindOfFile } from './dicom-volume.ts';
import { findService } from './find-service.ts';
import { stemOf } from './input-files.ts';
import { openInterrupt } from './interrupt.ts';
import type { PredictFlags } from './outcome.ts';
import { type InputPlan, type PlannedVolume, planInputs } from './plan-inputs.ts';
import { type PredictionPlan, predictVolume } from './predict-volume.ts';
import { printOutcome } from './print-outcome.ts';
import { checkTargets, planResults } from './result-files.ts';

/** `tomaat predict`: returns the exit code. */
export async function predict(wanted: string, flags: PredictFlags): Promise<number> {
  const progress = await createProgress(Boolean(flags.quiet || flags.json));
  let running = false;
  using interrupt = openInterrupt(() => {
    progress.clear();
    if (running && !flags.quiet) console.error('Cancelling the job … (press Ctrl-C again to exit at once)');
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
    if (found.kind === 'v1') {
      const { predictV1 } = await import('./predict-v1.ts');
      const outcome = await predictV1(found, { ...flags, ask }, progress, signal);
      progress.clear();
      printOutcome(outcome, flags);
      return 0;
    }
    const inputs = await planInputs(found.service, flags, reportsOf(progress, flags, signal));
    const results = await planResults(found.service, flags, inputs.many);
    const { volumes } = inputs;
    if (flags.receipt !== undefined && volumes.length > 1) {
      throw new TomaatError('BAD_INPUT', '--receipt is for one volume. Give one file, or one series.');
    }
    await checkIdentityFlags(flags, inputs);
    checkSeriesFormats(results.outputs, volumes);
    const identity = decideIdentity({
      processing: found.service.processing,
      address: found.client.baseUrl,
      machine: await machineId(),
      wanted: wantedOf(flags),
    });
    const plan: PredictionPlan = { service: found.service, client: found.client, flags, inputs, results, identity };
    if (flags.receipt !== undefined && !flags.force && (await stat(flags.receipt).catch(() => undefined))) {
      throw new TomaatError('CONFLICT', `${flags.receipt} already exists. Use --force to overwrite it.`);
    }
    for (const { resultPath, dicom } of volumes)
      await checkTargets(results, resultPath, { force: flags.force, isDicom: dicom !== undefined });
    let exitCode = 0;
    let done = 0;
    for (const [index, volume] of volumes.entries()) {
      const prefix =
        volumes.length > 1 ? `[${index + 1}/${volumes.length}] ${stemOf(volume.resultPath)}: ` : '';
      try {
        const outcome = await predictVolume(plan, volume, {
          prefix,
          progress,
          signal,
          onJob: ({ state }) => {
            running = state === 'queued' || state === 'running';
          },
        });
        progress.clear();
        printOutcome(outcome, flags);
        done++;
      } catch (error) {
        progress.clear();
        signal.throwIfAborted();
        if (volumes.length === 1) throw error;
        exitCode = exitCode === 1 ? 1 : exitCodeOf(error);
        report(volume, error, flags);
        if (error instanceof TomaatError && hopeless.includes(error.code)) break;
      } finally {
        running = false;
      }
    }
    if (volumes.length > 1 && !flags.quiet && !flags.json) {
      console.log(
        `\n${done} of ${volumes.length} volumes done${done < volumes.length ? '; the errors of the others are shown above' : ''}.`,
      );
    }
    return exitCode;
  } finally {
    progress.clear();
  }
}

/** Errors that the next volume would meet too. */
const hopeless: readonly string[] = ['UNREACHABLE', 'UNAUTHORIZED', 'FORBIDDEN', 'DISK_FULL'];

/**
 * Each kind of file has a flag of its own, which would have no effect on the others. A DICOM object that is no series of images, such
 * as a segmentation, is not de-identified.
 */
export async function checkIdentityFlags(flags: PredictFlags, inputs: InputPlan): Promise<void> {
  const { volumes, otherFiles, otherSeries } = inputs;
  const isSeries = volumes.some(({ dicom }) => dicom !== undefined) || Object.keys(otherSeries).length > 0;
  const plain = volumes.flatMap(({ path, dicom }) => (dicom || flags.volume === undefined ? [] : path));
  const kinds = await Promise.all(
    [...plain, ...Object.values(otherFiles).flat()].map(async (path) => ({
      path,
      kind: await kindOfFile(path),
    })),
  );
  const object = kinds.find(({ kind }) => kind === 'dicom');
  if (object && !flags.keepIdentity) {
    throw new TomaatError(
      'BAD_INPUT',
      `${object.path} is a DICOM object without images, such as a segmentation, and names the patient. Use --keep-identity to send it unchanged, or convert it to a label map first, for instance with 3D Slicer.`,
    );
  }
  const isDicom = isSeries || object !== undefined;
  if (flags.keepText && isDicom) {
    throw new TomaatError(
      'BAD_INPUT',
      '--keep-text is for the headers of volume files. DICOM files are sent unchanged with --keep-identity.',
    );
  }
  const [flag] = (
    [
      ['--keep-identity', flags.keepIdentity],
      ['--deidentify', flags.deidentify],
      ['--keep-patient-characteristics', flags.keepPatientCharacteristics],
    ] as const
  ).flatMap(([name, isGiven]) => (isGiven ? [name] : []));
  if (flag !== undefined && !isDicom) {
    throw new TomaatError(
      'BAD_INPUT',
      `${flag} is for DICOM files. The text in the headers of volume files is kept with --keep-text.`,
    );
  }
  if (flags.keepIdentity && (flags.deidentify || flags.keepPatientCharacteristics)) {
    throw new TomaatError(
      'BAD_INPUT',
      `--keep-identity sends the files unchanged, and ${flags.deidentify ? '--deidentify' : '--keep-patient-characteristics'} de-identifies them. Give one of the two.`,
    );
  }
}

export function wantedOf(flags: PredictFlags): 'keep' | 'remove' | undefined {
  if (flags.keepIdentity) return 'keep';
  return flags.deidentify || flags.keepPatientCharacteristics ? 'remove' : undefined;
}

function report({ path, dicom }: PlannedVolume, error: unknown, flags: PredictFlags): void {
  const series = dicom?.chosen.series.uid;
  if (flags.json && error instanceof TomaatError) {
    console.log(JSON.stringify({ input: path, ...(series && { series }), error: error.toJSON() }));
    return;
  }
  console.error(`${path}${series ? `, series ${series}` : ''}:`);
  printError(error);
}

