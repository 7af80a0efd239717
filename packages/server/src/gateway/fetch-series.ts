import { mkdir, rm, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type ChosenSeries, openDicomInput } from '@tomaat/client';
import {
  type Belonging,
  belongingOf,
  type DicomHeader,
  isSamePatient,
  maxZipEntries,
  readDicomHeader,
  sourceFromBytes,
  TomaatError,
} from '@tomaat/core';
import { nodePlatform } from '../node-platform.ts';
import { type DiskFile, openedLater } from '../store/files/disk-file.ts';
import { fewAttempts, passing } from './faults.ts';
import { digestOfInstances } from './seed.ts';
import type { SeriesContext, SeriesRow } from './series.ts';

/* The first step: the originals, complete and of one patient. */

export interface FetchedSeries {
  readonly chosen: ChosenSeries;
  /** Of the first file: whose the series is. */
  readonly image: Belonging;
  /** SOP Instance UIDs of all files. */
  readonly instances: ReadonlySet<string>;
  /** SHA-256 of these (`digestOfInstances()`). */
  readonly digest: string;
}

/** What must stay free on the disk of the gateway, bytes. */
const spareBytes = 2 ** 27;

/**
 * Fetches the files of a series into the folder of its row, one at a time in memory.
 *
 * @throws TomaatError refusals: UPLOAD_TOO_LARGE; BAD_INPUT for files of another study, series or patient; those of core
 *   for a series that is no volume. Passing: instances that are missing, for the first attempts; a full disk
 */
export async function fetchSeries(row: SeriesRow, context: SeriesContext): Promise<FetchedSeries> {
  const { source, folder, signal, config } = context;
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const files: DiskFile[] = [];
  const instances = new Set<string>();
  let image: Belonging | undefined;
  let bytesLeft = config.limits.maxSeriesBytes;
  for await (const { bytes } of source.fetch(row.study, row.series, signal)) {
    signal.throwIfAborted();
    bytesLeft -= bytes.length;
    if (bytesLeft < 0 || files.length === maxZipEntries) throw tooLarge(config.limits.maxSeriesBytes);
    const number = files.length + 1;
    const belonging = belongingOf((await headerOf(bytes, number)).dicom);
    checkBelonging(belonging, image ?? belonging, row);
    image ??= belonging;
    instances.add(belonging.sopInstanceUid);
    await checkRoom(folder, bytes.length);
    const path = join(folder, `${String(number).padStart(5, '0')}.dcm`);
    await writeFile(path, bytes, { mode: 0o600 });
    files.push(openedLater(path, bytes.length));
  }
  await checkComplete(instances, row, context);
  const input = await openDicomInput(files, nodePlatform, { signal });
  return {
    // There is no other: every file is of this series.
    chosen: input.choose(),
    image: image!,
    instances,
    digest: digestOfInstances(instances),
  };
}

const tooLarge = (maxBytes: number) =>
  new TomaatError(
    'UPLOAD_TOO_LARGE',
    `The series has more than ${maxBytes} bytes, or more than ${maxZipEntries} files. Raise limits.maxSeriesBytes in the file of rules, or exclude such series by their number of slices.`,
  );

/** Files are named by their number: names may be those of patients. */
async function headerOf(bytes: Uint8Array, number: number): Promise<DicomHeader> {
  const header = await readDicomHeader(sourceFromBytes(`${number}.dcm`, bytes), nodePlatform);
  if (header.kind === 'dicom') return header;
  const { code, message } = header.fault;
  throw new TomaatError(code, `File ${number} of the series cannot be read. ${message}`, {
    cause: header.fault,
  });
}

function checkBelonging(found: Belonging, first: Belonging, row: SeriesRow): void {
  const refuse = (message: string) => new TomaatError('BAD_INPUT', message);
  if (found.studyUid !== row.study || found.seriesUid !== row.series) {
    throw refuse(
      'The source gave an image of another study or series. Nothing was sent or stored. Check the source, and whether the UIDs in its files are those of its index.',
    );
  }
  if (!isSamePatient(found, first)) {
    throw refuse(
      'The images of the series do not all name the same patient (ID, name, birth date, sex). Nothing was sent or stored. Correct them in the source, then try again.',
    );
  }
}

async function checkRoom(folder: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  const [free, needed] = [bavail * bsize, bytes + spareBytes];
  if (free >= needed) return;
  throw passing(
    `The disk of the gateway is nearly full: ${Math.ceil(needed / 2 ** 20)} MiB must be free, and ${Math.floor(free / 2 ** 20)} MiB are. Free space on it; the series is tried again.`,
  );
}

/** Compares with what the source says after the transfer: an image that comes meanwhile belongs to the series too. */
async function checkComplete(
  instances: ReadonlySet<string>,
  { study, series, attempts }: SeriesRow,
  { source, signal }: SeriesContext,
): Promise<void> {
  const listed = new Set(await source.instances(study, series, signal));
  const missing = [...listed].filter((uid) => !instances.has(uid)).length;
  const surplus = [...instances].filter((uid) => !listed.has(uid)).length;
  if (missing === 0 && surplus === 0 && instances.size > 0) return;
  const fault =
    instances.size === 0
      ? 'The source has no images of the series.'
      : `The source lists ${listed.size} images of the series, and gave ${instances.size}: ${missing} are missing, and ${surplus} are not in its list.`;
  if (attempts < fewAttempts) throw passing(`${fault} It may be changing; the series is tried again.`);
  throw new TomaatError(
    'BAD_INPUT',
    `${fault} Check that the series is complete in the source, then try again.`,
  );
}
