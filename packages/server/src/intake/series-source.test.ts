import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { dicomFile, relatedBody } from '../../../client/src/fixtures.ts';
import { makeCertificate } from '../../test/certificate-fixture.ts';
import { openSeriesSource, type SeriesSourceOptions } from './series-source.ts';

/* Against archives that fail; ../../test/ohif.test.ts has one that works. */

const [study, series] = ['1.2.840.10', '1.2.840.10.077'];
const files = [dicomFile('1.2.3.1', { size: 1000 }), dicomFile('1.2.3.2', { size: 1000 })];
const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

type Answer = (response: ServerResponse, request: IncomingMessage) => void;
const json =
  (value: unknown, status = 200): Answer =>
  (response) =>
    response.writeHead(status, { 'content-type': 'application/dicom+json' }).end(JSON.stringify(value));
const found = ({ studyUid = study, seriesUid = series, count }: Record<string, unknown> = {}) =>
  json([
    {
      '0020000D': { vr: 'UI', Value: [studyUid] },
      '0020000E': { vr: 'UI', Value: [seriesUid] },
      ...(count !== undefined && { '00201209': { vr: 'IS', Value: [count] } }),
    },
  ]);
const relatedOf =
  (sent: readonly Uint8Array<ArrayBuffer>[]): Answer =>
  (response) =>
    response
      .writeHead(200, { 'content-type': 'multipart/related; type="application/dicom"; boundary=XX' })
      .end(relatedBody(sent, 'XX'));
const related = relatedOf(files);
/** A file whose data set is (0020,000E) alone, explicit VR little endian, padded with NUL. */
const fileOf = (seriesUid: string) => {
  const uid = Buffer.from(seriesUid.length % 2 === 0 ? seriesUid : `${seriesUid}\0`, 'latin1');
  const element = Buffer.from([0x20, 0, 0x0e, 0, 0x55, 0x49, uid.length, 0]);
  return Uint8Array.from(Buffer.concat([dicomFile('1.2.3.4', { size: 0 }), element, uid]));
};

async function listen(server: Server): Promise<number> {
  await once(server.listen(0, '127.0.0.1'), 'listening');
  closers.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

/** An archive with these answers to a search and to the retrieval of a series, and the requests that it got. */
async function archive({
  search = found(),
  retrieve = related,
}: {
  search?: Answer;
  retrieve?: Answer;
} = {}) {
  const requests: { url: string; authorization?: string }[] = [];
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url!, 'http://x');
    requests.push({ url: request.url!, authorization: request.headers.authorization });
    (pathname === '/dicom-web/series' ? search : retrieve)(response, request);
  });
  return { url: `http://127.0.0.1:${await listen(server)}/dicom-web`, requests };
}

const signal = new AbortController().signal;
const open = (url: string, more: Partial<SeriesSourceOptions> = {}) =>
  openSeriesSource({ url, limits: { maxUploadBytes: 1e6 }, maxFiles: 10, ...more });

async function fetchAll(url: string, more: Partial<SeriesSourceOptions> = {}, uid = series, gone = signal) {
  const source = open(url, more);
  const one = await source.find(uid, gone);
  const received: Uint8Array[] = [];
  for await (const part of source.parts(one, 'volume', gone)) {
    expect(part).toMatchObject({ name: 'volume', fileName: `${received.length + 1}.dcm` });
    for await (const chunk of part.body) received.push(chunk);
  }
  return { one, received };
}

const fault = (promise: Promise<unknown>): Promise<TomaatError> =>
  promise.then(
    () => expect.unreachable('it succeeded'),
    (error) => error as TomaatError,
  );

