import { mkdir } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import {
  type ChosenSeries,
  type DicomInput,
  type IdentityDecision,
  openDicomInput,
  type PreparedSeries,
  summarizeReport,
} from '@tomaat/client';
import { type DicomSeries, hasDicomWord, isZip, type LeftOut, readPrefix, TomaatError } from '@tomaat/core';
import { nodePlatform } from '../node-platform.ts';
import { type DiskFile, diskFile } from '../store/files/disk-file.ts';
import { openUidKey } from '../store/files/uid-key.ts';
import { type ConnectOptions, dataFolderOf } from './connect.ts';
import { formatBytes, openTable, plain } from './console.ts';
import { filesBelow } from './disk-files.ts';

/* A DICOM series as --volume: from a folder, a zip archive or a file. */

/** How the command line reports while it reads a volume. */
export interface ReadingReports {
  readonly signal?: AbortSignal;
  show(step: string, text: string): void;
  /** A line of stderr. */
  note(text: string): void;
}

/** A series that is predicted. */
export interface DicomVolume {
  readonly chosen: ChosenSeries;
  /** What results are called after: a path that need not be there. */
  readonly resultPath: string;
  /** Files for an app that is run here; an archive is one. */
  readonly paths: readonly string[];
  /** Which series of those files, if an archive holds several. */
  readonly seriesUid?: string;
}

/** Whether a file is a zip archive, or DICOM, by its first bytes. */
export async function kindOfFile(path: string): Promise<'zip' | 'dicom' | undefined> {
  const { prefix } = await readPrefix(await diskFile(path), 256);
  if (isZip(prefix)) return 'zip';
  // The word behind the preamble: voxels without a header may be like a file without it.
  return hasDicomWord(prefix) ? 'dicom' : undefined;
}

/**
 * The series of a folder (with the folders in it), an archive or a file. Says what was left out.
 *
 * @param wanted --series: a UID, a number, `all`; undefined for the only one
 * @returns undefined where there is no DICOM image at all
 * @throws TomaatError BAD_INPUT with a table, when there are several and none is wanted
 */
export async function openDicomVolumes(
  path: string,
  isFolder: boolean,
  wanted: string | undefined,
  reports: ReadingReports,
): Promise<DicomVolume[] | undefined> {
  reports.show('list', `Looking for files in ${path}`);
  const found = isFolder
    ? await filesBelow(path, reports.signal)
    : { files: [await diskFile(path)], leftOut: [] };
  if (found.files.length === 0) return undefined;
  reports.show('read', `Reading the headers of ${filesOf(found.files.length)}`);
  const input = await openDicomInput(found.files, nodePlatform, {
    signal: reports.signal,
    onProgress: (done, total) => reports.show('read', `Reading the headers of ${done} of ${filesOf(total)}`),
  });
  const leftOut = [...found.leftOut, ...input.leftOut];
  if (input.series.length === 0 && input.leftOut.every(({ fault }) => fault === undefined)) return undefined;
  for (const line of leftOutLines(leftOut)) reports.note(line);
  const chosen = await chooseSeries(input, path, wanted);
  const stem = isFolder ? basename(resolve(path)) : basename(path).replace(/\.(zip|dcm|dicom|ima)$/i, '');
  const names = wanted === 'all' ? seriesNames(chosen.map(({ series }) => series)) : [undefined];
  return chosen.map((one, i) => ({
    chosen: one,
    resultPath: join(dirname(resolve(path)), `${names[i] === undefined ? stem : `${stem}_${names[i]}`}.dcm`),
    paths: isFolder ? one.files.map((file) => (file as DiskFile).path) : [path],
    seriesUid: isFolder || input.series.length === 1 ? undefined : one.series.uid,
  }));
}

async function chooseSeries(
  input: DicomInput,
  path: string,
  wanted: string | undefined,
): Promise<ChosenSeries[]> {
  const images = input.series.filter(({ content }) => content === 'images');
  if (wanted === undefined && images.length > 1) {
    throw await several(`${path} holds ${images.length} DICOM series. Choose one, or all of them`, images);
  }
  if (wanted !== 'all') {
    const found = input.series.filter(({ uid, number }) => uid === wanted || String(number) === wanted);
    if (wanted !== undefined && found.length !== 1) {
      const fault = found.length === 0 ? 'no series' : 'several series';
      throw await several(
        `${path} has ${fault} ${plain(wanted)}. Choose one by its UID, or all`,
        input.series,
      );
    }
    return [input.choose(wanted === undefined ? undefined : found[0].uid)];
  }
  const volumes = images.filter(({ refusal }) => refusal === undefined);
  if (volumes.length === 0) return [input.choose()];
  if (volumes.length < images.length) {
    const refused = images.filter(({ refusal }) => refusal);
    throw new TomaatError(
      'BAD_INPUT',
      `${refused.length} of the ${images.length} DICOM series of ${path} cannot be used as a volume. Choose others with --series NUMBER, one by one:\n${refused
        .map((series) => `  ${nameOf(series)}: ${series.refusal?.message}`)
        .join('\n')}`,
    );
  }
  return volumes.map(({ uid }) => input.choose(uid));
}

