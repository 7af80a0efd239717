import { createReadStream, type Stats } from 'node:fs';
import { lstat, open, readdir, readlink, stat } from 'node:fs/promises';
import { basename, dirname, extname, join } from 'node:path';
import type { FileSource } from '@tomaat/client';
import {
  type DataFileField,
  endingOf,
  TomaatError,
  type VolumeFormatRow,
  volumeEndings,
  withoutVolumeEnding,
} from '@tomaat/core';

/** A folder is searched for whole volumes and headers; a data file (.img, .raw) is found through its header. */
const isSearched = (holds: string | undefined) => holds === 'volume' || holds === 'header';

/** The name without the ending of its format, for the names of results. */
export function stemOf(path: string): string {
  const name = basename(path);
  const stem = endingOf(name) ? withoutVolumeEnding(name) : name.slice(0, name.length - extname(name).length);
  return stem || name;
}

/**
 * The files of one volume: the file itself, and for a separate header the data files next to it.
 * BAD_INPUT says what is missing.
 */
export async function volumePaths(path: string): Promise<string[]> {
  const name = basename(path);
  await mustBeFile(path);
  const { holds, format } = endingOf(name) ?? {};
  if (!format || holds === 'volume') return [path];
  return format.detached === 'same stem'
    ? pairOf(path, format)
    : [path, ...(await namedFilesOf(path, format))];
}

/** The header and the voxels of a pair, of which `path` is one. */
async function pairOf(path: string, { endings }: VolumeFormatRow): Promise<string[]> {
  const half = (holds: 'header' | 'voxels') =>
    endings.filter((one) => one.holds === holds).map(({ ending }) => ending);
  const stem = stemOf(path);
  const header = await besides(dirname(path), stem, half('header'));
  const data = await besides(dirname(path), stem, half('voxels'));
  if (header && data) return [header, data];
  throw new TomaatError(
    'BAD_INPUT',
    `${basename(path)} is one half of a pair, and the other half is missing. Put ${stem}${half(header ? 'voxels' : 'header')[0]} next to it.`,
  );
}

/** The files with the voxels of a header. */
async function namedFilesOf(path: string, { detached }: VolumeFormatRow): Promise<string[]> {
  if (typeof detached !== 'object') return [];
  const name = basename(path);
  const files: string[] = [];
  for (const part of dataFilesOf(await headOf(path), name, detached)) {
    const file = join(dirname(path), part);
    if (!(await isFile(file))) {
      if (await lstat(file).catch(() => undefined)) await mustBeFile(file);
      throw new TomaatError(
        'BAD_INPUT',
        `${name} has its voxels in ${part}, which is missing. Put it next to the header.`,
      );
    }
    files.push(file);
  }
  return files;
}

/** The same, ready to send. */
export async function volumeFiles(path: string): Promise<FileSource[]> {
  return Promise.all((await volumePaths(path)).map(openFile));
}

/** The volumes in a folder, by their headers, in order of name, without the results of earlier runs. */
export async function volumesIn(folder: string, outputNames: readonly string[]): Promise<string[]> {
  const names = (await readdir(folder))
    .filter((name) => !name.startsWith('.') && isSearched(endingOf(name)?.holds))
    .sort();
  const stems = new Set(names.map(stemOf));
  const isResult = (name: string) =>
    outputNames.some(
      (output) => stemOf(name).endsWith(`_${output}`) && stems.has(stemOf(name).slice(0, -output.length - 1)),
    );
  return names.filter((name) => !isResult(name)).map((name) => join(folder, name));
}

/** For a folder in which there is nothing to predict. */
export function nothingIn(folder: string): TomaatError {
  const endings = volumeEndings.filter(({ holds }) => isSearched(holds)).map(({ ending }) => ending);
  return new TomaatError(
    'BAD_INPUT',
    `There is no volume in ${folder} (${endings.join(', ')}), and no DICOM image in it or in the folders below. Give a file, or a folder with one of these.`,
  );
}

