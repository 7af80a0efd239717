import { once } from 'node:events';
import { createServer, type IncomingMessage, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { collectBytes, meshToStl, webPlatform, writeVolume } from '@tomaat/core';
import { afterEach, describe, expect, it } from 'vitest';
import { createClient, type ErrorCode, errorCodes, TomaatError, type VolumeFile } from './index.ts';

const close: (() => void)[] = [];
afterEach(() => {
  for (const end of close.splice(0)) end();
});

async function serve(answer: RequestListener): Promise<string> {
  const server = createServer(answer).listen(0, '127.0.0.1');
  await once(server, 'listening');
  close.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const queued = {
  id: 'j1',
  service: 's',
  state: 'queued',
  attempt: 1,
  createdTime: '2026-01-01T00:00:00.000Z',
  parameters: {},
  outputs: [],
};

/** A server that keeps the form that came last. */
async function receiver() {
  const seen: { form?: FormData } = {};
  const baseUrl = await serve(async (request, response) => {
    seen.form = await formOf(request);
    response.writeHead(202, { 'content-type': 'application/json' }).end(JSON.stringify(queued));
  });
  return { seen, client: createClient({ baseUrl }) };
}

async function formOf(request: IncomingMessage): Promise<FormData> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  const headers = { 'content-type': request.headers['content-type']! };
  return new Response(Buffer.concat(parts), { headers }).formData();
}

const affine = [2, 0, 0, -5, 0, 3, 0, 7, 0, 0, 4, 11, 0, 0, 0, 1];
const voxels = Int16Array.from({ length: 24 }, (_, i) => i - 3);
const scan = { voxels, size: [2, 3, 4] as const, components: 1, affine };

describe('the package', () => {
  it('exports the error that its calls reject with', async () => {
    const baseUrl = await serve((_request, response) => {
      const problem = {
        type: 'x',
        title: 'x',
        status: 404,
        detail: 'Not here.',
        code: 'NOT_FOUND',
        retryable: false,
      };
      response.writeHead(404, { 'content-type': 'application/problem+json' }).end(JSON.stringify(problem));
    });
    const error = await createClient({ baseUrl })
      .job('none')
      .catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(TomaatError);
    const code: ErrorCode = (error as TomaatError).code;
    expect(code).toBe('NOT_FOUND');
    expect(errorCodes).toContain(code);
  });
});

describe('bytes that are given out', () => {
  // What matters here is that `npm run types` takes each line: a Blob takes no memory that threads may share.
  it('make a Blob without a cast', async () => {
    const nifti = await collectBytes(writeVolume(scan, 'nii', webPlatform));
    expect(new Blob([nifti]).size).toBe(352 + 48);
    for await (const part of writeVolume(scan, 'nrrd', webPlatform))
      expect(new Blob([part]).size).toBe(part.length);
    const mesh = { positions: new Float32Array(9), triangles: new Uint32Array([0, 1, 2]) };
    for (const part of meshToStl(mesh)) expect(new Blob([part]).size).toBe(part.length);
    const baseUrl = await serve((_request, response) => response.end('abc'));
    const file = await createClient({ baseUrl }).output('j1', 'x');
    expect(new Blob([await file.bytes()]).size).toBe(3);
  });

  it('do not lie in shared memory, even where the voxels do', async () => {
    const shared = new Int16Array(new SharedArrayBuffer(48));
    shared.set(voxels);
    const given = await collectBytes(writeVolume({ ...scan, voxels: shared }, 'nii', webPlatform));
    expect(given).toEqual(await collectBytes(writeVolume(scan, 'nii', webPlatform)));
    for await (const part of writeVolume({ ...scan, voxels: shared }, 'nii', webPlatform))
      expect(part.buffer).toBeInstanceOf(ArrayBuffer);
  });
});

describe('predict()', () => {
  it('takes bytes with a name, an ArrayBuffer, and bytes alone', async () => {
    const { seen, client } = await receiver();
    const bytes = await collectBytes(writeVolume(scan, 'nii', webPlatform));
    // A view into a larger buffer: only what it shows is sent.
    const wide = new Uint8Array(bytes.length + 30);
    wide.set(bytes, 20);
    const shared = new Uint8Array(new SharedArrayBuffer(bytes.length));
    shared.set(bytes);
    const given: [VolumeFile, string][] = [
      [{ name: 'Doe_Jane.nii', bytes }, 'volume.nii'],
      [{ name: 'scan.nii', bytes: bytes.buffer }, 'volume.nii'],
      [{ name: 'scan.nii', bytes: wide.subarray(20, 20 + bytes.length) }, 'volume.nii'],
      [bytes, 'volume'],
      [bytes.buffer, 'volume'],
      [shared, 'volume'],
    ];
    for (const [file, name] of given) {
      await client.predict('s', { volumes: { volume: file } });
      const sent = seen.form!.get('volume') as File;
      expect(sent.name).toBe(name);
      expect(new Uint8Array(await sent.arrayBuffer())).toEqual(bytes);
    }
  });

  it('takes several named bytes of one volume', async () => {
    const { seen, client } = await receiver();
    const header = new TextEncoder().encode(
      'ObjectType = Image\nNDims = 3\nDimSize = 2 3 4\nElementType = MET_SHORT\nElementDataFile = a.raw\n',
    );
    const pair = [
      { name: 'a.mhd', bytes: header },
      { name: 'a.raw', bytes: new Uint8Array(voxels.buffer) },
    ];
    await client.predict('s', { volumes: { volume: pair } });
    expect(seen.form!.getAll('volume').map((file) => (file as File).name)).toEqual([
      'volume.mhd',
      'volume.raw',
    ]);
  });

  it.each([['scan.nii'], [null], [42], [{ name: 'scan.nii' }], [{ name: 'a', bytes: 'text' }]])(
    'refuses %j as a file, with what it takes',
    async (file) => {
      const { client } = await receiver();
      await expect(
        client.predict('s', { volumes: { ct: file as unknown as VolumeFile } }),
      ).rejects.toMatchObject({
        code: 'BAD_INPUT',
        field: 'ct',
        message: expect.stringMatching(/for ct is .*\{ name, bytes \}.*openAsBlob/),
      });
    },
  );
});

describe('output()', () => {
  const output = async (body: string | Uint8Array, type = 'application/json') => {
    const baseUrl = await serve((_request, response) =>
      response.writeHead(200, { 'content-type': type }).end(body),
    );
    return createClient({ baseUrl }).output('j1', 'volumes');
  };

  it('gives its file as bytes, text and JSON', async () => {
    expect(await (await output('{"labels":[{"value":1}]}')).json()).toEqual({ labels: [{ value: 1 }] });
    expect(await (await output('Größe\n', 'text/plain')).text()).toBe('Größe\n');
    const bytes = await (await output(Uint8Array.of(0, 255, 7), 'application/gzip')).bytes();
    expect(bytes).toEqual(Uint8Array.of(0, 255, 7));
  });

  it('says what to do where it is not JSON', async () => {
    await expect((await output('solid', 'model/stl')).json()).rejects.toMatchObject({
      code: 'UPSTREAM',
      message: expect.stringMatching(/volumes is not JSON but model\/stl.*format: 'json'/),
    });
  });

  it.each(['blob', 'bytes', 'text', 'json'] as const)(
    'refuses to be read a second time by %s()',
    async (way) => {
      const file = await output('{}');
      await file.text();
      await expect(file[way]()).rejects.toMatchObject({
        code: 'BAD_REQUEST',
        message: expect.stringMatching(/volumes was read before.*ask for it again/),
      });
    },
  );

  it('rejects with UNREACHABLE where the connection breaks while it is read', async () => {
    const baseUrl = await serve((_request, response) => {
      response.writeHead(200, { 'content-length': '100' });
      response.write('half', () => response.destroy());
    });
    const file = await createClient({ baseUrl }).output('j1', 'x');
    await expect(file.bytes()).rejects.toMatchObject({ code: 'UNREACHABLE' });
  });
});
