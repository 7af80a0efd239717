import type { Readable } from 'node:stream';
import {
  formatsOf,
  isSeriesFormat,
  labelsWith,
  mediaTypes,
  type OutputFormat,
  type OutputType,
  outputFormats,
  TomaatError,
} from '@tomaat/core';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { queryWord } from '../intake/query.ts';
import { answered } from '../problem/take-in-rest.ts';
import { damagedError } from '../store/files/damage.ts';
import type { JobRecord, OutputFile } from '../store/jobs/job-records.ts';
import type { Conversion } from '../worker/converter.ts';
import type { ServerContext } from './context.ts';
import { clientGone, contentDisposition } from './send.ts';
import { nothing, sendFile } from './send-file.ts';

/** Name of an output's file: the input's name, the output's name, the format. */
export function outputFileName(job: JobRecord, output: OutputFile, format: string = output.format): string {
  return `${job.request.stem}_${output.name}.${format}`;
}

type SendContext = Pick<ServerContext, 'blobs' | 'jobs' | 'converter' | 'services' | 'audit'>;

/**
 * Sends an output in its stored format, or converted to the requested one; always with Content-Length. A GET or HEAD in
 * the stored format may be conditional, or ask for a range. A converted output has no entity tag, because another version of
 * this program may write other bytes, and is always sent whole.
 */
export async function sendOutput(
  reply: FastifyReply,
  job: JobRecord,
  given: OutputFile,
  format: OutputFormat,
  context: SendContext,
): Promise<FastifyReply> {
  const output = storedFor(given, format);
  reply
    .header('cache-control', 'no-store')
    .header('content-disposition', contentDisposition(outputFileName(job, output, format)))
    .type(mediaTypes[format]);
  // The format may depend on Accept.
  reply.header('vary', [reply.getHeader('vary'), 'Accept'].filter(Boolean).join(', '));
  try {
    return format === output.format
      ? await sendStored(reply, job, output, context)
      : await sendConverted(reply, job, output, format, context);
  } catch (error) {
    await explainDamage(error, job, output, context);
    throw error;
  }
}

/** The output with the one of its files that is in a format, or of which that format is made. */
const storedFor = (output: OutputFile, format: OutputFormat): OutputFile =>
  format === output.format || !output.kept ? output : { ...output, ...output.kept };

async function sendStored(
  reply: FastifyReply,
  job: JobRecord,
  output: OutputFile,
  context: SendContext,
): Promise<FastifyReply> {
  const { blobs } = context;
  return sendFile(reply, {
    name: output.name,
    digest: output.digest,
    sizeBytes: output.sizeBytes,
    check: () => blobs.check(output),
    open(range) {
      const body = blobs.open(output, range);
      if (!range)
        body.once('error', (error) =>
          reply.log.error({ err: error, job: job.id, output: output.name }, error.message),
        );
      return body;
    },
    onSend: (what) => recordRead(reply, job, output, output.format, what, context),
  });
}

async function sendConverted(
  reply: FastifyReply,
  job: JobRecord,
  output: OutputFile,
  format: OutputFormat,
  context: SendContext,
): Promise<FastifyReply> {
  const converted = await convertOutput(reply, job, output, { to: format }, context);
  reply.header('accept-ranges', 'none').header('content-length', converted.sizeBytes);
  if (reply.request.method === 'HEAD') {
    converted.stream.destroy();
    return reply.send(nothing());
  }
  return reply.send(converted.stream);
}

/**
 * An output in another format, or as a viewer reads it: the bytes, to be read to the end or destroyed, and how many. Reading them
 * is recorded when the answer is sent.
 */
export async function convertOutput(
  reply: FastifyReply,
  job: JobRecord,
  output: OutputFile,
  { to, ...how }: Pick<Conversion, 'to' | 'forViewer'>,
  context: SendContext,
): Promise<{ stream: Readable; sizeBytes: number }> {
  const { blobs, converter, services } = context;
  await blobs.check(output);
  const manifest = services.apps.find((app) => app.manifest.id === job.service)?.manifest;
  const conversion = {
    path: await blobs.fetch(output),
    digest: output.digest,
    type: output.type as OutputType,
    from: output.format,
    to,
    labels: labelsWith(manifest?.labels ?? [], job.request.parameters),
    geometry: output.geometry,
    ...how,
  };
  const converted = await converter.convert(conversion, job.owner, clientGone(reply));
  if (reply.request.method !== 'HEAD') recordRead(reply, job, output, to, 'whole', context);
  return converted;
}

