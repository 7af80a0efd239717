import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import {
  describeError,
  primaryOutput,
  supportedExtensions,
  TomaatError,
  type VolumeExtension,
} from '@tomaat/core';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { hasScope } from '../access/keys.ts';
import type { App } from '../apps.ts';
import type { ServerContext } from '../http/context.ts';
import { convertOutput, sendOutput } from '../http/outputs.ts';
import { type BodyKind, multipart, type RequestForm } from '../http/request-form.ts';
import { readText } from '../intake/body-part.ts';
import { countBytes } from '../intake/byte-counter.ts';
import { readMultipart } from '../intake/multipart.ts';
import { queryWord } from '../intake/query.ts';
import { readUrlencoded } from '../intake/urlencoded.ts';
import { setRetryAfter } from '../problem/problem.ts';
import type { JobRecord } from '../store/jobs/job-records.ts';
import type { Face } from './face.ts';
import {
  clientIdOf,
  imageKey,
  parseParams,
  sessionKey,
  storeImage,
  storeSession,
} from './monailabel-images.ts';
import { datastoreStats, describeServer, namesOf } from './monailabel-info.ts';
import { findOffered, numberedLabels } from './offered.ts';
import { predict, problemHandler } from './predict.ts';
import { findSeries, mayBeSeries, type SeriesOfRequest } from './series-of-archive.ts';

/**
 * The part of the MONAI Label 0.8 server's protocol that its clients (3D Slicer, OHIF, MITK, napari) need to segment a
 * volume. Nothing is trained or annotated here. 3D Slicer parses answers by their Content-Length, and takes status 200 alone
 * as success.
 */
export const monaiLabel = {
  name: 'monailabel',

  register(app, context) {
    const route = { errorHandler: problemHandler(monaiLabel, context) };
    registerLogin();
    app.get('/monailabel/info', route, async () => describeServer(context.services));

    app.get('/monailabel/datastore', route, async (request) =>
      queryWord(request, 'output') === 'all'
        ? { name: 'TOMAAT', description: '', images_dir: '', labels_dir: '', objects: {} }
        : datastoreStats,
    );
    for (const url of ['/monailabel/datastore', '/monailabel/datastore/image']) {
      app.put(url, route, async (request) => {
        const image = queryWord(request, 'image') ?? '';
        await storeImage(request, image, context);
        return { image };
      });
    }

    registerSessions();
    // None: there are no images to annotate next.
    app.post('/monailabel/activelearning/:strategy', route, async () => ({}));

    app.post<{ Params: { model: string } }>('/monailabel/infer/:model', route, async (request, reply) => {
      const { app: service, volume } = findOffered(context.services, request.params.model);
      return predict(request, reply, service, faceFor(request, reply, volume, context), context);
    });

    function registerLogin(): void {
      app.get('/monailabel/auth', { ...route, exposeHeadRoute: false }, async (request) => ({
        enabled: context.login.required && request.principal?.via !== 'legacy',
      }));
      app.post('/monailabel/auth/token', route, (request) => logIn(request, context));
      app.get('/monailabel/auth/token/valid', { ...route, exposeHeadRoute: false }, async () => ({}));
    }

    function registerSessions(): void {
      app.put('/monailabel/session', route, async (request) => {
        const id = await storeSession(request, context);
        return { session_id: id, session_info: describeSession(id, Date.now() + context.uploads.leaseMs) };
      });
      const address = '/monailabel/session/:id';
      app.get<{ Params: { id: string } }>(address, { ...route, exposeHeadRoute: false }, async (request) => {
        const { id } = request.params;
        const found = await context.uploads.groups.use(sessionKey(request, id, context));
        // An empty answer makes 3D Slicer upload the volume again; at a 404 it stops.
        return found ? describeSession(id, found.expiresMs) : {};
      });
      app.delete<{ Params: { id: string } }>(address, route, async (request) => {
        await context.uploads.groups.remove(sessionKey(request, request.params.id, context));
        return {};
      });
    }

    function describeSession(id: string, expiresMs: number) {
      const { leaseMs } = context.uploads;
      const seconds = (ms: number) => Math.round(ms / 1000);
      const last_access_ts = seconds(expiresMs - leaseMs);
      return { name: id, path: '', image: '', meta: {}, last_access_ts, expiry: seconds(leaseMs) };
    }
  },

  sendProblem(reply, error) {
    setRetryAfter(reply, error);
    return sendJson(reply.code(describeError(error.code).status), { detail: error.message });
  },
} satisfies Omit<Face, 'form' | 'sendResult'>;

/** As bytes, with their length. */
function sendJson(reply: FastifyReply, value: object): FastifyReply {
  return reply.type('application/json').send(Buffer.from(JSON.stringify(value)));
}

