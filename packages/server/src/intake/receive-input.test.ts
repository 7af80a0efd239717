import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createSecureServer, request as secureRequest } from 'node:https';
import type { AddressInfo } from 'node:net';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { TomaatError } from '@tomaat/core';
import { generate } from 'selfsigned';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type Blobs, openBlobs } from '../store/blobs/blobs.ts';
import { type BodyLimits, countBytes, discardRest, readAll } from './byte-counter.ts';
import { readMultipart } from './multipart.ts';
import { receiveInput as beginInput } from './receive-input.ts';

const receiveInput = async (...input: Parameters<typeof beginInput>) => (await beginInput(...input)).commit();

let dir: string;
let blobs: Blobs;
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'tomaat-intake-'));
  blobs = await openBlobs(dir);
});
afterEach(async () => {
  await blobs.close();
  rmSync(dir, { recursive: true, force: true });
});

const mib = 1024 * 1024;
const all = { maxUploadBytes: 100 * mib };
const leftovers = () => [...readdirSync(join(dir, 'tmp')), ...readdirSync(join(dir, 'sha256'))];

async function consume(source: AsyncIterable<Uint8Array>): Promise<number> {
  let bytes = 0;
  for await (const chunk of source) bytes += chunk.length;
  return bytes;
}

it('countBytes() counts, and refuses too much at once or on the way', async () => {
  const pieces = () => Readable.from([Buffer.alloc(600), Buffer.alloc(500)]);
  const counted = countBytes(pieces(), { maxUploadBytes: 1100 }, '1100');
  expect(await consume(counted)).toBe(1100);
  expect(counted.bytes).toBe(1100);
  await expect(consume(countBytes(pieces(), { maxUploadBytes: 1099 }))).rejects.toMatchObject({
    code: 'UPLOAD_TOO_LARGE',
  });
  const untouched = pieces();
  expect(() => countBytes(untouched, { maxUploadBytes: 1099 }, '10000000000000')).toThrow(
    expect.objectContaining({ code: 'UPLOAD_TOO_LARGE' }),
  );
  expect(untouched.readableDidRead).toBe(false);
  await expect(consume(countBytes(pieces(), all, '1101'))).rejects.toMatchObject({ code: 'BAD_REQUEST' });
  for (const length of ['-1', '1e400', 'x', '1.5'])
    expect(() => countBytes(pieces(), all, length)).toThrow(TomaatError);
});

it('countBytes() gives up on a slow sender, not on a slow reader', async () => {
  const limits: BodyLimits = { maxUploadBytes: mib, minBytesPerSecond: 10_000, patienceMs: 200 };
  const silent = new PassThrough();
  silent.write('x');
  await expect(consume(countBytes(silent, limits))).rejects.toMatchObject({
    code: 'UPLOAD_TOO_SLOW',
    status: 408,
  });
  expect(silent.destroyed).toBe(false); // It can still be answered.

  const dripping = new PassThrough();
  const drip = setInterval(() => dripping.write('x'), 10);
  await expect(consume(countBytes(dripping, limits))).rejects.toMatchObject({ code: 'UPLOAD_TOO_SLOW' });
  clearInterval(drip);

  const steady = new PassThrough();
  let sent = 0;
  const send = setInterval(() => {
    steady.write(Buffer.alloc(1000));
    if (++sent === 20) {
      clearInterval(send);
      steady.end();
    }
  }, 25);
  expect(await consume(countBytes(steady, limits))).toBe(20_000);

  let bytes = 0;
  for await (const chunk of countBytes(Readable.from([Buffer.alloc(10), Buffer.alloc(10)]), limits)) {
    await new Promise((resolve) => setTimeout(resolve, 300));
    bytes += chunk.length;
  }
  expect(bytes).toBe(20);
});

