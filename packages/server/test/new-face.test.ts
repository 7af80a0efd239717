import { describeError, readVolume, sourceFromBytes } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { Face } from '../src/faces/face.ts';
import { predict, problemHandler } from '../src/faces/predict.ts';
import { requestedFormat, sendOutput } from '../src/http/outputs.ts';
import { apiForm, multipart } from '../src/http/request-form.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { encode, phantom } from './phantom.ts';
import { startTestServer, type TestServer } from './test-server.ts';

/*
 * A face that is not there, written as CONTRIBUTING.md has it: as MONAI Label takes a volume, in a part called `file`, and
 * words what went wrong. The two tables that it would be entered in are those of a server with it.
 */

const infer = {
  name: 'infer',
  form: {
    ...apiForm,
    bodies: [
      {
        ...multipart,
        async *read(body, contentType, app) {
          for await (const part of multipart.read(body, contentType, app))
            yield part.name === 'file' ? { ...part, name: 'volume' } : part;
        },
      },
    ],
    advice: 'Send the volume as the part file of multipart/form-data',
    takesUploads: false,
  },
  register(app, context) {
    const errorHandler = problemHandler(infer, context);
    app.post<{ Params: { model: string } }>('/infer/:model', { errorHandler }, async (request, reply) => {
      const service = context.services.find(request.params.model);
      return predict(request, reply, service, infer, context);
    });
  },
  sendResult(reply, job, context) {
    const primary = job.outputs.find((output) => output.primary)!;
    return sendOutput(reply, job, primary, requestedFormat(reply.request, primary), context);
  },
  sendProblem: (reply, error) => reply.code(describeError(error.code).status).send({ detail: error.message }),
} satisfies Face;

vi.mock('../src/faces/faces.ts', async (original) => {
  const { registerFaces } = await original<typeof import('../src/faces/faces.ts')>();
  const registerAll: typeof registerFaces = (app, context) => {
    registerFaces(app, context);
    infer.register(app, context);
  };
  return { registerFaces: registerAll };
});
vi.mock('../src/access/table.ts', async (original) => {
  const table = await original<typeof import('../src/access/table.ts')>();
  const needOf: typeof table.needOf = (method, route) =>
    `${method} ${route}` === 'POST /infer/:model' ? 'predict' : table.needOf(method, route);
  return { ...table, needOf };
});

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer(['threshold']);
});
afterAll(() => server?.[Symbol.asyncDispose]());

function post(path: string, body: BodyInit, headers: Record<string, string> = {}) {
  return fetch(`${server.url}${path}`, { method: 'POST', body, headers });
}

async function formOf(name: string) {
  const form = new FormData();
  form.append(name, new Blob([(await encode(phantom(), 'nii.gz')) as Uint8Array<ArrayBuffer>]), 'a.nii.gz');
  return form;
}

const jobs = async () =>
  (await (await fetch(`${server.url}/metrics`)).text()).match(/^tomaat_jobs\S* [1-9]\d*$/gm) ?? [];

describe('a face', () => {
  it('has its own requests and routes, and the path of all others', async () => {
    const answer = await post('/infer/threshold', await formOf('file'));
    const bytes = new Uint8Array(await answer.arrayBuffer());
    expect(answer.status, new TextDecoder().decode(bytes.subarray(0, 300))).toBe(200);
    const { volume } = await readVolume([sourceFromBytes('a', bytes)], nodePlatform);
    expect(volume.size).toEqual(phantom().size);
    await expect.poll(jobs).toEqual([]);
  });

  it.each([
    ['a service that is not there', '/infer/nothing', () => formOf('file'), 404, /no service nothing/],
    ['a body of another type', '/infer/threshold', () => Promise.resolve('x'), 415, /as the part file of/],
    ['a missing volume', '/infer/threshold', () => Promise.resolve(emptyForm()), 409, /needs volume/],
  ])('words its problems itself: %s', async (_what, path, body, status, detail) => {
    const answer = await post(path, await body());
    expect(answer.status).toBe(status);
    expect(await answer.json()).toEqual({ detail: expect.stringMatching(detail) });
  });

  it('leaves the others as they are', async () => {
    const refused = await post('/threshold/any', await formOf('file'));
    expect(refused.headers.get('content-type')).toBe('application/problem+json');
    expect(((await refused.json()) as { code: string }).code).toBe('BAD_INPUT');
  });
});

function emptyForm() {
  const form = new FormData();
  form.append('factor', '1');
  return form;
}