/** Logs in with any name and an API key as the password: the key is the token from then on. */
async function logIn(request: FastifyRequest, { login, audit, pace }: ServerContext): Promise<object> {
  const type = request.headers['content-type'] ?? '';
  const body = countBytes(
    request.raw,
    { ...pace, maxUploadBytes: 10_000 },
    request.headers['content-length'],
  );
  const parts = multipart.takes(type) ? readMultipart(body, type) : readUrlencoded(body);
  let password: string | undefined;
  for await (const part of parts) if (part.name === 'password') password = await readText(part, 1000);
  if (!login.required) {
    throw new TomaatError(
      'CONFLICT',
      'Login is off here: everything is already open to this machine. Leave the user name empty.',
    );
  }
  // One that is missing counts as a wrong one: each failure is a line in the audit log.
  const key = await login.recognise((password ?? '').trim(), request);
  if (key && hasScope(key, 'predict')) {
    audit.record('login.succeeded', { who: `key:${key.id}` });
    return { access_token: password!.trim(), token_type: 'bearer' };
  }
  audit.record('login.failed', {
    keyId: key ? key.id : undefined,
    outcome: key ? 'FORBIDDEN' : 'UNAUTHORIZED',
  });
  throw new TomaatError(
    'UNAUTHORIZED',
    'The password must be an API key with the scope predict, which is valid. The user name may be anything. The operator creates a key with “tomaat keys create --scope predict”.',
    { field: 'password' },
  );
}

/** What a request for a prediction says. */
interface Asked {
  params: Readonly<Record<string, unknown>>;
  hasFile: boolean;
  /** Of the archive, if it names one. */
  series?: SeriesOfRequest;
  readonly output: 'all' | 'image' | 'json' | 'dicom_seg';
}

const outputs = ['all', 'image', 'json', 'dicom_seg'] as const;

/** The face as one request has it: its answer depends on what the body says. */
function faceFor(request: FastifyRequest, reply: FastifyReply, volume: string, context: ServerContext): Face {
  const asked: Asked = { params: {}, hasFile: false, output: outputOf(request) };
  return {
    ...monaiLabel,
    form: formFor(request, reply, asked, volume, context),
    sendResult: (reply, job) => sendResult(reply, job, asked, context),
  };
}

function outputOf(request: FastifyRequest): Asked['output'] {
  const given = queryWord(request, 'output') ?? 'all';
  const found = outputs.find((one) => one === given);
  if (found) return found;
  throw new TomaatError('BAD_INPUT', `output is not one of: ${outputs.join(', ')}.`, { field: 'output' });
}

function formFor(
  request: FastifyRequest,
  reply: FastifyReply,
  asked: Asked,
  volume: string,
  context: ServerContext,
): RequestForm {
  const kinds: BodyKind[] = [
    multipart,
    {
      takes: (type) => /^application\/x-www-form-urlencoded\b/i.test(type),
      encoding: 'raw',
      growth: 1,
      read: (body) => readUrlencoded(body),
    },
    { takes: (type) => type === '', encoding: 'raw', growth: 1, async *read() {} },
  ];
  const bodies = kinds.map(
    (kind): BodyKind => ({
      ...kind,
      async *read(body, type, app) {
        for await (const part of kind.read(body, type, app)) {
          if (part.name === 'params') {
            asked.params = parseParams(await readText(part));
            yield* parametersIn(asked.params, app);
          } else if (part.name === 'file') {
            asked.hasFile = true;
            yield { ...part, name: volume };
          } else if (part.fileName !== undefined) yield part;
        }
        const uid = asked.hasFile ? undefined : await seriesNamed(request, asked, context);
        if (uid === undefined) return;
        asked.series = await findSeries(request, reply, { uid, input: volume, app }, context);
        yield* asked.series.parts;
      },
    }),
  );
  return {
    bodies,
    advice:
      'Send multipart/form-data with the part params, and the volume as the part file unless it was uploaded before',
    takesUploads: false,
    takesOptions: false,
    ignoresUnknown: true,
    async moreFiles() {
      return asked.hasFile || asked.series
        ? []
        : [{ name: volume, refs: await findImage(request, asked, context) }];
    },
    checkShapes: (shapes) => asked.series?.requireSlices(shapes),
    formats: ({ manifest }) => {
      extensionOf(asked);
      return { [primaryOutput(manifest)]: asked.output === 'dicom_seg' ? 'seg.dcm' : 'nrrd' };
    },
  };
}

/** The parameters of the app among those of a client, which sends its own, too. An empty field of its form is the default. */
function* parametersIn(params: Asked['params'], { manifest }: App) {
  for (const [name, input] of Object.entries(manifest.inputs)) {
    if (!['slider', 'checkbox', 'radiobutton'].includes(input.type) || !Object.hasOwn(params, name)) continue;
    const given = params[name];
    // A client without a form sends a choice as the list of its options, the chosen one first.
    const value = Array.isArray(given) ? given[0] : given;
    if (value === '' || value === null || value === undefined) continue;
    yield { name, body: Readable.from([Buffer.from(String(value))]) };
  }
}

