import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { base64Length, describeError, encodeBase64, type Input, TomaatError } from '@tomaat/core';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { App } from '../apps.ts';
import { readText } from '../intake/body-part.ts';
import { countBytes } from '../intake/byte-counter.ts';
import { readMultipart } from '../intake/multipart.ts';
import { readUrlencoded } from '../intake/urlencoded.ts';
import { toTomaatError } from '../problem/problem.ts';
import { answered, takeInRest } from '../problem/take-in-rest.ts';
import type { JobRecord, OutputFile } from '../store/job-records.ts';
import type { ServerContext } from './context.ts';
import { isOwn } from './jobs.ts';
import { receivePrediction } from './receive-prediction.ts';
import { clientGone } from './send.ts';

/**
 * TOMAAT v1, as the clients of 2018 speak it: every answer is 200, JSON with a Content-Length; errors are
 * elements; a long prediction is answered by a DelayedResponse that is polled for.
 */

/** An element of an answer; a `blob` stands for its content in base64, streamed while it is sent. */
type Element = Record<string, unknown> & { blob?: OutputFile };

export function registerV1(app: FastifyInstance, context: ServerContext): void {
  const { services } = context;
  /** Whatever goes wrong on the way, fastify's own refusals too, is answered as the protocol has it. */
  const errorHandler = (error: unknown, request: FastifyRequest, reply: FastifyReply) => {
    const known = toTomaatError(error);
    if (describeError(known.code).fault === 'server')
      request.log.error({ err: known.cause ?? known, requestId: request.id }, 'v1 request failed');
    takeInRest(request, reply);
    return sendElements(cors(reply).code(200), [errorElement(known)], context);
  };
  for (const prefix of ['', '/services/:id']) {
    const serviceOf = (request: FastifyRequest): App => {
      const { id } = request.params as { id?: string };
      return id === undefined ? services.v1Default : services.find(id);
    };
    app.get(`${prefix}/interface`, async (request, reply) => {
      cors(reply);
      return sendElements(reply, interfaceOf(serviceOf(request)), context);
    });
    for (const path of ['interface', 'predict', 'responses']) {
      app.options(`${prefix}/${path}`, async (_request, reply) => cors(reply).code(204).send());
    }
    app.post(`${prefix}/predict`, { errorHandler }, async (request, reply) => {
      const elements = await predict(request, reply, serviceOf(request), context);
      return sendElements(cors(reply), elements, context);
    });
    app.post(`${prefix}/responses`, { errorHandler }, async (request, reply) => {
      return sendElements(cors(reply), await responses(request, reply, context), context);
    });
  }
}

function cors(reply: FastifyReply): FastifyReply {
  return reply
    .header('access-control-allow-origin', '*')
    .header('access-control-allow-methods', 'GET, POST, OPTIONS')
    .header('access-control-allow-headers', '*')
    .header('access-control-max-age', '2520');
}

function errorElement(error: TomaatError): Element {
  return { type: 'PlainText', content: error.message, label: 'Error!' };
}

/** The input elements of `GET /interface`, with ours added where old clients ignore them. */
export function interfaceOf(app: App): Element[] {
  return Object.entries(app.manifest.inputs).map(([name, input]) => {
    const label = input.label ?? name;
    const element = { type: input.type, destination: name, label, description: input.description };
    return { ...element, ...details(input, label) };
  });
}

function details(input: Input, label: string): Element {
  if (input.type === 'slider')
    return { minimum: input.minimum, maximum: input.maximum, default: input.default ?? input.minimum };
  if (input.type === 'checkbox') return { text: label, default: input.default };
  if (input.type === 'radiobutton')
    return { text: label, options: input.options, default: input.default ?? input.options[0] };
  if (input.type === 'volume') return { modality: input.modality };
  return {};
}

async function predict(
  request: FastifyRequest,
  reply: FastifyReply,
  app: App,
  context: ServerContext,
): Promise<Element[]> {
  const { jobs } = context;
  const gone = clientGone(reply);
  let id: string;
  {
    await using received = await receivePrediction(request, app, 'v1', context);
    gone.throwIfAborted();
    const { inputs, request: jobRequest } = received;
    ({ id } = await jobs.create({
      service: app.manifest.id,
      owner: context.ownerOf(request),
      request: jobRequest,
      inputs,
      limits: request.principal?.limits,
    }));
  }
  // Whoever has not had an answer whole, be it a DelayedResponse, does not know what to ask for.
  void answered(reply)
    .then(async (whole) => {
      if (whole) return;
      await jobs.cancel(id, 'The client went away.');
      await jobs.remove(id);
    })
    .catch((error: unknown) => request.log.error({ err: error, job: id }, 'job could not be removed'));
  const patience = new AbortController();
  const hasty = AbortSignal.any([patience.signal, gone, context.admission.ending]);
  const job = await Promise.race([
    jobs.settled(id, patience.signal).catch((error: unknown) => {
      if (!patience.signal.aborted) throw error;
      return undefined;
    }),
    delay(context.v1DelayMs, undefined, { signal: hasty, ref: false }).catch(() => undefined),
  ]);
  patience.abort();
  if (!job) return [delayed(id)];
  return deliver(reply, job, context, []);
}

