import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { TomaatError } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import { serve } from '../test/serve.ts';
import { createClient, requireSuccess } from './client.ts';
import { type Job, jobSchema } from './contract/jobs.ts';
import { createRegistryClient } from './registry.ts';
import { multipart } from './upload.ts';

function json(response: ServerResponse, status: number, body: unknown, headers: Record<string, string> = {}) {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
}

function problem(
  response: ServerResponse,
  status: number,
  code: string,
  detail: string,
  headers: Record<string, string> = {},
) {
  const body = {
    type: 'about:blank',
    title: code,
    status,
    detail,
    code,
    retryable: status >= 500,
    requestId: 'r-1',
  };
  response
    .writeHead(status, { 'content-type': 'application/problem+json', ...headers })
    .end(JSON.stringify(body));
}

const time = '2025-01-01T00:00:00.000Z';
const ended = { settledTime: time, expiresTime: time };
const fault = { type: 'x', title: 'x', status: 422, detail: 'x', retryable: false };
/** What a job of each state has to have. */
const parts = {
  queued: {},
  running: { startedTime: time },
  succeeded: { startedTime: time, ...ended },
  failed: { ...ended, error: { ...fault, code: 'APP_FAILED' } },
  canceled: { ...ended, error: { ...fault, code: 'CANCELED' } },
};

const job = (state: Job['state'], more: Partial<Job> = {}): Job =>
  jobSchema.parse({
    id: 'j1',
    service: 'prostate',
    state,
    attempt: 1,
    createdTime: time,
    parameters: {},
    outputs: [],
    ...parts[state],
    ...more,
  });

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

async function formOf(request: IncomingMessage): Promise<FormData> {
  const body = await bodyOf(request);
  return new Response(new Uint8Array(body), {
    headers: { 'content-type': request.headers['content-type'] ?? '' },
  }).formData();
}

async function failure(promise: Promise<unknown>): Promise<TomaatError> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof TomaatError)) throw new Error(`no TomaatError but ${String(error)}`);
  return error;
}

function source(name: string, bytes: Uint8Array, onPull: (bytes: number) => void = () => {}) {
  return {
    name,
    sizeBytes: bytes.length,
    async *stream() {
      for (let at = 0; at < bytes.length; at += 1000) {
        const chunk = bytes.subarray(at, at + 1000);
        onPull(chunk.length);
        yield chunk;
      }
    },
  };
}