/** The uploads of the session or of the image that a request names. */
async function findImage(request: FastifyRequest, { params }: Asked, context: ServerContext) {
  const session = queryWord(request, 'session_id');
  const image = queryWord(request, 'image');
  const field = session ? 'session_id' : 'image';
  const key = session
    ? sessionKey(request, session, context)
    : imageKey(request, image ?? '', clientIdOf(params), context);
  const found = await context.uploads.groups.use(key);
  if (found) return found.ids.map((upload) => ({ upload }));
  throw new TomaatError(
    'NOT_FOUND',
    session
      ? 'There is no such session of yours: it was deleted, or has expired. Start a new one with PUT /session/.'
      : 'There is no such image of yours: it was never uploaded, was deleted, or has expired. Upload it with PUT /datastore/.',
    { field },
  );
}

/** The UID of a series that OHIF shows from the archive: the name of an image that the caller did not upload. */
async function seriesNamed(
  request: FastifyRequest,
  { params }: Asked,
  context: ServerContext,
): Promise<string | undefined> {
  const image = queryWord(request, 'image') ?? '';
  if (queryWord(request, 'session_id') || !mayBeSeries(image)) return undefined;
  const key = imageKey(request, image, clientIdOf(params), context);
  return (await context.uploads.groups.find(key)) ? undefined : image;
}

/** The format of the label map, by `result_extension`. */
function extensionOf({ params }: Asked): VolumeExtension {
  const given = params.result_extension;
  if (given === undefined || given === null || given === '') return 'nrrd';
  const name = String(given).toLowerCase().replace(/^\./, '');
  const found = supportedExtensions.find((ending) => ending === name);
  if (found) return found;
  throw new TomaatError(
    'NOT_ACCEPTABLE',
    `The label map is not available in the format of result_extension. Available: ${supportedExtensions.map((ending) => `.${ending}`).join(', ')}.`,
    { field: 'result_extension' },
  );
}

async function sendResult(
  reply: FastifyReply,
  job: JobRecord,
  asked: Asked,
  context: ServerContext,
): Promise<FastifyReply> {
  const primary = job.outputs.find((output) => output.primary)!;
  if (asked.output === 'dicom_seg') return sendOutput(reply, job, primary, 'seg.dcm', context);
  const params = describeResult(job, context);
  if (asked.output === 'json') return sendJson(reply, params);
  const to = extensionOf(asked);
  const { stream, sizeBytes } = await convertOutput(
    reply,
    job,
    primary,
    // OHIF's reader takes what is compressed for 16-bit numbers, which an odd number of bytes cannot be.
    { to, forViewer: { numbered: true, compressed: asked.params.result_compress !== false } },
    context,
  );
  reply.header('cache-control', 'no-store');
  if (asked.output === 'image') {
    return reply
      .header('content-length', sizeBytes)
      .header('content-disposition', `attachment; filename="result.${to}"`)
      .type('application/octet-stream')
      .send(stream);
  }
  return sendForm(reply, params, { name: `result.${to}`, stream, sizeBytes });
}

/** The names of the voxels' values, the values that the app itself gives these labels, and how long the job took, in seconds. */
function describeResult(job: JobRecord, { services }: ServerContext) {
  const app = services.find(job.service);
  const { parameters } = job.request;
  const labels = numberedLabels(app, parameters);
  return {
    label_names: namesOf(app, parameters),
    original_values: Object.fromEntries(labels.map(({ name, label }) => [name, label.value])),
    latencies: latenciesOf(job),
  };
}

/** `infer` is from the start of the job to its end, `total` includes the time in the queue. */
function latenciesOf({ createdMs, startedMs, settledMs }: JobRecord): Record<string, number> {
  if (startedMs === undefined || settledMs === undefined) return {};
  return { infer: (settledMs - startedMs) / 1000, total: (settledMs - createdMs) / 1000 };
}

/** A form with the parameters and one file, of known length. */
function sendForm(
  reply: FastifyReply,
  params: object,
  { name, stream, sizeBytes }: { name: string; stream: Readable; sizeBytes: number },
): FastifyReply {
  const boundary = randomBytes(24).toString('hex');
  const head = Buffer.from(
    [
      `--${boundary}`,
      'Content-Disposition: form-data; name="params"',
      'Content-Type: application/json',
      '',
      JSON.stringify(params),
      `--${boundary}`,
      `Content-Disposition: form-data; name="image"; filename="${name}"`,
      'Content-Type: application/octet-stream',
      '',
      '',
    ].join('\r\n'),
  );
  const tail = Buffer.from(`\r\n--${boundary}--\r\n`);
  async function* write() {
    yield head;
    yield* stream;
    yield tail;
  }
  return reply
    .header('content-length', head.length + sizeBytes + tail.length)
    .type(`multipart/form-data; boundary=${boundary}`)
    .send(Readable.from(write(), { objectMode: false, highWaterMark: 1 << 20 }));
}
