import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import {
  type FileSource,
  interfaceV1,
  predictV1 as sendV1,
  startValueV1,
  type V1Input,
  type V1Output,
} from '@tomaat/client';
import {
  base64Length,
  collectBytes,
  decodeBase64Text,
  defaultValue,
  encodeBase64,
  extensionOf,
  type FileGeometry,
  isSeriesFormat,
  type OutputType,
  outputSchemas,
  readVolume,
  type SourceFile,
  sourceFromBytes,
  TomaatError,
  type Volume,
  writeVolume,
} from '@tomaat/core';
import { nodePlatform } from '../node-platform.ts';
import { anonymousInputs, removedLine } from './anonymous-input.ts';
import { connectTo, type Told } from './connect.ts';
import { formatBytes, type Progress, plain, reportsOf } from './console.ts';
import { volumeFiles } from './input-files.ts';
import type { Outcome, PredictFlags } from './outcome.ts';
import { type Elements, planInputs } from './plan-inputs.ts';
import { checkTargets, planResults, saveResult } from './result-files.ts';

/**
 * `tomaat predict` with a server that speaks only TOMAAT v1: the volume is sent as MetaImage in base64; label maps come
 * back as MetaImage and are written in the requested format.
 */
export async function predictV1(
  found: { predictionUrl: string; name: string; told?: Told },
  flags: PredictFlags,
  progress: Progress,
  signal: AbortSignal,
): Promise<Outcome> {
  const startTime = performance.now();
  const { fetch } = await connectTo(found.predictionUrl, { ...flags, apiKey: undefined, signal }, found.told);
  if (flags.receipt !== undefined) {
    throw new TomaatError('BAD_INPUT', 'A TOMAAT v1 service gives no receipt. Leave --receipt out.');
  }
  if (flags.output.length > 0) {
    throw new TomaatError(
      'BAD_INPUT',
      'A TOMAAT v1 service does not name its outputs. Leave --output out, or use --all.',
    );
  }
  const asked = await interfaceV1(found.predictionUrl, { signal, fetch });
  const service: Elements = {
    id: plain(found.name),
    inputs: asked.flatMap(inputOf),
    // The results are unknown until they arrive.
    outputs: [{ name: 'segmentation', type: 'LabelVolume', primary: true }],
  };
  const inputs = await planInputs(service, flags, reportsOf(progress, flags, signal));
  if (inputs.many) {
    throw new TomaatError(
      'BAD_INPUT',
      'A TOMAAT v1 service takes one volume at a time. Give one file, or one DICOM series.',
    );
  }
  const [{ path, resultPath, dicom }] = inputs.volumes;
  const results = await planResults(service, flags, Boolean(flags.all));
  const inDicom = results.outputs.find(({ format }) => format !== undefined && isSeriesFormat(format));
  if (inDicom) {
    throw new TomaatError(
      'NOT_ACCEPTABLE',
      `A TOMAAT v1 service gives no ${inDicom.format}. Take the result as nii.gz, nrrd or mha.`,
    );
  }
  await checkTargets(results, resultPath, { force: flags.force });

  await using opened = new AsyncDisposableStack();
  const files: Record<string, FileSource> = {};
  let geometry: FileGeometry | undefined;
  const paths = {
    ...inputs.otherFiles,
    ...(flags.volume !== undefined && inputs.mainInput !== undefined && { [inputs.mainInput]: [path] }),
  };
  for (const [name, given] of Object.entries(paths)) {
    const input = service.inputs.find((candidate) => candidate.name === name);
    progress.show('convert', `Reading ${basename(given[0])}`);
    if (input?.type === 'transform') files[name] = await transformField(given[0]);
    else {
      const series = name === inputs.mainInput ? dicom?.chosen.files : undefined;
      const field = series ? await seriesField(series, flags) : await volumeField(given[0], flags, opened);
      files[name] = field.file;
      if (name === inputs.mainInput) geometry = field.geometry;
    }
  }
  // A v1 server fills in no defaults: every field is sent.
  const fields: Record<string, string> = {};
  for (const input of service.inputs) {
    if (input.type === 'volume' || input.type === 'transform') continue;
    const value = inputs.values[input.name] ?? defaultValue(input);
    if (value === undefined) continue;
    fields[input.name] =
      typeof value === 'boolean'
        ? value
          ? 'True'
          : 'False'
        : Array.isArray(value)
          ? value.map((point) => point.join(',')).join(';')
          : String(value);
  }
  if (!flags.quiet && Object.keys(fields).length > 0) {
    progress.clear();
    console.error(plain(`Parameters: ${parameterLine(fields, inputs.values)}`));
  }
  const elements = await sendV1(found.predictionUrl, {
    fields,
    files,
    signal,
    fetch,
    onUpload: ({ sentBytes, totalBytes }) =>
      sentBytes < totalBytes
        ? progress.show('upload', `Uploading ${formatBytes(sentBytes)} of ${formatBytes(totalBytes)}`)
        : progress.show('run', 'Running (a TOMAAT v1 server does not report progress)'),
    onDelay: () => progress.show('run', 'Running (a TOMAAT v1 server does not report progress)'),
  });

  const reports = elements
    .filter((element) => element.type === 'PlainText')
    .map((element) => element.content ?? '');
  const usable = elements.filter(
    (element) =>
      element.content !== undefined && element.type in outputSchemas && element.type !== 'PlainText',
  );
  const chosen = flags.all ? usable : usable.slice(0, 1);
  if (chosen.length === 0 && reports.length === 0) {
    throw new TomaatError(
      'APP_OUTPUT',
      `${plain(found.name)} sent no result. Ask its operator to check the service.`,
    );
  }
  const names = new Set<string>();
  const saved: Outcome['files'] = [];
  for (const element of chosen) {
    const type = element.type as OutputType;
    const base = type === 'LabelVolume' ? 'segmentation' : type.toLowerCase();
    let name = base;
    for (let count = 2; names.has(name); count++) name = `${base}-${count}`;
    names.add(name);
    const { format, bytes } = await contentOf(
      element,
      type,
      results.outputs[0].format ?? extensionOf(path) ?? 'nii.gz',
      geometry,
    );
    saved.push(await saveResult(bytes, results, resultPath, name, format, { force: flags.force, signal }));
  }
  return {
    input: path,
    service: found.predictionUrl,
    name: found.name,
    seconds: Math.round(performance.now() - startTime) / 1000,
    files: saved,
    parameters: fields,
    ...(reports.length > 0 && { report: reports.join('\n') }),
  };
}

