import { execFile } from 'node:child_process';
import { rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findCurl } from '../../../test/programs.ts';
import { encode, phantom } from './phantom.ts';
import { rawRequest, sendRaw } from './real-server.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* What people get slightly wrong, and what they are told. */

const run = promisify(execFile);
const curl = findCurl();

let server: TestServer;
let folder: string;
let port: number;
let tlsPort: number;
beforeAll(async () => {
  folder = await temporaryFolder();
  server = await startTestServer(['threshold']);
  port = Number(new URL(server.url).port);
  tlsPort = Number(new URL(server.tlsUrl).port);
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

describe('POST /{task}/{anatomy} of a file that curl calls a form', () => {
  it.skipIf(!curl).each(['nii', 'nii.gz', 'mha', 'nrrd'] as const)(
    'names the two flags: .%s',
    async (format) => {
      const file = join(folder, `scan.${format}`);
      await writeFile(file, await encode(phantom(), format));
      for (const flag of ['--data-binary', '-d']) {
        const { stdout } = await run(curl!, ['-sS', flag, `@${file}`, `${server.url}/threshold/any`]);
        const problem = JSON.parse(stdout);
        expect(problem, stdout).toMatchObject({ status: 400, code: 'BAD_REQUEST', field: 'Content-Type' });
        expect(problem.detail).toContain("-H 'Content-Type: application/octet-stream'");
        expect(problem.detail).toContain('-F volume=@FILE');
      }
      const said = ['-sS', '-o', '/dev/null', '-w', '%{http_code}'];
      const typed = ['-H', 'Content-Type: application/octet-stream', '--data-binary', `@${file}`];
      for (const right of [typed, ['-F', `volume=@${file}`]]) {
        const { stdout } = await run(curl!, [...said, ...right, `${server.url}/threshold/any`]);
        expect(stdout).toBe('200');
      }
    },
  );

  it('accepts a form', async () => {
    const answer = await fetch(`${server.url}/threshold/any`, {
      method: 'POST',
      body: new URLSearchParams({ factor: '1.5' }),
    });
    expect((await answer.json()).code).toBe('INPUTS_MISSING');
  });
});

describe('an address with several slashes', () => {
  it('is the one with one', async () => {
    const body = Buffer.from(await encode(phantom(), 'nii.gz'));
    const headers = { 'content-type': 'application/octet-stream' };
    for (const path of ['//threshold/any', '/threshold//any', '///threshold///any//']) {
      const answer = await fetch(server.url + path, { method: 'POST', body, headers });
      expect(answer.status, path).toBe(200);
    }
    for (const path of ['//api/services', '/api//services//threshold', '//health/live', '/api/services//'])
      expect((await fetch(server.url + path)).status, path).toBe(200);
    // In a query they stay.
    const listed = await fetch(`${server.url}/api/services?q=//`);
    expect(await listed.json()).toEqual({ services: [] });
  });

  it('does not lead around what an address needs', async () => {
    await using closed = await startTestServer(['threshold'], { login: true, workers: 0 });
    for (const path of ['//api/services', '/api//services', '//metrics', '//health//..//metrics'])
      expect((await fetch(closed.url + path)).status, path).toBe(401);
  });
});

describe('a method that an address does not take', () => {
  it.each([
    [
      'GET with a JSON body',
      'GET',
      '/api/services/threshold/fit',
      { 'Content-Type': 'application/json' },
      '{}',
      'POST',
    ],
    ['GET in chunks', 'GET', '/threshold/any', { 'Transfer-Encoding': 'chunked' }, '0\r\n\r\n', 'POST'],
    ['QUERY without a type', 'QUERY', '/api/services', {}, 'x', 'GET, HEAD'],
    ['QUERY with a type', 'QUERY', '/api/services', { 'Content-Type': 'text/plain' }, 'x', 'GET, HEAD'],
    ['PUT without a type', 'PUT', '/threshold/any', {}, 'x', 'POST'],
  ])('is 405: %s', async (_name, method, path, headers, body, allow) => {
    const bytes = Buffer.from(body);
    const length = 'Transfer-Encoding' in headers ? undefined : String(bytes.length);
    const answer = await sendRaw(
      port,
      rawRequest(method, path, { 'Content-Length': length, ...headers }, bytes),
    );
    expect(answer?.status).toBe(405);
    expect(answer?.headers.allow).toBe(allow);
  });

  it('leaves no message that ends in two full stops', async () => {
    const requests = [
      rawRequest('QUERY', '/api/nothing', {}, Buffer.from('x')),
      rawRequest('GET', '/api/services', { 'Content-Length': '1' }, Buffer.from('x')),
      rawRequest('GET', '/%zz'),
    ];
    for (const bytes of requests) {
      const { detail } = JSON.parse((await sendRaw(port, bytes))!.body.toString());
      expect(detail).not.toMatch(/\.\s*\./);
    }
  });
});

describe('X-HTTP-Method-Override', () => {
  const tus = { 'tus-resumable': '1.0.0' };
  const begin = async () => {
    const begun = await fetch(`${server.url}/api/uploads`, {
      method: 'POST',
      headers: { ...tus, 'upload-length': '10' },
    });
    return new URL(begun.headers.get('location')!, server.url).href;
  };
  const as = (method: string, address: string, headers: Record<string, string> = {}, body?: string) =>
    fetch(address, {
      method: 'POST',
      headers: { ...tus, 'x-http-method-override': method, ...headers },
      body,
    });

  it('makes a POST to an upload a PATCH, HEAD or DELETE', async () => {
    const address = await begin();
    const part = { 'upload-offset': '0', 'content-type': 'application/offset+octet-stream' };
    const patched = await as('PATCH', address, part, '01234');
    expect(patched.status).toBe(204);
    expect(patched.headers.get('upload-offset')).toBe('5');
    const head = await as('head', address);
    expect([head.status, head.headers.get('upload-offset'), await head.text()]).toEqual([200, '5', '']);
    expect((await as('DELETE', address)).status).toBe(204);
    expect((await fetch(address, { method: 'HEAD', headers: tus })).status).toBe(404);
  });

  it('counts nowhere else, and needs what the method needs', async () => {
    const job = await as('DELETE', `${server.url}/api/jobs/x`);
    expect(job.status).toBe(405);
    expect((await as('BREW', await begin())).status).toBe(405);
    await using closed = await startTestServer(['threshold'], { login: true, workers: 0 });
    expect((await as('DELETE', `${closed.url}/api/uploads/x`)).status).toBe(401);
  });
});

describe('plain HTTP at the HTTPS port', () => {
  it('is 400 with the address to use', async () => {
    for (const [bytes, address] of [
      [rawRequest('GET', '/', { Host: 'server.example:9443' }), 'https://server.example:9443'],
      [rawRequest('POST', '/threshold/any', {}, Buffer.alloc(300_000)), 'https://localhost'],
      [rawRequest('GET', '/', { Host: 'a<script>' }), `https://HOST:${tlsPort}`],
      [Buffer.from('nonsense\r\n\r\n'), `https://HOST:${tlsPort}`],
    ] as const) {
      const answer = await sendRaw(tlsPort, bytes);
      expect(answer?.status).toBe(400);
      const problem = JSON.parse(answer!.body.toString());
      expect(problem).toMatchObject({ code: 'BAD_REQUEST', status: 400 });
      expect(problem.detail).toContain('This port speaks HTTPS');
      expect(problem.detail).toContain(`Use ${address} instead`);
    }
    const { body, headers } = (await sendRaw(tlsPort, rawRequest('GET', '/', { Accept: 'text/html' })))!;
    expect(headers['content-type']).toBe('text/html; charset=utf-8');
    expect(body.toString()).toContain('<a href="https://localhost/">');
  });

  it.skipIf(!curl)('is read by curl, and HTTPS keeps working', async () => {
    const plain = server.tlsUrl.replace('https:', 'http:');
    const { stdout } = await run(curl!, ['-sS', '-F', 'volume=@/dev/null', `${plain}/threshold/any`]);
    expect(JSON.parse(stdout).detail).toContain(server.tlsUrl);
    const { stdout: secure } = await run(curl!, ['-sS', '--insecure', `${server.tlsUrl}/health/live`]);
    expect(JSON.parse(secure)).toEqual({ status: 'live' });
  });

  it('does not keep the server from closing, whatever hangs at its ports', async () => {
    const other = await startTestServer(['threshold'], { workers: 0 });
    const at = Number(new URL(other.tlsUrl).port);
    const silent = connect(at, '127.0.0.1');
    const half = connect(at, '127.0.0.1');
    // The beginning of a handshake that never goes on.
    half.write(Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01]));
    for (const socket of [silent, half]) socket.on('error', () => {});
    await new Promise((resolve) => half.once('connect', resolve));
    const begun = performance.now();
    await other[Symbol.asyncDispose]();
    expect(performance.now() - begun).toBeLessThan(10_000);
  });

  it('is recognized by its first byte alone', async () => {
    // Byte by byte, as a slow line may bring it.
    const relay = createServer((from) => {
      const to = connect(tlsPort, '127.0.0.1');
      from.on('data', async (chunk) => {
        from.pause();
        for (const byte of chunk)
          await new Promise((done) => to.write(Buffer.of(byte), () => done(undefined)));
        from.resume();
      });
      to.pipe(from);
      for (const socket of [from, to])
        socket.on('error', () => {}).on('close', () => [from, to].map((s) => s.destroy()));
      to.setNoDelay(true);
    });
    await new Promise<void>((resolve) => relay.listen(0, '127.0.0.1', resolve));
    const { port: slowPort } = relay.address() as AddressInfo;
    const get = rawRequest('GET', '/health/live', { Connection: 'close' });
    expect((await sendRaw(slowPort, get, { secure: true }))?.status).toBe(200);
    expect((await sendRaw(slowPort, get))?.status).toBe(400);
    relay.close();
  });
});