describe('predict()', () => {
  it('sends fields, then each input’s files under its name, with exact length', async () => {
    const seen: {
      url?: string;
      headers?: IncomingMessage['headers'];
      order?: string[];
      files?: [string, string, number][];
    } = {};
    const baseUrl = await serve(async (request, response) => {
      seen.url = request.url;
      seen.headers = request.headers;
      const form = await formOf(request);
      seen.order = [...form.keys()];
      seen.files = await Promise.all(
        form.getAll('volume').map(async (file) => {
          const blob = file as File;
          return [
            blob.name,
            blob.type,
            new Uint8Array(await blob.arrayBuffer()).reduce((a, b) => a + b, 0),
          ] as [string, string, number];
        }),
      );
      json(
        response,
        202,
        job('queued', { parameters: Object.fromEntries([...form].filter(([, v]) => typeof v === 'string')) }),
      );
    });
    const bytes = Uint8Array.from({ length: 4321 }, (_, i) => i % 7);
    const progress: number[] = [];
    let total = 0;
    const made = await createClient({ baseUrl: `${baseUrl}/`, apiKey: 'tmt_x' }).predict('prostate', {
      volumes: { volume: [source('a "b".hdr', bytes), new File([new Uint8Array(10).fill(3)], 'a.img')] },
      values: {
        threshold: 0.25,
        fast: true,
        seeds: [
          [1, -2, 3.5],
          [4, 5, 6],
        ],
      },
      frame: 2,
      onUpload: ({ sentBytes, totalBytes }) => {
        progress.push(sentBytes);
        total = totalBytes;
      },
    });
    expect(made.parameters).toEqual({ threshold: '0.25', fast: 'true', seeds: '1,-2,3.5;4,5,6' });
    expect(seen.url).toBe('/api/services/prostate/predictions?frame=2');
    expect(seen.headers?.authorization).toBe('Bearer tmt_x');
    expect(seen.headers?.['idempotency-key']).toMatch(/^[0-9a-f]{32}$/);
    expect(seen.headers?.['transfer-encoding']).toBeUndefined();
    expect(Number(seen.headers?.['content-length'])).toBe(total);
    expect(seen.order).toEqual(['threshold', 'fast', 'seeds', 'volume', 'volume']);
    const sum = bytes.reduce((a, b) => a + b, 0);
    expect(seen.files).toEqual([
      ['volume.hdr', 'application/octet-stream', sum],
      ['volume.img', 'application/octet-stream', 30],
    ]);
    expect(progress).toEqual([...progress].sort((a, b) => a - b));
    expect(progress.at(-1)).toBe(total);
  });

  it('reads the file no faster than the server takes it', async () => {
    let pulled = 0;
    const baseUrl = await serve((request) => request.pause());
    const sizeBytes = 400_000_000;
    const chunk = new Uint8Array(1_000_000);
    const big = {
      name: 'big.nii',
      sizeBytes,
      async *stream() {
        for (let i = 0; i < 400; i++) {
          pulled += chunk.length;
          yield chunk;
        }
      },
    };
    const stop = new AbortController();
    const running = createClient({ baseUrl }).predict('s', { volumes: { volume: big }, signal: stop.signal });
    let before = -1;
    while (pulled === 0 || pulled !== before) {
      before = pulled;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    stop.abort(new Error('enough'));
    await expect(running).rejects.toThrow('enough');
    expect(pulled).toBeLessThan(40_000_000);
  });

  it('repeats an upload that was cut, with the same Idempotency-Key', async () => {
    const keys: (string | undefined)[] = [];
    const baseUrl = await serve(async (request, response) => {
      keys.push(request.headers['idempotency-key'] as string);
      if (keys.length === 1) {
        request.once('data', () => request.socket.resetAndDestroy());
        return;
      }
      const form = await formOf(request);
      json(response, 202, job('queued', { parameters: { bytes: (form.get('volume') as File).size } }));
    });
    const made = await createClient({ baseUrl }).predict('s', {
      volumes: { volume: source('a.nii', new Uint8Array(300_000)) },
    });
    expect(made.parameters.bytes).toBe(300_000);
    expect(keys).toHaveLength(2);
    expect(keys[0]).toBe(keys[1]);
  });

  it('returns the Problem of a server that refuses during the upload', async () => {
    const baseUrl = await serve((_request, response) => {
      problem(response, 413, 'UPLOAD_TOO_LARGE', 'At most 1 MB. Send less.', { connection: 'close' });
    });
    const error = await failure(
      createClient({ baseUrl }).predict('s', {
        volumes: { volume: source('a.nii', new Uint8Array(20_000_000)) },
      }),
    );
    expect(error).toMatchObject({ code: 'UPLOAD_TOO_LARGE', message: 'At most 1 MB. Send less.' });
    expect(error.detail?.requestId).toBe('r-1');
  });

  it.each([-1, 1])('refuses a file whose size is %i bytes off the stated size', async (off) => {
    const baseUrl = await serve(async (request, response) => {
      await bodyOf(request).catch(() => {});
      json(response, 202, job('queued'));
    });
    const wrong = { ...source('a.nii', new Uint8Array(5000)), sizeBytes: 5000 + off };
    const error = await failure(createClient({ baseUrl }).predict('s', { volumes: { volume: wrong } }));
    expect(error.code).toBe('BAD_INPUT');
    expect(error.message).toContain('volume.nii changed');
  });

  it('waits and tries again where the server is busy', async () => {
    let asked = 0;
    const baseUrl = await serve(async (request, response) => {
      await bodyOf(request);
      if (++asked === 1) return problem(response, 503, 'BUSY', 'Full.', { 'retry-after': '1' });
      json(response, 202, job('queued'));
    });
    const made = await createClient({ baseUrl }).predict('s', { volumes: { volume: new Blob(['x']) } });
    expect(made.state).toBe('queued');
    expect(asked).toBe(2);
  });
});

describe('errors', () => {
  it('createClient() says what to do when nothing listens', async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    await new Promise((resolve) => server.close(resolve));
    const error = await failure(createClient({ baseUrl: `http://127.0.0.1:${port}` }).services());
    expect(error.code).toBe('UNREACHABLE');
    expect(error.message).toContain(`Nothing listens at 127.0.0.1:${port}`);
  });

  it('service() distinguishes an HTML page from a TOMAAT server', async () => {
    const baseUrl = await serve((_request, response) =>
      response.writeHead(200, { 'content-type': 'text/html' }).end('<p>hello'),
    );
    const error = await failure(createClient({ baseUrl }).service('s'));
    expect(error.code).toBe('UPSTREAM');
    expect(error.message).toContain('not as a TOMAAT server');
  });

  it('job() translates a status without a Problem', async () => {
    const baseUrl = await serve((_request, response) => response.writeHead(413).end('nginx'));
    expect((await failure(createClient({ baseUrl }).job('s'))).code).toBe('UPLOAD_TOO_LARGE');
  });

  it('job() gives up a server that keeps silent', async () => {
    const baseUrl = await serve(() => {});
    const error = await failure(createClient({ baseUrl, silenceMs: 100, retries: 0 }).job('s'));
    expect(error).toMatchObject({ code: 'UNREACHABLE' });
    expect(error.message).toContain('kept silent');
  });

  it('createClient() refuses an invalid address', () => {
    for (const baseUrl of ['ftp://x', 'localhost:9000', 'nonsense', 'http://user:secret@host/']) {
      expect(() => createClient({ baseUrl }), baseUrl).toThrow(TomaatError);
    }
  });

  it('requireSuccess() throws the error of the job with its code', () => {
    const failed = job('failed', {
      error: {
        type: 'x',
        title: 'x',
        status: 422,
        detail: 'No prostate. Send a prostate.',
        code: 'NOT_ACCEPTED',
        retryable: false,
        field: 'volume',
      },
    });
    expect(() => requireSuccess(failed)).toThrow(
      expect.objectContaining({ code: 'NOT_ACCEPTED', field: 'volume' }),
    );
    expect(requireSuccess(job('succeeded')).state).toBe('succeeded');
    expect(() => requireSuccess(job('canceled'))).toThrow(expect.objectContaining({ code: 'CANCELED' }));
  });
});

