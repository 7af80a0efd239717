import { type ChildProcess, fork } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { announcementType, type Job } from '@tomaat/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ownNodeOptions } from '../src/source.ts';
import { makeKey } from './access-fixture.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { type RealServer, rawRequest, sendRaw, startRealServer } from './real-server.ts';
import { announcementOf, identityOf, payloadOf } from './registry-helpers.ts';
import { temporaryFolder } from './test-server.ts';

/*
 * The largest and smallest numbers that a schema lets pass, and larger ones, to every route that takes numbers, of servers in
 * processes of their own: each is answered with a status below 500, and the server answers others meanwhile. The limits are
 * far above what any machine needs, and far below what work in proportion to such a number would take.
 */
const limitMs = 10_000;
const most = Number.MAX_SAFE_INTEGER;
const largest = Number.MAX_VALUE;
const least = Number.MIN_VALUE;
/** Most voxels that a grid may have. */
const voxels = 2 ** 30;

let server: RealServer;
/** Without children of its own: its jobs are for workers elsewhere. */
let manager: RealServer;
let registry: { process: ChildProcess; url: string; key: string; folder: string };
let folder: string;
let scan: Uint8Array<ArrayBuffer>;
let worker: Record<string, string>;

const inputs = {
  volume: { type: 'volume' },
  factor: { type: 'slider', minimum: -largest / 4, maximum: largest / 4, step: least, default: 0 },
  fine: { type: 'slider', minimum: 0, maximum: 1, step: 1e-300, default: 0 },
  points: { type: 'fiducials', optional: true },
};

beforeAll(async () => {
  folder = await temporaryFolder();
  const labels = [{ value: 1, name: 'bright' }];
  const outputs = { segmentation: { type: 'LabelVolume' } };
  const app = await writeApp(folder, 'app', { inputs, labels, outputs, infer: inferBright });
  const resampling = await writeApp(folder, 'resampling', {
    labels,
    outputs,
    infer: inferBright,
    preprocess: [
      { orientation: { axcodes: 'RAS' } },
      { spacing: { pixdim: [0.001, 0.001, 0.001] } },
      { divisiblePad: { k: 64 } },
    ],
    acceptance: [{ spacingMm: { maximum: 3 }, message: 'Thin slices are needed' }],
  });
  const folders = [
    app,
    resampling,
    ...['apps/ct-bone', 'apps/ct-lung', 'examples/onnx-smooth'].map((name) =>
      fileURLToPath(new URL(`../../../${name}`, import.meta.url)),
    ),
  ];
  server = await startRealServer(folders, { maxUploadBytes: 64 * 2 ** 20 });
  manager = await startRealServer([app], { workers: 0 });
  worker = (await makeKey(manager.dataFolder, ['worker'])).headers;
  scan = Uint8Array.from(await encode(phantom(), 'nii.gz'));
  const registryFolder = await temporaryFolder();
  const registryFile = fileURLToPath(new URL('./registry-process.ts', import.meta.url));
  const process = fork(registryFile, [registryFolder], { execArgv: [...ownNodeOptions] });
  const [ready] = (await once(process, 'message')) as [{ url: string; key: string }];
  registry = { process, ...ready, folder: registryFolder };
});
afterAll(async () => {
  registry?.process.kill('SIGKILL');
  await server?.[Symbol.asyncDispose]();
  await manager?.[Symbol.asyncDispose]();
  for (const path of [folder, registry?.folder]) if (path) await rm(path, { recursive: true, force: true });
});

interface Answer {
  status: number;
  text: string;
}

/** The answer, while the same process answers for its health. */
async function answerTo(base: string, work: () => Promise<Response | Answer>): Promise<Answer> {
  const start = performance.now();
  const [answer] = await Promise.all([
    work(),
    fetch(`${base}/health/live`, { signal: AbortSignal.timeout(limitMs) }).then((health) =>
      expect(health.status).toBe(200),
    ),
  ]);
  const text = answer instanceof Response ? await answer.text() : answer.text;
  expect(performance.now() - start, text.slice(0, 300)).toBeLessThan(limitMs);
  expect(answer.status, text.slice(0, 300)).toBeLessThan(500);
  return { status: answer.status, text };
}

