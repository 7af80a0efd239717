import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { link, mkdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ReadableStream as NodeReadableStream } from 'node:stream/web';
import { extensionOf, isSeriesFormat, type OutputType, outputFormats, TomaatError } from '@tomaat/core';
import { partOf } from '../store/files/whole-file.ts';
import { plain } from './console.ts';
import { stemOf } from './input-files.ts';
import type { Elements } from './plan-inputs.ts';

export interface ResultFlags {
  /** -o: a file or a folder. */
  out?: string;
  output: readonly string[];
  all?: boolean;
  format?: string;
  force?: boolean;
}

export interface PlannedOutput {
  readonly name: string;
  readonly type: OutputType;
  /** The requested format, from --format or the file name given with -o. */
  readonly format?: string;
}

/** The requested outputs, and where they go: one named file, a folder, or next to each input. */
export interface ResultPlan {
  readonly file?: string;
  readonly folder?: string;
  readonly outputs: readonly PlannedOutput[];
}

export interface ResultFile {
  output: string;
  file: string;
  format: string;
  sizeBytes: number;
}

/**
 * Reads -o, --output, --all and --format against the service's outputs. -o is a folder if it is one, ends in / or receives
 * several results; otherwise a file, whose extension states the format.
 */
export async function planResults(service: Elements, flags: ResultFlags, many: boolean): Promise<ResultPlan> {
  const outputs = chooseOutputs(service, flags).map(({ name, type }) => ({
    name,
    type,
    format: flags.format,
  }));
  if (flags.format !== undefined)
    for (const output of outputs) checkFormat(output, flags.format, `--format ${flags.format}`);
  const { out } = flags;
  if (out === undefined) return { outputs };
  const found = await stat(out).catch(() => undefined);
  if (found?.isDirectory() || /[\\/]$/.test(out)) return { folder: out, outputs };
  const format = formatOf(out);
  if (many || outputs.length !== 1) {
    // A name that looks like a file name would be surprising as a folder.
    if (format !== undefined || found) {
      throw new TomaatError(
        'BAD_INPUT',
        `-o ${out} is one file, but there are several results. Give a folder.`,
      );
    }
    return { folder: out, outputs };
  }
  const [output] = outputs;
  const parent = await stat(dirname(out)).catch(() => undefined);
  if (!parent?.isDirectory())
    throw new TomaatError(
      'BAD_INPUT',
      `There is no folder ${dirname(out)} for ${basename(out)}. Create it first.`,
    );
  if (format === undefined && flags.format === undefined) {
    const endings = outputFormats[output.type].map((name) => `.${name}`).join(', ');
    throw new TomaatError(
      'BAD_INPUT',
      `-o ${out} has no known file extension. Use one of ${endings}, or end it in / for a folder.`,
    );
  }
  if (flags.format === undefined) checkFormat(output, format!, `-o ${out}`);
  return { file: out, outputs: [{ ...output, format: flags.format ?? format }] };
}

function chooseOutputs(service: Elements, flags: ResultFlags): Elements['outputs'] {
  const names = service.outputs.map((output) => output.name);
  for (const name of flags.output) {
    if (!names.includes(name)) {
      throw new TomaatError(
        'BAD_INPUT',
        `${service.id} has no output ${name}. Available outputs: ${names.join(', ')}.`,
      );
    }
  }
  if (flags.all) return service.outputs;
  if (flags.output.length > 0) return service.outputs.filter((output) => flags.output.includes(output.name));
  const [primary] = service.outputs.filter((output) => output.primary);
  // A DICOM object of another output, such as a report of measurements, is not a form of the label map.
  const format = flags.format ?? (flags.out === undefined ? undefined : formatOf(flags.out));
  const can = ({ type }: { type: OutputType }) =>
    format === undefined || !isSeriesFormat(format) || formatsOf(type, format).includes(format);
  return [(!can(primary) && service.outputs.find(can)) || primary];
}

function checkFormat(output: { name: string; type: OutputType }, format: string, from: string): void {
  const formats = formatsOf(output.type, format);
  if (formats.includes(format)) return;
  throw new TomaatError(
    'NOT_ACCEPTABLE',
    `${from}: the output ${output.name} (${output.type}) cannot be written as ${format}. Available: ${formats.join(', ')}.`,
  );
}

/** The formats of a type; a newer server may have types that are unknown here, which have any format. */
const formatsOf = (type: OutputType, format: string): readonly string[] => outputFormats[type] ?? [format];

/** The format that a file name ends in; the longest wins (.nii.gz). */
function formatOf(path: string): string | undefined {
  const all: readonly string[] = [...new Set(Object.values(outputFormats).flat())];
  const name = basename(path).toLowerCase();
  return all.filter((format) => name.endsWith(`.${format}`)).sort((a, b) => b.length - a.length)[0];
}