/** A server that takes one multipart upload per request as the routes do; what it says of each comes out. */
async function withServer(
  limits: BodyLimits,
  use: (port: number, outcomes: Promise<unknown>[]) => Promise<void>,
): Promise<void> {
  const outcomes: Promise<unknown>[] = [];
  const receive = async (request: IncomingMessage) => {
    const body = countBytes(request, limits, request.headers['content-length']);
    for await (const part of readMultipart(body, request.headers['content-type'] ?? '')) {
      await receiveInput(part, blobs);
    }
  };
  const server = createServer((request, response) => {
    const outcome = receive(request).then(
      () => 'received',
      (error) => error,
    );
    outcomes.push(outcome);
    outcome.then(async (result) => {
      const status = result instanceof TomaatError ? result.status : 200;
      response.writeHead(status, status === 200 ? {} : { connection: 'close' }).end(String(result));
      if (status !== 200) await discardRest(request);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    await use((server.address() as AddressInfo).port, outcomes);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

const head = '--b\r\nContent-Disposition: form-data; name="volume"\r\n\r\n';

it('receiveInput() leaves nothing of an upload truncated at any byte', {
  timeout: 60_000,
}, async () => {
  await withServer(all, async (port, outcomes) => {
    const body = Buffer.concat([Buffer.from(head), Buffer.alloc(1_500_000, 7)]);
    for (let cut = 0; cut < 60; cut++) {
      const socket = connect(port, '127.0.0.1');
      socket.on('error', () => undefined);
      const sent = cut < 20 ? cut * 5 : Math.floor((body.length * (cut - 19)) / 41);
      socket.write(
        `POST / HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: ${body.length + 100}\r\n\r\n`,
      );
      await new Promise((resolve) => socket.write(body.subarray(0, sent), resolve));
      while (outcomes.length <= cut) await new Promise(setImmediate);
      socket.resetAndDestroy();
      expect(await outcomes[cut]).toMatchObject({ code: 'BAD_REQUEST' });
    }
    expect(leftovers()).toEqual([]);
  });
});

it('receiveInput() stores what was sent over HTTP and HTTPS, in any pieces', {
  timeout: 60_000,
}, async () => {
  const bytes = Buffer.alloc(3_000_001);
  for (let index = 0; index < bytes.length; index += 4)
    bytes.writeUInt32LE(Math.imul(index, 2654435761) >>> 0, Math.min(index, bytes.length - 4));
  const pems = await generate([{ name: 'commonName', value: 'localhost' }]);
  const base64 = bytes.toString('base64').replace(/.{76}/g, '$&\r\n');
  for (const secure of [false, true]) {
    for (const [encoding, file] of [
      ['raw', bytes],
      ['base64', Buffer.from(base64)],
    ] as const) {
      let received: unknown;
      const listener = async (request: IncomingMessage, response: ServerResponse) => {
        const body = countBytes(request, all);
        for await (const part of readMultipart(body, 'multipart/form-data; boundary=b')) {
          received = await receiveInput(part, blobs, { encoding }).catch((error) => error);
        }
        response.end();
      };
      const server = secure
        ? createSecureServer({ key: pems.private, cert: pems.cert }, listener)
        : createServer(listener);
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      const { port } = server.address() as AddressInfo;
      const options = { port, host: '127.0.0.1', method: 'POST', rejectUnauthorized: false };
      await new Promise((resolve, reject) => {
        const request = (secure ? secureRequest : httpRequest)(options, (response) =>
          response.resume().on('end', resolve),
        );
        request.on('error', reject);
        request.write(head);
        // Without a length: chunks of the transfer encoding of every size.
        for (let from = 0, size = 1; from < file.length; from += size, size = (size * 7 + 1) % 150_001) {
          request.write(file.subarray(from, from + size));
        }
        request.end('\r\n--b--');
      });
      expect(received).toMatchObject({
        digest: `sha256:${createHash('sha256').update(bytes).digest('hex')}`,
      });
      await new Promise((resolve) => server.close(resolve));
    }
  }
});

it('readAll() collects a body from a socket and is limited', async () => {
  const bytes = Buffer.alloc(200_000, 'tomaat');
  let received: Buffer | TomaatError | undefined;
  const server = createServer(async (request, response) => {
    const limit = Number(request.headers['x-limit']);
    received = await readAll(countBytes(request, all), limit).catch((error) => error);
    response.writeHead(200, { connection: 'close' }).end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  await fetch(url, { method: 'POST', body: bytes, headers: { 'x-limit': '200000' } });
  expect(bytes.equals(received as Buffer)).toBe(true);
  await fetch(url, { method: 'POST', body: bytes, headers: { 'x-limit': '199999' } }).catch(() => undefined);
  expect(received).toMatchObject({ code: 'UPLOAD_TOO_LARGE' });
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

it('countBytes() and discardRest() let the sender of too much read the answer', async () => {
  await withServer({ maxUploadBytes: mib }, async (port) => {
    const status = await new Promise((resolve, reject) => {
      const headers = { 'content-type': 'multipart/form-data; boundary=b' };
      const request = httpRequest({ port, host: '127.0.0.1', method: 'POST', headers }, (response) => {
        response.resume();
        resolve(response.statusCode);
      });
      request.on('error', reject);
      request.write(head);
      for (let piece = 0; piece < 20; piece++) request.write(Buffer.alloc(mib));
      request.end('\r\n--b--\r\n');
    });
    expect(status).toBe(413);
    expect(leftovers()).toEqual([]);
  });
});

const part = (bytes: Uint8Array | string, name = 'volume') => ({
  name,
  body: Readable.from(
    [Buffer.from(bytes).subarray(0, 100), Buffer.from(bytes).subarray(100)].filter((b) => b.length),
  ),
});

it('receiveInput() stores raw bytes, base64, and raw files sent for base64', async () => {
  const file = Buffer.concat([Buffer.from('ObjectType = Image\nNDims = 3\n'), Buffer.alloc(3000, 0xfb)]);
  const base64 = file.toString('base64').replace(/.{76}/g, '$&\n');
  const cases = [
    await receiveInput(part(file), blobs),
    await receiveInput(part(base64), blobs, { encoding: 'base64' }),
    await receiveInput(part(file), blobs, { encoding: 'base64' }),
    await receiveInput(part(base64.replaceAll('+', ' ')), blobs, { encoding: 'base64-form' }),
  ];
  for (const input of cases) {
    expect(input).toMatchObject({ name: 'volume', digest: cases[0].digest, sizeBytes: file.length });
    expect(Buffer.compare(input.start, file.subarray(0, 256))).toBe(0);
    expect(readFileSync(blobs.path(input.digest)).equals(file)).toBe(true);
  }
});

it('receiveInput() names the input in its errors and leaves nothing', async () => {
  const refuse = () => {
    throw new TomaatError('UNKNOWN_FORMAT', 'not a volume');
  };
  const cases: [() => Promise<unknown>, string][] = [
    [() => receiveInput(part(''), blobs), 'BAD_INPUT'],
    [() => receiveInput(part(Buffer.alloc(200)), blobs, { maxBytes: 150 }), 'UPLOAD_TOO_LARGE'],
    [() => receiveInput(part('QUJ!'), blobs, { encoding: 'base64' }), 'BAD_REQUEST'],
    [() => receiveInput(part(Buffer.alloc(200)), blobs, { checkPrefix: refuse }), 'UNKNOWN_FORMAT'],
    [() => receiveInput(part(Buffer.alloc(200_000)), blobs, { checkPrefix: refuse }), 'UNKNOWN_FORMAT'],
  ];
  for (const [outcome, code] of cases)
    await expect(outcome()).rejects.toMatchObject({ code, field: 'volume' });
  expect(leftovers()).toEqual([]);
});

it('receiveInput() checks the header before the rest has come', async () => {
  let pulled = 0;
  async function* endless() {
    for (;;) {
      pulled++;
      yield Buffer.alloc(65_536);
    }
  }
  const checkPrefix = (prefix: Uint8Array) => {
    expect(prefix.length).toBe(65_536);
    throw new TomaatError('BAD_HEADER', 'no');
  };
  await expect(receiveInput({ name: 'v', body: endless() }, blobs, { checkPrefix })).rejects.toMatchObject({
    code: 'BAD_HEADER',
  });
  expect(pulled).toBe(1);
});
