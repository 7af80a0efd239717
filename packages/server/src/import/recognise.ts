import { readdir, readFile, stat } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { TomaatError } from '@tomaat/core';

/** A folder of an author that can be imported. */
export interface AuthorFolder {
  readonly kind: 'monai' | 'nnunet';
  readonly folder: string;
  /** Of a bundle: the file in `configs`. */
  readonly config?: string;
  /** Of nnU-Net. */
  readonly folds?: readonly string[];
  /** The file of the licence, if there is one. */
  readonly licenceFile?: string;
  /** What was chosen among several, and how to choose another. */
  readonly notes: readonly string[];
}

export interface RecogniseOptions {
  /** Of a bundle a file of `configs`; of nnU-Net a configuration, such as 3d_lowres. */
  readonly config?: string;
  /** Of nnU-Net: `all`, or numbers with commas. */
  readonly folds?: string;
}

const inferenceConfig = /^inference[^/]*\.(json|ya?ml)$/;

/**
 * Finds out what a folder is: a MONAI bundle, or a folder that nnU-Net v2 trained (or one that holds such folders).
 * @throws {TomaatError} BAD_INPUT says what is missing
 */
export async function recognise(path: string, options: RecogniseOptions = {}): Promise<AuthorFolder> {
  const folder = resolve(path);
  const names = await namesIn(folder);
  if (!names)
    throw new TomaatError(
      'BAD_INPUT',
      `${path} is not a folder. Give the folder of a MONAI bundle or of nnU-Net.`,
    );
  const licence = names.find((name) => /^licen[cs]e(\.(txt|md))?$/i.test(name));
  const found = (await bundleIn(folder, options)) ?? (await nnunetIn(folder, names, options));
  if (!found) {
    const held = names.slice(0, 12).join(', ') || 'nothing';
    throw new TomaatError(
      'BAD_INPUT',
      `${path} is neither a MONAI bundle (configs/metadata.json and configs/inference.json) nor a folder of nnU-Net (plans.json, dataset.json and fold_0/checkpoint_final.pth). It holds ${held}. Give the folder that has these files.`,
    );
  }
  return licence ? { ...found, licenceFile: join(folder, licence) } : found;
}

/** The names in a folder, sorted; undefined if it is not a folder. */
async function namesIn(folder: string): Promise<string[] | undefined> {
  try {
    return (await readdir(folder)).sort();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw error;
  }
}

async function bundleIn(
  folder: string,
  { config, folds }: RecogniseOptions,
): Promise<AuthorFolder | undefined> {
  const names = await namesIn(join(folder, 'configs'));
  if (!names) return undefined;
  if (!names.includes('metadata.json'))
    throw new TomaatError(
      'BAD_INPUT',
      `${join(folder, 'configs')} has no metadata.json. A MONAI bundle has one: add it.`,
    );
  if (folds !== undefined)
    throw new TomaatError('BAD_INPUT', 'A MONAI bundle has no folds. Leave --folds out.', { field: 'folds' });
  const configs = names.filter((name) => inferenceConfig.test(name));
  if (config !== undefined) {
    const wanted = basename(config);
    if (names.includes(wanted)) return { kind: 'monai', folder, config: wanted, notes: [] };
    throw new TomaatError(
      'BAD_INPUT',
      `${folder} has no configs/${wanted}. Available: ${configs.join(', ') || names.join(', ')}.`,
      {
        field: 'config',
      },
    );
  }
  if (configs.length === 0)
    throw new TomaatError(
      'BAD_INPUT',
      `${join(folder, 'configs')} has no inference.json or inference.yaml. Name the config of the inference with --config. Available: ${names.join(', ')}.`,
    );
  const chosen =
    ['inference.json', 'inference.yaml', 'inference.yml'].find((name) => configs.includes(name)) ??
    configs[0];
  const others = configs.filter((name) => name !== chosen);
  const notes = others.length > 0 ? [`${chosen} is taken; --config takes ${others.join(' or ')}.`] : [];
  return { kind: 'monai', folder, config: chosen, notes };
}

/** The configurations of nnU-Net, the one to take first. A cascade is not one network. */
const preference = ['3d_fullres', '3d_lowres', '2d'];

