import { readdir, stat } from 'node:fs/promises';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { TomaatError } from '@tomaat/core';
import type { ReadingReports } from '../dicom-volume.ts';
import { statInput, stemOf, volumesIn } from '../input-files.ts';
import { type Elements, holdsDicom, type PlannedVolume, planVolumes } from '../plan-inputs.ts';
import type { PlannedOutput, ResultPlan } from '../result-files.ts';
import { type BidsNames, bidsTarget } from './bids.ts';
import { expandGlob, isGlob } from './glob.ts';

/** One scan of a batch: what is sent, and where its results go. */
export interface BatchScan {
  /** The path of its results below their folder, without output and ending. */
  readonly id: string;
  readonly volume: PlannedVolume;
  readonly results: ResultPlan;
  /** The folder that it was found in, which BIDS paths are relative to. */
  readonly root: string;
  /** Why it cannot be sent. */
  readonly fault?: TomaatError;
}

export interface BatchFlags {
  readonly recursive?: boolean;
  readonly series?: string;
}

const mostScans = 20_000;
const mostLevels = 16;
/** Folders of a BIDS dataset that hold no raw scans. */
const notRaw = ['derivatives', 'sourcedata', 'code', 'stimuli'];

/**
 * The scans that files, folders and patterns name, with the folders below each given one mirrored in `out`; without it, results go
 * beside their scans.
 *
 * @param bids names of BIDS derivatives instead of `<scan>_<output>`
 * @throws TomaatError BAD_INPUT if nothing is found, or if two scans would write one result; it names both
 */
export async function planBatch(
  given: readonly string[],
  out: string | undefined,
  {
    elements,
    outputs,
    flags,
    bids,
    reports,
  }: {
    elements: Elements;
    outputs: readonly PlannedOutput[];
    flags: BatchFlags;
    bids?: BidsNames;
    reports: ReadingReports;
  },
): Promise<BatchScan[]> {
  const scans: BatchScan[] = [];
  const names = elements.outputs.map(({ name }) => name);
  const seen = new Map<string, string>();
  const add = (volume: PlannedVolume, root: string, folder: string, fault?: TomaatError) => {
    const below = relative(root, folder);
    const inside = below.startsWith('..') ? '' : below;
    const stem = stemOf(volume.resultPath);
    const target = out === undefined ? dirname(volume.resultPath) : join(out, inside);
    const results: ResultPlan = bids
      ? bidsTarget(volume.path, target, outputs, bids)
      : { folder: target, outputs };
    const id = join(inside, bids ? stemOf(results.file!) : stem)
      .split(sep)
      .join('/');
    const other = seen.get(id);
    if (other !== undefined) {
      if (resolve(other) === resolve(volume.path) && !volume.dicom) return;
      throw new TomaatError(
        'BAD_INPUT',
        `${other} and ${volume.path} would give results with the same name, ${id}. Rename one, or give each its own -o.`,
      );
    }
    seen.set(id, volume.path);
    if (scans.length >= mostScans)
      throw new TomaatError('BAD_INPUT', `These are more than ${mostScans} scans. Give fewer at a time.`);
    scans.push({ id, volume, results, root, fault });
  };
  const planOne = async (path: string, root: string, folder: string) => {
    const { volumes } = await planVolumes(path, flags.series, names, reports);
    for (const volume of volumes) add(volume, root, folder);
  };
  // One of many series that is no volume is a failed scan; which one of several series is meant must be said first.
  const planFound = async (path: string, root: string, folder: string) => {
    const volume: PlannedVolume = { path, resultPath: `${path}.dcm` };
    const found = await planVolumes(path, flags.series, names, reports).catch((error: unknown) => {
      if (path === root || !(error instanceof TomaatError) || error.field === 'series') throw error;
      return error;
    });
    if (found instanceof TomaatError) add(volume, root, folder, found);
    else for (const volume of found.volumes) add(volume, root, folder);
  };
  const visit = async (folder: string, root: string, level: number): Promise<void> => {
    if (out !== undefined && resolve(folder) === resolve(out) && level > 0) return;
    if (level > mostLevels)
      throw new TomaatError(
        'BAD_INPUT',
        `${folder} lies more than ${mostLevels} folders deep. Give a closer folder.`,
      );
    reports.signal?.throwIfAborted();
    const hasDicom = await holdsDicom(folder);
    if (hasDicom) return planFound(folder, root, dirname(folder));
    for (const path of await volumesIn(folder, names)) add({ path, resultPath: path }, root, folder);
    const entries = await readdir(folder, { withFileTypes: true });
    const folders = entries.filter(
      (entry) =>
        entry.isDirectory() &&
        !entry.name.startsWith('.') &&
        !(bids && level === 0 && notRaw.includes(entry.name)),
    );
    for (const { name } of folders.sort((a, b) => Number(a.name > b.name) - Number(a.name < b.name)))
      await visit(join(folder, name), root, level + 1);
  };
  for (const path of (await Promise.all(given.map(expand))).flat()) {
    if (!(await statInput(path)).isDirectory()) {
      const root = bids ? await datasetOf(path) : dirname(path);
      await planOne(path, root, dirname(path));
    } else if (flags.recursive || bids) await visit(path, path, 0);
    else await planOne(path, path, path);
  }
  if (scans.length === 0)
    throw new TomaatError(
      'BAD_INPUT',
      `There is no scan in ${given.join(', ')}. Check the folder and its files.`,
    );
  return scans;
}

/** A quoted pattern is expanded here, unless a file has that very name. */
async function expand(path: string): Promise<string[]> {
  if (!isGlob(path) || (await stat(path).catch(() => undefined))) return [path];
  return expandGlob(path);
}

/** The folder with dataset_description.json above a file, or its own. */
async function datasetOf(path: string): Promise<string> {
  for (let at = dirname(resolve(path)), i = 0; i < mostLevels; i++, at = dirname(at))
    if (await isDataset(at)) return at;
  return dirname(resolve(path));
}

/** Whether a folder is the root of a BIDS dataset. */
export const isDataset = (folder: string): Promise<boolean> =>
  stat(join(folder, 'dataset_description.json')).then(
    (found) => found.isFile(),
    () => false,
  );
