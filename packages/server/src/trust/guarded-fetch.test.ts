import { createHash, createPublicKey } from 'node:crypto';
import { getEventListeners, once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http';
import { createServer as createHttpsServer, type ServerOptions } from 'node:https';
import {
  type AddressInfo,
  createServer as createTcpServer,
  getDefaultAutoSelectFamily,
  type Socket,
  setDefaultAutoSelectFamily,
} from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import tls, { type TLSSocket } from 'node:tls';
import { generate } from 'selfsigned';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { makeCertificate, type OwnCertificate } from '../../test/certificate-fixture.ts';
import { createCleanup } from '../../test/registry-helpers.ts';
import {
  connectTls,
  createGuardedFetch,
  type FetchRules,
  peekCertificate,
  untrusted,
} from './guarded-fetch.ts';

const cleanup = createCleanup();
let folder: string;
/** For localhost and 127.0.0.1. */
let own: OwnCertificate;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-fetch-'));
  own = await makeCertificate(folder, { names: ['localhost', '127.0.0.1', 'a.test'] });
});
afterEach(async () => {
  vi.restoreAllMocks();
  await cleanup.run();
});
afterAll(() => rm(folder, { recursive: true, force: true }));

interface Listening {
  readonly port: number;
  readonly url: string;
  /** Connections so far, encrypted or not; those of them that are open; requests by method and path. */
  readonly sockets: Socket[];
  open(): Promise<number>;
  readonly heard: string[];
  /** Encrypted connections whose handshake is over. */
  readonly secured: TLSSocket[];
}

type Answer = (request: IncomingMessage, response: ServerResponse) => void;
const ok: Answer = (request, response) => {
  request.resume();
  request.once('end', () => response.end('ok'));
};

/** A real server on a free port of 127.0.0.1; with `secure`, HTTPS. */
async function listen(answer: Answer = ok, secure?: ServerOptions): Promise<Listening> {
  const sockets: Socket[] = [];
  const secured: TLSSocket[] = [];
  const heard: string[] = [];
  const listener: RequestListener = (request, response) => {
    heard.push(`${request.method} ${request.url}`);
    request.on('error', () => {});
    answer(request, response);
  };
  const server = secure
    ? createHttpsServer({ key: own.keyPem, cert: own.pem, ...secure }, listener)
    : createServer(listener);
  server.on('connection', (socket) => {
    socket.on('error', () => {});
    sockets.push(socket);
  });
  server.on('secureConnection', (socket: TLSSocket) => secured.push(socket));
  const open = () => new Promise<number>((resolve) => server.getConnections((_, count) => resolve(count)));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  cleanup.add(() => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  });
  const { port } = server.address() as AddressInfo;
  return { port, url: `http${secure ? 's' : ''}://127.0.0.1:${port}`, sockets, open, heard, secured };
}