/** Asks one process; a body that is no text is sent as JSON. */
const ask = (base: string, method: string, path: string, body?: unknown, headers = {}) =>
  answerTo(base, () =>
    fetch(`${base}${path}`, {
      method,
      signal: AbortSignal.timeout(limitMs),
      ...(body !== undefined && {
        body:
          typeof body === 'string' || body instanceof Uint8Array ? (body as string) : JSON.stringify(body),
      }),
      headers: { ...(body !== undefined && { 'content-type': 'application/json' }), ...headers },
    }),
  );

/** Texts that stand for numbers in JSON and in fields. */
const digits = [
  String(most),
  '9007199254740993',
  '18446744073709551616',
  '1.7976931348623157e308',
  '-1.7976931348623157e308',
  '5e-324',
  '1e-999',
  '1e999',
  '-1e999',
  `1${'0'.repeat(308)}`,
  '9'.repeat(30_000),
  `0.${'0'.repeat(30_000)}1`,
  `1e${'9'.repeat(5000)}`,
];

describe('POST /api/services/{id}/fit', () => {
  const affine = (...rows: number[]) => [...rows, 0, 0, 0, 1];
  const facts: [string, Record<string, unknown>][] = [
    ['the longest axes', { size: [most, most, most] }],
    ['an axis of x as long as a volume has voxels', { size: [voxels, 1, 1] }],
    ['an axis of y as long as a volume has voxels', { size: [1, voxels, 1] }],
    ['an axis of z as long as a volume has voxels', { size: [1, 1, voxels] }],
    ['the most voxels in a cube', { size: [1024, 1024, 1024] }],
    ['the most voxels in a plane', { size: [32768, 32768, 1], spacing: [0.001, 1000, 1] }],
    ['the largest spacing of a body', { size: [voxels, 1, 1], spacing: [1e6, 1e6, 1e6] }],
    ['the smallest spacing of a body', { size: [voxels, 1, 1], spacing: [1e-12, 1e-12, 1e-12] }],
    ['spacings of all magnitudes', { size: [1, voxels, 1], spacing: [1e-12, 1e6, 1] }],
    ['the largest spacing', { size: [2, 3, 4], spacing: [largest, largest, largest] }],
    ['the smallest spacing', { size: [2, 3, 4], spacing: [least, least, least] }],
    ['the largest affine', { size: [2, 3, 4], affine: new Array(16).fill(largest) }],
    [
      'an affine of the largest directions',
      { size: [voxels, 1, 1], affine: affine(1e6, 0, 0, 1e9, 0, 1e6, 0, -1e9, 0, 0, 1e6, 1e9) },
    ],
    [
      'an affine that is nearly singular',
      { size: [9, 9, 9], affine: affine(1, 1, 0, 0, 1, 1 + 3e-6, 0, 0, 0, 0, 1, 0) },
    ],
    [
      'a bottom row that is none',
      { size: [9, 9, 9], affine: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, largest, -largest, least, 0] },
    ],
    ['the most components', { size: [voxels, 1, 1], components: 4096, voxelType: 'float64' }],
    ['the most frames', { size: [voxels, 1, 1], frames: most, components: 4096 }],
    ['frames of single voxels', { size: [1, 1, 1], frames: voxels }],
    ['the longest file', { size: [2, 3, 4], sizeBytes: most }],
  ];
  it.each(facts)('answers for %s', async (_what, volume) => {
    for (const service of ['app', 'resampling', 'ct-bone', 'ct-lung', 'onnx-smooth'])
      await ask(server.url, 'POST', `/api/services/${service}/fit`, { inputs: { volume } });
  });

  it.each(digits)('answers where a number is %.40s', async (number) => {
    for (const body of [
      `{"inputs":{"volume":{"size":[${number},1,1]}}}`,
      `{"inputs":{"volume":{"size":[1,1,1],"spacing":[1,${number},1]}}}`,
      `{"inputs":{"volume":{"size":[1,1,1],"components":${number},"frames":${number},"sizeBytes":${number}}}}`,
    ])
      await ask(server.url, 'POST', '/api/services/resampling/fit', body);
  });

  it('answers for as many names as a body holds', async () => {
    const many = Object.fromEntries(Array.from({ length: 2500 }, (_, i) => [`v${i}`, { size: [1, 1, 1] }]));
    expect((await ask(server.url, 'POST', '/api/services/app/fit', { inputs: many })).status).toBe(422);
  });
});

