import { stat } from 'node:fs/promises';
import {
  type Bytes,
  drawPreview,
  type EncodedOutput,
  isReadBack,
  labelsWith,
  type PreviewOptions,
  parseMeasurementsCsv,
  parseParameters,
  TomaatError,
  type Volume,
  volumeInputs,
} from '@tomaat/core';
import { type App, openApp } from '../apps.ts';
import type { ComputeDevice } from '../runtimes/devices.ts';
import { writeWhole } from '../store/files/whole-file.ts';
import type { ModelServers } from '../trust/model-servers.ts';
import { readVolumeFiles } from '../worker/read-volume-files.ts';
import type { Comparison } from './compare-result.ts';
import { createProgress, plain, reportsOf } from './console.ts';
import { type EngineFlags, openDevice } from './device-flag.ts';
import { volumePaths } from './input-files.ts';
import { openInterrupt } from './interrupt.ts';
import { loadModelServers, type ModelServerFlags } from './model-servers.ts';
import type { Outcome } from './outcome.ts';
import { type Elements, type InputFlags, type InputPlan, planInputs } from './plan-inputs.ts';
import { printOutcome } from './print-outcome.ts';
import { checkTargets, planResults, type ResultFile, type ResultFlags, saveResult } from './result-files.ts';

export interface RunFlags extends InputFlags, ResultFlags, ModelServerFlags, EngineFlags {
  frame?: number;
  /** A label map to compare the result with. */
  expected?: string;
  /** The least Dice of each label with it. */
  minDice?: number;
  /** A file for a picture of the result. */
  preview?: string;
  quiet?: boolean;
  json?: boolean;
}

/** The request of `tomaat run` to the worker. */
export interface RunRequest {
  /** Paths of the files of each file input; those of a .mhd or .hdr with their data. */
  readonly files: Readonly<Record<string, readonly string[]>>;
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly frame?: number;
  /** UID of a DICOM series, for an archive that may hold several. */
  readonly series?: string;
  /** The wanted format by output name. */
  readonly formats: Readonly<Record<string, string>>;
  /** Whether an output in a format that cannot be read back also comes in one that can. */
  readonly keepsValues: boolean;
  /** What the app may use of model servers. */
  readonly modelServers?: ModelServers;
  /** What computes its networks. */
  readonly device?: ComputeDevice;
  readonly signal: AbortSignal;
  onProgress(stage: string, fraction: number): void;
  /** Called once for each output, in the manifest's order. */
  write(output: EncodedOutput): Promise<void>;
  /** Takes the primary label map, after all outputs; called only if there is one. */
  onLabels?(labels: Volume, scan?: Volume): Promise<void>;
  /** The input whose volume `onLabels` gets as well, as it is in its files. */
  readonly scan?: string;
  /** Called, last, if the primary label map is empty: why, in lines. */
  onEmpty(explanation: readonly string[]): void;
}

export type RunApp = (app: App, request: RunRequest) => Promise<void>;

/** `tomaat run APP_DIR`: one prediction without a server. Exit code 1 if a label misses --min-dice. */
export async function run(folder: string, flags: RunFlags, runApp: RunApp): Promise<number> {
  const app = await openApp(folder);
  const { id, name, version, inputs, outputs } = app.manifest;
  const { primaryOutput } = await import('@tomaat/core');
  const primary = primaryOutput(app.manifest);
  const elements: Elements = {
    id,
    inputs: Object.entries(inputs).map(([name, input]) => ({ name, ...input })),
    outputs: Object.entries(outputs).map(([name, output]) => ({
      name,
      primary: name === primary,
      ...output,
    })),
  };
  const modelServers = await loadModelServers([app], flags);
  const progress = await createProgress(Boolean(flags.quiet || flags.json));
  using interrupt = openInterrupt(() => progress.clear());
  const { signal } = interrupt;
  const device = await openDevice(flags, signal);
  const plan = await planInputs(elements, flags, reportsOf(progress, flags, signal));
  const results = await planResults(elements, flags, plan.many);
  const expected = await readExpected(app, flags, plan);
  await checkPreview(app, flags, plan);
  const readsLabels = expected !== undefined || flags.preview !== undefined;
  const names = labelsWith(app.manifest.labels, parseParameters(inputs, plan.values));
  let isBelow = false;
  for (const { resultPath, dicom } of plan.volumes)
    await checkTargets(results, resultPath, { force: flags.force, isDicom: dicom !== undefined });
  const formats = Object.fromEntries(
    results.outputs.flatMap((output) => (output.format ? [[output.name, output.format]] : [])),
  );
  try {
    for (const { path, resultPath, dicom } of plan.volumes) {
      const startTime = performance.now();
      const files: ResultFile[] = [];
      let report: Pick<Outcome, 'labels' | 'report'> = {};
      let comparison: Comparison | undefined;
      let empty: readonly string[] | undefined;
      const inputFiles: Record<string, readonly string[]> = {};
      for (const [name, paths] of Object.entries(plan.otherFiles))
        inputFiles[name] = (await Promise.all(paths.map(volumePaths))).flat();
      for (const [name, { paths }] of Object.entries(plan.otherSeries)) inputFiles[name] = paths;
      if (plan.mainInput !== undefined && (dicom || flags.volume !== undefined))
        inputFiles[plan.mainInput] = dicom ? dicom.paths : await volumePaths(path);
      await runApp(app, {
        files: inputFiles,
        parameters: plan.values,
        frame: flags.frame,
        series: dicom?.seriesUid,
        formats,
        keepsValues: results.outputs.some(
          ({ type, format }) =>
            (type === 'Measurements' || readsLabels) && format !== undefined && !isReadBack(type, format),
        ),
        modelServers,
        device,
        signal,
        onEmpty: (lines) => {
          empty = lines;
        },
        ...(flags.preview !== undefined && {
          scan: volumeInputs(app.manifest).find((input) => inputFiles[input] !== undefined),
        }),
        ...(readsLabels && {
          async onLabels(labels, scan) {
            if (flags.preview !== undefined && scan)
              await writePreview(flags.preview, scan, labels, { labels: names, title: `${name} ${version}` });
            if (!expected) return;
            const { compareLabelMaps } = await import('@tomaat/core');
            const files = { expected: flags.expected! };
            comparison = { expected: files.expected, ...compareLabelMaps(labels, expected, files, names) };
          },
        }),
        onProgress: (stage, fraction) =>
          progress.show(stage, `Running: ${stage} · ${Math.floor(100 * fraction)} %`),
        async write(output) {
          const isWanted = results.outputs.some((wanted) => wanted.name === output.name);
          const isReport = output.type === 'Measurements' || (output.type === 'PlainText' && !report.labels);
          if (!isWanted && !isReport) return;
          let { bytes } = output;
          if (isReport) {
            const { format, bytes: stated } = output.kept ?? output;
            const text = await joined(stated);
            report = { ...report, ...readReport(output.type, format, text) };
            if (!output.kept) bytes = toAsync([text]);
          }
          if (!isWanted) return;
          files.push(
            await saveResult(bytes, results, resultPath, output.name, output.format, {
              force: flags.force,
              signal,
            }),
          );
        },
      });
      progress.clear();
      const seconds = Math.round(performance.now() - startTime) / 1000;
      const series = dicom && { series: dicom.chosen.series.uid };
      const outcome = { input: path, ...series, service: id, name, version, seconds, files, ...report };
      printOutcome({ ...outcome, ...(comparison && { comparison }), ...(empty && { empty }) }, flags);
      if (empty && !flags.json && !flags.quiet)
        for (const line of ['Nothing was found.', ...empty]) console.error(plain(line));
      if (comparison) isBelow = (await reportComparison(comparison, flags)) || isBelow;
    }
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    progress.clear();
  }
  return isBelow ? 1 : 0;
}

