import { createReadStream, type Stats } from 'node:fs';
import { lstat, open, readdir, readlink, stat } from 'node:fs/promises';
import { basename, dirname, extname, join } from 'node:path';
import type { FileSource } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';

const volumeEnd = /\.(nii|nii\.gz|mha|mhd|nrrd|nhdr|hdr|hdr\.gz|img|img\.gz)$/i;
/** What a folder is searched for; a data file (.img, .raw) comes with its header. */
const headEnd = /\.(nii|nii\.gz|mha|mhd|nrrd|nhdr|hdr|hdr\.gz)$/i;

/** The name without the ending of its format: results are called after it. */
export function stemOf(path: string): string {
  const name = basename(path);
  const stem = volumeEnd.test(name)
    ? name.replace(volumeEnd, '')
    : name.slice(0, name.length - extname(name).length);
  return stem || name;
}

/**
 * The files that one volume consists of: the file itself, and for .mhd, .nhdr and .hdr the data that lie beside it.
 * BAD_INPUT says what is missing.
 */
export async function volumePaths(path: string): Promise<string[]> {
  const name = basename(path);
  const folder = dirname(path);
  await mustBeFile(path);
  if (/\.(hdr|img)(\.gz)?$/i.test(name)) {
    // .hdr may be Analyze's or a NIfTI pair's; either has its voxels in .img.
    const header = await besides(folder, stemOf(path), ['hdr', 'hdr.gz']);
    const data = await besides(folder, stemOf(path), ['img', 'img.gz']);
    if (!header || !data) {
      throw new TomaatError(
        'BAD_INPUT',
        `${name} is one half of a pair. Put ${stemOf(path)}.${header ? 'img' : 'hdr'} beside it.`,
      );
    }
    return [header, data];
  }
  if (/\.(mhd|nhdr)$/i.test(name)) {
    const parts = dataFilesOf(await headOf(path), name);
    for (const part of parts) {
      const file = join(folder, part);
      if (!(await isFile(file))) {
        if (await lstat(file).catch(() => undefined)) await mustBeFile(file);
        throw new TomaatError(
          'BAD_INPUT',
          `${name} keeps its voxels in ${part}, which is not beside it. Put it there.`,
        );
      }
    }
    return [path, ...parts.map((part) => join(folder, part))];
  }
  return [path];
}

/** The same, to be sent. */
export async function volumeFiles(path: string): Promise<FileSource[]> {
  return Promise.all((await volumePaths(path)).map(openFile));
}

/** The volumes in a folder, by their headers, in the order of their names; results of earlier runs are left out. */
export async function volumesIn(folder: string, outputNames: readonly string[]): Promise<string[]> {
  const names = (await readdir(folder)).filter((name) => !name.startsWith('.') && headEnd.test(name)).sort();
  const stems = new Set(names.map(stemOf));
  const isResult = (name: string) =>
    outputNames.some(
      (output) => stemOf(name).endsWith(`_${output}`) && stems.has(stemOf(name).slice(0, -output.length - 1)),
    );
  const found = names.filter((name) => !isResult(name));
  if (found.length === 0) {
    throw new TomaatError(
      'BAD_INPUT',
      `There is no volume in ${folder} (.nii, .nii.gz, .mha, .mhd, .nrrd, .hdr). A DICOM series must be converted first, for example with dcm2niix.`,
    );
  }
  return found.map((name) => join(folder, name));
}

async function openFile(path: string): Promise<FileSource> {
  const { size } = await statInput(path);
  if (size === 0) throw new TomaatError('BAD_INPUT', `${path} is empty. Give a file with a volume in it.`);
  return {
    name: basename(path),
    sizeBytes: size,
    stream: () => createReadStream(path, { highWaterMark: 256 * 1024 }),
    slice: (start, end) => createReadStream(path, { highWaterMark: 256 * 1024, start, end: end - 1 }),
  };
}

/**
 * What is at a path. A link whose target is missing is reported as such: `ls` shows it, and data that git-annex or DataLad
 * keep is such links until it is fetched.
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
      (name) => name.toLowerCase() === `${stem}.${ending}`.toLowerCase() && name.startsWith(stem),
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
 * The data files that a MetaImage (ElementDataFile) or NRRD (data file) header names, by base name: whatever folder
 * it speaks of, only what lies beside it is taken.
 */
function dataFilesOf(header: string, name: string): string[] {
  const lines = header.split(/\r?\n/);
  const isMeta = /\.mhd$/i.test(name);
  const at = lines.findIndex((line) =>
    (isMeta ? /^\s*ElementDataFile\s*=/i : /^\s*data ?file\s*:/i).test(line),
  );
  if (at < 0) {
    throw new TomaatError(
      'BAD_INPUT',
      `${name} names no data file (${isMeta ? 'ElementDataFile' : 'data file'}). Check that it is a header.`,
    );
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