describe('predictions', () => {
  const send = (query: string, headers = {}) =>
    ask(server.url, 'POST', `/api/services/app/predictions${query}`, scan, {
      'content-type': 'application/octet-stream',
      ...headers,
    });
  const drop = async ({ status, text }: Answer) => {
    if (status === 200 || status === 202)
      await fetch(`${server.url}/api/jobs/${(JSON.parse(text) as Job).id}`, { method: 'DELETE' });
  };

  it.each(digits)('take or refuse a parameter, a frame and points of %.40s', async (number) => {
    // An address is shorter than a body.
    const short = encodeURIComponent(number.slice(0, 4000));
    await drop(await send(`?factor=${short}`));
    await drop(await send(`?fine=${short}`));
    await drop(await send(`?frame=${short}`));
    await drop(await send(`?points=${short},${short},0`));
    for (const part of [`"factor":${number}`, `"fine":${number}`, `"points":[[${number},${number},0]]`])
      await drop(
        await ask(
          server.url,
          'POST',
          '/api/services/app/predictions',
          `{"inputs":{"volume":{"upload":"none"}},"frame":${number},"parameters":{${part}}}`,
        ),
      );
    const form = new FormData();
    form.set('factor', number);
    form.set('frame', number);
    form.set('points', `${number},${number},${number}`);
    form.set('volume', new Blob([scan]), 'a.nii.gz');
    for (const path of ['/api/services/app/predictions', '/app/any'])
      await drop(
        await answerTo(server.url, () =>
          fetch(`${server.url}${path}`, { method: 'POST', body: form, signal: AbortSignal.timeout(limitMs) }),
        ).then((answer) => (path === '/app/any' ? { ...answer, status: 0 } : answer)),
      );
  });

  it('take the most points that an input may have, and refuse more', async () => {
    for (const count of [10_000, 10_001, 100_000]) {
      const form = new FormData();
      form.set('points', `${largest},${-largest},${least};`.repeat(count));
      form.set('volume', new Blob([scan]), 'a.nii.gz');
      const answer = await answerTo(server.url, () =>
        fetch(`${server.url}/api/services/app/predictions`, { method: 'POST', body: form }),
      );
      expect(answer.status === 202, answer.text).toBe(count === 10_000);
      await drop(answer);
    }
  });

  it.each(['999999999999999', '9'.repeat(400), '1e9', '-1'])(
    'take Prefer: wait=%.20s and Priority: u=%.20s',
    async (number) => {
      await drop(await send('', { prefer: `wait=${number}`, priority: `u=${number}` }));
    },
  );

  const header = (size: string, spacing = '1 1 1') =>
    `ObjectType = Image\nNDims = 3\nDimSize = ${size}\nElementSpacing = ${spacing}\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n`;
  const nrrd = (size: string, spacing = '1 1 1') =>
    `NRRD0004\ntype: uchar\ndimension: 3\nsizes: ${size}\nspacings: ${spacing}\nencoding: raw\n\n`;
  it.each(digits)('refuse a volume whose header says %.40s', async (number) => {
    for (const make of [header, nrrd]) {
      for (const text of [
        make(`${number} 1 1`),
        make(`1 ${number} ${number}`),
        make('1 1 1', `${number} 1 1`),
        make('1 1 1', `1 ${number} ${number}`),
      ]) {
        const answer = await ask(server.url, 'POST', '/app/any', Buffer.from(`${text}1`), {
          'content-type': 'application/octet-stream',
        });
        if (answer.status === 200) expect(text).toMatch(/ (5e-324|0\.0+1|9007)/);
      }
    }
  });

  it('refuse a NIfTI-2 of the largest sizes', async () => {
    for (const size of [2n ** 63n - 1n, 2n ** 62n, 2n ** 53n, -(2n ** 63n)]) {
      for (const axis of [1, 2, 3, 4, 5]) {
        const bytes = new Uint8Array(552);
        const view = new DataView(bytes.buffer);
        view.setInt32(0, 540, true);
        bytes.set([0x6e, 0x2b, 0x32, 0, 0x0d, 0x0a, 0x1a, 0x0a], 4);
        view.setInt16(12, 2, true);
        for (let i = 0; i < 8; i++) view.setBigInt64(16 + 8 * i, i === 0 ? 5n : i === axis ? size : 1n, true);
        for (let i = 0; i < 4; i++) view.setFloat64(104 + 8 * i, 1, true);
        const answer = await ask(server.url, 'POST', '/app/any', bytes, {
          'content-type': 'application/octet-stream',
        });
        expect(answer.status).toBeGreaterThanOrEqual(400);
      }
    }
  });

  it.each(['9007199254740991', '999999999999999', '67174401'])(
    'refuse a Content-Length of %s before the body',
    async (length) => {
      for (const path of ['/api/services/app/predictions', '/app/any', '/predict']) {
        // A form of TOMAAT v1 is longer than the files in it, which are base64.
        if (path === '/predict' && length === '67174401') continue;
        const bytes = rawRequest('POST', path, {
          'Content-Type':
            path === '/predict' ? 'application/x-www-form-urlencoded' : 'application/octet-stream',
          'Content-Length': length,
        });
        const { status, text } = await answerTo(server.url, async () => {
          const answer = await sendRaw(server.port, bytes, { limitMs });
          return { status: answer?.status ?? 0, text: answer?.body.toString() ?? '' };
        });
        // TOMAAT v1 has its errors in answers of 200.
        expect(status, text).toBe(path === '/predict' ? 200 : 413);
      }
    },
  );

  it.each(digits)('of TOMAAT v1 take or refuse a value of %.40s', async (number) => {
    const body = new URLSearchParams({
      volume: Buffer.from(scan).toString('base64'),
      factor: number,
      points: `${number},1,1`,
    });
    const type = { 'content-type': 'application/x-www-form-urlencoded' };
    await ask(server.url, 'POST', '/predict', String(body), type);
    await ask(server.url, 'POST', '/responses', `request_id=${number}`, type);
  });
});

