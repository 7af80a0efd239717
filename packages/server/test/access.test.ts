import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { request } from 'node:https';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createHostPolicy, requireSafeBind } from '../src/access/hosts.ts';
import { addressKey, createRateLimit } from '../src/access/rate-limit.ts';
import { startRegistry } from '../src/registry/start.ts';
import { makeKey } from './access-fixture.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { bin, endsWithTest, tomaat } from './cli-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { announcementOf } from './registry-helpers.ts';
import { databaseEnv, databaseOf } from './support/tested-database.ts';
import { startTestServer, temporaryFolder } from './test-server.ts';

/* Who gets in: what it takes to listen beyond this machine, keys, the port for old clients, the command line with login. */

let folder: string;
let volume: Buffer;
const children: ChildProcess[] = [];
beforeAll(async () => {
  folder = await temporaryFolder();
  volume = Buffer.from(await encode(phantom(), 'nii.gz'));
});
afterEach(async () => {
  for (const child of children.splice(0).reverse()) {
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    await ended;
  }
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** A serving command; gives all that it had printed when the text was there. */
async function start(args: readonly string[], until: RegExp): Promise<string> {
  const child = spawn(process.execPath, [...endsWithTest, bin, ...args], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, ...(await databaseEnv(args)) },
  });
  children.push(child);
  let text = '';
  for await (const chunk of child.stdout!) {
    text += chunk;
    if (until.test(text)) return text;
  }
  throw new Error(`it ended early: ${text}`);
}

interface Answer {
  status?: number;
  headers: Record<string, string | string[] | undefined>;
  text: string;
}