const event = (id: number, data: Job) => `id: ${id}\nevent: job\ndata: ${JSON.stringify(data)}\n\n`;

describe('watch()', () => {
  it('resumes a broken stream and ends when the job is settled', async () => {
    const lastIds: (string | undefined)[] = [];
    const baseUrl = await serve((request, response) => {
      if (!request.url?.endsWith('/events')) return json(response, 200, job('running', { fraction: 0.5 }));
      lastIds.push(request.headers['last-event-id'] as string | undefined);
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      if (lastIds.length === 1) {
        response.write(`retry: 50\n\n${event(1, job('queued', { queuePosition: 2 }))}`);
        response.write(event(2, job('running', { fraction: 0.5 })), () =>
          setTimeout(() => request.socket.destroy(), 50),
        );
        return;
      }
      response.end(event(3, job('running', { fraction: 0.9 })) + event(4, job('succeeded')));
    });
    const seen: string[] = [];
    for await (const at of createClient({ baseUrl }).watch('j1'))
      seen.push(`${at.state} ${at.fraction ?? ''}`.trim());
    expect(seen).toEqual(['queued', 'running 0.5', 'running 0.9', 'succeeded']);
    expect(lastIds).toEqual([undefined, '2']);
  });

  it('asks again and again where events do not get through', async () => {
    let asked = 0;
    const baseUrl = await serve((request, response) => {
      if (request.url?.endsWith('/events'))
        return response.writeHead(200, { 'content-type': 'text/html' }).end('proxy');
      asked++;
      json(response, 200, asked < 6 ? job('running', { fraction: asked / 10 }) : job('succeeded'));
    });
    const states: string[] = [];
    for await (const at of createClient({ baseUrl }).watch('j1', { pollMs: 20 })) states.push(at.state);
    expect(states).toEqual(['running', 'running', 'running', 'running', 'running', 'succeeded']);
  });

  it('does not hang on a stream that is silent', async () => {
    const baseUrl = await serve((request, response) => {
      if (request.url?.endsWith('/events')) {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        response.flushHeaders();
        return;
      }
      json(response, 200, job('succeeded'));
    });
    expect((await createClient({ baseUrl }).wait('j1', { silenceMs: 150, pollMs: 20 })).state).toBe(
      'succeeded',
    );
  });

  it('outlives a restart of the server, but not for ever', async () => {
    let up = true;
    const baseUrl = await serve((request, response) => {
      if (!up) return request.socket.destroy();
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(event(1, job('running')));
      up = false;
      setTimeout(() => request.socket.destroy(), 20);
    });
    const error = await failure(
      createClient({ baseUrl, retries: 0 }).wait('j1', { pollMs: 20, patienceMs: 300 }),
    );
    expect(error.code).toBe('UNREACHABLE');
    expect(error.message).toContain('/api/jobs/j1');
  });

  it('throws at once what the server says', async () => {
    const baseUrl = await serve((_request, response) => problem(response, 404, 'NOT_FOUND', 'No such job.'));
    expect(await failure(createClient({ baseUrl }).wait('j1'))).toMatchObject({ code: 'NOT_FOUND' });
  });

  it('ends with the reason of its signal, and closes the stream', async () => {
    let closed = false;
    const baseUrl = await serve((request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(event(1, job('running')));
      request.socket.on('close', () => {
        closed = true;
      });
    });
    const stop = new AbortController();
    const watching = (async () => {
      for await (const at of createClient({ baseUrl }).watch('j1', { signal: stop.signal })) {
        if (at.state === 'running') stop.abort(new Error('enough'));
      }
    })();
    await expect(watching).rejects.toThrow('enough');
    await expect.poll(() => closed).toBe(true);
  });
});

