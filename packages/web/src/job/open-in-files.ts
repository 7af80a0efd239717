import type { JobIn, JobOutput, Service } from '@tomaat/client';
import { endingOf, type Volume, webPlatform, writeVolume } from '@tomaat/core';
import { baseUrl } from '../base.ts';
import { stemOf } from '../format.ts';
import type { Submission } from '../store.ts';
import type { LabelStyle } from '../viewer/labels.ts';
import { labelDescriptions } from './itk-snap.ts';

/** What other programs are given: files under names that they show, and addresses that they recognise. */

type SucceededJob = JobIn<'succeeded'>;

export interface OpenFile {
  readonly what: string;
  readonly name: string;
  make(): Promise<Blob>;
}

/** For names of files and in command lines: letters, digits, `.`, `_` and `-`, not a leading `-` or `.`. */
export const plainName = (name: string): string =>
  name
    .normalize()
    .replace(/[^\p{L}\p{M}\p{N}._-]+/gu, '_')
    .replace(/^[-._]+/, '') || 'scan';

/** The base of all names: what the user calls the scan, else the service. */
export const baseOf = (job: SucceededJob, fileName: string | undefined): string =>
  plainName(fileName ? stemOf(fileName) : job.service);

/** Files that all of the programs open. */
const openedElsewhere = ['.nii', '.nii.gz', '.nrrd', '.mha'];

/**
 * The scan as one file: as it was sent if other programs open that, else as NIfTI, on the grid of the result.
 *
 * @param volume the scan as this page shows it; undefined while it is loaded, or if this browser does not have it
 */
export function scanFile(
  base: string,
  volume: Volume | undefined,
  submission: Submission | undefined,
  service: Service | undefined,
): OpenFile | undefined {
  if (!volume) return undefined;
  const input = service?.inputs.find(({ type, name }) => type === 'volume' && submission?.files[name]);
  const files = (input && submission?.files[input.name]) ?? [];
  const ending = files.length === 1 ? endingOf(files[0].name) : undefined;
  const isOpened = openedElsewhere.some((one) => one === ending?.ending);
  const isSeries = input !== undefined && submission?.series?.[input.name] !== undefined;
  if (ending && isOpened && !isSeries && submission?.frame === undefined)
    return { what: 'Scan', name: `${base}${ending.ending}`, make: async () => files[0].blob };
  return { what: 'Scan', name: `${base}.nii.gz`, make: () => niftiOf(volume) };
}

async function niftiOf(volume: Volume): Promise<Blob> {
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  for await (const piece of writeVolume(volume, 'nii.gz', webPlatform)) pieces.push(piece);
  return new Blob(pieces);
}

export const snapLabels = (base: string, labels: readonly LabelStyle[]): OpenFile => ({
  what: 'Names and colours',
  name: `${base}_labels.txt`,
  make: async () => new Blob([labelDescriptions(labels)], { type: 'text/plain' }),
});

/** The address of a label map that ends as the name of a file does. */
export const nrrdAddress = (job: SucceededJob, { name }: JobOutput): string =>
  `${baseUrl}/api/jobs/${encodeURIComponent(job.id)}/outputs/${encodeURIComponent(name)}.nrrd`;

/** A link that the module LoadRemoteFile of Slicer's extension Sandbox opens. */
export const slicerLink = (address: string): string =>
  `slicer://viewer/?show3d=true&segmentation=${encodeURIComponent(address)}`;

export const volViewOrigin = 'https://volview.kitware.app';
export const volViewLink = (address: string): string =>
  `${volViewOrigin}/?urls=[${encodeURIComponent(address)}]`;

/** Whether a page of HTTPS may fetch from this server's address: HTTPS, or this machine. */
export function isFetchable(address: string): boolean {
  const { protocol, hostname } = new URL(address);
  return (
    protocol === 'https:' || hostname === 'localhost' || hostname === '127.0.0.1' || hostname === '[::1]'
  );
}