describe('uploads', () => {
  const tus = { 'tus-resumable': '1.0.0' };
  const numbers = ['67108864', '67108865', '999999999999999', String(most), '9'.repeat(400), '1e9', '-0'];

  it.each(numbers)('take or refuse Upload-Length and Upload-Offset of %.20s', async (number) => {
    const made = await ask(server.url, 'POST', '/api/uploads', undefined, {
      ...tus,
      'upload-length': number,
    });
    expect(made.status === 201).toBe(number === '67108864');
    const response = await fetch(`${server.url}/api/uploads`, {
      method: 'POST',
      headers: { ...tus, 'upload-length': '10' },
    });
    const path = response.headers.get('location')!;
    const type = { ...tus, 'content-type': 'application/offset+octet-stream' };
    const appended = await ask(server.url, 'PATCH', path, new Uint8Array(3), {
      ...type,
      'upload-offset': number,
    });
    expect(appended.status === 204).toBe(false);
    const more = await ask(server.url, 'PATCH', path, new Uint8Array(11), { ...type, 'upload-offset': '0' });
    expect(more.status).toBeGreaterThanOrEqual(400);
    await ask(server.url, 'DELETE', path, undefined, tus);
  });
});

describe('GET /api/jobs/{id}/outputs/{name}', () => {
  it('answers every Range with 200, 206 or 416', async () => {
    const made = await fetch(`${server.url}/api/services/app/predictions`, {
      method: 'POST',
      body: scan,
      headers: { 'content-type': 'application/octet-stream', prefer: 'wait=60' },
    });
    const job = (await made.json()) as Job;
    expect(job.state, JSON.stringify(job)).toBe('succeeded');
    for (const number of [String(most), '18446744073709551616', '9'.repeat(400), '9'.repeat(6000)]) {
      for (const range of [
        `0-${number}`,
        `${number}-`,
        `-${number}`,
        `${number}-${number}`,
        `1-${number},${number}-`,
        '0-0,'.repeat(1000),
      ]) {
        const { status } = await ask(server.url, 'GET', job.outputs[0].url, undefined, {
          range: `bytes=${range}`,
        });
        expect([200, 206, 416, 431]).toContain(status);
      }
      for (const path of [`/api/jobs/${number}`, `/api/jobs/${job.id}/outputs/${number}`])
        expect((await ask(server.url, 'GET', path)).status).toBeGreaterThanOrEqual(400);
    }
  });
});