const nameOf = ({ number, uid, description }: DicomSeries) =>
  plain([number ?? uid, description].filter((word) => word !== undefined).join(' '));

/** An error with a table of the series, from which one is chosen. */
async function several(message: string, series: readonly DicomSeries[]): Promise<TomaatError> {
  const shown = series.slice(0, mostLines);
  const more = series.length > shown.length ? `\n  … and ${series.length - shown.length} more` : '';
  return new TomaatError(
    'BAD_INPUT',
    `${message}, with --series NUMBER, --series UID or --series all:\n${await tableOf(shown)}${more}`,
    { field: 'series' },
  );
}

async function tableOf(series: readonly DicomSeries[]): Promise<string> {
  const rows = series.map(
    ({ number, modality, imageCount, columns, rows: height, slices, description, refusal, uid }) => [
      String(number ?? '-'),
      modality ?? '-',
      String(imageCount),
      refusal ? 'not a volume' : `${columns} × ${height} × ${slices}`,
      (description ?? '-').slice(0, 40),
      uid,
    ],
  );
  const { default: Table } = await import('cli-table3');
  const head = ['NUMBER', 'MODALITY', 'IMAGES', 'SIZE', 'DESCRIPTION', 'UID'];
  return openTable(Table, head, rows).replace(/^/gm, '  ');
}

/** What tells the results of several series apart: their numbers, or their UIDs where numbers are missing or not unique. */
function seriesNames(series: readonly DicomSeries[]): string[] {
  const numbers = series.map(({ number }) => number);
  const isUnique = !numbers.includes(undefined) && new Set(numbers).size === numbers.length;
  return series.map(({ number, uid }) => (isUnique ? `series${number}` : uid));
}

const filesOf = (count: number) => `${count} ${count === 1 ? 'file' : 'files'}`;

const mostLines = 10;
const mostNames = 5;

/** One line for each reason, with the names of a few files. */
export function leftOutLines(leftOut: readonly LeftOut[]): string[] {
  const byReason = new Map<string, string[]>();
  for (const { name, reason } of leftOut) byReason.set(reason, [...(byReason.get(reason) ?? []), name]);
  const lines = [...byReason].map(([reason, names]) => {
    const more = names.length > mostNames ? ` and ${names.length - mostNames} others` : '';
    return plain(`Left out: ${names.slice(0, mostNames).join(', ')}${more} (${reason})`);
  });
  if (lines.length <= mostLines) return lines;
  const rest = [...byReason.values()].slice(mostLines - 1).reduce((sum, names) => sum + names.length, 0);
  return [
    ...lines.slice(0, mostLines - 1),
    `Left out: ${rest} other files, for ${lines.length - mostLines + 1} other reasons`,
  ];
}

export interface IdentityFlags {
  /** Sends DICOM files as they are. */
  keepIdentity?: boolean;
  /** De-identifies them for a service on this machine, too. */
  deidentify?: boolean;
  keepPatientCharacteristics?: boolean;
}

/** The series as it is sent, and what is removed from it said on stderr. */
export async function prepareSeries(
  { chosen }: DicomVolume,
  flags: IdentityFlags & Pick<ConnectOptions, 'data'>,
  { deidentify, mayKeep, reason }: IdentityDecision,
  reports: ReadingReports,
): Promise<PreparedSeries> {
  const doing = deidentify ? 'De-identifying' : 'Reading';
  reports.show('prepare', `${doing} ${filesOf(chosen.files.length)}`);
  const prepared = await chosen.prepare({
    deidentify: deidentify && {
      key: await openUsersKey(await dataFolderOf(flags)),
      keepPatientCharacteristics: flags.keepPatientCharacteristics,
      shiftDates: true,
    },
    signal: reports.signal,
    onProgress: (done, total) => reports.show('prepare', `${doing} ${done} of ${filesOf(total)}`),
  });
  const { report } = prepared;
  if (!report) {
    reports.note(
      `The DICOM files are sent with the patient’s identity (${formatBytes(prepared.sizeBytes)}), because ${reason}${flags.keepIdentity ? '' : ' (--deidentify removes it)'}.`,
    );
    return prepared;
  }
  const { removed } = report.privateElements;
  const parts = [
    ...summarizeReport(report).map(([group, count]) => `${count} ${group}`),
    ...(removed > 0 ? [`${removed} private elements`] : []),
  ];
  reports.note(
    `Removed or replaced in the DICOM headers before sending, because ${reason}${mayKeep ? ' (--keep-identity sends the files unchanged)' : ''}: ${parts.join(', ')}.`,
  );
  for (const reason of report.burnedIn.slice(0, mostLines))
    reports.note(`Warning: the pixels are sent unchanged. ${reason} Check them.`);
  return prepared;
}

async function openUsersKey(dataFolder: string): Promise<Uint8Array> {
  await mkdir(dataFolder, { recursive: true, mode: 0o700 });
  return openUidKey(dataFolder);
}
