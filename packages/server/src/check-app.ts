import { createWriteStream } from 'node:fs';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import {
  compareLabels,
  describeAgreement,
  describeWhere,
  diceOfLabels,
  formatAgreement,
  keepsStoredOrder,
  orientationOf,
  reorient,
  restore,
  type SelfTest,
  TomaatError,
  type Volume,
  volumeInputs,
  worstLabel,
  writeVolume,
} from '@tomaat/core';
import { type App, appFile, openApp } from './apps.ts';
import { nodePlatform } from './node-platform.ts';
import { type ComputeDevice, processor } from './runtimes/devices.ts';
import type { ModelServers } from './trust/model-servers.ts';
import { createMemoryPolicy } from './worker/memory-limit.ts';
import { readVolumeFiles } from './worker/read-volume-files.ts';
import { runApp } from './worker/run-app.ts';
import { allFaultLines, unverifiedDevice, verifyApp } from './worker/verify-app.ts';

/** One result of the check. */
export interface CheckResult {
  /** The name of the check, in a few words: “manifest”, “weights”, “self-test”, “geometry”. */
  readonly name: string;
  readonly ok: boolean;
  /** The finding, and what to do about a fault. */
  readonly detail: string;
  readonly seconds?: number;
}

/** What the steps of a check have in common. */
interface Checked {
  readonly app: App;
  readonly signal: AbortSignal;
  readonly modelServers?: ModelServers;
  readonly device: ComputeDevice;
}

/** Storage orders that differ in axis order and in handedness from each other. */
const orientations = ['LPS', 'SAR', 'PIR'] as const;
/** The least Dice between the results of one scan stored in different orders. */
const leastAgreement = 0.9;

/**
 * What an author wants to know before publishing: is the folder valid, does the app run, does it keep left and right? Yields
 * each result as soon as it is known. `permittedFor` looks up what the app may use of model servers; `device` computes its networks.
 */
export async function* checkApp(
  folder: string,
  signal: AbortSignal,
  permittedFor?: (app: App) => Promise<ModelServers | undefined>,
  device = processor,
): AsyncGenerator<CheckResult> {
  const [opened, app] = await tryStep('manifest and weights', async () => {
    const found = await openApp(folder);
    const { id, version, model } = found.manifest;
    const hashed = model.some((spec) => 'sha256' in spec && spec.sha256);
    return [`${id} ${version}${hashed ? ', the hash matches' : ''}`, found];
  });
  yield opened;
  if (!app) return;
  const checked: Checked = { app, signal, modelServers: await permittedFor?.(app), device };
  const [verified, isVerified] = await tryStep('model', () => verifyModels(checked));
  yield verified;
  if (!isVerified) return;
  const { selftest } = app.manifest;
  if (!selftest) {
    yield {
      name: 'self-test',
      ok: true,
      detail: 'skipped: the manifest has no selftest. Add a volume and the expected label map',
    };
    return;
  }
  let first: Volume | undefined;
  for (const [index, test] of selftest.entries()) {
    const name = selftest.length > 1 ? `self-test ${index + 1} of ${selftest.length}` : 'self-test';
    const [tested, result] = await tryStep(name, () => runSelfTest(checked, test));
    yield tested;
    if (index === 0) first = result;
  }
  const result = first;
  if (!result) return;
  const [compared] = await tryStep('geometry', () => compareOrientations(checked, selftest[0], result));
  yield compared;
}

async function tryStep<T>(
  name: string,
  work: () => Promise<[detail: string, value: T]>,
): Promise<[CheckResult, T | undefined]> {
  const startedMs = performance.now();
  const seconds = () => (performance.now() - startedMs) / 1000;
  try {
    const [detail, value] = await work();
    return [{ name, ok: true, detail, seconds: seconds() }, value];
  } catch (error) {
    if (!(error instanceof TomaatError)) throw error;
    return [{ name, ok: false, detail: error.message, seconds: seconds() }, undefined];
  }
}

/** Checks that every model can be loaded, and every network fits the manifest. */
async function verifyModels({ app, signal, modelServers, device }: Checked): Promise<[string, true]> {
  const reports = await verifyApp(app, createMemoryPolicy({ slots: 1 }), signal, {
    permitted: modelServers,
    device,
  });
  // An author wants to know that it runs, so a model server that is away is a fault here.
  const faults = allFaultLines(reports);
  if (faults.length > 0) throw new TomaatError('BAD_MANIFEST', faults.join('\n').trim());
  const found = reports.map(
    ({ name, summary, compared }) => `${name}: ${summary}${compared ? `, ${compared}` : ''}`,
  );
  return [[...found, unverifiedDevice(app, device) ?? []].flat().join('\n'), true];
}

/**
 * A case of the manifest: each label of the expected map must reach the Dice in the manifest, and all voxels the agreement if it
 * states one.
 */