/** A v1 element as one of our inputs; unknown kinds are left out, as v1's own clients do. */
function inputOf(element: V1Input): Elements['inputs'] {
  const name = element.destination;
  const label = element.text ?? element.label ?? name;
  const { minimum = 0, maximum = 1, options = [] } = element;
  if (element.type === 'volume') return [{ name, label, type: 'volume', optional: false, frames: 'one' }];
  const start = startValueV1(element);
  if (element.type === 'slider')
    return [{ name, label, type: 'slider', minimum, maximum, default: start as number }];
  if (element.type === 'checkbox') return [{ name, label, type: 'checkbox', default: start as boolean }];
  if (element.type === 'radiobutton')
    return [{ name, label, type: 'radiobutton', options, default: start as string }];
  if (element.type === 'fiducials')
    return [{ name, label, type: 'fiducials', optional: false, minimumPoints: 1, maximumPoints: 10_000 }];
  if (element.type === 'transform') return [{ name, label, type: 'transform', optional: false }];
  return [];
}

/** What is sent, with the defaults that the caller did not choose marked: a v1 service itself reports nothing about it. */
function parameterLine(
  fields: Readonly<Record<string, string>>,
  given: Readonly<Record<string, unknown>>,
): string {
  const words = Object.entries(fields).map(
    ([name, value]) => `${name}=${value}${name in given ? '' : ' (default)'}`,
  );
  return words.join(', ');
}