describe('openSeriesSource()', () => {
  it('finds a series by its UID alone, and gives its files byte for byte', async () => {
    const { url, requests } = await archive();
    const { one, received } = await fetchAll(url);
    expect(one).toEqual({ study, series, files: 2 });
    expect(received).toEqual(files);
    expect(requests.map((request) => request.url.replace(/&.*/, ''))).toEqual([
      `/dicom-web/series?SeriesInstanceUID=${series}`,
      `/dicom-web/studies/${study}/series/${series}`,
    ]);
    expect(requests[0].authorization).toBeUndefined();
  });

  it('takes files that name the series', async () => {
    const own = [fileOf(series), fileOf(series)];
    const { url } = await archive({ search: found({ count: 2 }), retrieve: relatedOf(own) });
    expect((await fetchAll(url)).received).toEqual(own);
  });

  it.each([
    ['user:päss:word', `Basic ${Buffer.from('user:päss:word', 'utf8').toString('base64')}`],
    ['abc.DEF-1_2~+/==', 'Bearer abc.DEF-1_2~+/=='],
  ])('logs in with %s', async (credentials, authorization) => {
    const { url, requests } = await archive();
    await fetchAll(url, { credentials });
    expect(requests.map((request) => request.authorization)).toEqual([authorization, authorization]);
  });

  it.each([
    '',
    '.',
    '..',
    '1..2',
    '../x',
    '1.2/..',
    '1.2?x',
    '1.2*',
    '%2e',
    '1.2,1.3',
    '1\\2',
    '1'.repeat(65),
  ])('asks the archive nothing about %j, which is no UID', async (uid) => {
    const { url, requests } = await archive();
    expect(await fault(fetchAll(url, {}, uid))).toMatchObject({ code: 'BAD_INPUT', field: 'image' });
    expect(requests).toEqual([]);
  });

  it.each<[string, { search?: Answer; retrieve?: Answer }, string, RegExp]>([
    ['there is no such series', { search: json([]) }, 'NOT_FOUND', /no series with this UID/],
    ['another series is found', { search: found({ seriesUid: '1.2.3' }) }, 'NOT_FOUND', /no series/],
    ['the series is gone', { retrieve: json({}, 404) }, 'NOT_FOUND', /no series with this UID/],
    ['the study has no UID', { search: found({ studyUid: '..' }) }, 'UPSTREAM', /can use/],
    ['there is no DICOMweb', { search: json({}, 404) }, 'UPSTREAM', /can use/],
    ['it answers with a page', { search: (r) => r.end('<html>') }, 'UPSTREAM', /can use/],
    ['it wants a login', { search: json({}, 401) }, 'UPSTREAM', /dicomwebCredentials/],
    ['it forbids the series', { retrieve: json({}, 403) }, 'UPSTREAM', /dicomwebCredentials/],
    [
      'a file is of another series',
      { retrieve: relatedOf([fileOf(series), fileOf('1.2.840.10.078')]) },
      'UPSTREAM',
      /can use/,
    ],
    ['a file is missing', { search: found({ count: 3 }) }, 'UPSTREAM', /can use/],
    ['it is busy', { search: json({}, 503) }, 'BUSY', /busy/],
    ['it fails', { retrieve: json({ patient: 'Doe^Jane' }, 500) }, 'UPSTREAM', /can use/],
    [
      'it says that there are more files than allowed',
      { search: found({ count: 11 }) },
      'UPLOAD_TOO_LARGE',
      /10/,
    ],
    [
      'its answer is cut off',
      {
        retrieve: (response) => {
          response.writeHead(200, {
            'content-type': 'multipart/related; type="application/dicom"; boundary=XX',
          });
          response.end(relatedBody(files, 'XX').subarray(0, -30));
        },
      },
      'UNREACHABLE',
      /cut off/,
    ],
  ])('where %s, tells nothing of the archive', async (_what, answers, code, message) => {
    const { url } = await archive(answers);
    const error = await fault(fetchAll(url));
    expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
    const { host } = new URL(url);
    for (const secret of [host, study, series, 'Doe']) expect(JSON.stringify(error)).not.toContain(secret);
    // The log names the archive, and neither its series nor its answer.
    const { cause } = error as { cause?: TomaatError };
    if (cause) {
      const logged = JSON.stringify([cause, cause.message, cause.stack, cause.cause]);
      for (const secret of [study, series, 'Doe']) expect(logged).not.toContain(secret);
      expect(cause).toBeInstanceOf(TomaatError);
    }
  });

  it('says that nothing listens there, in the log', async () => {
    const server = createServer();
    const port = await listen(server);
    await new Promise((resolve) => server.close(resolve));
    const error = await fault(fetchAll(`http://127.0.0.1:${port}/dicom-web`));
    expect(error).toMatchObject({
      code: 'UNREACHABLE',
      message: expect.stringContaining('cannot be reached'),
    });
    expect((error.cause as Error).message).toContain(`127.0.0.1:${port}`);
  });

  it('bounds the files and bytes of a series', async () => {
    const { url } = await archive();
    expect(await fault(fetchAll(url, { maxFiles: 1 }))).toMatchObject({ code: 'UPLOAD_TOO_LARGE' });
    const large = await archive({
      retrieve: (response, request) => {
        response.writeHead(200, { 'content-type': 'multipart/related; boundary=XX' });
        response.write('--XX\r\nContent-Type: application/dicom\r\n\r\n');
        const timer = setInterval(() => response.write(Buffer.alloc(100_000)), 1);
        request.socket.once('close', () => clearInterval(timer));
      },
    });
    expect(await fault(fetchAll(large.url))).toMatchObject({ code: 'UPLOAD_TOO_LARGE' });
  });

  it('gives up an archive that is silent, or slower than the pace', async () => {
    const drip: Answer = (response, request) => {
      response.writeHead(200, { 'content-type': 'multipart/related; boundary=XX' });
      const timer = setInterval(() => response.write('\r\n'), 20);
      request.socket.once('close', () => clearInterval(timer));
    };
    const limits = { maxUploadBytes: 1e6, minBytesPerSecond: 10_000, patienceMs: 300 };
    expect(await fault(fetchAll((await archive({ retrieve: drip })).url, { limits }))).toMatchObject({
      code: 'UNREACHABLE',
      message: expect.stringContaining('10000 bytes per second'),
    });
    const silent: Answer = () => {};
    expect(await fault(fetchAll((await archive({ retrieve: silent })).url, { limits }))).toMatchObject({
      code: 'UNREACHABLE',
    });
  });

  it('fetches four series at a time', async () => {
    const waiting: (() => void)[] = [];
    const { url } = await archive({ retrieve: (...of) => void waiting.push(() => related(...of)) });
    const source = open(url);
    const one = await source.find(series, signal);
    const fetchOne = async () => {
      let count = 0;
      for await (const _ of source.parts({ ...one }, 'volume', signal)) count++;
      return count;
    };
    const four = Promise.all(Array.from({ length: 4 }, fetchOne));
    await vi.waitFor(() => expect(waiting).toHaveLength(4));
    expect(await fault(fetchOne())).toMatchObject({ code: 'BUSY' });
    for (const answer of waiting.splice(0)) answer();
    expect(await four).toEqual([2, 2, 2, 2]);
    const later = fetchOne();
    await vi.waitFor(() => expect(waiting).toHaveLength(1));
    waiting[0]();
    expect(await later).toBe(2);
  });

  it('stops when the caller leaves', async () => {
    const gone = new AbortController();
    const reason = new TomaatError('CANCELED', 'left');
    let ended: Promise<unknown> | undefined;
    const { url } = await archive({
      retrieve: (_response, request) => {
        ended = new Promise((resolve) => request.socket.once('close', resolve));
        gone.abort(reason);
      },
    });
    expect(await fault(fetchAll(url, {}, series, gone.signal))).toBe(reason);
    await ended;
  });

  it('refuses a certificate that no authority vouches for, and takes one that the operator names', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'tomaat-archive-'));
    closers.push(() => rmSync(folder, { recursive: true }));
    const { pem, keyPem } = await makeCertificate(folder, { names: ['127.0.0.1'] });
    const server = createSecureServer({ cert: pem, key: keyPem }, (request, response) =>
      (request.url!.startsWith('/series?') ? found() : related)(response, request),
    );
    const url = `https://127.0.0.1:${await listen(server as unknown as Server)}`;
    const error = await fault(fetchAll(url));
    expect(error).toMatchObject({ code: 'UNREACHABLE' });
    expect((error.cause as Error).message).toContain('certificate');
    expect((await fetchAll(url, { ca: pem })).received).toEqual(files);
  });
});