async function runSelfTest(checked: Checked, test: SelfTest): Promise<[string, Volume]> {
  const { app } = checked;
  const files: Record<string, string> = {};
  for (const [name, file] of Object.entries(test.inputs)) files[name] = await appFile(app, file);
  const { volume, seconds, empty = [] } = await predictLabels(checked, test, files);
  const agreement = compareLabels(volume, await read(await appFile(app, test.expected)));
  const found = describeAgreement(agreement);
  const fault = (what: string) =>
    new TomaatError(
      'APP_OUTPUT',
      [[`${what} with ${test.expected}`, ...describeWhere(agreement)].join('; '), ...empty].join('\n'),
    );
  if (!agreement.sameGrid)
    throw fault(`the result lies on another grid than the expected label map; resampled it has ${found}`);
  const worst = worstLabel(agreement.labels);
  if (worst.dice < test.dice) {
    throw fault(
      `label ${worst.value} reaches a Dice of ${worst.dice.toFixed(4)}, and the manifest requires ${test.dice},`,
    );
  }
  if (test.agree !== undefined && agreement.agree < test.agree) {
    throw fault(
      `${agreement.differ} of ${agreement.voxels} voxels differ (${formatAgreement(agreement.agree)} agree), and the manifest requires ${formatAgreement(test.agree)},`,
    );
  }
  return [`${found}; the prediction took ${seconds.toFixed(1)} s`, volume];
}

/**
 * The same scan stored in other axis orders must give the same labels in world coordinates, unless the manifest states that the
 * network sees the axes as they are stored: then it is another input, and how far the result differs is only reported.
 */
async function compareOrientations(
  checked: Checked,
  test: SelfTest,
  first: Volume,
): Promise<[string, undefined]> {
  const { app } = checked;
  const work = await mkdtemp(join(tmpdir(), 'tomaat-check-'));
  const volumes = volumeInputs(app.manifest);
  const isStored = keepsStoredOrder(app.manifest);
  let least = 1;
  try {
    for (const axcodes of orientations) {
      const files: Record<string, string> = {};
      for (const [name, file] of Object.entries(test.inputs)) {
        const path = await appFile(app, file);
        files[name] = volumes.includes(name)
          ? await storeAs(path, axcodes, join(work, `${axcodes}-${name}.nii`))
          : path;
      }
      const { volume } = await predictLabels(checked, test, files);
      const [agreement, value] = worstDice(restore(volume, first), first);
      if (agreement < leastAgreement && !isStored) {
        throw new TomaatError(
          'APP_OUTPUT',
          `the same volume stored as ${axcodes} instead of ${orientationOf(first.affine)} gives a different result: label ${value} agrees by a Dice of ${agreement.toFixed(3)}. Begin preprocess with orientation, or use the affine. If the network was trained on axes as files store them, state it: orientation: { axcodes: stored }`,
        );
      }
      least = Math.min(least, agreement);
    }
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  const orders = orientations.join(', ');
  const found = isStored
    ? `the manifest leaves the axes as they are stored, so the order of storage matters: stored as ${orders} instead of ${orientationOf(first.affine)}, the self-test agrees by a Dice of ${least.toFixed(4)} or more. Volumes must be stored as those of the training`
    : `the same in the storage orders ${orders}: a Dice of at least ${least.toFixed(4)}`;
  return [found, undefined];
}

async function predictLabels(
  { app, signal, modelServers, device }: Checked,
  test: SelfTest,
  paths: Readonly<Record<string, string>>,
): Promise<{ volume: Volume; seconds: number; empty?: string[] }> {
  const files: Record<string, { path: string; sizeBytes: number }[]> = {};
  for (const [name, path] of Object.entries(paths))
    files[name] = [{ path, sizeBytes: (await stat(path)).size }];
  await using result = await runApp({
    app,
    files,
    parameters: test.parameters,
    explains: true,
    modelServers,
    device,
    signal,
  });
  const output = result.outputs.find((candidate) => candidate.primary)!;
  return { volume: await read(output.path), seconds: result.seconds, empty: result.empty };
}

const read = (path: string): Promise<Volume> => readVolumeFiles([path]);

async function storeAs(path: string, axcodes: string, target: string): Promise<string> {
  const volume = reorient(await read(path), axcodes);
  await pipeline(Readable.from(writeVolume(volume, 'nii', nodePlatform)), createWriteStream(target));
  return target;
}

/** The lowest Dice over the labels of either map, and the label that has it. */
function worstDice(found: Volume, expected: Volume): [dice: number, label: number] {
  let worst: [number, number] = [1, 0];
  for (const [value, dice] of diceOfLabels(found, expected)) if (dice < worst[0]) worst = [dice, value];
  return worst;
}