/** The label map of --expected, read before the prediction, which may take long. */
async function readExpected(
  { manifest }: App,
  { expected, minDice }: RunFlags,
  plan: InputPlan,
): Promise<Volume | undefined> {
  const refuse = (message: string) => new TomaatError('BAD_INPUT', message, { field: 'expected' });
  if (expected === undefined) {
    if (minDice !== undefined) throw refuse('--min-dice needs a label map to compare with. Give --expected.');
    return undefined;
  }
  if (plan.many)
    throw refuse('--expected compares one volume with one label map. Run each volume by itself.');
  if (!Object.values(manifest.outputs).some(({ type }) => type === 'LabelVolume'))
    throw refuse(`${manifest.id} has no label map among its outputs. Leave --expected out.`);
  return readVolumeFiles(await volumePaths(expected));
}

/** Refuses a preview that could not be written after the prediction. */
async function checkPreview({ manifest }: App, { preview, force }: RunFlags, plan: InputPlan): Promise<void> {
  const refuse = (message: string) => new TomaatError('BAD_INPUT', message, { field: 'preview' });
  if (preview === undefined) return;
  if (!/\.png$/i.test(preview))
    throw refuse(`--preview ${preview} is not the name of a PNG file. End it in .png.`);
  if (plan.many) throw refuse('--preview is a picture of one volume. Run each volume by itself.');
  const makesLabels = Object.values(manifest.outputs).some(({ type }) => type === 'LabelVolume');
  if (!makesLabels || volumeInputs(manifest).length === 0)
    throw refuse(`${manifest.id} does not make a label map of a volume. Leave --preview out.`);
  if (!force && (await stat(preview).catch(() => undefined)))
    throw refuse(`${preview} exists. Give --force to overwrite it, or another name.`);
}

async function writePreview(
  file: string,
  scan: Volume,
  labels: Volume,
  options: PreviewOptions,
): Promise<void> {
  const { encodePng } = await import('./png.ts');
  await writeWhole(file, encodePng(drawPreview(scan, labels, options)), { mode: 0o644 });
}

/** Prints the comparison; true if a label misses --min-dice. */
async function reportComparison(comparison: Comparison, flags: RunFlags): Promise<boolean> {
  const { comparisonLines, labelsBelow } = await import('./compare-result.ts');
  if (!flags.json && !flags.quiet) for (const line of comparisonLines(comparison)) console.log(line);
  const below = flags.minDice === undefined ? [] : labelsBelow(comparison, flags.minDice);
  for (const { name, dice } of below)
    console.error(`${plain(name)} has a Dice of ${dice.toFixed(4)}, less than ${flags.minDice}.`);
  return below.length > 0;
}

function readReport(
  type: EncodedOutput['type'],
  format: EncodedOutput['format'],
  bytes: Uint8Array,
): Pick<Outcome, 'labels' | 'report'> {
  const text = new TextDecoder().decode(bytes);
  if (type !== 'Measurements') return { report: text };
  return format === 'csv'
    ? { labels: parseMeasurementsCsv(text) }
    : (JSON.parse(text) as { labels?: unknown });
}

async function joined(bytes: AsyncIterable<Uint8Array>): Promise<Bytes> {
  const parts: Uint8Array[] = [];
  for await (const part of bytes) parts.push(part);
  return Buffer.concat(parts);
}

async function* toAsync(bytes: readonly Bytes[]): AsyncGenerator<Bytes> {
  yield* bytes;
}
