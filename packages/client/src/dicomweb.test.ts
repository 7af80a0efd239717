import type { IncomingMessage } from 'node:http';
import { TomaatError } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import { serve } from '../test/serve.ts';
import { createDicomWeb } from './dicomweb.ts';
import type { DicomWebOptions } from './dicomweb-http.ts';
import type { RetrievedInstance } from './dicomweb-retrieve.ts';
import { dicomFile, relatedBody } from './fixtures.ts';

const client = (url: string, more: Partial<DicomWebOptions> = {}) =>
  createDicomWeb({ url: `${url}/dicom-web/`, retries: 0, ...more });

const related = 'multipart/related; type="application/dicom"; boundary="X Y"';
const files = [dicomFile('1.2.3.1'), dicomFile('1.2.3.2', { size: 33 }), dicomFile('1.2.3.3', { size: 0 })];
const body = relatedBody(files, 'X Y');

async function collect(instances: AsyncIterable<RetrievedInstance>): Promise<RetrievedInstance[]> {
  const all: RetrievedInstance[] = [];
  for await (const instance of instances) all.push(instance);
  return all;
}

/** The error of something that must fail. */
const failure = (work: Promise<unknown>): Promise<TomaatError> =>
  work.then(
    () => {
      throw new Error('it did not fail');
    },
    (error: unknown) => error as TomaatError,
  );