describe('workers', () => {
  const digestOf = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
  const post = (path: string, body: unknown) => ask(manager.url, 'POST', `/api/worker${path}`, body, worker);

  async function submit(): Promise<Job> {
    const { text } = await ask(manager.url, 'POST', '/api/services/app/predictions', scan, {
      'content-type': 'application/octet-stream',
    });
    return JSON.parse(text) as Job;
  }
  async function claim(): Promise<string> {
    // As many services and as long a wait as may be: there is a job, so it is answered at once.
    const services = Array.from({ length: 1000 }, (_, i) =>
      i === 999 ? { id: 'app', version: '1.0.0' } : { id: `s${i}`, version: String(most) },
    );
    const { status, text } = await post('/claim', { worker: 'w'.repeat(100), services, waitSeconds: 30 });
    expect(status).toBe(200);
    return (JSON.parse(text) as { id: string }).id;
  }

  it('claim, touch, complete and fail with the largest numbers', async () => {
    await submit();
    const id = await claim();
    for (const number of digits) {
      const body = (more: string) => `{"attempt":${number}${more}}`;
      for (const [path, more] of [
        ['touch', ',"stage":"infer","fraction":1'],
        ['hand-back', ''],
        ['complete', ',"seconds":1,"outputs":[]'],
        ['fail', ',"error":{"code":"APP_FAILED","message":"m"}'],
      ])
        await post(`/jobs/${id}/${path}`, body(more));
      await post(`/jobs/${id}/touch`, `{"attempt":1,"stage":"infer","fraction":${number}}`);
      await post(`/jobs/${id}/complete`, `{"attempt":2,"seconds":${number},"outputs":[]}`);
      const short = encodeURIComponent(number.slice(0, 4000));
      await ask(
        manager.url,
        'GET',
        `/api/worker/jobs/${id}/inputs/${digestOf(scan)}?attempt=${short}`,
        undefined,
        worker,
      );
      await ask(
        manager.url,
        'PUT',
        `/api/worker/jobs/${id}/outputs/segmentation?attempt=${short}&digest=x`,
        'x',
        worker,
      );
      await post(
        '/claim',
        `{"worker":"w","services":[{"id":"app","version":"${number}"}],"waitSeconds":${number}}`,
      );
    }
    const { status } = await fetch(`${manager.url}/api/jobs/${id}`);
    expect(status).toBe(200);
  });

  it('leave a history of the longest predictions that every answer can hold', async () => {
    const result = Uint8Array.from(await encode(phantom(), 'nii.gz'));
    const output = {
      name: 'segmentation',
      type: 'LabelVolume',
      label: 'segmentation',
      primary: true,
      format: 'nii.gz',
      digest: digestOf(result),
      sizeBytes: result.length,
    };
    const done: string[] = [];
    // Estimates are made of it: of a longer time they would be infinite, so that is refused.
    const longest = 1e9;
    for (const i of [0, 1, 2, 3]) {
      await submit();
      const id = await claim();
      const path = `/api/worker/jobs/${id}/outputs/segmentation?attempt=1&digest=${encodeURIComponent(digestOf(result))}`;
      await ask(manager.url, 'PUT', path, result, { ...worker, 'content-type': 'application/octet-stream' });
      const lying = { ...output, sizeBytes: most };
      expect(
        (await post(`/jobs/${id}/complete`, { attempt: 1, seconds: longest, outputs: [lying] })).status,
      ).toBe(400);
      for (const seconds of [largest, longest + 1]) {
        const { status } = await post(`/jobs/${id}/complete`, { attempt: 1, seconds, outputs: [output] });
        expect(status).toBe(400);
      }
      const geometry = {
        format: 'nrrd',
        directions: [
          [largest, 0, 0],
          [0, largest, 0],
          [0, 0, largest],
        ],
        origin: [largest, -largest, least],
      };
      const outputs = [i === 0 ? { ...output, geometry } : output];
      expect((await post(`/jobs/${id}/complete`, { attempt: 1, seconds: longest, outputs })).status).toBe(
        200,
      );
      done.push(id);
    }
    const waiting = [await submit(), await submit(), await submit()];
    const answers = [
      await ask(manager.url, 'GET', '/api/services'),
      await ask(manager.url, 'GET', '/api/services/app'),
      await ask(manager.url, 'POST', '/api/services/app/fit', {
        inputs: { volume: { size: [1024, 1024, 1024] } },
      }),
      await ask(manager.url, 'POST', '/api/services/app/fit', { inputs: { volume: { size: [1, 1, 1] } } }),
      ...(await Promise.all(waiting.map(({ id }) => ask(manager.url, 'GET', `/api/jobs/${id}`)))),
      await ask(manager.url, 'GET', `/api/jobs/${done[1]}`),
    ];
    for (const { status, text } of answers) {
      expect(status, text).toBe(200);
      // JSON has no Infinity and no NaN: they become null.
      expect(text).not.toMatch(/"\w*Seconds":null/);
    }
    for (const id of done) {
      for (const format of ['nrrd', 'mha', 'nii'])
        await ask(manager.url, 'GET', `/api/jobs/${id}/outputs/segmentation?format=${format}`);
    }
    await ask(manager.url, 'GET', '/metrics');
  });
});