/**
 * The volume as base64 of a MetaImage file; a .mha is sent unchanged, except for identifying text. With the
 * grid from the header, for the result.
 */
async function volumeField(
  path: string,
  flags: PredictFlags,
  opened: AsyncDisposableStack,
): Promise<{ file: FileSource; geometry?: FileGeometry }> {
  if (/\.mha$/i.test(path)) {
    let [file] = await volumeFiles(path);
    if (!flags.keepText) {
      const anonymous = opened.use(await anonymousInputs({ volume: [file] }));
      if (anonymous.removed > 0 && !flags.quiet) console.error(removedLine(anonymous.removed));
      file = anonymous.volumes.volume[0] as FileSource;
    }
    return { file: base64Field(file.sizeBytes, () => file.stream() as AsyncIterable<Uint8Array>) };
  }
  const parts = await volumeFiles(path);
  const folder = path.slice(0, path.length - basename(path).length);
  const { volume, header } = await readVolume(
    parts.map((part) => ({
      name: part.name,
      sizeBytes: part.sizeBytes,
      open: (start = 0) => createReadStream(folder + part.name, { start, highWaterMark: 256 * 1024 }),
    })),
    nodePlatform,
    { frame: flags.frame },
  );
  return { file: await metaImageField(volume), geometry: header.geometry };
}

/** The same of a DICOM series: nothing of its headers is in it. */
async function seriesField(files: readonly SourceFile[], { frame }: PredictFlags) {
  const { volume } = await readVolume(files, nodePlatform, { frame });
  return { file: await metaImageField(volume), geometry: undefined };
}

async function metaImageField(volume: Volume): Promise<FileSource> {
  const bytes = await collectBytes(writeVolume(volume, 'mha', nodePlatform));
  return base64Field(bytes.length, async function* () {
    yield bytes;
  });
}

/** A first line with the kind of file, then base64. */
async function transformField(path: string): Promise<FileSource> {
  const kind = /\.(nii\.gz|h5|mat)$/i.exec(path)?.[1].toLowerCase();
  if (!kind)
    throw new TomaatError(
      'BAD_INPUT',
      `${path} is not a transform for a TOMAAT v1 service. Give a .nii.gz, .h5 or .mat file.`,
    );
  const { size } = await stat(path);
  const field = base64Field(size, () => createReadStream(path));
  const head = new TextEncoder().encode(`${kind}\n`);
  return {
    ...field,
    sizeBytes: field.sizeBytes + head.length,
    async *stream() {
      yield head;
      yield* field.stream() as AsyncIterable<Uint8Array>;
    },
  };
}

function base64Field(sizeBytes: number, open: () => AsyncIterable<Uint8Array>): FileSource {
  return { name: 'volume', sizeBytes: base64Length(sizeBytes), stream: () => encodeBase64(open()) };
}

/** The bytes of an element, a label map in the requested format. */
async function contentOf(
  element: V1Output,
  type: OutputType,
  wanted: string,
  geometry: FileGeometry | undefined,
): Promise<{ format: string; bytes: AsyncIterable<Uint8Array> }> {
  const content = element.content ?? '';
  const one = async function* (bytes: Uint8Array) {
    yield bytes;
  };
  if (type === 'Fiducials') return { format: 'txt', bytes: one(new TextEncoder().encode(content)) };
  const bytes = decodeBase64Text(content);
  if (type !== 'LabelVolume') {
    const formats: Partial<Record<OutputType, string>> = {
      VTKMesh: 'vtk',
      TransformGrid: 'nii.gz',
      TransformBSpline: 'h5',
      TransformLinear: 'mat',
    };
    return { format: formats[type] ?? 'txt', bytes: one(bytes) };
  }
  const format = extensionOf(`x.${wanted}`);
  if (format === undefined || format === 'mha') return { format: 'mha', bytes: one(bytes) };
  const { volume } = await readVolume([sourceFromBytes('label.mha', bytes)], nodePlatform);
  return { format, bytes: writeVolume(volume, format, nodePlatform, { geometry, intent: 'label' }) };
}