const delayed = (id: string): Element => ({ type: 'DelayedResponse', request_id: id });

async function responses(
  request: FastifyRequest,
  reply: FastifyReply,
  context: ServerContext,
): Promise<Element[]> {
  const id = await requestId(request, context);
  const job = id === undefined ? undefined : await context.jobs.get(id);
  if (!job || !isOwn(request, job, context)) {
    return [
      {
        type: 'PlainText',
        content:
          'The response of this request cannot be retrieved: it is unknown, was delivered already, or has expired. Send the prediction again.',
        label: 'Error!',
      },
    ];
  }
  if (job.state === 'queued' || job.state === 'running') return [delayed(job.id)];
  const arrived = {
    type: 'PlainText',
    content: `The result of the request ${job.id} has arrived.`,
    label: 'Response',
  };
  return deliver(reply, job, context, [arrived]);
}

async function requestId(request: FastifyRequest, context: ServerContext): Promise<string | undefined> {
  const type = request.headers['content-type'] ?? '';
  const body = countBytes(request.raw, { maxUploadBytes: Math.min(65_536, context.maxUploadBytes) });
  const parts = /^multipart\/form-data\b/i.test(type) ? readMultipart(body, type) : readUrlencoded(body);
  let id: string | undefined;
  for await (const part of parts) if (part.name === 'request_id') id = await readText(part);
  return id;
}

/** The elements of a settled job, which is deleted once they were written whole: a result is delivered once. */
async function deliver(
  reply: FastifyReply,
  job: JobRecord,
  context: ServerContext,
  first: Element[],
): Promise<Element[]> {
  const shown: OutputFile[] = [];
  void answered(reply)
    .then(async (whole) => {
      for (const { name, digest, format } of shown) {
        context.audit.record('result.read', {
          who: job.owner,
          service: job.service,
          job: job.id,
          output: name,
          digest,
          format,
          outcome: whole ? 'whole' : 'broken off',
        });
      }
      if (whole) await context.jobs.remove(job.id);
    })
    .catch((error: unknown) => reply.log.error({ err: error, job: job.id }, 'job could not be removed'));
  if (job.error) return [...first, errorElement(TomaatError.from(job.error))];
  const elements: Element[] = [];
  for (const output of job.outputs.filter(isElement)) {
    const element = { type: output.type, label: output.label };
    if (output.type === 'PlainText' || output.type === 'Fiducials') {
      const chunks: Buffer[] = [];
      for await (const chunk of context.blobs.open(output)) chunks.push(chunk as Buffer);
      elements.push({ ...element, content: Buffer.concat(chunks).toString('utf8') });
    } else {
      await context.blobs.check(output);
      elements.push({ ...element, blob: output });
    }
  }
  shown.push(...job.outputs.filter(isElement));
  return [...first, ...elements];
}

/** v1 has no element for measurements. */
const isElement = ({ type }: OutputFile): boolean => type !== 'Measurements';

/** Sends elements as JSON; blobs go out as base64 while they are read, under a length computed before. */
function sendElements(
  reply: FastifyReply,
  elements: readonly Element[],
  context: ServerContext,
): FastifyReply {
  const pieces: (Buffer | OutputFile)[] = [];
  let length = 0;
  const text = (s: string) => {
    const bytes = Buffer.from(s);
    pieces.push(bytes);
    length += bytes.length;
  };
  elements.forEach(({ blob, ...element }, index) => {
    text(
      `${index === 0 ? '[' : ','}${blob ? JSON.stringify(element).slice(0, -1) : JSON.stringify(element)}`,
    );
    if (!blob) return;
    text(',"content":"');
    pieces.push(blob);
    // In JSON each newline of the base64 is written as two characters.
    const encoded = base64Length(blob.sizeBytes);
    length += encoded + newlinesIn(blob.sizeBytes);
    text('"}');
  });
  text(elements.length === 0 ? '[]' : ']');
  reply.header('content-length', length).type('application/json; charset=utf-8');
  if (pieces.every((piece) => Buffer.isBuffer(piece))) return reply.send(Buffer.concat(pieces));
  return reply.send(Readable.from(write(pieces, context), { objectMode: false, highWaterMark: 1 << 20 }));
}

const newlinesIn = (bytes: number) => Math.ceil((4 * Math.ceil(bytes / 3)) / 76);

async function* write(
  pieces: readonly (Buffer | OutputFile)[],
  { blobs }: ServerContext,
): AsyncGenerator<Buffer> {
  for (const piece of pieces) {
    if (Buffer.isBuffer(piece)) {
      yield piece;
      continue;
    }
    for await (const lines of encodeBase64(blobs.open(piece))) {
      yield Buffer.from(
        Buffer.from(lines.buffer, lines.byteOffset, lines.length).toString('latin1').replaceAll('\n', '\\n'),
        'latin1',
      );
    }
  }
}
