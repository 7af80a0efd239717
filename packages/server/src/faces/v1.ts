import { isSettled } from '@tomaat/client';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { App } from '../apps.ts';
import type { ServerContext } from '../http/context.ts';
import { isOwn } from '../http/jobs.ts';
import { multipart, type RequestForm, urlencoded } from '../http/request-form.ts';
import { readText } from '../intake/body-part.ts';
import { countBytes } from '../intake/byte-counter.ts';
import { readMultipart } from '../intake/multipart.ts';
import { readUrlencoded } from '../intake/urlencoded.ts';
import { answered } from '../problem/take-in-rest.ts';
import type { JobRecord, OutputFile } from '../store/jobs/job-records.ts';
import type { Face } from './face.ts';
import { afterAnswer, predict, problemHandler } from './predict.ts';
import {
  delayed,
  type Element,
  errorElement,
  interfaceOf,
  resultElements,
  sendElements,
  shownOutputs,
} from './v1-elements.ts';
import { decodeV1Transform } from './v1-transform.ts';

/** The formats that the protocol prescribes. */
const formats = {
  LabelVolume: 'mha',
  VTKMesh: 'vtk',
  Fiducials: 'txt',
  PlainText: 'txt',
  Measurements: 'json',
  TransformGrid: 'nii.gz',
  TransformBSpline: 'h5',
  TransformLinear: 'mat',
} as const;

/** Files are in base64, or raw if they begin like one. */
const form: RequestForm = {
  bodies: [
    // base64 takes 78 characters for 57 bytes with its newlines, and percent-encoding may triple that.
    {
      ...multipart,
      encoding: 'base64',
      growth: 1.4,
      read: (body, contentType) => readMultipart(body, contentType),
    },
    { ...urlencoded, encoding: 'base64-form', growth: 4.2, read: (body) => readUrlencoded(body) },
  ],
  advice: 'Send multipart/form-data with a part for each input',
  takesUploads: false,
  takesOptions: false,
  ignoresUnknown: true,
  decodeFile: async (part, input) => (input.type === 'transform' ? decodeV1Transform(part) : undefined),
  formats: ({ manifest }) =>
    Object.fromEntries(Object.entries(manifest.outputs).map(([name, { type }]) => [name, formats[type]])),
};

/**
 * TOMAAT v1 as the clients of 2018 use it: every answer is 200, JSON with a Content-Length; errors are
 * elements; a long prediction is answered by a DelayedResponse that is polled for.
 */
export const v1 = {
  name: 'v1',
  form,

  register(app, context) {
    const errorHandler = problemHandler(v1, context);
    for (const prefix of ['', '/services/:id']) {
      const serviceOf = (request: FastifyRequest): App => {
        const { id } = request.params as { id?: string };
        return id === undefined ? context.services.v1Default : context.services.find(id);
      };
      for (const path of ['interface', 'predict', 'responses']) {
        app.options(`${prefix}/${path}`, async (_request, reply) => cors(reply).code(204).send());
      }
      app.get(`${prefix}/interface`, async (request, reply) => {
        cors(reply);
        return sendElements(reply, interfaceOf(serviceOf(request)), context.blobs);
      });
      app.post(`${prefix}/predict`, { errorHandler }, async (request, reply) =>
        predict(request, reply, serviceOf(request), v1, context),
      );
      app.post(`${prefix}/responses`, { errorHandler }, (request, reply) =>
        sendResponse(request, reply, context),
      );
    }
  },

  later: {
    afterMs: (context) => context.v1DelayMs,
    send: (reply, id, { blobs }) => sendElements(cors(reply), [delayed(id)], blobs),
  },
  sendResult: (reply, job, context) => deliver(reply, job, context, []),
  sendProblem: (reply, error, { blobs }) => sendElements(cors(reply).code(200), [errorElement(error)], blobs),
} satisfies Face;

function cors(reply: FastifyReply): FastifyReply {
  return reply
    .header('access-control-allow-origin', '*')
    .header('access-control-allow-methods', 'GET, POST, OPTIONS')
    .header('access-control-allow-headers', '*')
    .header('access-control-max-age', '2520');
}

/** Answers requests for the result of a DelayedResponse. A result is delivered once: then its job is deleted. */
async function sendResponse(
  request: FastifyRequest,
  reply: FastifyReply,
  context: ServerContext,
): Promise<FastifyReply> {
  const { blobs, jobs } = context;
  const send = (...elements: Element[]) => sendElements(cors(reply), elements, blobs);
  const id = await requestId(request, context);
  const job = id === undefined ? undefined : await jobs.get(id);
  if (!job || !isOwn(request, job, context)) {
    return send({
      type: 'PlainText',
      content:
        'The response of this request cannot be retrieved: it is unknown, was already delivered, or has expired. Send the prediction again.',
      label: 'Error!',
    });
  }
  if (!isSettled(job)) return send(delayed(job.id));
  afterAnswer(reply, job.id, async (isWhole) => {
    if (isWhole) await jobs.remove(job.id);
  });
  const arrived = {
    type: 'PlainText',
    content: `The result of the request ${job.id} has arrived.`,
    label: 'Response',
  };
  if (job.error) return send(arrived, errorElement(job.error));
  return deliver(reply, job, context, [arrived]);
}

async function requestId(request: FastifyRequest, context: ServerContext): Promise<string | undefined> {
  const type = request.headers['content-type'] ?? '';
  const body = countBytes(request.raw, { maxUploadBytes: Math.min(65_536, context.maxUploadBytes) });
  const parts = multipart.takes(type) ? readMultipart(body, type) : readUrlencoded(body);
  let id: string | undefined;
  for await (const part of parts) if (part.name === 'request_id') id = await readText(part);
  return id;
}

/** Sends the elements of a job that has succeeded, after `first`; reading them is recorded in the audit log. */
async function deliver(
  reply: FastifyReply,
  job: JobRecord,
  { audit, blobs }: ServerContext,
  first: readonly Element[],
): Promise<FastifyReply> {
  const shown: OutputFile[] = [];
  void answered(reply).then((isWhole) => {
    for (const { name, digest, format } of shown) {
      audit.record('result.read', {
        who: job.owner,
        service: job.service,
        job: job.id,
        output: name,
        digest,
        format,
        outcome: isWhole ? 'whole' : 'broken off',
      });
    }
  });
  const elements = await resultElements(job, blobs);
  shown.push(...shownOutputs(job));
  return sendElements(cors(reply), [...first, ...elements], blobs);
}