async function nnunetIn(
  folder: string,
  names: readonly string[],
  options: RecogniseOptions,
): Promise<AuthorFolder | undefined> {
  const trained = await trainedFolders(folder, names, 2);
  if (trained.length === 0) return undefined;
  const named = trained.map((path) => ({ path, configuration: basename(path).split('__').at(-1) ?? '' }));
  const rank = (name: string) => (preference.includes(name) ? preference.indexOf(name) : preference.length);
  named.sort((a, b) => rank(a.configuration) - rank(b.configuration) || a.path.localeCompare(b.path));
  const list = named
    .map(({ path, configuration }) => (named.length > 1 ? configuration || path : path))
    .join(', ');
  const wanted = options.config;
  const chosen =
    wanted === undefined
      ? named[0]
      : named.find(({ path, configuration }) => configuration === wanted || basename(path) === wanted);
  if (!chosen)
    throw new TomaatError('BAD_INPUT', `${folder} has no configuration ${wanted}. Available: ${list}.`, {
      field: 'config',
    });
  const others = named.filter((one) => one !== chosen && wanted === undefined);
  const notes =
    others.length > 0
      ? [
          `${chosen.configuration} is taken; --config takes ${others.map((one) => one.configuration).join(' or ')}.`,
        ]
      : [];
  const folds = chooseFolds(chosen.path, await foldsIn(chosen.path), options.folds);
  return { kind: 'nnunet', folder: chosen.path, folds, notes };
}

/** Folders with plans.json, from this one down to `depth` levels. */
async function trainedFolders(folder: string, names: readonly string[], depth: number): Promise<string[]> {
  if (names.includes('plans.json') && (names.includes('dataset.json') || depth === 2)) {
    if (!names.includes('dataset.json'))
      throw new TomaatError(
        'BAD_INPUT',
        `${folder} has plans.json and no dataset.json. nnU-Net needs both: add it.`,
      );
    return [folder];
  }
  if (depth === 0) return [];
  const found: string[] = [];
  for (const name of names.slice(0, 200)) {
    const inner = name.startsWith('.') ? undefined : await namesIn(join(folder, name));
    if (inner) found.push(...(await trainedFolders(join(folder, name), inner, depth - 1)));
  }
  return found;
}

/** The folds that have weights, in the order of their numbers. */
async function foldsIn(folder: string): Promise<string[]> {
  const folds: string[] = [];
  for (const name of (await namesIn(folder)) ?? []) {
    const fold = /^fold_(\d{1,3}|all)$/.exec(name)?.[1];
    if (fold === undefined) continue;
    const files = (await namesIn(join(folder, name))) ?? [];
    if (files.some((file) => file === 'checkpoint_final.pth' || file === 'checkpoint_best.pth'))
      folds.push(fold);
  }
  return folds.sort((a, b) => Number(a) - Number(b));
}

function chooseFolds(folder: string, available: readonly string[], wanted: string | undefined): string[] {
  if (available.length === 0)
    throw new TomaatError(
      'BAD_INPUT',
      `${folder} has no fold_*/checkpoint_final.pth. Add the weights of a fold, such as fold_0/checkpoint_final.pth.`,
    );
  const numbered = available.filter((fold) => fold !== 'all');
  if (wanted === undefined || wanted === 'all') {
    if (wanted === 'all' && numbered.length === 0) return ['all'];
    return numbered.length > 0 ? numbered : [...available];
  }
  const folds = wanted.split(',').map((fold) => fold.trim());
  const missing = folds.filter((fold) => !available.includes(fold));
  if (missing.length > 0)
    throw new TomaatError(
      'BAD_INPUT',
      `${folder} has no fold ${missing.join(', ')}. Available: ${available.join(', ')}.`,
      {
        field: 'folds',
      },
    );
  const twice = folds.find((fold, i) => folds.indexOf(fold) !== i);
  if (twice !== undefined)
    throw new TomaatError('BAD_INPUT', `--folds has ${twice} twice. Give each fold once.`, {
      field: 'folds',
    });
  return folds;
}

/** The SPDX name of a licence by its text, where it is one of the common ones. */
export async function licenceOf(file: string): Promise<string | undefined> {
  if ((await stat(file)).size > 1e6) return undefined;
  const text = (await readFile(file, 'utf8')).slice(0, 2000).replace(/\s+/g, ' ');
  const known: readonly (readonly [phrase: string, name: string])[] = [
    ['Apache License Version 2.0', 'Apache-2.0'],
    ['Attribution-NonCommercial-ShareAlike 4.0', 'CC-BY-NC-SA-4.0'],
    ['Attribution-NonCommercial 4.0', 'CC-BY-NC-4.0'],
    ['Attribution-ShareAlike 4.0', 'CC-BY-SA-4.0'],
    ['Attribution 4.0 International', 'CC-BY-4.0'],
    ['MIT License', 'MIT'],
  ];
  return known.find(([phrase]) => text.includes(phrase))?.[1];
}
