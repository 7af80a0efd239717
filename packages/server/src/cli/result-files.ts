import { createHash, randomBytes } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { link, mkdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ReadableStream as NodeReadableStream } from 'node:stream/web';
import type { Client, Job, JobOutput, Service } from '@tomaat/client';
import { type OutputType, outputFormats, TomaatError } from '@tomaat/core';
import { plain } from './console.ts';
import { stemOf } from './input-files.ts';

export interface PlannedOutput {
  readonly name: string;
  readonly type: OutputType;
  /** The format that the file name given with -o asks for. */
  readonly format?: string;
}

/** Where results go: one named file, a folder, or beside each input. */
export interface ResultFiles {
  readonly file?: string;
  readonly folder?: string;
  readonly outputs: readonly PlannedOutput[];
}

interface ResultFlags {
  out?: string;
  output: readonly string[];
  all?: boolean;
  format?: string;
}

/** The outputs to fetch: the named ones, all of them, or the primary one. */
export function planOutputs(service: Service, flags: ResultFlags): PlannedOutput[] {
  const names = service.outputs.map((output) => output.name);
  for (const name of flags.output) {
    if (!names.includes(name)) throw new TomaatError('BAD_INPUT', `${service.id} has no output ${name}. Its outputs are: ${names.join(', ')}.`);
  }
  const chosen = flags.all
    ? service.outputs
    : flags.output.length > 0
      ? service.outputs.filter((output) => flags.output.includes(output.name))
      : [service.outputs.find((output) => output.primary) ?? service.outputs[0]].filter((output) => output !== undefined);
  if (flags.format !== undefined) {
    for (const output of chosen) checkFormat(output, flags.format, '--format');
  }
  return chosen.map(({ name, type }) => ({ name, type }));
}

function checkFormat(output: { name: string; type: OutputType }, format: string, from: string): void {
  const formats: readonly string[] = outputFormats[output.type] ?? [format];
  if (!formats.includes(format)) {
    throw new TomaatError(
      'NOT_ACCEPTABLE',
      `${from}: ${output.name} is a ${output.type} and cannot be written as ${format}. Choose from: ${formats.join(', ')}.`,
    );
  }
}

/** Reads -o: a folder (it exists, ends in / or many results go there) or a file, whose ending says the format. */
export async function planResultFiles(
  flags: ResultFlags,
  many: boolean,
  outputs: readonly PlannedOutput[],
): Promise<ResultFiles> {
  const { out } = flags;
  if (out === undefined) return { outputs };
  const isFolder =
    /[\\/]$/.test(out) ||
    (await stat(out).then(
      (found) => found.isDirectory(),
      () => false,
    ));
  if (isFolder) return { folder: out, outputs };
  if (many || outputs.length > 1) {
    // Several results want a folder; a name that looks like a file's would be a surprise as one.
    if (formatOf(out, outputs)) {
      throw new TomaatError('BAD_INPUT', `-o ${out} is one file, but there are several results. Give a folder.`);
    }
    return { folder: out, outputs };
  }
  const parent = dirname(out);
  const found = await stat(parent).catch(() => undefined);
  if (!found?.isDirectory()) throw new TomaatError('BAD_INPUT', `There is no folder ${parent} for ${basename(out)}. Make it first.`);
  const format = flags.format ?? formatOf(out, outputs);
  if (format === undefined) {
    const formats = outputs.flatMap((output) => [...outputFormats[output.type]]);
    throw new TomaatError(
      'BAD_INPUT',
      `-o ${out} does not say the format. End it in one of ${formats.map((name) => `.${name}`).join(', ')}, or in / for a folder.`,
    );
  }
  for (const output of outputs) checkFormat(output, format, `-o ${out}`);
  return { file: out, outputs: outputs.map((output) => ({ ...output, format })) };
}

function formatOf(path: string, outputs: readonly PlannedOutput[]): string | undefined {
  const all = new Set([...Object.values(outputFormats).flat(), ...outputs.flatMap((output) => [...outputFormats[output.type]])] as string[]);
  const name = basename(path).toLowerCase();
  // The longest wins: .nii.gz.
  return [...all].filter((format) => name.endsWith(`.${format}`)).sort((a, b) => b.length - a.length)[0];
}

/** `<input stem>_<output>.<format>` beside the input or in the folder, or the one file that was named. */
export function targetOf(results: ResultFiles, inputPath: string, output: string, format: string): string {
  return results.file ?? join(results.folder ?? dirname(inputPath), `${stemOf(inputPath)}_${output}.${format}`);
}

/** Fetches an output into its file: whole and checked, or not at all; never over an older one without `force`. */
export async function saveOutput(
  client: Client,
  job: Job,
  output: JobOutput,
  results: ResultFiles,
  inputPath: string,
  options: { format?: string; force?: boolean; signal: AbortSignal },
): Promise<{ output: string; file: string; format: string; sizeBytes: number }> {
  const format = options.format ?? output.format;
  // It becomes a part of a path.
  if (!/^[\w-]+(\.[\w-]+)*$/.test(format) || !/^[\w-]+$/.test(output.name)) {
    throw new TomaatError('UPSTREAM', `The server calls an output ${plain(output.name)}.${plain(format)}, which is no name for a file here.`);
  }
  const target = targetOf(results, inputPath, output.name, format);
  const isStored = format === output.format;
  const file = await client.output(job.id, output.name, { format: isStored ? undefined : format, signal: options.signal });
  return writeResult(file.stream, target, { force: options.force, digest: isStored ? output.digest : undefined, signal: options.signal }).then(
    (sizeBytes) => ({ output: output.name, file: target, format, sizeBytes }),
  );
}

/** Writes a stream to a file by way of a temporary one beside it; gives its size in bytes. */
export async function writeResult(
  stream: ReadableStream<Uint8Array>,
  target: string,
  options: { force?: boolean; digest?: string; signal: AbortSignal },
): Promise<number> {
  await mkdir(dirname(target), { recursive: true });
  const partial = `${target}.${randomBytes(4).toString('hex')}.part`;
  const hash = createHash('sha256');
  let sizeBytes = 0;
  try {
    await pipeline(
      Readable.fromWeb(stream as NodeReadableStream<Uint8Array>),
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
      throw new TomaatError('UPSTREAM', `${basename(target)} was damaged on its way (its SHA-256 is another). Fetch it again.`);
    }
    if (options.force) await rename(partial, target);
    else await place(partial, target);
    return sizeBytes;
  } finally {
    await rm(partial, { force: true });
  }
}

/** Gives the file its name unless that is taken. */
async function place(partial: string, target: string): Promise<void> {
  const taken = () => new TomaatError('CONFLICT', `${target} exists already. Use --force to overwrite it, or -o to write elsewhere.`);
  try {
    await link(partial, target);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') throw taken();
    // A file system without hard links.
    if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'ENOSYS' && code !== 'EMLINK') throw error;
    if (await stat(target).catch(() => undefined)) throw taken();
    await rename(partial, target);
  }
}