describe('announcements', () => {
  it('are taken or refused with the largest epoch, times and counts', async () => {
    const identity = await identityOf('largest-numbers');
    const put = async (change: Record<string, unknown>) => {
      const payload = {
        ...payloadOf(announcementOf('http://127.0.0.1:9'), identity, Date.now()),
        aud: registry.url,
        ...change,
      };
      const signed = await identity.sign(announcementType, payload);
      return ask(
        registry.url,
        'PUT',
        `/api/announcements/${encodeURIComponent(payload.id)}`,
        { signed },
        {
          authorization: `Bearer ${registry.key}`,
        },
      );
    };
    for (const value of [most, largest, 2 ** 53, -most, least]) {
      for (const field of ['iat', 'exp', 'volumes', 'epoch']) {
        if (field === 'epoch' && value === most) continue;
        expect((await put({ [field]: value })).status, `${field} ${value}`).toBeGreaterThanOrEqual(400);
      }
    }
    expect((await put({ volumes: 64 })).status).toBe(200);
    expect((await put({ epoch: most })).status).toBe(200);
    // Nothing can be newer than that.
    expect((await put({ epoch: most })).status).toBe(422);
  });

  it.each(digits)('of TOMAAT v1 are answered where a field is %.40s', async (number) => {
    await ask(
      registry.url,
      'POST',
      '/announce',
      `{"api_key":"${registry.key}","prediction_url":"http://127.0.0.1:9/predict","interface_url":"http://127.0.0.1:9/interface","name":${number},"modality":"${number}","anatomy":"a","task":${number},"description":"d","creation_time":${number}}`,
    );
    const short = encodeURIComponent(number.slice(0, 4000));
    await ask(registry.url, 'GET', `/api/services?live=${short}&q=${short}`);
  });
});