function recordRead(
  reply: FastifyReply,
  job: JobRecord,
  output: OutputFile,
  format: OutputFormat,
  what: 'whole' | 'part',
  { audit }: SendContext,
): void {
  void answered(reply).then((isDone) =>
    audit.record('result.read', {
      who: job.owner,
      service: job.service,
      job: job.id,
      output: output.name,
      digest: output.digest,
      format,
      outcome: isDone ? what : 'broken off',
    }),
  );
}

/** A result whose file is missing while its job exists is damaged too; a damaged one is replaced when it is computed again. */
async function explainDamage(
  error: unknown,
  job: JobRecord,
  output: OutputFile,
  { blobs, jobs }: SendContext,
): Promise<void> {
  if (!(error instanceof TomaatError)) return;
  const path = blobs.path(output.digest);
  if (error.code === 'DAMAGED') {
    await blobs.markDamaged(output.digest);
    // A conversion does not report the path.
    if (!error.cause) throw damagedError(path, 'its SHA-256 does not match');
  }
  if (error.code === 'NOT_FOUND' && (await jobs.get(job.id))) throw damagedError(path, 'it is missing');
}

/** The formats in which a stored output can be had. */
export const formatsOfStored = ({ type, format, kept }: OutputFile): OutputFormat[] =>
  formatsOf({ type: type as OutputType, format, kept });

/**
 * The format of that name, if the output is available in it; otherwise NOT_ACCEPTABLE, which lists the available ones.
 * `possible` are those of a stored output; if missing, the output is still to be computed.
 */
export function requireFormat(
  format: string,
  output: { name: string; type: string },
  possible: readonly OutputFormat[] = outputFormats[output.type as OutputType],
): OutputFormat {
  const found = possible.find((candidate) => candidate === format);
  if (found) return found;
  const all: readonly string[] = outputFormats[output.type as OutputType];
  const isLate = isSeriesFormat(format) && all.includes(format);
  throw new TomaatError(
    'NOT_ACCEPTABLE',
    isLate
      ? `${output.name} is no longer available as ${format}: such a file is made while the job reads the DICOM series. Create the job with ?format=${format}, or choose one of: ${possible.join(', ')}.`
      : `${output.name} is not available in that format. Available: ${possible.join(', ')}.`,
    { field: 'format' },
  );
}

/** The format that a request asks for: `?format=`, else `Accept`, else the stored one. */
export function requestedFormat(request: FastifyRequest, output: OutputFile, ending?: string): OutputFormat {
  const possible = formatsOfStored(output);
  const format = queryWord(request, 'format') ?? ending;
  if (format !== undefined) return requireFormat(format, output, possible);
  const accepted = acceptedTypes(request.headers.accept ?? '*/*');
  const qualityOf = (candidate: OutputFormat): number => {
    const type = mediaType(candidate);
    const ranges = [type, `${type.split('/')[0]}/*`, '*/*'];
    if (candidate === output.format) ranges.splice(1, 0, 'application/octet-stream');
    const range = ranges.find((one) => accepted.has(one));
    return range === undefined ? 0 : accepted.get(range)!;
  };
  // The stored format first, so that it wins among equally accepted ones.
  const [best] = [output.format, ...possible].sort((a, b) => qualityOf(b) - qualityOf(a));
  return best;
}

/** The media ranges of an Accept header with their quality from 0 to 1 (RFC 9110, 12.5.1); other parameters are ignored. */
function acceptedTypes(header: string): Map<string, number> {
  return new Map(
    header.split(',').map((range) => {
      const [type, ...parameters] = range.split(';').map((part) => part.trim().toLowerCase());
      const quality = parameters.find((parameter) => parameter.startsWith('q='))?.slice(2);
      const number = quality === undefined ? 1 : Number(quality);
      return [type, number >= 0 && number <= 1 ? number : 1];
    }),
  );
}

const mediaType = (format: OutputFormat) => mediaTypes[format].split(';')[0];