/** A listener that takes connections and says nothing. */
async function listenSilently() {
  const sockets: Socket[] = [];
  const server = createTcpServer((socket) => {
    socket.on('error', () => {});
    socket.resume();
    sockets.push(socket);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  cleanup.add(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, sockets };
}

async function closedPort(): Promise<number> {
  const server = createTcpServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/** A server that gives back what it was sent. */
const echo: Answer = async (request, response) => {
  const body = (await bodyOf(request)).toString('base64');
  const { method, url, headers } = request;
  response.end(JSON.stringify({ method, url, headers, body }));
};
interface Echo {
  method: string;
  url: string;
  headers: Record<string, string>;
  body: string;
}
const textOf = ({ body }: Echo) => Buffer.from(body, 'base64').toString();

const good: FetchRules = { isKnown: () => true };

describe('connectTls()', () => {
  const options = (port: number) => ({ host: '127.0.0.1', port });

  it('reports fingerprint, key, names and why no authority vouches', async () => {
    const made = await generate([{ name: 'commonName', value: 'several' }], {
      keyType: 'ec',
      algorithm: 'sha256',
      extensions: [
        {
          name: 'subjectAltName',
          altNames: [
            { type: 2, value: '*.b.test' },
            { type: 7, ip: '127.0.0.1' },
            { type: 6, value: 'https://uri.test/' },
            { type: 1, value: 'mail@b.test' },
            { type: 7, ip: '::1' },
          ],
        },
      ],
    });
    const server = await listen(ok, { key: made.private, cert: made.cert });
    const { socket, shown } = await connectTls(options(server.port), undefined);
    const der = Buffer.from(made.cert.replace(/-----.*-----|\s/g, ''), 'base64');
    const digits = createHash('sha256').update(der).digest('hex').toUpperCase();
    const spki = createPublicKey(made.cert).export({ type: 'spki', format: 'der' });
    expect(shown).toEqual({
      fingerprint: digits.match(/../g)!.join(':'),
      keyFingerprint: createHash('sha256').update(spki).digest('base64url'),
      authorized: false,
      reason: 'DEPTH_ZERO_SELF_SIGNED_CERT',
      hosts: ['*.b.test', '127.0.0.1', '0:0:0:0:0:0:0:1'],
    });
    expect(socket.listenerCount('error')).toBe(0);
    socket.destroy();
  });

  it('trusts certificates of a given authority, only under its name', async () => {
    const server = await listen(ok, {});
    const given = await connectTls(options(server.port), own.pem);
    expect(given.shown).toMatchObject({ authorized: true, reason: undefined });
    given.socket.destroy();
    const lookup = (_: string, __: unknown, found: (...all: unknown[]) => void) =>
      found(null, [{ address: '127.0.0.1', family: 4 }]);
    const other = await connectTls({ host: 'b.test', port: server.port, lookup: lookup as never }, own.pem);
    expect(other.shown).toMatchObject({
      authorized: false,
      reason: expect.stringContaining('ERR_TLS_CERT_ALTNAME_INVALID'),
    });
    other.socket.destroy();
  });

  it('sends SNI, none for an address, and offers only HTTP/1.1', async () => {
    let count = 0;
    const server = await listen(ok, { ALPNProtocols: ['h2', 'http/1.1'] });
    const names = async (host: string, servername?: string) => {
      const lookup = (_: string, __: unknown, found: (...all: unknown[]) => void) =>
        found(null, [{ address: '127.0.0.1', family: 4 }]);
      const { socket, shown } = await connectTls(
        { host, port: server.port, lookup: lookup as never, servername },
        own.pem,
      );
      await expect.poll(() => server.secured.length).toBe(++count);
      const there = server.secured[count - 1] as TLSSocket & { servername?: string | false };
      expect(there.alpnProtocol).toBe('http/1.1');
      socket.destroy();
      return [there.servername, shown.authorized];
    };
    expect(await names('a.test')).toEqual(['a.test', true]);
    expect(await names('127.0.0.1')).toEqual([false, true]);
    expect(await names('127.0.0.1', 'a.test')).toEqual(['a.test', true]);
    expect(await names('a.test', 'b.test')).toEqual(['b.test', false]);
  });

  it('speaks no TLS before 1.2, whatever this process would', async () => {
    const before = { min: tls.DEFAULT_MIN_VERSION, ciphers: tls.DEFAULT_CIPHERS };
    const server = await listen(ok, {
      minVersion: 'TLSv1',
      maxVersion: 'TLSv1.1',
      ciphers: 'ALL:@SECLEVEL=0',
    });
    try {
      tls.DEFAULT_MIN_VERSION = 'TLSv1';
      tls.DEFAULT_CIPHERS = 'ALL:@SECLEVEL=0';
      const old = tls.connect({ ...options(server.port), rejectUnauthorized: false });
      await once(old, 'secureConnect');
      expect(old.getProtocol()).toBe('TLSv1.1');
      old.destroy();
      await expect(connectTls(options(server.port), undefined)).rejects.toMatchObject({
        code: expect.stringMatching(/PROTOCOL/),
      });
    } finally {
      tls.DEFAULT_MIN_VERSION = before.min;
      tls.DEFAULT_CIPHERS = before.ciphers;
    }
  });

  it('ends when its signal does, and leaves nothing on the signal', async () => {
    const silent = await listenSilently();
    const server = await listen(ok, {});
    const controller = new AbortController();
    const { signal } = controller;
    const { socket } = await connectTls(options(server.port), undefined, signal);
    expect(getEventListeners(signal, 'abort')).toEqual([]);
    await expect(connectTls(options(await closedPort()), undefined, signal)).rejects.toMatchObject({
      code: 'ECONNREFUSED',
    });
    await expect.poll(() => getEventListeners(signal, 'abort')).toEqual([]);
    const waiting = connectTls(options(silent.port), undefined, signal);
    await expect.poll(() => silent.sockets.length).toBe(1);
    const reason = new Error('enough');
    controller.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    // What was handed over belongs to the caller.
    expect(socket.destroyed).toBe(false);
    socket.destroy();
    await expect.poll(() => silent.sockets[0].destroyed).toBe(true);
  });
});

describe('peekCertificate()', () => {
  it('sends nothing but the handshake, and closes', async () => {
    const server = await listen(ok, {});
    const shown = await peekCertificate(new URL(`${server.url}/path`), {});
    expect(shown).toMatchObject({ authorized: false, hosts: ['localhost', '127.0.0.1', 'a.test'] });
    expect(await peekCertificate(new URL(server.url), { ca: own.pem })).toMatchObject({ authorized: true });
    expect(server.sockets).toHaveLength(2);
    await expect.poll(server.open).toBe(0);
    expect(server.heard).toEqual([]);
  });

  it('connects to no address that the rules refuse', async () => {
    const server = await listen(ok, {});
    const checked: string[] = [];
    const rules: FetchRules = {
      checkAddress(address) {
        checked.push(address);
        throw new Error(`not ${address}`);
      },
      resolve: async () => [{ address: '127.0.0.1', family: 4 }],
    };
    for (const host of ['127.0.0.1', 'b.test'])
      await expect(peekCertificate(new URL(`https://${host}:${server.port}`), rules)).rejects.toThrow(
        'not 127.0.0.1',
      );
    await expect(peekCertificate(new URL(`https://[::1]:${server.port}`), rules)).rejects.toThrow('not ::1');
    expect(checked).toEqual(['127.0.0.1', '127.0.0.1', '::1']);
    expect(server.sockets).toEqual([]);
  });

  it.each([
    ['https://255.255.255.255', 443],
    ['http://255.255.255.255', 80],
    ['https://255.255.255.255:444', 444],
  ])('goes to the port of %s', async (address, port) => {
    // Nothing can listen at that address.
    await expect(peekCertificate(new URL(address), {})).rejects.toMatchObject({ port });
  });

  it('gives up after 15 seconds, or when its signal ends', async () => {
    const silent = await listenSilently();
    const url = new URL(`https://127.0.0.1:${silent.port}`);
    const patience = new AbortController();
    const timeout = vi.spyOn(AbortSignal, 'timeout').mockReturnValue(patience.signal);
    const waiting = peekCertificate(url, {});
    await expect.poll(() => silent.sockets.length).toBe(1);
    patience.abort(new Error('too long'));
    await expect(waiting).rejects.toThrow('too long');
    expect(timeout.mock.calls).toEqual([[15_000]]);
    timeout.mockRestore();
    const controller = new AbortController();
    const other = peekCertificate(url, {}, controller.signal);
    await expect.poll(() => silent.sockets.length).toBe(2);
    controller.abort(new Error('enough'));
    await expect(other).rejects.toThrow('enough');
  });
});

describe('createGuardedFetch() and certificates', () => {
  it('sends nothing before the rules accept the certificate', async () => {
    const server = await listen(ok, {});
    const { fingerprint, keyFingerprint } = await peekCertificate(new URL(server.url), {});
    const asked: string[][] = [];
    const answers = [false, undefined, 'yes', true] as boolean[];
    const isKnown = (...prints: string[]) => {
      asked.push(prints);
      return answers.shift()!;
    };
    const fetch = createGuardedFetch({ isKnown });
    for (let i = 0; i < 3; i++)
      await expect(fetch(server.url)).rejects.toMatchObject({
        code: 'UNREACHABLE',
        message: expect.stringMatching(`127.0.0.1:${server.port}[^]*${fingerprint}`),
        detail: { hopeless: true, reason: 'DEPTH_ZERO_SELF_SIGNED_CERT', fingerprint },
      });
    expect(server.sockets).toHaveLength(4);
    await expect.poll(server.open).toBe(0);
    expect(server.heard).toEqual([]);
    expect(await (await fetch(`${server.url}/a?b`)).text()).toBe('ok');
    expect(server.heard).toEqual(['GET /a?b']);
    expect(asked).toEqual(Array(4).fill([fingerprint, keyFingerprint]));
    await expect(createGuardedFetch({})(server.url)).rejects.toMatchObject({ code: 'UNREACHABLE' });
  });

  it('asks no question about a certificate that an authority vouches for', async () => {
    const server = await listen(ok, {});
    const isKnown = () => {
      throw new Error('asked');
    };
    const fetch = createGuardedFetch({ ca: own.pem, isKnown });
    expect((await fetch(server.url)).status).toBe(200);
  });

  it('fails as the connection does', async () => {
    const port = await closedPort();
    for (const scheme of ['http', 'https'])
      await expect(createGuardedFetch(good)(`${scheme}://127.0.0.1:${port}`)).rejects.toMatchObject({
        code: 'ECONNREFUSED',
      });
  });
});

describe('untrusted()', () => {
  it('shows host, reason and fingerprint, and that a retry is useless', () => {
    const shown = {
      fingerprint: 'AB:01',
      keyFingerprint: 'k',
      authorized: false,
      reason: 'EXPIRED',
      hosts: [],
    };
    expect(untrusted('a.test:1', shown)).toMatchObject({
      code: 'UNREACHABLE',
      message: expect.stringContaining('tomaat trust https://a.test:1 --fingerprint AB:01'),
      detail: { hopeless: true, reason: 'EXPIRED', fingerprint: 'AB:01' },
    });
  });
});

describe('createGuardedFetch() and addresses', () => {
  it.each(['http', 'https'])('connects by %s to the permitted addresses of a name alone', async (scheme) => {
    const server = await listen(ok, scheme === 'https' ? {} : undefined);
    const checked: string[] = [];
    const asked: string[] = [];
    const fetch = createGuardedFetch({
      ...good,
      async resolve(name) {
        asked.push(name);
        // Nothing can listen at the first.
        return [
          { address: '255.255.255.255', family: 4 },
          { address: '127.0.0.1', family: 4 },
        ];
      },
      checkAddress(address) {
        checked.push(address);
        if (address !== '127.0.0.1') throw new Error(`not ${address}`);
      },
    });
    const before = getDefaultAutoSelectFamily();
    try {
      // Node asks for all addresses, or for one.
      for (const all of [true, false]) {
        setDefaultAutoSelectFamily(all);
        const answer = await fetch(`${scheme}://b.test:${server.port}`, { headers: { connection: 'close' } });
        expect(await answer.text()).toBe('ok');
      }
    } finally {
      setDefaultAutoSelectFamily(before);
    }
    expect(asked).toEqual(['b.test', 'b.test']);
    expect(checked).toEqual(['255.255.255.255', '127.0.0.1', '255.255.255.255', '127.0.0.1']);
  });

  it.each(['http', 'https'])('refuses by %s when none is permitted, known or found', async (scheme) => {
    const server = await listen(ok, scheme === 'https' ? {} : undefined);
    const refuse = (address: string) => {
      throw new Error(`not ${address}`);
    };
    const found = [
      { address: '127.0.0.2', family: 4 },
      { address: '127.0.0.1', family: 4 },
    ];
    const ask = (rules: FetchRules, host = 'b.test') =>
      createGuardedFetch({ ...good, ...rules })(`${scheme}://${host}:${server.port}`);
    await expect(ask({ resolve: async () => found, checkAddress: refuse })).rejects.toThrow('not 127.0.0.1');
    await expect(ask({ resolve: async () => [] })).rejects.toThrow('no address');
    await expect(ask({ resolve: () => Promise.reject(new Error('unknown')) })).rejects.toThrow('unknown');
    await expect(ask({ checkAddress: refuse }, '127.0.0.1')).rejects.toThrow('not 127.0.0.1');
    await expect(ask({ checkAddress: refuse }, '[::1]')).rejects.toThrow('not ::1');
    // Another spelling of 127.0.0.1.
    await expect(ask({ checkAddress: refuse }, '0x7f.1')).rejects.toThrow('not 127.0.0.1');
    await expect(ask({ checkAddress: refuse }, 'localhost')).rejects.toThrow(/not (127\.0\.0\.1|::1)/);
    expect(server.sockets).toEqual([]);
  });

  it('asks DNS where no other way is given', async () => {
    const server = await listen();
    const checked: string[] = [];
    const fetch = createGuardedFetch({ checkAddress: (address) => void checked.push(address) });
    expect(await (await fetch(`http://localhost:${server.port}`)).text()).toBe('ok');
    expect(checked).toContain('127.0.0.1');
    await expect(fetch('http://no-such-name.invalid')).rejects.toMatchObject({ syscall: 'getaddrinfo' });
  });
});

describe('createGuardedFetch() and redirects', () => {
  const redirect = (status: number, location?: string): Answer => {
    return (request, response) => {
      request.resume();
      response.writeHead(status, location === undefined ? {} : { location });
      // The rest never comes.
      response.write('a part');
    };
  };

  it.each([300, 301, 307, 399])('does not follow %i, and drops the answer', async (status) => {
    const other = await listen();
    const server = await listen(redirect(status, `${other.url}/there`));
    await expect(createGuardedFetch({})(`${server.url}/here?secret`)).rejects.toMatchObject({
      code: 'UPSTREAM',
      message: expect.stringContaining(`${server.url}/here redirects to ${other.url}/there,`),
    });
    await expect.poll(server.open).toBe(0);
    expect(other.sockets).toEqual([]);
  });

  it.each([200, 299, 400, 599])('gives the answer %i', async (status) => {
    const server = await listen((_, response) => response.writeHead(status, { location: '/' }).end('body'));
    const answer = await createGuardedFetch({})(server.url);
    expect([answer.status, await answer.text()]).toEqual([status, 'body']);
  });

  it('shows where to, shortened and without control characters, or nowhere', async () => {
    const server = await listen(redirect(302, `/\t${'x'.repeat(300)}`));
    await expect(createGuardedFetch({})(server.url)).rejects.toThrow(
      `redirects to /${'x'.repeat(198)}, which`,
    );
    const lost = await listen(redirect(302));
    await expect(createGuardedFetch({})(lost.url)).rejects.toThrow('redirects to nowhere, which');
  });
});

describe('createGuardedFetch() and requests', () => {
  const fetch = createGuardedFetch({});
  const send = async (init?: RequestInit) => {
    const server = await listen(echo);
    return (await (await fetch(`${server.url}/a/b?c=d`, init)).json()) as Echo;
  };

  it('takes an address as text, URL or Request, and the method', async () => {
    const server = await listen(echo);
    for (const input of [`${server.url}/x`, new URL(`${server.url}/x`), new Request(`${server.url}/x`)])
      expect(await (await fetch(input)).json()).toMatchObject({ method: 'GET', url: '/x', body: '' });
    expect(await send({ method: 'DELETE', headers: { 'X-One': '1' } })).toMatchObject({
      method: 'DELETE',
      url: '/a/b?c=d',
      headers: { 'x-one': '1' },
    });
  });

  it.each([undefined, null])('sends no body for %s', async (body) => {
    const { headers, body: sent } = await send({ method: 'POST', body });
    expect(sent).toBe('');
    expect(headers['content-type']).toBeUndefined();
  });

  it('sends text with its type and its length in bytes', async () => {
    const sent = await send({ method: 'POST', body: 'größe €', headers: { 'content-length': '3' } });
    expect(textOf(sent)).toBe('größe €');
    // ö and ß have two bytes, € three.
    expect(sent.headers).toMatchObject({
      'content-type': 'text/plain;charset=UTF-8',
      'content-length': '11',
    });
    const empty = await send({ method: 'POST', body: '' });
    expect(empty.headers).toMatchObject({
      'content-type': 'text/plain;charset=UTF-8',
      'content-length': '0',
    });
    const json = await send({ method: 'POST', body: '{}', headers: { 'Content-Type': 'application/json' } });
    expect(json.headers).toMatchObject({ 'content-type': 'application/json', 'content-length': '2' });
  });

  it('sends forms as the standard has it', async () => {
    const sent = await send({ method: 'POST', body: new URLSearchParams({ a: 'ü', b: '1 2' }) });
    expect(textOf(sent)).toBe('a=%C3%BC&b=1+2');
    expect(sent.headers).toMatchObject({
      'content-type': 'application/x-www-form-urlencoded;charset=UTF-8',
      'content-length': '14',
    });
    const form = new FormData();
    form.set('file', new Blob(['abc']), 'a.nii');
    const multipart = await send({ method: 'POST', body: form });
    const [, boundary] = /^multipart\/form-data; boundary=(.+)$/.exec(multipart.headers['content-type'])!;
    expect(textOf(multipart).startsWith(`--${boundary}\r\n`)).toBe(true);
    expect(textOf(multipart)).toContain('abc');
    expect(multipart.headers['content-length']).toBeUndefined();
  });

  it('sends a blob with its length, and its type unless another is given', async () => {
    const typed = await send({ method: 'PUT', body: new Blob(['abcde'], { type: 'image/x' }) });
    expect(textOf(typed)).toBe('abcde');
    expect(typed.headers).toMatchObject({ 'content-type': 'image/x', 'content-length': '5' });
    const bare = await send({ method: 'PUT', body: new Blob(['abc']) });
    expect(bare.headers['content-type']).toBeUndefined();
    expect(bare.headers['content-length']).toBe('3');
    const own = { 'content-type': 'a/b' };
    const other = await send({ method: 'PUT', body: new Blob(['abc'], { type: 'image/x' }), headers: own });
    expect(other.headers['content-type']).toBe('a/b');
  });

  it('sends a stream as it comes', async () => {
    const parts = ['one ', 'two ', 'three'];
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        const part = parts.shift();
        if (part === undefined) controller.close();
        else controller.enqueue(Buffer.from(part));
      },
    });
    const sent = await send({ method: 'POST', body, duplex: 'half' } as RequestInit);
    expect(textOf(sent)).toBe('one two three');
    expect(sent.headers['content-length']).toBeUndefined();
    expect(sent.headers['transfer-encoding']).toBe('chunked');
  });

  it.each(['http', 'https'])(
    'uses a connection of %s again, also after an answer without body',
    async (scheme) => {
      const statuses = [200, 204, 304, 200];
      const server = await listen(
        async (request, response) => {
          await bodyOf(request);
          const status = statuses.shift()!;
          // The last has no body though it could have one.
          response.writeHead(status, statuses.length === 0 ? { 'content-length': 0 } : {});
          response.end(statuses.length === 3 ? 'body' : undefined);
        },
        scheme === 'https' ? {} : undefined,
      );
      const again = createGuardedFetch(good);
      const answers: unknown[] = [];
      for (let i = 0; i < 4; i++) {
        const answer = await again(server.url, { method: 'POST', body: i < 2 ? 'x' : new Blob(['y']) });
        answers.push([answer.status, answer.body === null, await answer.text()]);
        // The connection is free a turn after the end of the answer.
        await new Promise((resolve) => setImmediate(resolve));
      }
      expect(answers).toEqual([
        [200, false, 'body'],
        [204, true, ''],
        [304, true, ''],
        [200, true, ''],
      ]);
      expect(server.sockets).toHaveLength(1);
    },
  );

  it('gives all headers of an answer, those that come twice too', async () => {
    const server = await listen((_, response) => {
      response.writeHead(205, ['Set-Cookie', 'a=1', 'X-One', '1', 'set-cookie', 'b=2']).end();
    });
    const answer = await fetch(server.url);
    expect(answer.status).toBe(205);
    expect(answer.body).toBeNull();
    expect(answer.headers.getSetCookie()).toEqual(['a=1', 'b=2']);
    expect(answer.headers.get('x-one')).toBe('1');
  });
});

