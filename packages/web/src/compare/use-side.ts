import { useQuery } from '@tanstack/react-query';
import type { JobIn, Service } from '@tomaat/client';
import { labelVoxels, readVolume, TomaatError, type Volume, webPlatform } from '@tomaat/core';
import { sourceOf } from '../blob-source.ts';
import { formatTime, stemOf } from '../format.ts';
import { computedVersion, findJob, openOutput } from '../job/local.ts';
import { client } from '../site.ts';
import { entryOf, findSubmission, type Submission } from '../store.ts';
import { labelStyles, labelsIn } from '../viewer/labels.ts';
import type { NamedStyle } from './label-names.ts';

/** What the user wants to compare: a result of the server, or a label map in files of this computer. */
export type Choice =
  | { readonly kind: 'job'; readonly id: string }
  | { readonly kind: 'files'; readonly files: readonly File[]; readonly number: number };

export interface Side {
  readonly key: string;
  /** For headings and messages. */
  readonly title: string;
  /** Which service made it, and when. */
  readonly about?: string;
  readonly labelMap: Volume;
  readonly labels: readonly NamedStyle[];
  readonly service?: Service;
  /** The scan that was sent, if this browser has it. */
  readonly submission?: Submission;
}

const keyOf = (choice: Choice | undefined): string | undefined =>
  choice && (choice.kind === 'job' ? `job ${choice.id}` : `files ${choice.number}`);

/** Reads a side; files are read here and go nowhere. */
export function useSide(choice: Choice | undefined) {
  const key = keyOf(choice);
  return useQuery({
    queryKey: ['side', key],
    enabled: choice !== undefined,
    staleTime: Number.POSITIVE_INFINITY,
    gcTime: 0,
    structuralSharing: false,
    retry: false,
    queryFn: ({ signal }) =>
      choice!.kind === 'job' ? readJob(key!, choice!.id, signal) : readFiles(key!, choice!.files),
  });
}

async function readJob(key: string, id: string, signal: AbortSignal): Promise<Side> {
  const job = await findJob(id, { signal });
  if (job.state !== 'succeeded')
    throw new TomaatError('BAD_INPUT', `This job has no result: it is ${job.state}. Choose another one.`);
  const output = labelMapOf(job);
  const [file, service, submission, version] = await Promise.all([
    openOutput(id, output, { format: 'nii', signal }),
    client.service(job.service, { signal }).catch(() => undefined),
    submissionOf(id),
    computedVersion(id, signal),
  ]);
  const labelMap = await readMap([{ name: 'labels.nii', blob: await file.blob() }]);
  const fileName = submission?.fileName ?? entryOf(id)?.fileName;
  const name = [service?.name ?? job.service, version].filter(Boolean).join(' ');
  return {
    key,
    title: fileName ? `${stemOf(fileName)}, ${name}` : name,
    about: `${name}, ${formatTime(job.settledTime)}`,
    labelMap,
    labels: stylesOf(labelMap, service, job.parameters),
    service,
    submission,
  };
}

function labelMapOf({ outputs, service }: JobIn<'succeeded'>): string {
  const maps = outputs.filter(({ type }) => type === 'LabelVolume');
  const found = maps.find(({ primary }) => primary) ?? maps[0];
  if (found) return found.name;
  throw new TomaatError(
    'BAD_INPUT',
    `The result of ${service} has no label map to compare. Choose one of another service.`,
  );
}

async function submissionOf(jobId: string): Promise<Submission | undefined> {
  const entry = entryOf(jobId);
  return entry && findSubmission(entry.key);
}

async function readFiles(key: string, files: readonly File[]): Promise<Side> {
  const labelMap = await readMap(files.map((file) => ({ name: file.name, blob: file })));
  return { key, title: files[0].name, labelMap, labels: stylesOf(labelMap, undefined, {}) };
}

/** A scan has more values than any label map. */
const mostLabels = 1000;

async function readMap(files: readonly { name: string; blob: Blob }[]): Promise<Volume> {
  const { volume } = await readVolume(files.map(sourceOf), webPlatform);
  labelVoxels(volume);
  const { length } = labelsIn(volume);
  if (length <= mostLabels) return volume;
  throw new TomaatError(
    'BAD_INPUT',
    `${files[0].name} is not a label map: it has ${length} different values. Give a segmentation, not a scan.`,
  );
}

function stylesOf(
  labelMap: Volume,
  service: Service | undefined,
  parameters: JobIn<'succeeded'>['parameters'],
): NamedStyle[] {
  const named = new Set(labelStyles(service, parameters, []).map(({ value }) => value));
  return labelStyles(service, parameters, labelsIn(labelMap)).map((style) => ({
    ...style,
    isNamed: named.has(style.value),
  }));
}
