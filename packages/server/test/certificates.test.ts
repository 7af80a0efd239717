import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { copyFile, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { request as httpRequest } from 'node:http';
import { join } from 'node:path';
import tls, { type ConnectionOptions, connect } from 'node:tls';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { isNamedBy } from '../src/access/hosts.ts';
import { openCertificates } from '../src/certificates.ts';
import { startRegistry } from '../src/registry/start.ts';
import { openCertificate } from '../src/tls.ts';
import { dayMs, makeCertificate } from './certificate-fixture.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

let folder: string;
let log: (Record<string, unknown> & { level: number; msg: string })[];
let logger: ReturnType<typeof pino>;
beforeEach(async () => {
  folder = await temporaryFolder();
  log = [];
  logger = pino({ level: 'info' }, { write: (line: string) => log.push(JSON.parse(line)) });
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const publicKeyOf = (pem: string) =>
  new X509Certificate(pem).publicKey.export({ type: 'spki', format: 'pem' });
const modeOf = async (file: string) => (await stat(file)).mode & 0o777;

describe('openCertificate() with files of the operator', () => {
  const refusal = async (cert: string, key: string) => {
    const error = await openCertificate(folder, { cert, key }).catch((fault: Error) => fault);
    expect(error).toMatchObject({ name: 'TomaatError', code: 'BAD_REQUEST' });
    return (error as Error).message;
  };

  it('refuses files that are missing, swapped, not PEM or encrypted, in words', async () => {
    const own = await makeCertificate(folder);
    const missing = join(folder, 'missing.pem');
    expect(await refusal(missing, own.key)).toMatch(/missing\.pem cannot be read: the file does not exist/);
    expect(await refusal(own.cert, missing)).toMatch(/the file does not exist\. Check --tls-key/);
    expect(await refusal(own.key, own.cert)).toMatch(/own\.key is not a certificate.*It contains a key/);
    expect(await refusal(own.cert, own.cert)).toMatch(
      /own\.pem is not a usable private key.*contains a certificate/,
    );
    const der = join(folder, 'own.der');
    await writeFile(der, new X509Certificate(own.pem).raw.subarray(0, 50));
    expect(await refusal(der, own.key)).toMatch(/openssl x509 -inform der/);
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const locked = join(folder, 'locked.key');
    const cipher = { type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'x' } as const;
    await writeFile(locked, privateKey.export(cipher));
    expect(await refusal(own.cert, locked)).toMatch(/encrypted.*openssl pkey -in .*locked\.key/);
  });

  it('refuses a key of another certificate, and a chain in the wrong order', async () => {
    const own = await makeCertificate(folder);
    const other = await makeCertificate(folder, { file: 'other', names: ['ca.example'] });
    expect(await refusal(own.cert, other.key)).toMatch(
      /other\.key is not the key of the certificate .*own\.pem: their public keys differ\. Give the key/,
    );
    const chain = join(folder, 'chain.pem');
    await writeFile(chain, other.pem + own.pem);
    expect(await refusal(chain, own.key)).toMatch(/is not the first in .*chain\.pem\. Put it first/);
    await writeFile(chain, own.pem + other.pem);
    expect((await openCertificate(folder, { cert: chain, key: own.key })).names).toEqual([
      'tomaat.hospital.example',
    ]);
  });
});

describe('openCertificate() without', () => {
  const pemFile = () => join(folder, 'tomaat.pem');
  const keyFile = () => join(folder, 'tomaat.key');

  it('keeps its key file readable by the owner alone, made and renewed', async () => {
    await openCertificate(folder);
    expect(await modeOf(keyFile())).toBe(0o600);
    await openCertificate(folder, { names: ['new.example'] });
    expect(await modeOf(keyFile())).toBe(0o600);
  });

  it('renews it for a new name, keeps the key, logs client instructions', async () => {
    const first = await openCertificate(folder, { names: ['one.example'], logger });
    expect((await openCertificate(folder, { names: ['one.example'], logger })).cert).toBe(first.cert);
    expect(log).toEqual([]);
    const second = await openCertificate(folder, { host: '192.0.2.7', names: ['two.example'], logger });
    expect(second.fingerprint).not.toBe(first.fingerprint);
    expect(publicKeyOf(second.cert)).toBe(publicKeyOf(first.cert));
    const certificate = new X509Certificate(second.cert);
    for (const name of ['localhost', 'one.example', 'two.example'])
      expect(certificate.checkHost(name)).toBe(name);
    expect(certificate.checkIP('192.0.2.7')).toBe('192.0.2.7');
    expect(log).toHaveLength(1);
    expect(log[0]).toMatchObject({ level: 40, before: first.fingerprint, fingerprint: second.fingerprint });
    expect(log[0].msg).toMatch(
      /renewed: the earlier one is not for 192\.0\.2\.7, two\.example\. Its key is the same/,
    );
    for (const part of [second.fingerprint, pemFile(), '--ca', '--fingerprint'])
      expect(log[0].msg).toContain(part);
    expect(second.cert).toBe(await readFile(pemFile(), 'utf8'));
  });

  it('renews it 30 days before it expires, and after', async () => {
    const first = await openCertificate(folder);
    const end = first.validToMs;
    const at = (ms: number) => openCertificate(folder, { now: () => ms, logger });
    expect((await at(end - 31 * dayMs)).cert).toBe(first.cert);
    const second = await at(end - 29 * dayMs);
    expect(publicKeyOf(second.cert)).toBe(publicKeyOf(first.cert));
    expect(second.validToMs).toBeGreaterThan(end);
    const third = await at(second.validToMs + dayMs);
    expect(publicKeyOf(third.cert)).toBe(publicKeyOf(first.cert));
    expect(log.map(({ msg }) => /renewed: the earlier one (\w+)/.exec(msg)?.[1])).toEqual([
      'expires',
      'expired',
    ]);
  });

  it('keeps the key if only the certificate is missing, and refuses mismatches', async () => {
    const first = await openCertificate(folder);
    await rm(pemFile());
    const second = await openCertificate(folder);
    expect(publicKeyOf(second.cert)).toBe(publicKeyOf(first.cert));
    const other = await makeCertificate(folder);
    await copyFile(other.key, keyFile());
    await expect(openCertificate(folder)).rejects.toThrow(/tomaat\.key is not the key.*Delete both/);
  });
});

describe('openCertificates()', () => {
  it('warns 30 days before expiry, and of expired or not yet valid certificates', async () => {
    const cases = [
      { toMs: Date.now() + 31 * dayMs, expected: undefined },
      { toMs: Date.now() + 29.5 * dayMs, expected: /own\.pem expires in 29 days, at 20.*SIGHUP/, level: 40 },
      { toMs: Date.now() + 0.5 * dayMs, expected: /expires today/, level: 40 },
      { toMs: Date.now() - 3600_000, expected: /own\.pem expired at 20.*clients refuse it/, level: 50 },
      { fromMs: Date.now() + dayMs, expected: /is not valid before 20.*clock/, level: 50 },
    ];
    for (const { expected, level, ...times } of cases) {
      log.length = 0;
      const { cert, key } = await makeCertificate(folder, { fromMs: Date.now() - 90 * dayMs, ...times });
      using certificates = await openCertificates(folder, { cert, key, logger });
      if (expected === undefined) {
        expect(certificates.fault()).toBeUndefined();
        expect(log).toEqual([]);
      } else {
        expect(certificates.fault()).toMatch(expected);
        expect(log).toMatchObject([{ level, msg: expect.stringMatching(expected) }]);
      }
    }
  });

  it('reloads replaced files, warns again, and ignores mismatched ones', async () => {
    const { cert, key, pem } = await makeCertificate(folder, { toMs: Date.now() + 10 * dayMs });
    using certificates = await openCertificates(folder, { cert, key, logger, everyMs: 20 });
    const used: string[] = [];
    certificates.onChange(({ cert: now }) => used.push(now));
    await expect.poll(() => log.filter(({ msg }) => /expires in 9 days/.test(msg)).length).toBeGreaterThan(2);
    const next = await makeCertificate(folder, { file: 'next' });
    await copyFile(next.cert, cert);
    await expect
      .poll(() => log.some(({ level, msg }) => level === 50 && /public keys differ/.test(msg)))
      .toBe(true);
    expect(certificates.current.cert).toBe(pem);
    await expect(certificates.reload()).rejects.toThrow(/public keys differ/);
    await copyFile(next.key, key);
    await expect.poll(() => used).toEqual([next.pem]);
    expect(certificates.current.cert).toBe(next.pem);
    expect(log.some(({ msg }) => /the certificate was replaced/.test(msg))).toBe(true);
  });
});

/** The certificate that a port shows, or the code of the error. */
async function handshake(port: number, options: ConnectionOptions = {}) {
  const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false, ...options });
  try {
    await once(socket, 'secureConnect');
    return { pem: socket.getPeerX509Certificate()!.toString(), protocol: socket.getProtocol() };
  } catch (error) {
    return { code: (error as NodeJS.ErrnoException).code };
  } finally {
    socket.destroy();
  }
}

describe('a server with a certificate', () => {
  const portOf = (url: string | undefined) => Number(new URL(url!).port);
  const statusFor = (server: TestServer, host: string) =>
    new Promise<number>((resolve, reject) => {
      const sent = httpRequest(`${server.url}/health/live`, { headers: { host } }, (answer) => {
        answer.resume();
        resolve(answer.statusCode!);
      });
      sent.on('error', reject).end();
    });

  it('speaks TLS 1.2 and 1.3 and nothing older, before and after a reload', async () => {
    const { cert, key } = await makeCertificate(folder);
    // Else OpenSSL refuses old versions of itself, whatever the server offers.
    const { DEFAULT_CIPHERS } = tls;
    tls.DEFAULT_CIPHERS = 'DEFAULT@SECLEVEL=0';
    onTestFinished(() => {
      tls.DEFAULT_CIPHERS = DEFAULT_CIPHERS;
    });
    await using server = await startTestServer(['threshold'], { tlsCert: cert, tlsKey: key, legacyPort: 0 });
    const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' } as const;
    for (let round = 0; round < 2; round++) {
      for (const port of [portOf(server.tlsUrl), portOf(server.legacyUrl)]) {
        expect(await handshake(port, old)).toEqual({ code: 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION' });
        expect(await handshake(port, { maxVersion: 'TLSv1.2' })).toMatchObject({ protocol: 'TLSv1.2' });
        expect(await handshake(port)).toMatchObject({ protocol: 'TLSv1.3' });
      }
      await makeCertificate(folder);
      await server.certificates.reload();
    }
  });

  it('shows the new one after a reload, on all ports, and announces it', async () => {
    const { cert, key, pem } = await makeCertificate(folder);
    await using server = await startTestServer(['threshold'], { tlsCert: cert, tlsKey: key, legacyPort: 0 });
    const ports = [portOf(server.tlsUrl), portOf(server.legacyUrl)];
    const announced = async () => {
      const { id: _id, ...announcement } = server.announcements()[0];
      const text = await server.signer.sign(announcement, 'http://127.0.0.1:8001');
      return JSON.parse(Buffer.from(text.split('.')[1], 'base64url').toString()).certificate;
    };
    for (const port of ports) expect(await handshake(port)).toMatchObject({ pem });
    expect(await announced()).toBe(new X509Certificate(pem).fingerprint256);
    const next = await makeCertificate(folder);
    expect(publicKeyOf(next.pem)).not.toBe(publicKeyOf(pem));
    await server.certificates.reload();
    for (const port of ports) expect(await handshake(port)).toMatchObject({ pem: next.pem });
    expect(await announced()).toBe(new X509Certificate(next.pem).fingerprint256);
    expect(server.certificate.cert).toBe(next.pem);
  });

  it('answers under the names in it, of now, and under no other', async () => {
    const names = ['tomaat.hospital.example', '*.lab.example', '192.0.2.9'];
    const { cert, key } = await makeCertificate(folder, { names });
    await using server = await startTestServer(['threshold'], { tlsCert: cert, tlsKey: key });
    for (const host of [
      'tomaat.hospital.example',
      'TOMAAT.hospital.example:9443',
      'gpu.lab.example',
      '192.0.2.9',
    ])
      expect({ host, status: await statusFor(server, host) }).toEqual({ host, status: 200 });
    for (const host of ['hospital.example', 'lab.example', 'a.b.lab.example', 'evil.example', '192.0.2.8'])
      expect({ host, status: await statusFor(server, host) }).toEqual({ host, status: 421 });
    await makeCertificate(folder, { names: ['renamed.example'] });
    await server.certificates.reload();
    expect(await statusFor(server, 'renamed.example')).toBe(200);
    expect(await statusFor(server, 'tomaat.hospital.example')).toBe(421);
  });

  it('does not answer under the names of a self-signed one that it made', async () => {
    await using server = await startTestServer(['threshold'], { publicUrl: 'https://public.example' });
    expect(server.certificate.names).toContain('public.example');
    expect(await statusFor(server, 'public.example')).toBe(200);
    await using later = await startTestServer(['threshold'], { otherUrls: ['https://other.example'] });
    expect(later.certificate.names).toContain('other.example');
    expect(await statusFor(later, 'other.example')).toBe(421);
  });

  it('has its expiry in /metrics, of the registry too', async () => {
    const toMs = Math.floor(Date.now() / 1000) * 1000 + 100 * dayMs;
    const { cert, key, pem } = await makeCertificate(folder, { toMs, names: ['localhost', '127.0.0.1'] });
    await using server = await startTestServer(['threshold'], { tlsCert: cert, tlsKey: key });
    const line = /^tomaat_certificate_expiry_timestamp_seconds (\S+)$/m;
    const text = await (await fetch(`${server.url}/metrics`)).text();
    expect(Number(line.exec(text)?.[1])).toBe(toMs / 1000);
    const registry = await startRegistry({
      host: '127.0.0.1',
      port: 0,
      legacyPort: 0,
      dataFolder: folder,
      logger: false,
      tlsCert: cert,
      tlsKey: key,
    });
    try {
      const scraped = await (await fetch(`${registry.localUrl}/metrics`)).text();
      expect(Number(line.exec(scraped)?.[1])).toBe(toMs / 1000);
      expect(await handshake(portOf(registry.legacyUrl))).toMatchObject({ pem });
      const next = await makeCertificate(folder);
      await registry.certificates!.reload();
      expect(await handshake(portOf(registry.legacyUrl))).toMatchObject({ pem: next.pem });
    } finally {
      await registry.close();
    }
  });
});

describe('isNamedBy()', () => {
  it('lets a wildcard stand for the first label alone, never for a top-level domain', () => {
    for (const [pattern, host] of [
      ['a.example', 'A.Example'],
      ['*.example.org', 'a.example.org'],
      ['a.example.', 'a.example'],
      ['2001:DB8:0:0:0:0:0:1', '2001:db8::1'],
      ['192.0.2.1', '192.0.2.1'],
    ])
      expect(isNamedBy(pattern, host), `${pattern} ${host}`).toBe(true);
    for (const [pattern, host] of [
      ['a.example', 'b.example'],
      ['a.example', 'x.a.example'],
      ['*.example.org', 'example.org'],
      ['*.example.org', '.example.org'],
      ['*.example.org', 'a.b.example.org'],
      ['*.example.org', 'aexample.org'],
      ['*.org', 'evil.org'],
      ['*', 'evil'],
      ['*.0.2.1', '192.0.2.1'],
      ['a*.example.org', 'ab.example.org'],
      ['192.0.2.1', '192.0.2.2'],
      ['192.0.2.1', 'a.example'],
    ])
      expect(isNamedBy(pattern, host), `${pattern} ${host}`).toBe(false);
  });
});