describe('retrieveSeries()', () => {
  const answering = (
    bytes: Uint8Array | string,
    headers: Record<string, string> = { 'content-type': related },
    status = 200,
  ) => serve((_request, response) => response.writeHead(status, headers).end(bytes));
  const pull = async (
    url: string,
    options: Parameters<ReturnType<typeof client>['retrieveSeries']>[2] = {},
  ) => collect(client(url).retrieveSeries('1.2', '1.2.3', options));

  it('requests instances as stored, and yields each with its header’s values', async () => {
    let asked: IncomingMessage | undefined;
    const url = await serve((request, response) => {
      asked = request;
      response.writeHead(200, { 'content-type': related, 'content-length': body.length }).end(body);
    });
    const progress: unknown[] = [];
    const web = client(url, { headers: { authorization: 'Bearer t', 'X-Key': 'k' } });
    const found = await collect(
      web.retrieveSeries('1.2', '1.2.3', {
        onProgress: ({ instances, totalBytes }) => progress.push([instances, totalBytes]),
      }),
    );
    expect(asked).toMatchObject({
      method: 'GET',
      url: '/dicom-web/studies/1.2/series/1.2.3',
      headers: {
        accept: 'multipart/related; type="application/dicom"; transfer-syntax=*',
        authorization: 'Bearer t',
        'x-key': 'k',
      },
    });
    expect(found.map(({ bytes }) => Buffer.from(bytes))).toEqual(files.map((file) => Buffer.from(file)));
    expect(found[1]).toMatchObject({
      sopInstanceUid: '1.2.3.2',
      sopClassUid: '1.2.840.10008.5.1.4.1.1.4',
      transferSyntaxUid: '1.2.840.10008.1.2.1',
    });
    expect(progress.at(-1)).toEqual([3, body.length]);
  });

  it('reads a body that comes byte by byte', async () => {
    const url = await serve(async (_request, response) => {
      response.writeHead(200, { 'content-type': related });
      for (const byte of body) await new Promise((resolve) => response.write(Uint8Array.of(byte), resolve));
      response.end();
    });
    expect(await pull(url)).toHaveLength(3);
  });

  it('reads 10,000 instances', async () => {
    const many = Array.from({ length: 10_000 }, (_, index) => dicomFile(`1.2.3.${index}`));
    const found = await pull(await answering(relatedBody(many, 'X Y')), { expectedInstances: 10_000 });
    expect(found.map(({ sopInstanceUid }) => sopInstanceUid)).toEqual(
      many.map((_, index) => `1.2.3.${index}`),
    );
  });

  it('takes an answer that is one file', async () => {
    const url = await answering(files[0], { 'content-type': 'application/dicom; transfer-syntax=1.2' });
    const instance = await client(url).retrieveInstance('1.2', '1.2.3', '1.2.3.1');
    expect(Buffer.from(instance.bytes)).toEqual(Buffer.from(files[0]));
    const small = client(url, { maxInstanceBytes: files[0].length - 1 });
    await expect(small.retrieveInstance('1.2', '1.2.3', '1.2.3.1')).rejects.toMatchObject({
      code: 'UPSTREAM',
      message: expect.stringContaining('maxInstanceBytes'),
    });
  });

  it('asks for another transfer syntax, and for nothing that is not one', async () => {
    let accept: string | undefined;
    const url = await serve((request, response) => {
      accept = request.headers.accept;
      response.writeHead(200, { 'content-type': related }).end(body);
    });
    await pull(url, { transferSyntax: '1.2.840.10008.1.2.1' });
    expect(accept).toMatch(/; transfer-syntax=1\.2\.840\.10008\.1\.2\.1$/);
    await expect(pull(url, { transferSyntax: 'a, text/html' })).rejects.toMatchObject({ code: 'BAD_INPUT' });
  });

  it('yields complete instances, then fails with UNREACHABLE on a broken body', async () => {
    const cut = body.slice(0, body.length - 60);
    const ends = await answering(cut);
    const breaks = await serve((_request, response) => {
      response.writeHead(200, { 'content-type': related });
      response.write(cut, () => response.destroy());
    });
    const short = await serve((_request, response) => {
      response.writeHead(200, { 'content-type': related, 'content-length': body.length });
      response.write(cut, () => response.destroy());
    });
    for (const url of [ends, breaks, short]) {
      const seen: (string | undefined)[] = [];
      const reading = async () => {
        for await (const { sopInstanceUid } of client(url).retrieveSeries('1.2', '1.2.3'))
          seen.push(sopInstanceUid);
      };
      await expect(reading()).rejects.toMatchObject({ code: 'UNREACHABLE' });
      expect(seen).toEqual(['1.2.3.1', '1.2.3.2']);
    }
  });

  it.each([
    ['a page', 'text/html', '<html>', /answered with text\/html instead of DICOM files\..*login/],
    ['metadata', 'application/dicom+json', '[]', /with application\/dicom\+json instead/],
    [
      'another multipart',
      'multipart/mixed; boundary=X',
      '--X--',
      /with multipart\/mixed.*It must be multipart\/related/,
    ],
    ['no boundary', 'multipart/related; type="application/dicom"', '', /boundary of 1 to 70 characters/],
    ['images', 'multipart/related; type="image/jpeg"; boundary=X', '--X--', /type="image\/jpeg".* instead/],
    ['nothing named', '', 'x', /without a Content-Type/],
  ])('refuses %s, and says what to do', async (_what, contentType, text, message) => {
    const url = await answering(text, contentType === '' ? {} : { 'content-type': contentType });
    await expect(pull(url)).rejects.toMatchObject({
      code: 'UPSTREAM',
      message: expect.stringMatching(message),
    });
  });

  it('refuses parts that are not DICOM files', async () => {
    const text = (type: string, content: string | Uint8Array) =>
      Buffer.concat([Buffer.from(`--X Y\r\n${type}\r\n`), Buffer.from(content), Buffer.from('\r\n--X Y--')]);
    await expect(pull(await answering(text('', 'no DICM')))).rejects.toMatchObject({
      code: 'UPSTREAM',
      message: expect.stringMatching(/^Part 1 of the answer of 127\.0\.0\.1:\d+ is not a DICOM file\./),
    });
    await expect(pull(await answering(text('Content-Type: image/jpeg\r\n', files[0])))).rejects.toMatchObject(
      { message: expect.stringContaining('but image/jpeg') },
    );
    expect(await pull(await answering(text('', files[0])))).toHaveLength(1);
  });

  it('refuses some or none of the instances, and an unexpected number', async () => {
    const partial = await answering(body, { 'content-type': related }, 206);
    await expect(pull(partial)).rejects.toMatchObject({
      code: 'UPSTREAM',
      message: expect.stringContaining('only some of the instances (HTTP 206)'),
    });
    const nothing = await serve((_request, response) => response.writeHead(204).end());
    const empty = await answering('--X Y--\r\n');
    for (const url of [nothing, empty]) await expect(pull(url)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(pull(await answering(body), { expectedInstances: 4 })).rejects.toMatchObject({
      code: 'UPSTREAM',
      detail: { found: 3, expected: 4 },
    });
    await expect(
      client(await answering(body)).retrieveInstance('1.2', '1.2.3', '1.2.3.1'),
    ).rejects.toMatchObject({ detail: { found: 3, expected: 1 } });
  });

  it('refuses an instance that is longer than maxInstanceBytes', async () => {
    const web = client(await answering(body), { maxInstanceBytes: files[1].length - 1 });
    await expect(collect(web.retrieveSeries('1.2', '1.2.3'))).rejects.toMatchObject({
      code: 'UPSTREAM',
      message: expect.stringMatching(/^Part 2 /),
    });
  });

  it('closes the connection when the loop ends or the signal fires', async () => {
    const endless = relatedBody(files.slice(0, 1), 'X Y').slice(0, -9);
    let closed = 0;
    const url = await serve((_request, response) => {
      response.writeHead(200, { 'content-type': related }).write(relatedBody(files, 'X Y').slice(0, -9));
      const timer = setInterval(() => response.write(endless), 5);
      response.on('close', () => {
        clearInterval(timer);
        closed++;
      });
    });
    for await (const { sopInstanceUid } of client(url).retrieveSeries('1.2', '1.2.3')) {
      expect(sopInstanceUid).toBe('1.2.3.1');
      break;
    }
    await expect.poll(() => closed).toBe(1);
    const stop = new AbortController();
    const reason = new Error('enough');
    const reading = async () => {
      for await (const _ of client(url).retrieveSeries('1.2', '1.2.3', { signal: stop.signal }))
        stop.abort(reason);
    };
    expect(await failure(reading())).toBe(reason);
    await expect.poll(() => closed).toBe(2);
    expect(await failure(pull(url, { signal: AbortSignal.abort(reason) }))).toBe(reason);
  });

  it('gives up a silent server, not a slow reader', async () => {
    const silent = await serve((_request, response) => {
      response.writeHead(200, { 'content-type': related }).write(body.slice(0, 250));
    });
    const web = client(silent, { silenceMs: 150 });
    await expect(collect(web.retrieveSeries('1.2', '1.2.3'))).rejects.toMatchObject({
      code: 'UNREACHABLE',
      message: expect.stringContaining('kept silent'),
    });
    const seen: unknown[] = [];
    const patient = client(await answering(body), { silenceMs: 150 });
    for await (const { sopInstanceUid } of patient.retrieveSeries('1.2', '1.2.3')) {
      await new Promise((resolve) => setTimeout(resolve, 250));
      seen.push(sopInstanceUid);
    }
    expect(seen).toHaveLength(3);
  });

  it.each(['', '../1', '1.2/series', 'a', '1'.repeat(65)])(
    'refuses the UID %j before it asks',
    async (uid) => {
      let asked = 0;
      const url = await serve((_request, response) => {
        asked++;
        response.end();
      });
      const web = client(url);
      for (const work of [
        collect(web.retrieveStudy(uid)),
        collect(web.retrieveSeries('1.2', uid)),
        web.retrieveInstance('1.2', '1.2.3', uid),
        web.retrieveMetadata({ study: '1.2', series: uid }),
        web.searchSeries({ study: uid }),
        web.store([files[0]], { study: uid }),
      ])
        await expect(work).rejects.toMatchObject({ code: 'BAD_INPUT' });
      expect(asked).toBe(0);
    },
  );

  it('retrieveMetadata() wants the series of an instance', async () => {
    await expect(
      client('http://127.0.0.1:9').retrieveMetadata({ study: '1.2', instance: '1.3' }),
    ).rejects.toMatchObject({
      code: 'BAD_INPUT',
    });
  });
});

describe('refusals', () => {
  const refusing = (status: number, headers: Record<string, string> = {}, text = '') =>
    serve((_request, response) => response.writeHead(status, headers).end(text));

  it.each([
    [400, 'search', 'BAD_REQUEST', /refuses to search \(HTTP 400\)/],
    [401, 'search', 'UNAUTHORIZED', /asks for a login\. Give valid credentials by headers/],
    [403, 'search', 'FORBIDDEN', /does not allow this user to search\. Ask its operator/],
    [403, 'store', 'FORBIDDEN', /does not allow this user to store/],
    [404, 'search', 'NOT_FOUND', /dicom-web\/studies does not exist\. Give as url the root/],
    [404, 'retrieve', 'NOT_FOUND', /does not have studies\/1\.2\/series\/1\.2\.3\. Search for it/],
    [410, 'retrieve', 'NOT_FOUND', /does not have/],
    [405, 'store', 'METHOD_NOT_ALLOWED', /does not offer to store/],
    [501, 'search', 'METHOD_NOT_ALLOWED', /does not offer to search/],
    [406, 'retrieve', 'NOT_ACCEPTABLE', /cannot answer as multipart\/related.*transfer syntaxes/],
    [413, 'search', 'BAD_REQUEST', /too large \(HTTP 413\)\. Narrow it/],
    [413, 'store', 'UPLOAD_TOO_LARGE', /batchBytes/],
    [415, 'store', 'UNSUPPORTED_MEDIA', /does not take this kind of file or transfer syntax/],
    [429, 'search', 'BUSY', /busy \(HTTP 429\)/],
    [500, 'retrieve', 'INTERNAL', /failed to retrieve \(HTTP 500\)/],
    [502, 'search', 'UPSTREAM', /server behind/],
    [503, 'retrieve', 'BUSY', /busy \(HTTP 503\)/],
    [504, 'search', 'UNREACHABLE', /HTTP 504/],
    [507, 'store', 'DISK_FULL', /disk of .* is full/],
  ] as const)('HTTP %i to %s is %s', async (status, task, code, message) => {
    const web = client(await refusing(status, {}, 'said\u202e so'));
    const work =
      task === 'search'
        ? web.searchStudies({ patientName: 'DOE^JANE' })
        : task === 'store'
          ? web.store([files[0]])
          : collect(web.retrieveSeries('1.2', '1.2.3'));
    const error = await failure(work);
    expect(error).toBeInstanceOf(TomaatError);
    expect(error).toMatchObject({
      code,
      message: expect.stringMatching(message),
      detail: { httpStatus: status },
    });
    // One sentence for what was wrong, one for what to do.
    expect(error.message).toMatch(/^\S.*\. \S.*\.$/);
    expect(JSON.stringify(error)).not.toMatch(/DOE|JANE/);
    expect(error.detail!.answer).toMatch(/^said\S+ so$/);
    expect(error.detail!.answer).not.toContain('\u202e');
  });

  it('names the scheme that a login wants', async () => {
    const web = client(await refusing(401, { 'www-authenticate': 'Bearer realm="x"' }));
    expect((await failure(web.searchStudies())).message).toContain('asks for a login (Bearer).');
  });

  it('retries reads and stores after the delay that a busy server requests', async () => {
    const methods: (string | undefined)[] = [];
    const url = await serve((request, response) => {
      methods.push(request.method);
      request.resume();
      if (methods.length % 2 === 1) return response.writeHead(503, { 'retry-after': '0' }).end();
      return response.writeHead(200, { 'content-type': 'application/dicom+json' }).end('[]');
    });
    const web = client(url, { retries: 1 });
    expect(await web.searchStudies()).toEqual([]);
    expect((await web.store([files[0]])).failed).toHaveLength(1);
    expect(methods).toEqual(['GET', 'GET', 'POST', 'POST']);
  });

  it('says what a network fault was, without the query', async () => {
    const error = await failure(client('http://127.0.0.1:9').searchStudies({ patientName: 'DOE' }));
    expect(error).toMatchObject({ code: 'UNREACHABLE' });
    expect(JSON.stringify(error)).not.toContain('DOE');
  });

  it('says how to trust a certificate', async () => {
    const fetch = async () => {
      throw new TypeError('fetch failed', { cause: { code: 'DEPTH_ZERO_SELF_SIGNED_CERT' } });
    };
    const error = await failure(client('https://pacs.example', { fetch }).searchStudies());
    expect(error).toMatchObject({
      code: 'UNREACHABLE',
      message: expect.stringMatching(
        /^The certificate of pacs\.example is not trusted here\..*NODE_EXTRA_CA_CERTS\.$/,
      ),
    });
    expect(error.message).not.toContain('tomaat');
  });

  it.each(['ftp://a/b', 'pacs', ''])('createDicomWeb() refuses the address %j', (url) => {
    expect(() => createDicomWeb({ url })).toThrow(expect.objectContaining({ code: 'BAD_REQUEST' }));
  });

  it('a password in the address is refused, and is not part of the message', () => {
    const open = () => createDicomWeb({ url: 'http://me:secret@pacs.example/dicom-web' });
    expect(open).toThrow(expect.objectContaining({ code: 'BAD_REQUEST' }));
    expect(open).not.toThrow(/secret/);
  });

  it('headers that HTTP does not allow are refused, without their value', async () => {
    const web = client('http://127.0.0.1:9', { headers: () => ({ authorization: 'Bearer secret\r\nx: y' }) });
    const error = await failure(web.searchStudies());
    expect(error).toMatchObject({ code: 'BAD_REQUEST' });
    expect(JSON.stringify([error, error.cause, error.stack])).not.toContain('secret');
  });
});

describe('redirects', () => {
  it('are followed within the origin with headers, and body where required', async () => {
    const seen: unknown[] = [];
    const url = await serve((request, response) => {
      const chunks: Buffer[] = [];
      request.on('data', (chunk) => chunks.push(chunk));
      request.on('end', () => {
        seen.push([
          request.method,
          request.url,
          request.headers.authorization,
          Buffer.concat(chunks).length > 0,
        ]);
        if (request.url!.startsWith('/dicom-web'))
          response.writeHead(request.method === 'GET' ? 301 : 308, { location: '/there' }).end();
        else response.writeHead(200, { 'content-type': 'application/dicom+json' }).end('[]');
      });
    });
    const web = client(url, { headers: { authorization: 'Bearer t' } });
    expect(await web.searchStudies()).toEqual([]);
    await web.store([files[0]]);
    expect(seen).toEqual([
      ['GET', '/dicom-web/studies?includefield=00081030&limit=100&offset=0', 'Bearer t', false],
      ['GET', '/there', 'Bearer t', false],
      ['POST', '/dicom-web/studies', 'Bearer t', true],
      ['POST', '/there', 'Bearer t', true],
    ]);
  });

  it('to another origin are refused before anything is sent there', async () => {
    let reached = 0;
    const other = await serve((_request, response) => {
      reached++;
      response.end();
    });
    const url = await serve((_request, response) =>
      response.writeHead(307, { location: `${other}/dicom-web` }).end(),
    );
    const web = client(url, { headers: { 'x-key': 'k' } });
    for (const work of [
      web.searchStudies(),
      collect(web.retrieveStudy('1.2')),
      web.retrieveMetadata({ study: '1.2' }),
      web.store([files[0]]),
    ]) {
      const error = await failure(work);
      expect(error).toMatchObject({ code: 'UPSTREAM', detail: { httpStatus: 307 } });
      expect(error.message).toContain(`redirects to ${other}, where credentials and images are not sent`);
    }
    expect(reached).toBe(0);
  });

  it.each([
    [302, '/there', /drops what is sent/],
    [307, 'http://[', /not an address/],
    [308, '/dicom-web/studies', /more than 5 times/],
  ])('%i to %s is refused when storing', async (status, location, message) => {
    const url = await serve((request, response) => {
      request.resume();
      response.writeHead(status, { location }).end();
    });
    await expect(client(url).store([files[0]])).rejects.toMatchObject({
      code: 'UPSTREAM',
      message: expect.stringMatching(message),
    });
  });

  it('that a page cannot see are refused', async () => {
    const opaque = Object.create(Response.prototype, {
      status: { value: 0 },
      ok: { value: false },
      type: { value: 'opaqueredirect' },
      headers: { value: new Headers() },
      body: { value: null },
    }) as Response;
    await expect(
      client('http://pacs.example', { fetch: async () => opaque }).searchStudies(),
    ).rejects.toMatchObject({
      code: 'UPSTREAM',
      message: expect.stringContaining('Give the final address as url.'),
    });
  });
});