describe('createGuardedFetch() and interruptions', () => {
  const fetch = createGuardedFetch({});

  it('does nothing when its signal has ended before', async () => {
    const server = await listen();
    const checked: string[] = [];
    const guarded = createGuardedFetch({ checkAddress: (address) => void checked.push(address) });
    const reason = new Error('enough');
    await expect(guarded(server.url, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    expect([checked, server.sockets]).toEqual([[], []]);
  });

  it('rejects with the reason of its signal, and hangs up', async () => {
    const server = await listen(() => {});
    const controller = new AbortController();
    const waiting = fetch(server.url, { signal: controller.signal });
    await expect.poll(() => server.heard.length).toBe(1);
    const reason = new Error('enough');
    controller.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    await expect.poll(server.open).toBe(0);
  });

  it('rejects when the server hangs up without an answer', async () => {
    const server = await listen((request) => request.socket.destroy());
    await expect(fetch(server.url)).rejects.toMatchObject({ code: 'ECONNRESET' });
  });

  /** Chunks of 64 kB without end, and how many were taken. */
  function endless() {
    const state = { taken: 0, cancelled: false };
    const body = new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          state.taken++;
          controller.enqueue(new Uint8Array(65_536));
          await new Promise((resolve) => setImmediate(resolve));
        },
        cancel() {
          state.cancelled = true;
        },
      },
      { highWaterMark: 0 },
    );
    return { state, init: { method: 'POST', body, duplex: 'half' } as RequestInit };
  }

  it('ends the upload when the server refuses, and still reads why', async () => {
    let finish: (() => void) | undefined;
    const server = await listen((_, response) => {
      response.writeHead(413);
      response.write('too ');
      finish = () => response.end('large');
    });
    const { state, init } = endless();
    const answer = await fetch(server.url, init);
    expect(answer.status).toBe(413);
    await expect.poll(() => state.cancelled).toBe(true);
    finish!();
    expect(await answer.text()).toBe('too large');
    // The rest of the request never comes, so that the connection is of no more use.
    await expect.poll(server.open).toBe(0);
    await fetch(server.url).then((second) => second.body?.cancel());
    expect(server.sockets).toHaveLength(2);
  });

  it('continues the upload after an early answer that is not a refusal', async () => {
    let size = 0;
    const server = await listen(async (request, response) => {
      response.writeHead(299).write('so far ');
      size = (await bodyOf(request)).length;
      response.end('good');
    });
    let rest: ReadableStreamDefaultController<Uint8Array>;
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        rest = controller;
        controller.enqueue(new Uint8Array(65_536));
      },
    });
    const answer = await fetch(server.url, { method: 'POST', body, duplex: 'half' } as RequestInit);
    for (let i = 1; i < 40; i++) rest!.enqueue(new Uint8Array(65_536));
    rest!.close();
    expect(await answer.text()).toBe('so far good');
    expect(size).toBe(40 * 65_536);
  });

  it('takes no more from a stream than the server reads', async () => {
    const server = await listen((request) => request.pause());
    const { state, init } = endless();
    const controller = new AbortController();
    const sending = fetch(server.url, { ...init, signal: controller.signal });
    let before = -1;
    // What the system's buffers hold, some MB, is taken; then nothing more in a second of polling.
    await expect
      .poll(
        () => {
          const isSame = state.taken === before;
          before = state.taken;
          return isSame;
        },
        { interval: 200 },
      )
      .toBe(true);
    expect(state.taken).toBeLessThan(1000);
    controller.abort(new Error('enough'));
    await expect(sending).rejects.toThrow('enough');
    await expect.poll(() => state.cancelled).toBe(true);
  });

  it('fails as the stream does, and hangs up', async () => {
    const server = await listen((request) => request.resume());
    let parts = 0;
    const body = new ReadableStream<Uint8Array>({
      async pull(controller) {
        if (parts++ === 0) return controller.enqueue(Buffer.from('part'));
        await expect.poll(() => server.heard.length).toBe(1);
        controller.error(new Error('the disk is gone'));
      },
    });
    await expect(fetch(server.url, { method: 'POST', body, duplex: 'half' } as RequestInit)).rejects.toThrow(
      'the disk is gone',
    );
    await expect.poll(server.open).toBe(0);
  });
});
