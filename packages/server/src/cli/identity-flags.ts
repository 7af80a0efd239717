import { TomaatError } from '@tomaat/core';
import { kindOfFile } from './dicom-volume.ts';
import type { PredictFlags } from './outcome.ts';
import type { InputPlan } from './plan-inputs.ts';

/** Errors that the next volume would meet too. */
export const hopeless: readonly string[] = ['UNREACHABLE', 'UNAUTHORIZED', 'FORBIDDEN', 'DISK_FULL'];

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
