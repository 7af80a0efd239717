import { type Client, type JobIn, measuredLabelMap, type Predecessor } from '@tomaat/client';
import { belongingOf, checkResult, dicomSourceOf, parseDicom, TomaatError } from '@tomaat/core';
import type { FetchedSeries } from './fetch-series.ts';
import type { ResultReference, SeriesRow, StoredResult } from './series.ts';
import type { OpenService, PlannedResult } from './service.ts';

/* The third step: the DICOM objects, made of the originals and looked at once more. */

/** An object that is ready to be stored. */
export interface BuiltResult extends PlannedResult {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly sopClass: string;
  readonly sopInstance: string;
  readonly series: string;
  readonly replaces?: ResultReference;
}

/** An earlier result that one of the same output and format takes the place of. */
export type EarlierResult = Pick<StoredResult, 'format' | 'output'> & ResultReference;

export interface BuildOptions {
  readonly row: Pick<SeriesRow, 'study' | 'seenAt'>;
  readonly seed: string;
  readonly earlier: readonly EarlierResult[];
  readonly signal: AbortSignal;
}

/**
 * Makes the objects of a job. They are the same, byte for byte, whenever they are made of the same job: their date and
 * time are those at which the series was first seen.
 *
 * @throws TomaatError of the service; APP_OUTPUT for a label map that is not on the grid of the series; CONFLICT if an
 *   object does not belong to the originals (`checkResult()`)
 */
export async function buildResults(
  { chosen, image, instances }: FetchedSeries,
  job: JobIn<'succeeded'>,
  { client, service, results: planned }: OpenService,
  { row, seed, earlier, signal }: BuildOptions,
): Promise<BuiltResult[]> {
  const fetchOutput = createFetcher(client, job, signal);
  const labelMapFormat = planned.find(({ format }) => format === 'labelmap.dcm')?.format;
  const made = [];
  for (const plan of planned) {
    const { format, output } = plan;
    const replaces = predecessorOf(plan, earlier);
    const isReport = format === 'sr.dcm';
    const object = await chosen.createResult(
      await fetchOutput(output, isReport ? 'json' : 'nii.gz'),
      service,
      {
        job: { id: seed, parameters: job.parameters },
        output,
        format,
        labelMap: isReport ? await fetchOutput(measuredLabelMap(service, output), 'nii.gz') : undefined,
        labelMapFormat,
        time: new Date(row.seenAt),
        predecessor: replaces && toPredecessor(replaces, row.study),
      },
    );
    made.push({ ...plan, replaces, bytes: new Uint8Array(await object.arrayBuffer()) });
  }
  const source = dicomSourceOf(chosen.series);
  // Each may refer to the others, of which the UIDs are known when all are made.
  const uids = made.map(({ bytes }) => belongingOf(parseDicom(bytes)!));
  const others = [
    ...uids,
    ...made.flatMap(({ replaces }) =>
      replaces ? [{ sopInstanceUid: replaces.sopInstance, seriesUid: replaces.series }] : [],
    ),
  ];
  return made.map((result) => {
    const found = checkResult(result.bytes, { image, source, instances, others });
    return {
      ...result,
      sopClass: found.sopClassUid,
      sopInstance: found.sopInstanceUid,
      series: found.seriesUid,
    };
  });
}

/** The outputs of a job, each fetched once. */
function createFetcher(client: Client, job: JobIn<'succeeded'>, signal: AbortSignal) {
  const fetched = new Map<string, Promise<Uint8Array<ArrayBuffer>>>();
  return (name: string, format: 'json' | 'nii.gz'): Promise<Uint8Array<ArrayBuffer>> => {
    const output = job.outputs.find((one) => one.name === name);
    if (!output) {
      const names = job.outputs.map((one) => one.name).join(', ') || 'none';
      throw new TomaatError(
        'APP_OUTPUT',
        `The job has no output ${name}. Available: ${names}. Ask the operator of the service.`,
      );
    }
    const known = fetched.get(name);
    if (known) return known;
    const bytes = client
      .output(job.id, name, { format: output.format === format ? undefined : format, signal })
      .then((file) => file.bytes());
    fetched.set(name, bytes);
    return bytes;
  };
}

/**
 * The results that those of a seed take the place of: as they were chosen before, if they were made before; otherwise what
 * was stored of the series when it had other images or the service was another, and what was stored of an earlier row.
 */
export function earlierResults(
  { results }: Pick<SeriesRow, 'results'>,
  seed: string,
  predecessor: Pick<SeriesRow, 'results'> | undefined,
): EarlierResult[] {
  const same = results.filter((result) => result.seed === seed);
  if (same.length > 0) {
    return same.flatMap(({ format, output, replaces }) =>
      replaces ? [{ format, output, ...replaces }] : [],
    );
  }
  return [...results, ...(predecessor?.results ?? [])].filter(
    (result) => result.storedAt.length > 0 && result.seed !== seed,
  );
}

function predecessorOf(
  { format, output }: PlannedResult,
  earlier: readonly EarlierResult[],
): ResultReference | undefined {
  const found = earlier.find((one) => one.format === format && (one.output ?? output) === output);
  return found && { sopClass: found.sopClass, sopInstance: found.sopInstance, series: found.series };
}

const toPredecessor = (
  { sopClass, sopInstance, series }: ResultReference,
  studyUid: string,
): Predecessor => ({ studyUid, seriesUid: series, sopClassUid: sopClass, sopInstanceUid: sopInstance });
