import { type Bytes, type EncodedOutput, isReadBack, parseMeasurementsCsv } from '@tomaat/core';
import { type App, openApp } from '../apps.ts';
import { createProgress, reportsOf } from './console.ts';
import { volumePaths } from './input-files.ts';
import { openInterrupt } from './interrupt.ts';
import type { Outcome } from './outcome.ts';
import { type Elements, type InputFlags, planInputs } from './plan-inputs.ts';
import { printOutcome } from './print-outcome.ts';
import { checkTargets, planResults, type ResultFile, type ResultFlags, saveResult } from './result-files.ts';

export interface RunFlags extends InputFlags, ResultFlags {
  frame?: number;
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
  readonly signal: AbortSignal;
  onProgress(stage: string, fraction: number): void;
  /** Called once for each output, in the manifest's order. */
  write(output: EncodedOutput): Promise<void>;
}

export type RunApp = (app: App, request: RunRequest) => Promise<void>;

/** `tomaat run APP_DIR`: one prediction without a server. */
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
  const progress = await createProgress(Boolean(flags.quiet || flags.json));
  using interrupt = openInterrupt(() => progress.clear());
  const { signal } = interrupt;
  const plan = await planInputs(elements, flags, reportsOf(progress, flags, signal));
  const results = await planResults(elements, flags, plan.many);
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
      const inputFiles: Record<string, readonly string[]> = {};
      for (const [name, paths] of Object.entries(plan.otherFiles))
        inputFiles[name] = (await Promise.all(paths.map(volumePaths))).flat();
      if (flags.volume !== undefined && plan.mainInput !== undefined)
        inputFiles[plan.mainInput] = dicom ? dicom.paths : await volumePaths(path);
      await runApp(app, {
        files: inputFiles,
        parameters: plan.values,
        frame: flags.frame,
        series: dicom?.chosen.series.uid,
        formats,
        keepsValues: results.outputs.some(
          ({ type, format }) => type === 'Measurements' && format !== undefined && !isReadBack(type, format),
        ),
        signal,
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
      printOutcome({ input: path, ...series, service: id, name, version, seconds, files, ...report }, flags);
    }
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    progress.clear();
  }
  return 0;
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
