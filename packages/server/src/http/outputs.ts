import type { Readable } from 'node:stream';
import {
  labelsWith,
  mediaTypes,
  type OutputFormat,
  type OutputType,
  outputFormats,
  TomaatError,
} from '@tomaat/core';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { JobRecord, OutputFile } from '../store/jobs.ts';
import type { ServerContext } from './context.ts';
import { queryWord } from './query.ts';
import { answered, clientGone, contentDisposition } from './send.ts';

/** Name of an output's file: what came in, what came out, in which format. */
export function outputFileName(job: JobRecord, output: OutputFile, format: string = output.format): string {
  return `${job.request.stem}_${output.name}.${format}`;
}

/** Sends an output in its stored format, or converted to the one that is asked for; Content-Length always. */
export async function sendOutput(
  reply: FastifyReply,
  job: JobRecord,
  output: OutputFile,
  format: OutputFormat,
  { blobs, converter, services, audit }: Pick<ServerContext, 'blobs' | 'converter' | 'services' | 'audit'>,
): Promise<FastifyReply> {
  let body: Readable;
  let sizeBytes: number;
  if (format === output.format) {
    sizeBytes = output.sizeBytes;
    body = blobs.open(output.digest);
  } else {
    const manifest = services.apps.find((app) => app.manifest.id === job.service)?.manifest;
    const conversion = {
      path: blobs.path(output.digest),
      type: output.type as OutputType,
      from: output.format,
      to: format,
      labels: labelsWith(manifest?.labels ?? [], job.request.parameters),
    };
    const converted = await converter.convert(conversion, clientGone(reply));
    sizeBytes = converted.sizeBytes;
    body = converted.stream;
  }
  void answered(reply).then((whole) =>
    audit.record('result.read', {
      who: job.owner,
      service: job.service,
      job: job.id,
      output: output.name,
      digest: output.digest,
      format,
      outcome: whole ? 'whole' : 'broken off',
    }),
  );
  return reply
    .header('content-length', sizeBytes)
    .header('content-disposition', contentDisposition(outputFileName(job, output, format)))
    .type(mediaTypes[format])
    .send(body);
}

/** The format of that name, if an output can be had in it; else NOT_ACCEPTABLE names those that it can be had in. */
export function requireFormat(format: string, output: { name: string; type: string }): OutputFormat {
  const possible: readonly OutputFormat[] = outputFormats[output.type as OutputType];
  const found = possible.find((candidate) => candidate === format);
  if (found) return found;
  throw new TomaatError(
    'NOT_ACCEPTABLE',
    `${output.name} cannot be given in that format; it can be had as: ${possible.join(', ')}.`,
    { field: 'format' },
  );
}

/** The format that a request wants of an output: `?format=`, else `Accept`, else the stored one. */
export function requestedFormat(request: FastifyRequest, output: OutputFile): OutputFormat {
  const possible: readonly OutputFormat[] = outputFormats[output.type as OutputType];
  const format = queryWord(request, 'format');
  if (format !== undefined) return requireFormat(format, output);
  const accepted = (request.headers.accept ?? '*/*')
    .split(',')
    .map((type) => type.split(';')[0].trim().toLowerCase());
  if (
    accepted.some(
      (type) => type === '*/*' || type === 'application/octet-stream' || type === mediaType(output.format),
    )
  ) {
    return output.format;
  }
  return possible.find((candidate) => accepted.includes(mediaType(candidate))) ?? output.format;
}

const mediaType = (format: OutputFormat) => mediaTypes[format].split(';')[0];