/** Over HTTPS, whatever the certificate. */
function callTls(
  url: string,
  { method = 'GET', headers = {}, body }: { method?: string; headers?: object; body?: Buffer | string } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const options = { method, headers: { ...headers }, rejectUnauthorized: false, agent: false as const };
    const sent = request(url, options, (answer) => {
      let text = '';
      answer.setEncoding('utf8');
      answer.on('data', (chunk) => {
        text += chunk;
      });
      answer.on('end', () => resolve({ status: answer.statusCode, headers: answer.headers, text }));
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

describe('listening beyond this machine', () => {
  it('requires a login and a chosen certificate, and names the missing one', () => {
    const message = (about: object) => {
      try {
        requireSafeBind({ host: '0.0.0.0', tlsChosen: false, ...about });
        return undefined;
      } catch (error) {
        return (error as Error).message;
      }
    };
    expect(message({})).toContain('Give --login and --tls-self-made (or --tls-cert and --tls-key)');
    expect(message({ login: true })).toMatch(/Give --tls-self-made \(or --tls-cert and --tls-key\), or/);
    expect(message({ tlsChosen: true })).toMatch(/Give --login, or/);
    expect(message({ login: true, tlsChosen: true })).toBeUndefined();
    for (const host of ['127.0.0.1', 'localhost', '::1', '[::1]', '127.3.4.5'])
      expect(message({ host }), host).toBeUndefined();
    for (const host of ['0.0.0.0', '::', '10.0.0.1', 'scanner.example'])
      expect(message({ host }), host).toContain(`${host} is reachable from other machines`);
  });

  it('is refused by up, serve and registry before anything listens', async () => {
    const app = await writeApp(folder, 'bind', { infer: inferBright });
    const data = ['--data', join(folder, 'bind-data'), '--host', '0.0.0.0', '--port', '0'];
    const commands = [
      ['serve', app, ...data],
      ['serve', app, ...data, '--login'],
      ['registry', ...data, '--tls-self-made'],
    ];
    const all = await Promise.all(commands.map((args) => tomaat(args)));
    expect(all.map(({ code, stdout }) => ({ code, stdout }))).toEqual(
      commands.map(() => ({ code: 2, stdout: '' })),
    );
    expect(all[0].stderr).toContain('--login and --tls-self-made');
    expect(all[1].stderr).toContain('Give --tls-self-made');
    expect(all[2].stderr).toContain('Give --login');
    const gone = await tomaat(['serve', app, ...data, '--insecure-no-login']);
    expect(gone.code).toBe(2);
  });
});

describe('createHostPolicy()', () => {
  const policy = createHostPolicy({
    host: '192.168.1.5',
    machineNames: ['scanner', 'scanner.hospital.example', '192.168.1.5', 'fd00::5'],
    publicUrl: 'https://public.example/tomaat',
    allowHost: ['alias'],
  });
  const isOurs = (host: string, localAddress = '192.168.1.5') => {
    try {
      policy.checkHost({
        headers: { host },
        socket: { localAddress },
        url: '/',
        httpVersion: '1.1',
      } as never);
      return true;
    } catch {
      return false;
    }
  };

  it('beyond loopback accepts its names and addresses, and the connection’s address', () => {
    for (const host of ['192.168.1.5:9443', 'SCANNER', 'scanner.hospital.example:9443', '[fd00::5]:9443'])
      expect(isOurs(host), host).toBe(true);
    for (const host of ['public.example', 'alias:1', 'localhost:9443']) expect(isOurs(host), host).toBe(true);
    expect(isOurs('10.1.2.3', '::ffff:10.1.2.3')).toBe(true);
    expect(isOurs('[2001:db8:0:0::1]', '2001:db8::1')).toBe(true);
    for (const host of ['192.168.1.6', 'scanner.evil.example', 'evil.example', '0.0.0.0', '[2001:db8::2]'])
      expect(isOurs(host, '2001:db8::1'), host).toBe(false);
  });
});

describe('createRateLimit()', () => {
  it('allows a burst, then a steady rate, for a limited number of keys', () => {
    let nowMs = 1_000_000;
    const limit = createRateLimit(6, { maxKeys: 3, now: () => nowMs });
    expect(Array.from({ length: 8 }, () => limit.take('a'))).toEqual([0, 0, 0, 0, 0, 0, 10, 10]);
    nowMs += 9_000;
    expect(limit.take('a')).toBe(1);
    nowMs += 1_000;
    expect([limit.take('a'), limit.take('a')]).toEqual([0, 10]);
    expect(limit.take('b')).toBe(0);
    nowMs += 3_600_000;
    expect(Array.from({ length: 7 }, () => limit.take('a')).filter((wait) => wait === 0)).toHaveLength(6);
    // 'b' is forgotten by now, and nothing grows.
    for (let i = 0; i < 100_000; i++) limit.take(`key ${i}`);
    expect(limit.take('a')).toBe(0);
  });

  it('addressKey() takes an IPv6 /64 as one, and IPv4 in IPv6 form as IPv4', () => {
    expect(addressKey('::ffff:10.0.0.1')).toBe('10.0.0.1');
    expect(addressKey('2001:db8:1:2:3:4:5:6')).toBe('2001:db8:1:2::/64');
    expect(addressKey('2001:db8:1:2::9')).toBe('2001:db8:1:2::/64');
    expect(addressKey('2001:db8::9')).toBe('2001:db8:0:0::/64');
    expect(addressKey('fe80::1%eth0')).toBe('fe80:0:0:0::/64');
    expect(addressKey(undefined)).toBe('unknown');
  });
});

describe('the legacy port', () => {
  it('has only TOMAAT v1, without login, each address with its own jobs and pace', async () => {
    const app = await writeApp(folder, 'old', { infer: inferBright });
    await using server = await startTestServer([app], {
      login: true,
      legacyPort: 0,
      legacyPerMinute: 12,
      v1DelayMs: 20_000,
    });
    const legacy = server.legacyUrl!;
    expect(legacy).toMatch(/^https:\/\/127\.0\.0\.1:\d+$/);
    // v1 clients are told of it; ours of the server.
    expect(server.announcements()[0]).toMatchObject({
      predictionUrl: `${legacy}/services/old/predict`,
      serverUrl: server.url,
    });
    expect((await fetch(`${server.url}/interface`)).status).toBe(401);
    const asked = await callTls(`${legacy}/interface`);
    expect({ status: asked.status, elements: JSON.parse(asked.text).length }).toEqual({
      status: 200,
      elements: 1,
    });
    const type = { 'content-type': 'multipart/form-data; boundary=x' };
    const file = Buffer.from(await encode(phantom(), 'mha')).toString('base64');
    const body = `--x\r\nContent-Disposition: form-data; name="volume"\r\n\r\n${file}\r\n--x--\r\n`;
    const predicted = await callTls(`${legacy}/predict`, { method: 'POST', headers: type, body });
    expect(JSON.parse(predicted.text)).toMatchObject([{ type: 'LabelVolume' }]);
    for (const path of ['/api/services', '/health/live', '/metrics', '/', '/old/any']) {
      const { status, text } = await callTls(`${legacy}${path}`, {
        method: path === '/old/any' ? 'POST' : 'GET',
      });
      expect({ path, status }).toEqual({ path, status: 404 });
      expect(JSON.parse(text).detail).toContain('only TOMAAT v1');
    }
    expect((await callTls(`${legacy}/interface`, { headers: { host: 'evil.example' } })).status).toBe(421);
    expect(
      (await callTls(`${legacy}/interface`, { headers: { origin: 'https://evil.example' } })).status,
    ).toBe(403);
    let last = asked;
    for (let i = 0; i < 12 && last.status !== 429; i++) last = await callTls(`${legacy}/interface`);
    expect(last.status).toBe(429);
    expect(Number(last.headers['retry-after'])).toBeGreaterThan(0);
    const { headers } = await makeKey(server.dataFolder, ['predict']);
    expect((await fetch(`${server.url}/interface`, { headers })).status).toBe(200);
  });

  it('of a registry takes announcements with their key and lists them', async () => {
    const dataFolder = join(folder, 'legacy-registry');
    const registry = await startRegistry({
      host: '127.0.0.1',
      port: 0,
      dataFolder,
      database: await databaseOf(dataFolder),
      logger: false,
      login: true,
      legacyPort: 0,
    });
    try {
      const legacy = registry.legacyUrl!;
      const { key } = await makeKey(dataFolder, ['announce']);
      const { predictionUrl, interfaceUrl, name, modality, anatomy, task, description } =
        announcementOf('http://127.0.0.1:9000');
      const urls = { prediction_url: predictionUrl, interface_url: interfaceUrl };
      const card = { ...urls, name, modality, anatomy, task, description };
      const announce = (api_key: string) =>
        callTls(`${legacy}/announce`, { method: 'POST', body: JSON.stringify({ ...card, api_key }) });
      expect(JSON.parse((await announce('tmt_wrong')).text)).toMatchObject({ status: 1 });
      expect(JSON.parse((await announce(key)).text)).toEqual({ status: 0, error: '' });
      const listed = JSON.parse((await callTls(`${legacy}/discover`)).text);
      expect(listed).toMatchObject([{ prediction_url: predictionUrl, api_key: '' }]);
      expect((await fetch(`${registry.url}/discover`)).status).toBe(401);
      expect((await callTls(`${legacy}/api/services`)).status).toBe(404);
    } finally {
      await registry.close();
    }
  });
});

describe('the command line with login', () => {
  it('up makes one administrator’s key, valid on server, registry and through relays', async () => {
    const data = join(folder, 'up');
    const ports = ['--port', '0', '--tls-port', '0', '--registry-port', '0', '--legacy-port', '0'];
    const args = ['up', ...ports, '--registry-legacy-port', '0', '--login', '--data', data];
    const text = await start([...args, '--demo'], /Press Ctrl-C to stop/);
    // Not on a terminal: stdout may be a log that others read.
    expect(text).not.toMatch(/tmt_[a-z2-7]{10}_/);
    const keyFile = /which has every permission, is in this file.*\n {2}(\S+)/.exec(text)![1];
    expect(keyFile).toBe(join(data, 'first-admin.key'));
    expect(statSync(keyFile).mode & 0o777).toBe(0o600);
    expect(text.match(/TOMAAT v1 only, without login/g)).toHaveLength(2);
    expect(text).toMatch(/Demo:[\s\S]*nii\.gz[\s\S]*See it: /);
    const key = readFileSync(keyFile, 'utf8').trim();
    expect(key).toMatch(/^tmt_[a-z2-7]{10}_[\w-]{43}$/);
    const server = /^Server +(http:\S+)/m.exec(text)![1];
    const registry = /^Registry +(\S+)/m.exec(text)![1];
    const file = join(folder, 'a.nii.gz');
    writeFileSync(file, volume);

    const without = await tomaat(['discover', registry]);
    expect(without).toMatchObject({ code: 2, stdout: '' });
    expect(without.stderr).toMatch(/--api-key or TOMAAT_API_KEY.*tomaat keys create --scope predict/s);
    const made = await tomaat([
      'keys',
      'create',
      '--label',
      'Dr. Rossi',
      '--scope',
      'predict',
      '--data',
      data,
    ]);
    const env = { TOMAAT_API_KEY: made.stdout.trim() };
    expect((await tomaat(['discover', registry], { env })).stdout).toContain(`${server}/services/threshold`);
    const predict = ['predict', 'threshold/any', '--registry', registry, '--volume', file, '-q', '--force'];
    const refused = await tomaat(predict);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain('TOMAAT_API_KEY');
    expect(await tomaat(predict, { env })).toMatchObject({ code: 0, stderr: '' });
    const relayed = (authorization?: string) =>
      fetch(`${registry}/threshold/any`, {
        method: 'POST',
        body: Uint8Array.from(volume),
        headers: { 'content-type': 'application/octet-stream', ...(authorization && { authorization }) },
      });
    expect((await relayed()).status).toBe(401);
    expect((await relayed(`Bearer ${key}`)).status).toBe(200);
    expect((await fetch(`${server}/metrics`, { headers: { authorization: `Bearer ${key}` } })).status).toBe(
      200,
    );

    const list = await tomaat(['keys', 'list', '--data', data, '--json']);
    const keys = JSON.parse(list.stdout) as { id: string; label: string; scopes: string[] }[];
    expect(keys.filter(({ id }) => key.includes(id))).toMatchObject([
      { label: 'first administrator', scopes: ['admin'] },
    ]);
    const revoked = await tomaat(['keys', 'revoke', env.TOMAAT_API_KEY, '--data', data]);
    expect(revoked.code).toBe(0);
    for (const url of [server, registry]) {
      const headers = { authorization: `Bearer ${env.TOMAAT_API_KEY}` };
      expect((await fetch(`${url}/api/services`, { headers })).status).toBe(401);
    }
    const [child] = children.splice(0);
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    await ended;

    // The next start has a key already; its demo runs with one of its own.
    const again = await start([...args, '--demo'], /Press Ctrl-C to stop/);
    expect(again).not.toMatch(/tmt_[a-z2-7]{10}_|which has every permission/);
    expect(again).toMatch(/Demo:[\s\S]*nii\.gz/);
    expect(again).not.toContain('See it');
  }, 120_000);

  it('a key of scope metrics reads only /metrics, on server and registry', async () => {
    const data = join(folder, 'scrape');
    const text = await start(
      ['up', '--port', '0', '--tls-port', '0', '--registry-port', '0', '--login', '--data', data],
      /which has every permission/,
    );
    const urls = [/^Server +(http:\S+)/m, /^Registry +(\S+)/m].map((line) => line.exec(text)![1]);
    const key = async (scope: string) => {
      const made = await tomaat(['keys', 'create', '--label', scope, '--scope', scope, '--data', data]);
      expect(made).toMatchObject({ code: 0 });
      return { authorization: `Bearer ${made.stdout.trim()}` };
    };
    const [metrics, predict] = [await key('metrics'), await key('predict')];
    for (const url of urls) {
      const scraped = await fetch(`${url}/metrics`, { headers: metrics });
      expect(scraped.status).toBe(200);
      expect(await scraped.text()).toContain('# HELP tomaat_');
      const refused = await fetch(`${url}/metrics`, { headers: predict });
      expect(refused.status).toBe(403);
      expect(((await refused.json()) as { detail: string }).detail).toContain('scope metrics');
      for (const [method, path] of [
        ['GET', '/api/services'],
        ['GET', '/api/worker'],
        ['GET', '/api/jobs/x'],
        ['POST', '/api/uploads'],
        ['POST', '/threshold/any'],
        ['PUT', '/api/announcements/x'],
        ['GET', '/discover'],
      ]) {
        const { status } = await fetch(`${url}${path}`, { method, headers: metrics });
        expect({ url, method, path, status }).toEqual({
          url,
          method,
          path,
          status: status === 404 || status === 405 ? status : 403,
        });
      }
      // Nor does it log anybody in.
      const login = await fetch(`${url}/auth/session`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ key: metrics.authorization.slice('Bearer '.length) }),
      });
      expect(login.status).toBe(403);
    }
  }, 60_000);

  it('keys create takes any scopes together and limits; list shows a key once', async () => {
    const data = ['--data', join(folder, 'keys')];
    const scopes = ['announce', 'predict', 'worker', 'metrics', 'admin'].flatMap((scope) => [
      '--scope',
      scope,
    ]);
    const made = await tomaat([
      'keys',
      'create',
      '--label',
      'all',
      ...scopes,
      '--max-jobs',
      '2',
      '--per-day',
      '9',
      ...data,
      '--json',
    ]);
    expect(JSON.parse(made.stdout)).toMatchObject({ label: 'all', limits: { maxJobs: 2, perDay: 9 } });
    const listed = await tomaat(['keys', 'list', ...data]);
    expect(listed.stdout.match(/2 at a time, 9 a day/g)).toHaveLength(1);
    const none = await tomaat(['keys', 'create', '--label', 'x', '--max-jobs', '0', ...data]);
    expect(none).toMatchObject({ code: 2, stdout: '' });
    expect(none.stderr).toContain('whole number, 1 or more');
  });
});