/** `<input stem>_<output>.<format>` next to the input or in the folder, or the one named file. */
function targetOf(plan: ResultPlan, inputPath: string, output: string, format: string): string {
  return plan.file ?? join(plan.folder ?? dirname(inputPath), `${stemOf(inputPath)}_${output}.${format}`);
}

const taken = (target: string) =>
  new TomaatError(
    'CONFLICT',
    `${target} already exists. Use --force to overwrite it, or -o to write elsewhere.`,
  );

/** Rejects before the upload what could not be written after it. */
export async function checkTargets(
  plan: ResultPlan,
  inputPath: string,
  options: { force?: boolean; isDicom?: boolean },
): Promise<void> {
  if (options.force) return;
  for (const output of plan.outputs) {
    // Without a requested format, a label map is written in the format of its input.
    const formats: readonly string[] = outputFormats[output.type] ?? [];
    const own = options.isDicom ? 'seg.dcm' : extensionOf(basename(inputPath));
    const likely = output.type === 'LabelVolume' ? own : undefined;
    const target = targetOf(plan, inputPath, output.name, output.format ?? likely ?? formats[0] ?? 'bin');
    if (await stat(target).catch(() => undefined)) throw taken(target);
  }
}

/** Writes an output to its file: complete and verified, or not at all; overwrites an existing file only with `force`. */
export async function saveResult(
  stream: ReadableStream<Uint8Array> | AsyncIterable<Uint8Array>,
  plan: ResultPlan,
  inputPath: string,
  output: string,
  format: string,
  options: { force?: boolean; digest?: string; signal?: AbortSignal },
): Promise<ResultFile> {
  // Both become a part of a path.
  if (!/^[\w-]+(\.[\w-]+)*$/.test(format) || !/^[\w-]+$/.test(output)) {
    throw new TomaatError(
      'UPSTREAM',
      `The server calls an output ${plain(output)}.${plain(format)}, which is not a valid file name here.`,
    );
  }
  const file = targetOf(plan, inputPath, output, format);
  try {
    return { output, file, format, sizeBytes: await writeFile(stream, file, options) };
  } catch (error) {
    throw writeFault(error, file);
  }
}

/** A system error of a failed write, with the name of the target file: the error itself names none, or a temporary one. */
export function writeFault(error: unknown, file: string): unknown {
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (code === undefined || syscall === undefined) return error;
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG') {
    const why = {
      ENOSPC: 'the disk of this machine is full',
      EDQUOT: 'your quota on this disk is used up',
      EFBIG: 'the file would be too large for its file system',
    }[code];
    return new TomaatError(
      'DISK_FULL',
      `${file} cannot be written: ${why}. Free some space, or choose another place with -o.`,
      { cause: error },
    );
  }
  return Object.assign(error as NodeJS.ErrnoException, { path: file });
}

/** Writes a stream to a file via a temporary one beside it; returns its size in bytes. */
async function writeFile(
  stream: ReadableStream<Uint8Array> | AsyncIterable<Uint8Array>,
  target: string,
  options: { force?: boolean; digest?: string; signal?: AbortSignal },
): Promise<number> {
  await mkdir(dirname(target), { recursive: true });
  const partial = partOf(target);
  const hash = createHash('sha256');
  let sizeBytes = 0;
  try {
    await pipeline(
      stream instanceof ReadableStream
        ? Readable.fromWeb(stream as NodeReadableStream<Uint8Array>)
        : Readable.from(stream),
      async function* (chunks: AsyncIterable<Uint8Array>) {
        for await (const chunk of chunks) {
          hash.update(chunk);
          sizeBytes += chunk.length;
          yield chunk;
        }
      },
      createWriteStream(partial, { flags: 'wx' }),
      { signal: options.signal },
    );
    const digest = `sha256:${hash.digest('hex')}`;
    if (options.digest?.startsWith('sha256:') && options.digest !== digest) {
      throw new TomaatError(
        'UPSTREAM',
        `${basename(target)} was damaged in transit (its SHA-256 does not match). Download it again.`,
      );
    }
    if (options.force) await rename(partial, target);
    else await place(partial, target);
    return sizeBytes;
  } finally {
    await rm(partial, { force: true });
  }
}

/** Gives the file its name unless the name is taken. */
async function place(partial: string, target: string): Promise<void> {
  try {
    await link(partial, target);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') throw taken(target);
    // A file system without hard links.
    if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'ENOSYS' && code !== 'EMLINK') throw error;
    if (await stat(target).catch(() => undefined)) throw taken(target);
    await rename(partial, target);
  }
}