describe('cancel(), remove()', () => {
  /** `older`: knows DELETE alone. `endsInTime`: the job succeeds just before the request that would cancel it. */
  async function jobServer({ older = false, endsInTime = false } = {}) {
    const state = { job: job('running') as Job | undefined, deletes: 0 };
    const done = job('succeeded', { outputs: [] });
    const baseUrl = await serve((request, response) => {
      if (!state.job) return problem(response, 404, 'NOT_FOUND', 'No such job.');
      if (request.method === 'POST' && older)
        return problem(response, 404, 'NOT_FOUND', 'There is nothing at this address.');
      if (request.method !== 'GET' && endsInTime) state.job = done;
      if (request.method === 'POST') {
        if (request.url !== '/api/jobs/j1/cancel')
          return problem(response, 404, 'NOT_FOUND', 'Wrong address.');
        if (state.job.state === 'running') state.job = job('canceled');
        return json(response, 200, state.job);
      }
      if (request.method === 'DELETE') {
        state.deletes++;
        if (state.job.state === 'running') {
          state.job = job('canceled');
          return json(response, 200, state.job);
        }
        state.job = undefined;
        return response.writeHead(204).end();
      }
      json(response, 200, state.job);
    });
    return { client: createClient({ baseUrl }), state };
  }

  it('cancel() cancels what runs and never deletes', async () => {
    const { client, state } = await jobServer();
    expect((await client.cancel('j1')).state).toBe('canceled');
    expect((await client.cancel('j1')).state).toBe('canceled');
    expect(state.deletes).toBe(0);
  });

  it('cancel() gives the job that has just succeeded, which stays', async () => {
    const { client, state } = await jobServer({ endsInTime: true });
    expect((await client.cancel('j1')).state).toBe('succeeded');
    expect(state).toMatchObject({ job: { state: 'succeeded' }, deletes: 0 });
  });

  it('cancel() falls back to DELETE on older servers, only for unsettled jobs', async () => {
    const { client, state } = await jobServer({ older: true });
    expect((await client.cancel('j1')).state).toBe('canceled');
    expect((await client.cancel('j1')).state).toBe('canceled');
    expect(state.deletes).toBe(1);
    state.job = undefined;
    expect((await failure(client.cancel('j1'))).code).toBe('NOT_FOUND');
  });

  it('cancel() reports what an older server deleted instead of cancelling', async () => {
    const { client } = await jobServer({ older: true, endsInTime: true });
    expect(await failure(client.cancel('j1'))).toMatchObject({
      code: 'CONFLICT',
      message: expect.stringContaining('deleted its results'),
    });
  });

  it('remove() cancels, deletes, and is content with nothing', async () => {
    const { client, state } = await jobServer();
    await client.remove('j1');
    expect(state).toMatchObject({ job: undefined, deletes: 2 });
    await client.remove('j1');
  });
});

