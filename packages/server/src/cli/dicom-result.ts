import { type Client, type Job, type JobOutput, measuredLabelMap, type Service } from '@tomaat/client';
import { isSeriesFormat, type SeriesFormat, TomaatError } from '@tomaat/core';
import type { DicomVolume } from './dicom-volume.ts';
import type { PlannedVolume } from './plan-inputs.ts';
import type { PlannedOutput } from './result-files.ts';

/** A result that is made here, and the format that it has become. */
export interface MadeResult {
  readonly stream: ReadableStream<Uint8Array<ArrayBuffer>>;
  readonly format: string;
}

/** Refuses, before the upload, a format that refers to a DICOM series for a volume of another kind. */
export function checkSeriesFormats(
  outputs: readonly PlannedOutput[],
  volumes: readonly PlannedVolume[],
): void {
  const other = volumes.find(({ dicom }) => dicom === undefined);
  const wanted = outputs.find(({ format }) => format !== undefined && isSeriesFormat(format));
  if (!wanted || !other) return;
  throw new TomaatError(
    'NOT_ACCEPTABLE',
    `${wanted.name} cannot be written as ${wanted.format}, which refers to the images of a DICOM series: ${other.path} is not one. Give a series, or choose another format.`,
  );
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
): SeriesFormat | undefined {
  const wanted = planned.format ?? (planned.type === 'LabelVolume' ? 'seg.dcm' : undefined);
  if (!dicom || wanted === undefined || !isSeriesFormat(wanted)) return undefined;
  return !isHere && output.format === wanted ? undefined : wanted;
}

/**
 * Fetches an output and makes it a DICOM object of the original series. A label map that lies on another grid, or of images that lack what a
 * result refers to, stays a label map where no format was asked for.
 *
 * @throws TomaatError as createResult(), where the format was asked for
 */
export async function makeDicomResult(
  { client, job, output, service }: { client: Client; job: Job; output: JobOutput; service: Service },
  { chosen }: DicomVolume,
  format: SeriesFormat,
  options: { isAsked: boolean; frame?: number; signal: AbortSignal; note(text: string): void },
): Promise<MadeResult> {
  const fetched = output.type === 'Measurements' ? 'json' : 'nii.gz';
  const file = await client.output(job.id, output.name, {
    format: output.format === fetched ? undefined : fetched,
    signal: options.signal,
  });
  const bytes = await file.bytes();
  const labelMap = async () => {
    const name = measuredLabelMap(service, output.name);
    const { signal } = options;
    return (await client.output(job.id, name, { format: 'nii.gz', signal })).bytes();
  };
  try {
    const made = await chosen.createResult(bytes, service, {
      labelMap: output.type === 'Measurements' ? await labelMap() : undefined,
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
    return { stream: new Blob([bytes]).stream(), format: fetched };
  }
}
