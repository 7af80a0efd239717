import { rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { goodFile } from '../../core/test/bad-files.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import {
  closing,
  multipart,
  multipartType,
  type RawAnswer,
  type RealServer,
  rawRequest,
  sendRaw,
  startRealServer,
} from './real-server.ts';
import { temporaryFolder } from './test-server.ts';

/*
 * Every route that takes a prediction × every fault of a request, as bytes on a socket, against a server in a process
 * of its own: refused in under a second, in the route's own form, naming the field and the remedy, in bounded memory,
 * with nothing left on the disk, and the next request is served.
 */

const limitMs = 1000;
const limitBytes = 64e6;
const remedy =
  /\b(Send|Give|send|give|Crop|Upload|names uploads|Begin|Start|Continue|Try|try|Use|Correct|Let the|Choose|GET|Write|There are|Available|Its|It has|must be|at most|a parameter may have|from \d+ to)\b/;

let server: RealServer;
let folder: string;
let volume: Uint8Array;
beforeAll(async () => {
  folder = await temporaryFolder();
  const inputs = {
    volume: { type: 'volume' },
    second: { type: 'volume', optional: true },
    factor: { type: 'slider', minimum: 0, maximum: 5, default: 1 },
    mode: { type: 'radiobutton', options: ['fast', 'exact'] },
    flag: { type: 'checkbox' },
    points: { type: 'fiducials', optional: true },
  };
  server = await startRealServer([await writeApp(folder, 'params', { inputs, infer: inferBright })], {
    maxUploadBytes: 64 * 2 ** 20,
  });
  volume = await goodFile('nii.gz');
  for (let i = 0; i < 20; i++) for (const route of routes) await answerTo(form(route, good()));
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

type Field = readonly [name: string, value: string | Uint8Array, fileName?: string];
const good = (): Field[] => [['volume', volume, 'a.nii.gz']];
type Headers = Record<string, string | readonly string[] | undefined>;

interface Route {
  name: string;
  path: string;
  body: 'multipart' | 'octet-stream' | 'urlencoded';
  v1: boolean;
}
const routes: Route[] = [
  {
    name: 'POST /api/services/{id}/predictions, multipart',
    path: '/api/services/params/predictions',
    body: 'multipart',
    v1: false,
  },
  {
    name: 'POST /api/services/{id}/predictions, octet-stream',
    path: '/api/services/params/predictions',
    body: 'octet-stream',
    v1: false,
  },
  { name: 'POST /{task}/{anatomy}, multipart', path: '/params/any', body: 'multipart', v1: false },
  { name: 'POST /{task}/{anatomy}, octet-stream', path: '/params/any', body: 'octet-stream', v1: false },
  { name: 'POST /predict, multipart', path: '/predict', body: 'multipart', v1: true },
  {
    name: 'POST /services/{id}/predict, urlencoded',
    path: '/services/params/predict',
    body: 'urlencoded',
    v1: true,
  },
];

/** A prediction's request with these fields, as the route has them. */
function form(route: Route, fields: readonly Field[], headers: Headers = {}, version?: string): Buffer {
  const wait = { Prefer: 'wait=20' };
  if (route.body === 'multipart') {
    return rawRequest(
      'POST',
      route.path,
      { ...wait, 'Content-Type': multipartType, ...headers },
      multipart(fields),
      version,
    );
  }
  if (route.body === 'octet-stream') {
    const rest = fields.filter(([name]) => name !== 'volume').map(([name, value]) => [name, String(value)]);
    const query = new URLSearchParams(rest).toString();
    const file = fields.find(([name]) => name === 'volume')?.[1] ?? '';
    return rawRequest(
      'POST',
      `${route.path}${query && `?${query}`}`,
      { ...wait, 'Content-Type': 'application/octet-stream', ...headers },
      Buffer.from(file as Uint8Array),
      version,
    );
  }
  const body = new URLSearchParams(
    fields.map(([name, value]) => [
      name,
      typeof value === 'string' ? value : Buffer.from(value).toString('base64'),
    ]),
  ).toString();
  return rawRequest(
    'POST',
    route.path,
    { 'Content-Type': 'application/x-www-form-urlencoded', ...headers },
    Buffer.from(body),
    version,
  );
}

async function answerTo(bytes: Uint8Array | readonly Uint8Array[]): Promise<RawAnswer> {
  const answer = await sendRaw(server.port, bytes);
  if (!answer) throw new Error('the connection ended without an answer');
  if (answer.status === 200 || answer.status === 202) {
    const job = /^\{"id":"([\w-]+)"/.exec(answer.body.toString('latin1', 0, 100))?.[1];
    if (job) await fetch(`${server.url}/api/jobs/${job}`, { method: 'DELETE' });
  }
  return answer;
}

interface Refusal {
  status: number;
  code: string;
  field?: string;
}

/** What every refusal has in common; `v1` in its own form, where the fault lets a route be told. */
async function expectRefusal(
  bytes: Uint8Array | readonly Uint8Array[],
  expected: Partial<Refusal>,
  v1: boolean,
): Promise<void> {
  await server.restPeak();
  const before = await server.memory();
  let answer: RawAnswer;
  let tookMs: number;
  // Again where the machine was busy with something else.
  for (let attempt = 0; ; attempt++) {
    const start = performance.now();
    answer = await answerTo(bytes);
    tookMs = performance.now() - start;
    if (tookMs < limitMs || attempt === 2) break;
  }
  const after = await server.memory();
  expect(tookMs, 'ms').toBeLessThan(limitMs);
  if (before && after)
    expect(after.peakBytes - before.rssBytes, 'growth of the memory').toBeLessThan(limitBytes);
  const value = JSON.parse(answer.body.toString());
  expect(answer.headers['content-length']).toBe(String(answer.body.length));
  if (v1) {
    expect({ status: answer.status, value }).toEqual({
      status: 200,
      value: [{ type: 'PlainText', label: 'Error!', content: expect.stringMatching(remedy) }],
    });
    expect(answer.headers['access-control-allow-origin']).toBe('*');
  } else {
    expect(answer.headers['content-type']).toBe('application/problem+json');
    expect(value).toMatchObject({
      ...JSON.parse(JSON.stringify(expected)),
      type: expect.stringMatching(/^urn:tomaat:error:/),
      title: expect.any(String),
      detail: expect.stringMatching(remedy),
    });
    expect(answer.status).toBe(value.status);
    expect(value.field).toBe(expected.field);
  }
  await expectClean();
}

async function expectClean(): Promise<void> {
  await expect.poll(() => server.files(), { timeout: 20_000, interval: 20 }).toEqual([]);
  expect((await answerTo(form(routes[2], good()))).status, 'a good request afterwards').toBe(200);
}

type Fault = [
  name: string,
  bytes: (route: Route) => Uint8Array | readonly Uint8Array[],
  expected: (route: Route) => Partial<Refusal> | undefined,
];

/** `undefined` as what is expected: the route does not have this fault. */
const always = (status: number, code: string, field?: string) => () => ({ status, code, field });
const only = (body: Route['body'], refusal: Partial<Refusal>) => (route: Route) =>
  route.body === body ? refusal : undefined;
const onlyApi =
  (refusal: Partial<Refusal>) =>
  ({ v1 }: Route) =>
    v1 ? undefined : refusal;
const json = (text: string) => (route: Route) =>
  rawRequest('POST', route.path, { 'Content-Type': 'application/json' }, Buffer.from(text));
const withFields =
  (...fields: Field[]) =>
  (route: Route) =>
    form(route, [...good(), ...fields]);
const withHeaders = (headers: Headers, version?: string) => (route: Route) =>
  form(route, good(), headers, version);
const badInput = (field: string) => always(422, 'BAD_INPUT', field);
/** A fault in the parts of a form. */
const parts =
  (text: string): ((route: Route) => Buffer) =>
  (route) => {
    return rawRequest('POST', route.path, { 'Content-Type': multipartType }, Buffer.from(text, 'latin1'));
  };
const opening = `--${multipartType.split('=')[1]}\r\n`;
const disposition = 'Content-Disposition: form-data; name="factor"';
const malformed = only('multipart', { status: 400, code: 'BAD_REQUEST' });

const faults: Fault[] = [
  // Fields. A name that is none of the service's is not said back: it is anybody's words.
  [
    'an unknown field',
    withFields(['nonsense', '1']),
    ({ v1 }) => (v1 ? undefined : { status: 422, code: 'BAD_INPUT' }),
  ],
  [
    'a field named __proto__',
    withFields(['__proto__', '1']),
    ({ v1 }) => (v1 ? undefined : { status: 422, code: 'BAD_INPUT' }),
  ],
  [
    'a field named constructor',
    withFields(['constructor', '1']),
    ({ v1 }) => (v1 ? undefined : { status: 422, code: 'BAD_INPUT' }),
  ],
  ['a slider above its range', withFields(['factor', '5.1']), badInput('factor')],
  ['a slider below its range', withFields(['factor', '-1']), badInput('factor')],
  ['a slider that is NaN', withFields(['factor', 'NaN']), badInput('factor')],
  ['a slider that is infinite', withFields(['factor', '1e999']), badInput('factor')],
  ['a slider that is empty', withFields(['factor', '']), badInput('factor')],
  ['a radiobutton that is no option', withFields(['mode', 'slow']), badInput('mode')],
  ['a radiobutton named like a method', withFields(['mode', 'toString']), badInput('mode')],
  ['a checkbox that is perhaps', withFields(['flag', 'perhaps']), badInput('flag')],
  ['points of two coordinates', withFields(['points', '1,2;3,4']), badInput('points')],
  ['points that are infinite', withFields(['points', '1,2,1e999']), badInput('points')],
  [
    'a parameter of 70 kB',
    withFields(['mode', 'x'.repeat(70_000)]),
    ({ body }) => (body === 'octet-stream' ? undefined : { status: 400, code: 'BAD_REQUEST', field: 'mode' }),
  ],
  [
    'no volume',
    (route) => form(route, [['factor', '1']]),
    ({ body }) =>
      body === 'octet-stream'
        ? { status: 422, code: 'BAD_INPUT', field: 'volume' }
        : { status: 409, code: 'INPUTS_MISSING', field: 'volume' },
  ],
  ['an empty volume', (route) => form(route, [['volume', '']]), badInput('volume')],
  [
    'two volumes for one input',
    (route) => form(route, [...good(), ...good()]),
    ({ body }) =>
      body === 'multipart' || body === 'urlencoded'
        ? { status: 422, code: 'BAD_INPUT', field: 'volume' }
        : undefined,
  ],
  [
    'a file where a parameter belongs',
    withFields(['factor', '1', 'factor.txt']),
    only('multipart', { status: 422, code: 'BAD_INPUT', field: 'factor' }),
  ],
  [
    'a file that is no input',
    withFields(['other', 'abc', '../../etc/passwd']),
    only('multipart', { status: 422, code: 'BAD_INPUT' }),
  ],
  [
    'a format that does not exist',
    (route) =>
      Buffer.from(
        form(route, good())
          .toString('latin1')
          .replace(/^(POST \S+)/, '$1?format=docx'),
        'latin1',
      ),
    ({ v1 }) => (v1 ? undefined : { status: 406, code: 'NOT_ACCEPTABLE', field: 'format' }),
  ],
  [
    'a frame that is no number',
    (route) =>
      Buffer.from(
        form(route, good())
          .toString('latin1')
          .replace(/^(POST \S+)/, '$1?frame=-1'),
        'latin1',
      ),
    ({ v1 }) => (v1 ? undefined : { status: 422, code: 'BAD_INPUT', field: 'frame' }),
  ],
  // Types of body
  [
    'a wrong Content-Type',
    withHeaders({ 'Content-Type': 'text/plain' }),
    always(415, 'UNSUPPORTED_MEDIA', 'Content-Type'),
  ],
  [
    'no Content-Type',
    withHeaders({ 'Content-Type': undefined }),
    always(415, 'UNSUPPORTED_MEDIA', 'Content-Type'),
  ],
  [
    'an empty Content-Type',
    withHeaders({ 'Content-Type': '' }),
    always(415, 'UNSUPPORTED_MEDIA', 'Content-Type'),
  ],
  [
    'a Content-Type without a slash',
    withHeaders({ 'Content-Type': 'multipart' }),
    always(415, 'UNSUPPORTED_MEDIA', 'Content-Type'),
  ],
  [
    'a Content-Type of punctuation',
    withHeaders({ 'Content-Type': ';;/;=' }),
    always(415, 'UNSUPPORTED_MEDIA', 'Content-Type'),
  ],
  [
    'a body of JSON',
    json('{"volume": 1}'),
    ({ v1 }) => (v1 ? { status: 415 } : { status: 400, code: 'BAD_REQUEST' }),
  ],
  ['a body of broken JSON', json('{"inputs": '), onlyApi({ status: 400, code: 'BAD_REQUEST' })],
  ['a body of JSON that goes deep', json('['.repeat(50_000)), onlyApi({ status: 400, code: 'BAD_REQUEST' })],
  [
    'a body of JSON without inputs',
    json('{}'),
    onlyApi({ status: 409, code: 'INPUTS_MISSING', field: 'volume' }),
  ],
  [
    'an upload that does not exist',
    json('{"inputs":{"volume":{"upload":"../../etc"}}}'),
    onlyApi({ status: 404, code: 'NOT_FOUND', field: 'upload' }),
  ],
  [
    'a blob that is not the caller’s',
    json(`{"inputs":{"volume":{"blob":"sha256:${'0'.repeat(64)}"}}}`),
    onlyApi({ status: 404, code: 'NOT_FOUND', field: 'volume' }),
  ],
  [
    'Content-Encoding: gzip',
    withHeaders({ 'Content-Encoding': 'gzip' }),
    always(415, 'UNSUPPORTED_MEDIA', 'Content-Encoding'),
  ],
  [
    'Content-Encoding: br',
    withHeaders({ 'Content-Encoding': 'br' }),
    always(415, 'UNSUPPORTED_MEDIA', 'Content-Encoding'),
  ],
  [
    'no boundary',
    withHeaders({ 'Content-Type': 'multipart/form-data' }),
    only('multipart', { status: 400, code: 'BAD_REQUEST', field: 'Content-Type' }),
  ],
  [
    'an empty boundary',
    withHeaders({ 'Content-Type': 'multipart/form-data; boundary=' }),
    only('multipart', { status: 400, code: 'BAD_REQUEST', field: 'Content-Type' }),
  ],
  [
    'a boundary of 5000 characters',
    withHeaders({ 'Content-Type': `multipart/form-data; boundary=${'x'.repeat(5000)}` }),
    only('multipart', { status: 400, code: 'BAD_REQUEST', field: 'Content-Type' }),
  ],
  [
    'another boundary than the body has',
    withHeaders({ 'Content-Type': 'multipart/form-data; boundary=other' }),
    malformed,
  ],
  // Forms
  ['a form that is empty', parts(''), malformed],
  ['a form of text', parts('volume=1'), malformed],
  ['a form that ends in a part', parts(`${opening}${disposition}\r\n\r\n1`), malformed],
  ['a form that ends in a header', parts(`${opening}${disposition}`), malformed],
  ['a part without a header', parts(`${opening}\r\n1${closing}`), malformed],
  ['a part without a name', parts(`${opening}Content-Disposition: form-data\r\n\r\n1${closing}`), malformed],
  [
    'a part that is an attachment',
    parts(`${opening}Content-Disposition: attachment; name="factor"\r\n\r\n1${closing}`),
    malformed,
  ],
  ['a part with two names', parts(`${opening}${disposition}; name="mode"\r\n\r\n1${closing}`), malformed],
  ['a part with name*', parts(`${opening}${disposition}; name*=UTF-8''mode\r\n\r\n1${closing}`), malformed],
  [
    'a part in base64 by its header',
    parts(`${opening}${disposition}\r\nContent-Transfer-Encoding: base64\r\n\r\nMQ==${closing}`),
    malformed,
  ],
  [
    'a part with a header of 20 kB',
    parts(`${opening}${disposition}; filename="${'x'.repeat(20_000)}"\r\n\r\n1${closing}`),
    malformed,
  ],
  [
    'a hundred parts',
    (route) =>
      form(
        route,
        Array.from({ length: 100 }, (): Field => ['mode', 'fast']),
      ),
    ({ body }) => (body === 'octet-stream' ? undefined : { status: 400, code: 'BAD_REQUEST' }),
  ],
  [
    'a boundary line that goes on',
    parts(`${opening.trimEnd()}xyz\r\n${disposition}\r\n\r\n1${closing}`),
    malformed,
  ],
  [
    'a parameter that is not UTF-8',
    parts(`${opening}Content-Disposition: form-data; name="mode"\r\n\r\n\xff\xfe${closing}`),
    only('multipart', { status: 400, code: 'BAD_REQUEST', field: 'mode' }),
  ],
  [
    'a broken escape',
    (route) =>
      rawRequest(
        'POST',
        route.path,
        { 'Content-Type': 'application/x-www-form-urlencoded' },
        Buffer.from('volume=%zz'),
      ),
    only('urlencoded', { status: 400, code: 'BAD_REQUEST' }),
  ],
  [
    'base64 with a stranger in it',
    (route) =>
      rawRequest(
        'POST',
        route.path,
        { 'Content-Type': 'application/x-www-form-urlencoded' },
        Buffer.from('volume=AAAA!AAA'),
      ),
    only('urlencoded', { status: 400, code: 'BAD_REQUEST' }),
  ],
  // Lengths
  [
    'a Content-Length of 10^13 and no body',
    (route) => [form(route, [], { 'Content-Length': '10000000000000' })],
    always(413, 'UPLOAD_TOO_LARGE', 'Content-Length'),
  ],
  [
    '100 MB where 64 MiB are allowed',
    (route) =>
      form(route, [['volume', Buffer.alloc(100e6)]], { 'Content-Length': '100000000' }).subarray(0, 30e6),
    ({ v1 }) => (v1 ? undefined : { status: 413, code: 'UPLOAD_TOO_LARGE', field: 'Content-Length' }),
  ],
  // Routing
  [
    'two Host headers',
    withHeaders({ Host: ['localhost', 'example.org'] }),
    always(400, 'BAD_REQUEST', 'Host'),
  ],
  ['no Host header', withHeaders({ Host: undefined }), always(400, 'BAD_REQUEST', 'Host')],
  [
    'chunks in HTTP/1.0',
    (route) =>
      rawRequest(
        'POST',
        route.path,
        { 'Content-Type': multipartType, 'Content-Length': undefined, 'Transfer-Encoding': 'chunked' },
        Buffer.from('0\r\n\r\n'),
        '1.0',
      ),
    always(400, 'BAD_REQUEST', 'Transfer-Encoding'),
  ],
];

/** What is not HTTP is answered before any route is known: with a Problem everywhere, or by hanging up. */
const notHttp: [
  name: string,
  bytes: (route: Route) => Uint8Array | readonly Uint8Array[],
  field?: string,
  status?: number,
][] = [
  ['a Content-Length of -1', withHeaders({ 'Content-Length': '-1' }), 'Content-Length'],
  ['a Content-Length of +5', withHeaders({ 'Content-Length': '+5' }), 'Content-Length'],
  ['a Content-Length in hexadecimal', withHeaders({ 'Content-Length': '0x10' }), 'Content-Length'],
  ['a Content-Length of 10^30', withHeaders({ 'Content-Length': `1${'0'.repeat(30)}` }), 'Content-Length'],
  ['a Content-Length of words', withHeaders({ 'Content-Length': 'many' }), 'Content-Length'],
  ['two Content-Lengths', withHeaders({ 'Content-Length': ['5', '6'] }), 'Content-Length'],
  ['Content-Length and chunks', withHeaders({ 'Transfer-Encoding': 'chunked' }), 'Transfer-Encoding'],
  [
    'a Transfer-Encoding of xchunked',
    withHeaders({ 'Content-Length': undefined, 'Transfer-Encoding': 'xchunked' }),
    'Transfer-Encoding',
  ],
  ['a header of 17 kB', withHeaders({ 'X-Long': 'x'.repeat(17_000) }), undefined, 431],
  ['a header line that is folded', withHeaders({ 'X-Folded': 'a\r\n b' })],
  ['a header with a NUL', withHeaders({ 'X-Nul': 'a\0b' })],
];

describe.each(routes)('$name refuses', (route) => {
  it.each(faults.filter(([, , expected]) => expected(route) !== undefined))(
    '%s',
    async (_name, bytes, expected) => {
      await expectRefusal(bytes(route), expected(route)!, route.v1);
    },
  );

  it.each(notHttp)('%s', async (_name, bytes, field, status = 400) => {
    await expectRefusal(
      bytes(route),
      { status, code: status === 431 ? 'HEADER_TOO_LARGE' : 'BAD_REQUEST', field },
      false,
    );
  });

  it.each([0.02, 0.5, 0.98])('a body that breaks off after %s of it, and leaves nothing', async (share) => {
    const bytes = form(route, good());
    const head = bytes.indexOf('\r\n\r\n') + 4;
    for (const hangUp of ['end', 'destroy'] as const) {
      const socket = connect(server.port, '127.0.0.1').on('error', () => {});
      await new Promise((resolve) =>
        socket.write(bytes.subarray(0, head + Math.round(share * (bytes.length - head))), resolve),
      );
      // Long enough for the server to have begun a file.
      if (share > 0.5)
        await expect.poll(() => server.files(), { timeout: 20_000, interval: 10 }).not.toEqual([]);
      socket[hangUp]();
      socket.resume();
      await expectClean();
      socket.destroy();
    }
  });
});

describe.each(routes)('$name takes', (route) => {
  it('a body in chunks, at any place', async () => {
    const whole = form(route, good(), { 'Content-Length': undefined, 'Transfer-Encoding': 'chunked' });
    const head = whole.indexOf('\r\n\r\n') + 4;
    const chunks: Buffer[] = [whole.subarray(0, head)];
    for (let at = head; at < whole.length; at += 611) {
      const piece = whole.subarray(at, at + 611);
      chunks.push(
        Buffer.concat([Buffer.from(`${piece.length.toString(16)};ext=1\r\n`), piece, Buffer.from('\r\n')]),
      );
    }
    chunks.push(Buffer.from('0\r\n\r\n'));
    const answer = await answerTo(chunks);
    expect(answer.status).toBe(200);
    expect(answer.body.toString()).not.toContain('Error!');
    await expectClean();
  });

  it('Expect: 100-continue', async () => {
    const answer = await answerTo(form(route, good(), { Expect: '100-continue' }));
    expect(answer.status).toBe(200);
  });
});

describe('addresses', () => {
  const get = (path: string, method = 'GET', headers: Headers = {}) => rawRequest(method, path, headers);
  const notFound = { status: 404, code: 'NOT_FOUND' };
  it.each([
    ['a service that does not exist', get('/api/services/nonsense'), { ...notFound, field: 'service' }],
    ['a service named constructor', get('/api/services/constructor'), { ...notFound, field: 'service' }],
    [
      'a prediction of a service that does not exist',
      get('/api/services/nonsense/predictions', 'POST'),
      { ...notFound, field: 'service' },
    ],
    ['a task that no service does', get('/flying/any', 'POST'), notFound],
    [
      'a service that does another task',
      get('/params/any?service=nonsense', 'POST'),
      { ...notFound, field: 'service' },
    ],
    ['a job that does not exist', get('/api/jobs/AAAAAAAAAAAAAAAAAAAAAA'), notFound],
    ['a job like a path', get('/api/jobs/..%2f..%2fserver.db'), notFound],
    ['a job like a path, unescaped', get('/api/jobs/../../server.db'), notFound],
    ['a job like SQL', get("/api/jobs/'%20OR%201=1--"), notFound],
    ['a job with a NUL', get('/api/jobs/%00'), notFound],
    [
      'a job with a name of 1000 characters',
      get(`/api/jobs/${'x'.repeat(1000)}`),
      { status: 400, code: 'BAD_REQUEST' },
    ],
    ['an address with a broken escape', get('/api/jobs/%zz'), { status: 400, code: 'BAD_REQUEST' }],
    ['the events of a job that does not exist', get('/api/jobs/nonsense/events'), notFound],
    ['the deletion of a job that does not exist', get('/api/jobs/nonsense', 'DELETE'), notFound],
    ['an output of a job that does not exist', get('/api/jobs/nonsense/outputs/segmentation'), notFound],
    ['a sample where there is none', get('/api/services/params/sample'), notFound],
    ['a picture where there is none', get('/api/services/params/picture'), notFound],
    ['an address that does not exist', get('/nothing/at/all'), notFound],
    ['an address of the API that does not exist', get('/api/nothing'), notFound],
    ['a file of the server', get('/assets/..%2f..%2f..%2fpackage.json'), notFound],
    ['a method that does not exist', get('/api/services', 'BREW'), { status: 400, code: 'BAD_REQUEST' }],
    [
      'GET with a body',
      rawRequest('GET', '/api/services', { 'Content-Length': '5' }, Buffer.from('hello')),
      { status: 400, code: 'BAD_REQUEST', field: 'Content-Length' },
    ],
    [
      'GET with chunks',
      rawRequest('GET', '/api/services', { 'Transfer-Encoding': 'chunked' }, Buffer.from('0\r\n\r\n')),
      { status: 400, code: 'BAD_REQUEST', field: 'Content-Length' },
    ],
    [
      'two Host headers',
      get('/api/services', 'GET', { Host: ['a', 'b'] }),
      { status: 400, code: 'BAD_REQUEST', field: 'Host' },
    ],
    [
      'no Host header',
      get('/health/live', 'GET', { Host: undefined }),
      { status: 400, code: 'BAD_REQUEST', field: 'Host' },
    ],
  ] as [string, Buffer, Partial<Refusal>][])('%s', async (_name, bytes, expected) => {
    await expectRefusal(bytes, expected, false);
  });

  it.each([
    ['POST', '/api/services', 'GET, HEAD'],
    ['DELETE', '/api/services/params', 'GET, HEAD'],
    ['PUT', '/api/services/params/predictions', 'POST'],
    ['GET', '/api/services/params/predictions', 'POST'],
    ['POST', '/api/jobs/abc', 'DELETE, GET, HEAD'],
    ['POST', '/api/jobs/abc/events', 'GET, HEAD'],
    ['PATCH', '/api/jobs/abc/outputs/segmentation', 'GET, HEAD'],
    ['GET', '/params/any', 'POST'],
    ['DELETE', '/params/any', 'POST'],
    ['GET', '/predict', 'OPTIONS, POST'],
    ['GET', '/services/params/responses', 'OPTIONS, POST'],
    ['POST', '/interface', 'GET, HEAD, OPTIONS'],
    ['POST', '/health/live', 'GET, HEAD'],
    ['DELETE', '/metrics', 'GET, HEAD'],
    ['PUT', '/api/openapi.json?x=1', 'GET, HEAD'],
  ])('%s %s is 405 and names %s', async (method, path, allow) => {
    const answer = await answerTo(rawRequest(method, path));
    expect(answer.status).toBe(405);
    expect(answer.headers.allow).toBe(allow);
    expect(JSON.parse(answer.body.toString())).toMatchObject({ code: 'METHOD_NOT_ALLOWED', status: 405 });
  });

  it.each([
    '/api/services',
    '/api/services/params',
    '/api/openapi.json',
    '/health/live',
    '/health/ready',
    '/metrics',
    '/interface',
    '/api/jobs/nonsense',
  ])('HEAD %s answers as GET does, without a body', async (path) => {
    const [get, head] = await Promise.all(
      ['GET', 'HEAD'].map((method) => fetch(`${server.url}${path}`, { method })),
    );
    expect(head.status).toBe(get.status);
    expect(head.headers.get('content-type')).toBe(get.headers.get('content-type'));
    await get.arrayBuffer();
    expect((await head.arrayBuffer()).byteLength).toBe(0);
  });

  it('an Idempotency-Key that is empty, too long or not ASCII is refused by name', async () => {
    for (const key of ['', 'x'.repeat(201), 'a b', 'clé']) {
      await expectRefusal(
        form(routes[0], good(), { 'Idempotency-Key': key }),
        { status: 400, code: 'BAD_REQUEST', field: 'Idempotency-Key' },
        false,
      );
    }
  });

  it('a Prefer that is not understood is ignored, as RFC 7240 says', async () => {
    for (const prefer of ['wait', 'wait=', 'wait=soon', 'wait=-1', 'respond-async', '=;=', 'wait=12abc']) {
      const answer = await answerTo(form(routes[0], good(), { Prefer: prefer }));
      expect(answer.status).toBe(202);
      expect(answer.headers['preference-applied']).toBeUndefined();
    }
    await expectClean();
  });

  it('over TLS faults are answered in the same way', async () => {
    for (const headers of [
      { 'Content-Length': '-1' },
      { Host: ['a', 'b'] },
      { 'X-Long': 'x'.repeat(17_000) },
    ]) {
      const bytes = form(routes[2], good(), headers);
      const [plain, secure] = await Promise.all([
        sendRaw(server.port, bytes),
        sendRaw(server.tlsPort, bytes, { secure: true }),
      ]);
      const [expected, found] = [plain, secure].map((answer) => JSON.parse(answer!.body.toString()));
      expect(found).toEqual({ ...expected, requestId: found.requestId });
      expect(secure!.status).toBe(expected.status);
    }
  });

  it('v1: unknown request_id and invalid body give elements labelled Error!', async () => {
    for (const body of ['request_id=nonsense', '', 'x=1', `request_id=${'x'.repeat(70_000)}`]) {
      const request = rawRequest(
        'POST',
        '/responses',
        { 'Content-Type': 'application/x-www-form-urlencoded' },
        Buffer.from(body),
      );
      await expectRefusal(request, {}, true);
    }
    await expectRefusal(
      rawRequest('POST', '/services/nonsense/predict', { 'Content-Type': multipartType }, multipart(good())),
      {},
      true,
    );
  });
});
