import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { type EncodedOutput, type OutputFormat, stageOfInput } from '@tomaat/core';
import { readVolumeFiles } from '../worker/read-volume-files.ts';
import { runApp as runInChild } from '../worker/run-app.ts';
import type { RunApp } from './run.ts';

/** Runs an app for `tomaat run`: in a separate child, which passes on the outputs in the manifest's order. */
export const runLocally: RunApp = async (app, request) => {
  const files: Record<string, { path: string; sizeBytes: number }[]> = {};
  for (const [name, paths] of Object.entries(request.files)) {
    files[name] = await Promise.all(
      paths.map(async (path) => ({ path, sizeBytes: (await stat(path)).size })),
    );
  }
  await using result = await runInChild({
    app,
    files,
    parameters: request.parameters,
    frame: request.frame,
    series: request.series,
    formats: request.formats as Record<string, OutputFormat>,
    keepsValues: request.keepsValues,
    explains: true,
    traces: request.scan === undefined ? undefined : [stageOfInput(request.scan)],
    modelServers: request.modelServers,
    device: request.device,
    signal: request.signal,
    onProgress: request.onProgress,
  });
  const read = <F extends { path: string }>({ path, ...file }: F) => ({
    ...file,
    bytes: createReadStream(path),
  });
  for (const { kept, ...output } of result.outputs)
    await request.write({ ...read(output), ...(kept && { kept: read(kept) }) } as EncodedOutput);
  if (result.empty) request.onEmpty(result.empty);
  const primary = result.outputs.find((output) => output.primary && output.type === 'LabelVolume');
  if (!primary || !request.onLabels) return;
  const [scan] = result.traces;
  await request.onLabels(
    await readVolumeFiles([(primary.kept ?? primary).path]),
    scan && (await readVolumeFiles([scan.path])),
  );
};
