import { createReadStream, createWriteStream } from 'node:fs';
import { copyFile, mkdir } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import {
  deriveCase,
  deriveGrids,
  readVolume,
  TomaatError,
  type Vec3,
  type Volume,
  withoutVolumeEnding,
  worstLabel,
  writeVolume,
} from '@tomaat/core';
import { nodePlatform } from '../node-platform.ts';
import type { WrittenTest } from './card.ts';
import type { Plan } from './plan.ts';
import type { ProvenCase } from './prove.ts';
import type { Translation, WrittenStep } from './translation.ts';

/*
 * The cases of a proof: those given, two derived from the first, and those that become self-tests.
 */

/** A case: its files, by the names of the app's inputs. */
export interface Case {
  readonly name: string;
  readonly inputs: Readonly<Record<string, string>>;
}

/** Groups files into cases of one for each input. BAD_INPUT if they do not come out even. */
export function groupCases(files: readonly string[], names: readonly string[]): Case[] {
  if (files.length % names.length !== 0)
    throw new TomaatError(
      'BAD_INPUT',
      `A case has ${names.length} volumes (${names.join(', ')}), and ${files.length} were given. Give all volumes of each case, in this order.`,
      { field: 'case' },
    );
  const cases: Case[] = [];
  for (let at = 0; at < files.length; at += names.length) {
    const inputs = Object.fromEntries(names.map((name, i) => [name, resolve(files[at + i])]));
    const stem = withoutVolumeEnding(basename(files[at]));
    const name = cases.some((other) => other.name === stem) ? `${stem} ${cases.length + 1}` : stem;
    cases.push({ name, inputs });
  }
  return cases;
}

/** The volume of a file that is one by itself. */
export async function readCase(path: string): Promise<Volume> {
  const source = { name: basename(path), open: (start = 0) => createReadStream(path, { start }) };
  return (await readVolume([source], nodePlatform)).volume;
}

/** The step of that name before the network, if there is one. */
function parametersOf(
  steps: readonly WrittenStep[],
  name: string,
): Readonly<Record<string, unknown>> | undefined {
  const found = steps.find((step) => typeof step === 'object' && Object.hasOwn(step, name));
  return (found as Record<string, Record<string, unknown>> | undefined)?.[name];
}

/**
 * Two cases on awkward grids: on the grid of a plain one a wrong pipeline may give the right labels. nnU-Net's keep the order of
 * axes, as nnU-Net does not reorient.
 */
export async function derivedCases(
  first: Case,
  plan: Plan,
  translation: Translation,
  work: string,
): Promise<Case[]> {
  const own = Object.values(translation.inputs)[0]?.preprocess ?? [];
  const steps = [...own, ...translation.preprocess];
  const keepOrder = plan.kind === 'nnunet';
  const pixdim = parametersOf(steps, 'spacing')?.pixdim as Vec3 | undefined;
  const axcodes = parametersOf(steps, 'orientation')?.axcodes as string | undefined;
  const volumes = await Promise.all(Object.values(first.inputs).map(readCase));
  const spacingMm = pixdim?.every((mm) => mm > 0) ? pixdim : undefined;
  const cases: Case[] = [];
  for (const { name, grid } of deriveGrids(volumes[0], {
    keepOrder,
    spacingMm,
    ...(axcodes && axcodes !== 'stored' && { axcodes }),
  })) {
    const inputs: Record<string, string> = {};
    for (const [i, input] of Object.keys(first.inputs).entries()) {
      inputs[input] = join(work, `${name}-${i}.nii.gz`);
      const pieces = writeVolume(deriveCase(volumes[i], grid), 'nii.gz', nodePlatform);
      await pipeline(Readable.from(pieces), createWriteStream(inputs[input]));
    }
    cases.push({ name: `${first.name}, derived: ${name}`, inputs });
  }
  return cases;
}

/**
 * What a self-test requires: no more than the proof found, with room for another processor, which may round a voxel between two
 * labels otherwise.
 */
export function limitsOf({ agree, labels }: Pick<ProvenCase, 'agree' | 'labels'>): {
  dice: number;
  agree: number;
} {
  // 0.57 * 100 is a little below 57.
  const wholeBelow = (value: number) => Math.floor(value + 1e-6);
  return {
    dice: Math.max(0, wholeBelow(100 * worstLabel(labels).dice) - 1) / 100,
    agree: Math.min(0.999, wholeBelow(1e4 * agree) / 1e4),
  };
}

/** Copies the cases given, with the author's results, into the app: they are its self-tests. */
export async function keepCases(
  app: string,
  cases: readonly Case[],
  results: Readonly<Record<string, string>>,
  proven: readonly ProvenCase[],
): Promise<WrittenTest[]> {
  await mkdir(join(app, 'cases'), { recursive: true });
  const tests: WrittenTest[] = [];
  for (const [i, { name, inputs }] of cases.entries()) {
    const kept: Record<string, string> = {};
    for (const [input, file] of Object.entries(inputs)) {
      const stem = withoutVolumeEnding(basename(file));
      kept[input] = `cases/${i + 1}-${input}${basename(file).slice(stem.length)}`;
      await copyFile(file, join(app, kept[input]));
    }
    const expected = `cases/${i + 1}-expected.nii.gz`;
    await copyFile(results[name], join(app, expected));
    tests.push({ inputs: kept, expected, ...limitsOf(proven.find((one) => one.name === name)!) });
  }
  return tests;
}
