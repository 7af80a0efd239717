import { execFileSync, spawn } from 'node:child_process';
import { createHash, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { createServer, type Server } from 'node:https';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { join } from 'node:path';
import { createClient, type Entry } from '@tomaat/client';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { findOpenssl, findPython } from '../../../test/programs.ts';
import { type ConnectOptions, connectTo } from '../src/cli/connect.ts';
import { findService } from '../src/cli/find-service.ts';
import { openIdentity } from '../src/identity.ts';
import { openSigner } from '../src/registry/signer.ts';
import { openCertificate } from '../src/tls.ts';
import { createGuardedFetch } from '../src/trust/guarded-fetch.ts';
import {
  addPin,
  findPins,
  knownHostsFile,
  parseFingerprint,
  readPins,
  removePins,
} from '../src/trust/known-hosts.ts';
import { bin, fakeServer, signEntry, tomaat } from './cli-fixture.ts';
import { announcementOf, certificateOf, createCleanup, openFolder } from './registry-helpers.ts';

const cleanup = createCleanup();
let data: string;
beforeEach(async () => {
  data = await openFolder(cleanup);
});
afterEach(() => cleanup.run());

interface Recorder {
  server: Server;
  port: number;
  /** Whatever was said to it after the handshake. */
  heard: string[];
  close(): Promise<void>;
}

/** An HTTPS server with the certificate of a folder, which answers that it has no services. */
async function listen(
  folder: string,
  port = 0,
  host = '127.0.0.1',
): Promise<Recorder & { fingerprint: string }> {
  const certificate = await openCertificate(folder);
  const heard: string[] = [];
  const server = createServer({ key: certificate.key, cert: certificate.cert }, (request, response) => {
    heard.push(`${request.method} ${request.url} ${request.headers.authorization ?? ''}`);
    response.writeHead(200, { 'content-type': 'application/json' }).end('{"services":[]}');
  });
  server.listen(port, host);
  await once(server, 'listening');
  let open = true;
  const close = async () => {
    if (!open) return;
    open = false;
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  cleanup.add(close);
  return {
    server,
    port: (server.address() as AddressInfo).port,
    heard,
    close,
    fingerprint: certificate.fingerprint,
  };
}

const key = 'tmt_aaaaaaaaaa_secretsecretsecret';
const file = () => knownHostsFile(data);
const yes = async () => true;

/** A request with the key, as a command would make it. */
async function ask(port: number, options: Partial<ConnectOptions> = {}) {
  const baseUrl = `https://127.0.0.1:${port}`;
  const { fetch } = await connectTo(baseUrl, { data, apiKey: key, ...options });
  return createClient({ baseUrl, apiKey: key, fetch, retries: 0 }).services({});
}

describe('connectTo()', () => {
  it('refuses an unknown certificate with its fingerprint and the remedy, and sends nothing', async () => {
    const server = await listen(await openFolder(cleanup));
    await expect(ask(server.port)).rejects.toMatchObject({
      code: 'UNREACHABLE',
      message: expect.stringMatching(
        new RegExp(
          `not trusted here.*${server.fingerprint}.*tomaat trust https://127.0.0.1:${server.port} --fingerprint`,
          's',
        ),
      ),
    });
    expect(server.heard).toEqual([]);
    expect(await readPins(file())).toEqual([]);
  });

  it('asks once, and remembers the answer in an owner-only file across restarts', async () => {
    const folder = await openFolder(cleanup);
    let server = await listen(folder);
    const { port, fingerprint } = server;
    const questions: string[] = [];
    const once = async (question: string) => {
      questions.push(question);
      return true;
    };
    await ask(port, { ask: once });
    expect(questions).toEqual([expect.stringContaining(fingerprint)]);
    expect(statSync(file()).mode & 0o777).toBe(0o600);
    const [pin] = await findPins(file(), `127.0.0.1:${port}`);
    expect(pin).toMatchObject({ value: fingerprint, firstSeen: expect.stringMatching(/^\d{4}-\d\d-\d\dT/) });
    for (let i = 0; i < 10; i++) {
      await server.close();
      server = await listen(folder, port);
      await ask(port, { ask: once });
    }
    expect(questions).toHaveLength(1);
    expect(server.heard).toEqual([`GET /api/services Bearer ${key}`]);
  });

  it('refuses a changed certificate with both fingerprints, until its line is removed', async () => {
    const first = await listen(await openFolder(cleanup));
    await ask(first.port, { ask: yes });
    writeFileSync(file(), `# a comment\n\n${readFileSync(file(), 'utf8')}`);
    await first.close();
    const second = await listen(await openFolder(cleanup), first.port);
    const [{ line }] = await findPins(file(), `127.0.0.1:${first.port}`);
    const error = await ask(first.port, { ask: yes }).catch((fault: Error) => fault);
    for (const part of [first.fingerprint, second.fingerprint, `line ${line} of ${file()}`])
      expect((error as Error).message).toContain(part);
    expect(second.heard).toEqual([]);
    expect(await removePins(file(), `127.0.0.1:${first.port}`)).toBe(1);
    expect(readFileSync(file(), 'utf8')).toContain('# a comment');
    await ask(first.port, { ask: yes });
    expect(second.heard).toHaveLength(1);
  });

  it('recognizes a certificate renewed with the same key, and notes it', async () => {
    const folder = await openFolder(cleanup);
    const first = await listen(folder);
    const name = `127.0.0.1:${first.port}`;
    await ask(first.port, { ask: yes });
    const pinned = await findPins(file(), name);
    expect(pinned).toMatchObject([{ value: first.fingerprint, keyFingerprint: expect.any(String) }]);
    const { fetch } = await connectTo(`https://${name}`, { data });
    await first.close();
    await openCertificate(folder, { names: ['renewed.example'] });
    const second = await listen(folder, first.port);
    expect(second.fingerprint).not.toBe(first.fingerprint);
    // What runs on goes on, and what starts asks nothing.
    expect((await fetch(`https://${name}/api/services`)).status).toBe(200);
    await ask(first.port);
    const { line, firstSeen, keyFingerprint } = pinned[0];
    expect(await findPins(file(), name)).toEqual([
      { name, value: second.fingerprint, firstSeen, keyFingerprint, line },
    ]);
    // The digest of the public key, by openssl's definition of SubjectPublicKeyInfo.
    const spki = new X509Certificate(readFileSync(join(folder, 'tomaat.pem'))).publicKey;
    const der = spki.export({ type: 'spki', format: 'der' });
    expect(keyFingerprint).toBe(createHash('sha256').update(der).digest('base64url'));
  });

  it('adds the key to an earlier version’s line, and accepts no other', async () => {
    const folder = await openFolder(cleanup);
    const server = await listen(folder);
    const name = `127.0.0.1:${server.port}`;
    writeFileSync(file(), `# mine\n${name} ${server.fingerprint} 2026-01-02T03:04:05Z\n`);
    await ask(server.port);
    const lines = readFileSync(file(), 'utf8').split('\n');
    expect(lines[0]).toBe('# mine');
    expect(lines[1]).toMatch(
      new RegExp(`^${name} ${server.fingerprint} 2026-01-02T03:04:05Z # key [\\w-]{43}$`),
    );
    await server.close();
    const other = await listen(await openFolder(cleanup), server.port);
    await expect(ask(server.port, { ask: yes })).rejects.toThrow(/a different certificate than before/);
    expect(other.heard).toEqual([]);
    expect(readFileSync(file(), 'utf8').split('\n')).toEqual(lines);
  });

  it('detects a later man in the middle before sending the key', async () => {
    const server = await listen(await openFolder(cleanup));
    const baseUrl = `https://127.0.0.1:${server.port}`;
    const { fetch } = await connectTo(baseUrl, { data, apiKey: key, ask: yes });
    await server.close();
    const middle = await listen(await openFolder(cleanup), server.port);
    const client = createClient({ baseUrl, apiKey: key, fetch, retries: 0 });
    await expect(client.services({})).rejects.toMatchObject({
      code: 'UNREACHABLE',
      message: expect.stringContaining(middle.fingerprint),
    });
    await expect(client.predict('x', { volumes: { volume: new Blob(['a volume']) } })).rejects.toMatchObject({
      code: 'UNREACHABLE',
    });
    expect(middle.heard).toEqual([]);
  });

  it('takes a fingerprint that is given, in any spelling, and no other', async () => {
    const server = await listen(await openFolder(cleanup));
    const { fingerprint } = server;
    for (const given of [
      fingerprint,
      fingerprint.toLowerCase(),
      fingerprint.replaceAll(':', ''),
      `SHA256:${fingerprint}`,
    ])
      await ask(server.port, { fingerprint: [given] });
    expect(server.heard).toHaveLength(4);
    await expect(ask(server.port, { fingerprint: [certificateOf(1)], ask: yes })).rejects.toThrow(
      /a different certificate/,
    );
    await expect(ask(server.port, { fingerprint: ['AB:CD'] })).rejects.toMatchObject({ code: 'BAD_REQUEST' });
    expect(server.heard).toHaveLength(4);
    expect(await readPins(file())).toEqual([]);
  });

  it('stores nothing for certificates of --ca or of this machine’s server', async () => {
    const folder = await openFolder(cleanup);
    const server = await listen(folder);
    await ask(server.port, { ca: join(folder, 'tomaat.pem') });
    await ask(server.port, { data: folder });
    expect(server.heard).toHaveLength(2);
    expect(await readPins(knownHostsFile(folder))).toEqual([]);
    // A certificate that is trusted for itself vouches for no other.
    const other = await listen(await openFolder(cleanup));
    await expect(ask(other.port, { data: folder })).rejects.toThrow(/not trusted here/);
    expect(other.heard).toEqual([]);
  });

  it('takes the certificate that was announced, and refuses another', async () => {
    const server = await listen(await openFolder(cleanup));
    const address = `https://127.0.0.1:${server.port}`;
    const told = { registry: 'https://127.0.0.1:8001', certificate: server.fingerprint };
    await connectTo(address, { data }, told);
    await expect(
      connectTo(address, { data, ask: yes }, { ...told, certificate: certificateOf(2) }),
    ).rejects.toThrow(new RegExp(`${certificateOf(2)}.*${server.fingerprint}`, 's'));
    // What was remembered of the address goes before what is announced.
    await addPin(file(), `127.0.0.1:${server.port}`, certificateOf(3));
    await expect(connectTo(address, { data }, told)).rejects.toThrow(/line \d+ of/);
  });
});

const openssl = findOpenssl();
const python = findPython();

describe('the fingerprint', () => {
  it.skipIf(!openssl || !python)(
    'equals that of openssl and Python for ten certificates, also after restart',
    async () => {
      const kinds = [['rsa:2048'], ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256'], ['ed25519']];
      const certificates: { cert: string; key: string }[] = [];
      for (let i = 0; i < 6; i++) {
        const folder = await openFolder(cleanup);
        const [cert, keyFile] = [join(folder, 'a.pem'), join(folder, 'a.key')];
        const subject = ['-subj', `/CN=server-${i}.example`, '-days', '30', '-out', cert, '-keyout', keyFile];
        execFileSync(openssl!, ['req', '-x509', '-nodes', '-newkey', ...kinds[i % 3], ...subject], {
          stdio: 'pipe',
        });
        certificates.push({ cert, key: keyFile });
      }
      for (let i = 0; i < 4; i++) {
        const folder = await openFolder(cleanup);
        const made = await openCertificate(folder);
        expect((await openCertificate(folder)).fingerprint).toBe(made.fingerprint);
        certificates.push({ cert: join(folder, 'tomaat.pem'), key: join(folder, 'tomaat.key') });
      }
      const program = `import hashlib, ssl, sys
for file in sys.argv[1:]:
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(open(file).read())).hexdigest().upper()
    print(':'.join(digest[i:i + 2] for i in range(0, 64, 2)))`;
      const files = certificates.map(({ cert }) => cert);
      const byPython = execFileSync(python!, ['-c', program, ...files])
        .toString()
        .trim()
        .split('\n');
      for (const [index, { cert, key: keyFile }] of certificates.entries()) {
        const opened = await openCertificate(data, { cert, key: keyFile });
        const said = execFileSync(openssl!, [
          'x509',
          '-in',
          cert,
          '-noout',
          '-fingerprint',
          '-sha256',
        ]).toString();
        expect(opened.fingerprint).toBe(parseFingerprint(said));
        expect(said.trim().endsWith(opened.fingerprint)).toBe(true);
        expect(opened.fingerprint).toBe(byPython[index]);
        const der = new X509Certificate(readFileSync(cert)).raw;
        expect(opened.fingerprint.replaceAll(':', '').toLowerCase()).toBe(
          createHash('sha256').update(der).digest('hex'),
        );
      }
    },
    180_000,
  );
});

describe('known_hosts', () => {
  it('loses no line in concurrent writes, and names an invalid line', async () => {
    await Promise.all(
      Array.from({ length: 20 }, (_, i) => addPin(file(), `server-${i}.example:9443`, certificateOf(i))),
    );
    expect(new Set((await readPins(file())).map(({ name }) => name)).size).toBe(20);
    await addPin(file(), 'server-3.example:9443', certificateOf(200), { replace: true });
    expect((await findPins(file(), 'server-3.example:9443')).map(({ value }) => value)).toEqual([
      certificateOf(200),
    ]);
    writeFileSync(file(), `${readFileSync(file(), 'utf8')}server.example:1 no-fingerprint\n`);
    await expect(readPins(file())).rejects.toThrow(/^Line 22 of /);
  });
});

/** A registry that shows what it is told, with announcements signed for it. */
async function hostileRegistry(entries: Entry[]) {
  const registry = await fakeServer({ entries });
  cleanup.add(() => registry.close());
  return registry;
}

const entryOf = (serverUrl: string, change: Partial<Entry> = {}): Entry => ({
  ...announcementOf(serverUrl),
  sid: 's1',
  default: true,
  face: 'api',
  live: true,
  announcedTime: '',
  expiresTime: '',
  ...change,
});

describe('findService() with a registry that turns hostile', () => {
  it('sends nothing to a server whose key differs from the remembered one', async () => {
    const good = await fakeServer();
    const evil = await fakeServer();
    cleanup.add(() => good.close());
    cleanup.add(() => evil.close());
    const heard: string[] = [];
    evil.server.on('request', ({ url }) => heard.push(url ?? ''));
    const entries: Entry[] = [];
    const registry = await hostileRegistry(entries);
    const notes: string[] = [];
    const find = (wanted: string) =>
      findService(wanted, { registry: registry.url, data, apiKey: key, note: (text) => notes.push(text) });
    const own = () => signEntry(entryOf(good.url), registry.url, 'good');
    const show = async (...shown: (Entry | Promise<Entry>)[]) =>
      void entries.splice(0, entries.length, ...(await Promise.all(shown)));
    const other = (change: Partial<Entry> = {}) => signEntry(entryOf(evil.url, change), registry.url, 'evil');

    await show(own());
    expect(await find('prostate-net')).toMatchObject({ kind: 'api', client: { baseUrl: good.url } });
    expect(await find('segmentation/prostate')).toMatchObject({ client: { baseUrl: good.url } });
    expect(notes.filter((note) => note.startsWith('First use'))).toHaveLength(1);
    const [known] = await findPins(file(), `${new URL(registry.url).host}/prostate-net`);

    const attacks: [string, () => Promise<void>, RegExp][] = [
      [
        'another server under its name',
        () => show(other()),
        new RegExp(`known  ${known.value}\n  now    [\\w-]{43}`),
      ],
      [
        'another id for the same pair',
        () => show(other({ serviceId: 'other' })),
        /a different server than before|has no live service/,
      ],
      ['another address', async () => show({ ...(await own()), serverUrl: evil.url }), /another serverUrl/],
      ['no signature', async () => show(entryOf(evil.url, { signed: false })), /without a signature/],
      [
        'as if it were v1',
        async () =>
          show(entryOf(evil.url, { face: 'v1', signed: false, predictionUrl: `${evil.url}/predict` })),
        /no longer signed/,
      ],
      [
        'for another registry',
        () => show(signEntry(entryOf(good.url), evil.url, 'good')),
        /was made for the registry/,
      ],
    ];
    for (const [name, attack, message] of attacks) {
      await attack();
      for (const wanted of ['prostate-net', 'segmentation/prostate'])
        await expect(find(wanted), `${name}: ${wanted}`).rejects.toThrow(message);
    }
    expect(heard).toEqual([]);
    // Beside an intruder that comes first, the known one is found.
    await show(other(), own());
    expect(await find('prostate-net')).toMatchObject({ client: { baseUrl: good.url } });
    expect(heard).toEqual([]);
    const { thumbprint } = await openIdentity(await openFolder(cleanup));
    await expect(find(`${thumbprint}.prostate-net`)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    // The user may decide otherwise.
    for (const { name } of await readPins(file())) await removePins(file(), name);
    await show(other());
    expect(await find('prostate-net')).toMatchObject({ client: { baseUrl: evil.url } });
  });

  it('pins the certificate that the server signed: an interceptor receives nothing', async () => {
    const evil = await listen(await openFolder(cleanup));
    const certificate = await openCertificate(await openFolder(cleanup));
    const dataFolder = await openFolder(cleanup);
    const identity = await openIdentity(dataFolder);
    const signer = await openSigner({ dataFolder, identity, certificate: certificate.fingerprint });
    const entries: Entry[] = [];
    const registry = await hostileRegistry(entries);
    const announcement = announcementOf(`https://127.0.0.1:${evil.port}`);
    const signed = await signer.sign(announcement, registry.url);
    entries.push({
      ...entryOf(announcement.serverUrl, { default: undefined }),
      id: signer.idOf('prostate-net'),
      signed,
    });
    await expect(
      findService('prostate-net', { registry: registry.url, data, apiKey: key, ask: yes }),
    ).rejects.toThrow(new RegExp(`announced  ${certificate.fingerprint}\n  shown      ${evil.fingerprint}`));
    expect(evil.heard).toEqual([]);
    expect(await readPins(file())).toEqual([]);
  });

  it('is not led to this machine by a registry elsewhere', async () => {
    const told = { registry: 'https://registry.example' };
    for (const address of [
      'http://127.0.0.1:9000',
      'http://localhost:9000',
      'http://[::1]:9000',
      'http://0.0.0.0:9000',
    ]) {
      const { fetch } = await connectTo(address, { data }, told);
      await expect(fetch(address), address).rejects.toThrow(/this machine itself/);
    }
  });
});

describe('the key', () => {
  it('goes to no other address in 240 answers that lead there', async () => {
    const bytes: string[] = [];
    const other = createTcpServer((socket) => {
      socket.on('data', (chunk) => bytes.push(chunk.toString('latin1')));
      socket.on('error', () => {});
    }).listen(0, '127.0.0.1');
    await once(other, 'listening');
    cleanup.add(() => void other.close());
    const to = `127.0.0.1:${(other.address() as AddressInfo).port}`;
    let location = '';
    let status = 200;
    let asked = 0;
    const server = createHttpServer((request, response) => {
      asked++;
      request.resume();
      response.writeHead(status, { location, refresh: `0; url=${location}` }).end();
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    cleanup.add(() => {
      server.closeAllConnections();
      server.close();
    });
    const baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const client = createClient({ baseUrl, apiKey: key, fetch: createGuardedFetch({}), retries: 0 });
    const volume = new Blob(['a volume']);
    const calls: (() => Promise<unknown>)[] = [
      () => client.services({}),
      () => client.service('x'),
      () => client.job('1'),
      () => client.cancel('1'),
      () => client.remove('1'),
      () => client.output('1', 'segmentation'),
      () => client.predict('x', { volumes: { volume } }),
      () => client.predict('x', { volumes: { volume }, resumableAboveBytes: 1 }),
    ];
    const places = [
      `http://${to}/`,
      `//${to}/`,
      `http://user:${'x'}@${to}/`,
      `http://${to}/api/services`,
      `https://${to}/`,
      `http://localhost:${to.split(':')[1]}/`,
    ];
    let cases = 0;
    for (const place of places) {
      for (const code of [301, 302, 303, 307, 308]) {
        location = place;
        status = code;
        for (const call of calls) {
          cases++;
          await expect(call(), `${code} ${place}`).rejects.toThrow();
        }
      }
    }
    expect(cases).toBe(240);
    expect(asked).toBeGreaterThanOrEqual(240);
    expect(bytes).toEqual([]);
  }, 180_000);
});

describe('tomaat trust', () => {
  it('remembers, lists and removes a correct fingerprint; predict then explains', async () => {
    const server = await listen(await openFolder(cleanup));
    const url = `https://127.0.0.1:${server.port}`;
    const run = (...args: string[]) => tomaat([...args, '--data', data]);
    const wrong = await run('trust', url, '--fingerprint', certificateOf(9));
    expect(wrong.code).toBe(2);
    for (const part of [certificateOf(9), server.fingerprint]) expect(wrong.stderr).toContain(part);
    const right = await run('trust', url, '--fingerprint', server.fingerprint);
    expect(right).toMatchObject({ code: 0, stderr: '' });
    const listed = await run('trust', 'list', '--json');
    expect(JSON.parse(listed.stdout)).toMatchObject([
      { name: `127.0.0.1:${server.port}`, value: server.fingerprint },
    ]);
    expect((await run('discover', url)).stdout).toContain('No service is announced');
    expect(await run('trust', 'remove', url)).toMatchObject({ code: 0 });
    const refused = await run('discover', url);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain(`tomaat trust ${url} --fingerprint ${server.fingerprint}`);
    const byVariable = await tomaat(['discover', url, '--data', data], {
      env: { TOMAAT_FINGERPRINT: server.fingerprint },
    });
    expect(byVariable).toMatchObject({ code: 0 });
  }, 180_000);

  it.skipIf(!python)(
    'asks on a terminal: yes is remembered, anything else is no',
    async () => {
      const server = await listen(await openFolder(cleanup));
      const url = `https://127.0.0.1:${server.port}`;
      const program = `import os, pty, sys
pid, terminal = pty.fork()
if pid == 0: os.execv(sys.argv[2], sys.argv[2:])
seen = b''
while b'[y/N]' not in seen: seen += os.read(terminal, 4096)
os.write(terminal, sys.argv[1].encode() + b'\\n')
try:
  while True:
    more = os.read(terminal, 4096)
    if not more: break
    seen += more
except OSError: pass
_, status = os.waitpid(pid, 0)
sys.stdout.buffer.write(seen)
sys.exit(os.waitstatus_to_exitcode(status))`;
      const answer = async (text: string) => {
        const args = ['-c', program, text, process.execPath, bin, 'discover', url, '--data', data];
        const child = spawn(python!, args, { stdio: ['ignore', 'pipe', 'inherit'], timeout: 50_000 });
        let said = '';
        child.stdout.on('data', (chunk) => {
          said += chunk;
        });
        const [code] = await once(child, 'close');
        return { code, said };
      };
      const no = await answer('n');
      expect(no.said).toContain(server.fingerprint);
      expect(no.code).toBe(1);
      expect(await readPins(file())).toEqual([]);
      const agreed = await answer('y');
      expect(agreed).toMatchObject({ code: 0, said: expect.stringContaining('No service is announced') });
      expect(await readPins(file())).toMatchObject([{ value: server.fingerprint }]);
    },
    120_000,
  );
});

describe('openSigner()', () => {
  it('gives each announcement a greater epoch, over restarts, though the clock is set back', async () => {
    const dataFolder = await openFolder(cleanup);
    const identity = await openIdentity(dataFolder);
    const epochs: number[] = [];
    const day = 86_400_000;
    for (const nowMs of [10 * day, 10 * day + 1, 9 * day, 9 * day, 11 * day]) {
      const signer = await openSigner({
        dataFolder,
        identity,
        certificate: certificateOf(1),
        now: () => nowMs,
      });
      const texts = await Promise.all(
        Array.from({ length: 5 }, () =>
          signer.sign(announcementOf('http://127.0.0.1:9000'), 'http://127.0.0.1:8001/'),
        ),
      );
      for (const text of texts) {
        const payload = JSON.parse(Buffer.from(text.split('.')[1], 'base64url').toString());
        expect(payload).toMatchObject({
          aud: 'http://127.0.0.1:8001',
          exp: payload.iat + 120,
          sub: identity.thumbprint,
        });
        epochs.push(payload.epoch);
      }
    }
    expect(epochs).toEqual([...new Set(epochs)].sort((a, b) => a - b));
    expect(epochs).toHaveLength(25);
    expect(statSync(join(dataFolder, 'announcement-epoch')).mode & 0o777).toBe(0o600);
  });
});