async function openFile(path: string): Promise<FileSource> {
  const { size } = await statInput(path);
  if (size === 0) throw new TomaatError('BAD_INPUT', `${path} is empty. Give a file that contains a volume.`);
  return {
    name: basename(path),
    sizeBytes: size,
    stream: () => createReadStream(path, { highWaterMark: 256 * 1024 }),
    slice: (start, end) => createReadStream(path, { highWaterMark: 256 * 1024, start, end: end - 1 }),
  };
}

/**
 * The file status of a path. A link whose target is missing is reported as such: `ls` shows it, and files managed by
 * git-annex or DataLad are such links until they are fetched.
 */
export async function statInput(path: string): Promise<Stats> {
  try {
    return await stat(path);
  } catch (error) {
    const link = await lstat(path).catch(() => undefined);
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || !link?.isSymbolicLink()) throw error;
    const target = await readlink(path);
    const remedy = /(^|[\\/])annex[\\/]objects[\\/]/.test(target)
      ? `Fetch it with “datalad get ${basename(path)}” or “git annex get ${basename(path)}”.`
      : 'Put the file there, or give its path.';
    throw new TomaatError('BAD_INPUT', `${path} is a link to ${target}, which is not here. ${remedy}`, {
      cause: error,
    });
  }
}

export async function mustBeFile(path: string): Promise<void> {
  const found = await statInput(path);
  if (found.isDirectory()) throw new TomaatError('BAD_INPUT', `${path} is a folder. Give a file.`);
  if (!found.isFile())
    throw new TomaatError('BAD_INPUT', `${path} is not a regular file. Save the volume to a file first.`);
}

async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isFile(),
    () => false,
  );
}

/** The file with this stem and one of these endings, in any case. */
async function besides(
  folder: string,
  stem: string,
  endings: readonly string[],
): Promise<string | undefined> {
  const names = await readdir(folder);
  for (const ending of endings) {
    const found = names.find(
      (name) => name.toLowerCase() === `${stem}${ending}`.toLowerCase() && name.startsWith(stem),
    );
    if (found) return join(folder, found);
  }
  return undefined;
}

async function headOf(path: string): Promise<string> {
  await using file = await open(path);
  const { buffer, bytesRead } = await file.read(Buffer.alloc(64 * 1024), 0, 64 * 1024, 0);
  return buffer.toString('latin1', 0, bytesRead);
}

/** Where a pattern such as `slice%03d.raw` has its number. */
const numberInName = /%(0?)(\d{0,2})d/;

/**
 * The data files that a field of a header names, by base name: folders in the field are ignored, and only files next to the
 * header are used. Lists (LIST) and patterns of names are those of MetaImage and NRRD.
 */
function dataFilesOf(header: string, name: string, { field, line: isField }: DataFileField): string[] {
  const lines = header.split(/\r?\n/);
  const at = lines.findIndex((line) => isField.test(line));
  if (at < 0) {
    throw new TomaatError('BAD_INPUT', `${name} names no data file (${field}). Check that it is a header.`);
  }
  const value = lines[at].replace(/^[^=:]*[=:]\s*/, '').trim();
  if (/^local$/i.test(value)) return [];
  const base = (file: string) => basename(file.trim().replaceAll('\\', '/'));
  if (/^list\b/i.test(value)) {
    return lines
      .slice(at + 1)
      .filter((line) => line.trim() !== '')
      .map(base);
  }
  const [pattern, first, last, step] = value.split(/\s+/);
  const isSeries = [first, last].every((word) => word !== undefined && /^-?\d{1,9}$/.test(word));
  if (!isSeries || !numberInName.test(pattern)) return [base(value)];
  const files: string[] = [];
  for (
    let index = Number(first);
    index <= Number(last) && files.length < 10_000;
    index += Number(step ?? 1) || 1
  ) {
    files.push(
      base(
        pattern.replace(numberInName, (_, zero, width) =>
          String(index).padStart(Number(width || 0), zero ? '0' : ' '),
        ),
      ),
    );
  }
  return files;
}
