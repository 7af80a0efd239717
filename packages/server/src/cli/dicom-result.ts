import type { Client, Job, JobOutput, Service } from '@tomaat/client';
import { type DicomFormat, isDicomFormat, TomaatError } from '@tomaat/core';
import type { DicomVolume } from './dicom-volume.ts';
import type { PlannedOutput } from './result-files.ts';

/** A result that is made here, and the format that it has become. */
export interface MadeResult {
  readonly stream: ReadableStream<Uint8Array<ArrayBuffer>>;
  readonly format: string;
}

/**
 * The DICOM format in which an output is made here, of the original files; undefined where it is taken as the server has it: in other
 * formats, and where the server was sent the originals and has made just that.
 */
export function formatMadeHere(
  planned: PlannedOutput,
  output: Pick<JobOutput, 'format'>,
  dicom: DicomVolume | undefined,
  /** Whether only this machine has the original files. */
  isHere: boolean | undefined,
): DicomFormat | undefined {
  const wanted = planned.format ?? (planned.type === 'LabelVolume' ? 'seg.dcm' : undefined);
  if (!dicom || wanted === undefined || !isDicomFormat(wanted)) return undefined;
  return !isHere && output.format === wanted ? undefined : wanted;
}

/**
 * Fetches a label map and makes it a DICOM object of the original series. One that lies on another grid, or of images that lack what a
 * result refers to, stays a label map where no format was asked for.
 *
 * @throws TomaatError as createResult(), where the format was asked for
 */
export async function makeDicomResult(
  { client, job, output, service }: { client: Client; job: Job; output: JobOutput; service: Service },
  { chosen }: DicomVolume,
  format: DicomFormat,
  options: { isAsked: boolean; frame?: number; signal: AbortSignal; note(text: string): void },
): Promise<MadeResult> {
  const fetched = 'nii.gz';
  const file = await client.output(job.id, output.name, {
    format: output.format === fetched ? undefined : fetched,
    signal: options.signal,
  });
  const labelMap = await file.bytes();
  try {
    const made = await chosen.createResult(labelMap, service, {
      job,
      output: output.name,
      format,
      frame: options.frame,
    });
    return { stream: made.stream(), format };
  } catch (error) {
    const isUnfit =
      error instanceof TomaatError && (error.code === 'APP_OUTPUT' || error.code === 'NOT_ACCEPTABLE');
    if (options.isAsked || !isUnfit) throw error;
    options.note(`The result is written as ${fetched}. ${error.message}`);
    return { stream: new Blob([labelMap]).stream(), format: fetched };
  }
}