describe('output()', () => {
  it('gives bytes, name and type as they are', async () => {
    const seen: (string | undefined)[] = [];
    const baseUrl = await serve((request, response) => {
      seen.push(request.url, request.headers['accept-encoding'] as string);
      response
        .writeHead(200, {
          'content-type': 'application/gzip',
          'content-length': '5',
          'content-disposition': `attachment; filename="../evil"; filename*=UTF-8''m%C3%BCller_seg.nii.gz`,
        })
        .end('12345');
    });
    const file = await createClient({ baseUrl }).output('j1', 'seg mentation', { format: 'nii.gz' });
    expect(file).toMatchObject({
      fileName: 'müller_seg.nii.gz',
      sizeBytes: 5,
      mediaType: 'application/gzip',
    });
    expect(await (await file.blob()).text()).toBe('12345');
    expect(seen).toEqual(['/api/jobs/j1/outputs/seg%20mentation?format=nii.gz', 'identity']);
  });

  it('errs when the connection breaks in the middle', async () => {
    const baseUrl = await serve((request, response) => {
      response.writeHead(200, { 'content-length': '1000' });
      response.write('short', () => setTimeout(() => request.socket.destroy(), 20));
    });
    const file = await createClient({ baseUrl }).output('j1', 'x');
    expect((await failure(file.blob())).code).toBe('UNREACHABLE');
  });

  it('stops midway when its signal aborts', async () => {
    const baseUrl = await serve((_request, response) => {
      response.writeHead(200, { 'content-length': '1000' });
      response.write('the rest never comes');
    });
    const stop = new AbortController();
    const file = await createClient({ baseUrl }).output('j1', 'x', { signal: stop.signal });
    const reading = file.blob();
    setTimeout(() => stop.abort(new Error('enough')), 50);
    await expect(reading).rejects.toThrow('enough');
  });

  it('a name from the server never leads out of the folder', async () => {
    const baseUrl = await serve((_request, response) =>
      response
        .writeHead(200, { 'content-disposition': 'attachment; filename="..\\\\..\\\\/etc/passwd"' })
        .end('x'),
    );
    expect((await createClient({ baseUrl }).output('j1', 'x')).fileName).toBe('passwd');
  });
});

describe('multipart()', () => {
  it('escapes what would end a header', async () => {
    const form = multipart({ fields: [['a"\r\nb', 'v']], files: [] });
    const text = await new Response(form.stream).text();
    expect(text).toContain('name="a%22%0D%0Ab"');
    expect(new TextEncoder().encode(text).length).toBe(form.sizeBytes);
  });
});

const v1 = {
  prediction_url: 'https://old.example:9000/predict',
  interface_url: 'https://old.example:9000/interface',
  name: 'Old prostate',
  modality: 'MRI',
  anatomy: 'Prostate',
  task: 'Segmentation',
  description: 'From 2018',
  SID: 'ab12',
  creation_time: 1_700_000_000.5,
  api_key: '',
};

describe('discover()', () => {
  it('falls back to TOMAAT v1, filters there too', async () => {
    const baseUrl = await serve((request, response) => {
      if (request.url !== '/discover') return response.writeHead(404).end('Not Found');
      json(response, 200, [
        v1,
        { ...v1, name: 'Old liver', anatomy: 'Liver', SID: 7 },
        { name: 'no address' },
      ]);
    });
    const client = createRegistryClient({ baseUrl });
    expect(
      (await client.discover()).map((entry) => [entry.sid, entry.anatomy, entry.face, entry.live]),
    ).toEqual([
      ['ab12', 'Prostate', 'v1', true],
      ['7', 'Liver', 'v1', true],
    ]);
    expect((await client.discover({ anatomy: 'liver', q: '2018 OLD' })).map((entry) => entry.name)).toEqual([
      'Old liver',
    ]);
  });

  it('reports that the address belongs to a server', async () => {
    const baseUrl = await serve((_request, response) =>
      json(response, 200, { services: [{ id: 'x', inputs: [] }] }),
    );
    expect((await failure(createRegistryClient({ baseUrl }).discover())).message).toContain(
      'is a server, not a registry',
    );
  });

  it('passes filters on', async () => {
    let url: string | undefined;
    const baseUrl = await serve((request, response) => {
      url = request.url;
      json(response, 200, { services: [] });
    });
    await createRegistryClient({ baseUrl }).discover(
      { task: 'segmentation', anatomy: undefined },
      { live: true },
    );
    expect(url).toBe('/api/services?task=segmentation&live=true');
  });
});
