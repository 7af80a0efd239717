import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import {
  collectBytes,
  compareLabelMaps,
  differenceLabels,
  differenceMap,
  extensionOf,
  type LabelName,
  outputFormats,
  TomaatError,
  type Volume,
  type VolumeExtension,
  writeVolume,
} from '@tomaat/core';
import { openApp } from '../apps.ts';
import { nodePlatform } from '../node-platform.ts';
import { writeWhole } from '../store/files/whole-file.ts';
import { readVolumeFiles } from '../worker/read-volume-files.ts';
import { type Comparison, comparisonLines, labelsBelow } from './compare-result.ts';
import { plain } from './console.ts';
import { volumePaths } from './input-files.ts';

export interface CompareFlags {
  /** The expected label map; the first of the results if missing. */
  truth?: string;
  /** Folder of an app whose labels name the values. */
  app?: string;
  /** A file for the map of differences. */
  map?: string;
  /** The least Dice of each label. */
  minDice?: number;
  force?: boolean;
  json?: boolean;
}

/**
 * `tomaat compare RESULT RESULT…`: label maps against a reference, on the same voxels. Exit code 1 if a label misses
 * --min-dice.
 */
export async function compare(files: readonly string[], flags: CompareFlags): Promise<number> {
  const reference = flags.truth ?? files[0];
  const results = flags.truth === undefined ? files.slice(1) : files;
  if (results.length === 0)
    throw new TomaatError(
      'BAD_INPUT',
      'There is one label map, and nothing to compare it with. Give another one, or --truth FILE.',
    );
  if (flags.map !== undefined) await checkMap(flags.map, results, flags);
  const names = flags.app === undefined ? [] : (await openApp(flags.app)).manifest.labels;
  const expected = await readLabels(reference);
  let isBelow = false;
  for (const file of results) {
    const found = await readLabels(file);
    const paths = { found: file, expected: reference };
    const comparison = { expected: reference, ...compareLabelMaps(found, expected, paths, names) };
    print(file, comparison, flags);
    isBelow = reportBelow(file, comparison, flags.minDice) || isBelow;
    if (flags.map !== undefined) {
      await writeMap(flags.map, differenceMap(found, expected, paths));
      if (!flags.json) console.log(`  ${flags.map}: where they differ (${legend(differenceLabels)})`);
    }
  }
  return isBelow ? 1 : 0;
}

const readLabels = async (file: string): Promise<Volume> => readVolumeFiles(await volumePaths(file));

function print(file: string, comparison: Comparison, { json }: CompareFlags): void {
  if (json) {
    console.log(JSON.stringify({ result: file, ...comparison }));
    return;
  }
  console.log(plain(file));
  for (const line of comparisonLines(comparison)) console.log(line);
}

function reportBelow(file: string, comparison: Comparison, least: number | undefined): boolean {
  const below = least === undefined ? [] : labelsBelow(comparison, least);
  for (const { name, dice } of below)
    console.error(
      `${plain(basename(file))}: ${plain(name)} has a Dice of ${dice.toFixed(4)}, less than ${least}.`,
    );
  return below.length > 0;
}

const legend = (labels: readonly LabelName[]) =>
  labels.map(({ value, name }) => `${value} ${name}`).join(', ');

/** Refuses, before anything is read, a map that could not be written. */
async function checkMap(map: string, results: readonly string[], { force }: CompareFlags): Promise<void> {
  const refuse = (message: string) => new TomaatError('BAD_INPUT', message, { field: 'map' });
  if (results.length > 1)
    throw refuse('--map shows where two label maps differ. Compare each of the others by itself.');
  formatOf(map);
  if (!force && (await stat(map).catch(() => undefined)))
    throw refuse(`${map} exists. Give --force to overwrite it, or another name.`);
}

function formatOf(map: string): VolumeExtension {
  const extension = extensionOf(basename(map));
  const formats: readonly string[] = outputFormats.LabelVolume;
  if (extension !== undefined && formats.includes(extension)) return extension as VolumeExtension;
  throw new TomaatError(
    'BAD_INPUT',
    `${map} has no ending of a volume format. End it in .nii.gz, .mha or .nrrd.`,
    {
      field: 'map',
    },
  );
}

async function writeMap(file: string, map: Volume): Promise<void> {
  const bytes = await collectBytes(writeVolume(map, formatOf(file), nodePlatform, { intent: 'label' }));
  await writeWhole(file, bytes, { mode: 0o644 });
}
