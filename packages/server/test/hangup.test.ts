import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { copyFile, rm } from 'node:fs/promises';
import { Agent, request } from 'node:https';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { createClient } from '@tomaat/client';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { findProgram, findPython } from '../../../test/programs.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { makeCertificate } from './certificate-fixture.ts';
import { bin, endsWithTest, tomaat } from './cli-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { databaseEnv, readAudit } from './support/tested-database.ts';
import { temporaryFolder } from './test-server.ts';

/* SIGHUP of the commands that serve, and the end of the terminal that they were started from. */

let folder: string;
let data: string;
let app: string;
let volume: Blob;
const children = new Set<ChildProcess>();
beforeAll(async () => {
  folder = await temporaryFolder();
  volume = new Blob([Uint8Array.from(await encode(phantom(), 'nii.gz'))]);
  app = await writeApp(folder, 'slow', {
    infer: `for (let i = 0; i < 15; i++) { context.progress(i / 15); await sleep(100); } ${inferBright}`,
  });
});
beforeEach(async () => {
  data = await temporaryFolder();
});
afterEach(async () => {
  for (const child of children) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill('SIGTERM');
    await once(child, 'exit');
  }
  children.clear();
  await rm(data, { recursive: true, force: true });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

interface Program {
  readonly child: ChildProcess;
  /** All that it wrote so far, on stdout and stderr. */
  text(): string;
  /** Waits until what it wrote fits. */
  said(what: RegExp): Promise<void>;
}

async function start(
  args: readonly string[],
  { node = process.execPath, options = endsWithTest as readonly string[], env = {} } = {},
): Promise<Program> {
  const child = spawn(node, [...options, bin, ...args], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, ...(await databaseEnv(args)), ...env },
  });
  children.add(child);
  let text = '';
  for (const stream of [child.stdout!, child.stderr!])
    stream.on('data', (chunk) => {
      text += chunk;
    });
  const program = {
    child,
    text: () => text,
    async said(what: RegExp) {
      await expect.poll(() => what.test(text) || child.exitCode !== null, { timeout: 60_000 }).toBe(true);
      expect(text).toMatch(what);
    },
  };
  return program;
}

/** The certificate that an address shows to a new connection. */
async function shownAt(url: string): Promise<string> {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port), rejectUnauthorized: false });
  await once(socket, 'secureConnect');
  const pem = socket.getPeerX509Certificate()!.toString();
  socket.destroy();
  return pem;
}

const serveArgs = (...more: string[]) => [
  'serve',
  app,
  '--port',
  '0',
  '--tls-port',
  '0',
  '--data',
  data,
  ...more,
];
const urlsOf = (text: string) => {
  const [, url, tlsUrl] = /^Server +(http:\S+) +(https:\S+)/m.exec(text)!;
  return { url, tlsUrl };
};
const isAlive = async (url: string) => (await fetch(`${url}/health/live`)).status === 200;
const reloads = (text: string) => text.match(/SIGHUP: reloaded/g)?.length ?? 0;

describe('SIGHUP', () => {
  it('reloads the certificate of serve, while a prediction and an open connection go on', async () => {
    const { cert, key, pem } = await makeCertificate(data);
    const server = await start(serveArgs('--tls-cert', cert, '--tls-key', key));
    await server.said(/^Services/m);
    const { url, tlsUrl } = urlsOf(server.text());
    expect(await shownAt(tlsUrl)).toBe(pem);
    const agent = new Agent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false });
    const ask = () =>
      new Promise<{ status?: number; reused: boolean }>((resolve, reject) => {
        const sent = request(`${tlsUrl}/health/live`, { agent }, (answer) => {
          const got = { status: answer.statusCode, reused: sent.reusedSocket };
          answer.resume().on('end', () => resolve(got));
        });
        sent.on('error', reject).end();
      });
    await ask();
    const client = createClient({ baseUrl: url });
    const job = await client.predict('slow', { volumes: { volume } });

    const next = await makeCertificate(data, { file: 'next' });
    await copyFile(next.cert, cert);
    // Half replaced: the old one stays, and the log says why.
    server.child.kill('SIGHUP');
    await server.said(/SIGHUP: the certificate could not be reloaded.*public keys differ/);
    expect(await shownAt(tlsUrl)).toBe(pem);
    await copyFile(next.key, key);
    server.child.kill('SIGHUP');
    await server.said(/the certificate was replaced/);
    expect(await shownAt(tlsUrl)).toBe(next.pem);
    expect(await ask()).toEqual({ status: 200, reused: true });
    agent.destroy();
    expect((await client.wait(job.id)).state).toBe('succeeded');
    expect(server.child.exitCode).toBeNull();
  });

  it('ends neither up nor registry nor serve, however often it comes', async () => {
    const ports = ['--port', '0', '--tls-port', '0', '--registry-port', '0', '--log-level', 'info'];
    const programs = [
      { program: await start(['up', ...ports, '--data', data]), line: /^Server +(http:\S+)/m },
      {
        program: await start(['registry', '--port', '0', '--legacy-port', '0', '--data', join(data, 'r')]),
        line: /^Registry +(\S+)/m,
      },
    ];
    for (const { program, line } of programs) {
      await program.said(/^Data/m);
      for (let i = 1; i <= 3; i++) {
        program.child.kill('SIGHUP');
        await expect.poll(() => reloads(program.text())).toBe(i);
      }
      expect(program.text()).toMatch(/SIGHUP: reloaded: the certificate/);
      expect(await isAlive(line.exec(program.text())![1])).toBe(true);
      expect(program.child.exitCode).toBeNull();
    }
  });

  it('makes a worker read again which certificates it trusts', async () => {
    const own = await makeCertificate(data, { names: ['localhost', '127.0.0.1'] });
    const server = await start(serveArgs('--workers', '0', '--tls-cert', own.cert, '--tls-key', own.key));
    await server.said(/^Services/m);
    const { url, tlsUrl } = urlsOf(server.text());
    const made = await tomaat(['keys', 'create', '--label', 'w', '--scope', 'worker', '--data', data]);
    const ca = join(data, 'trusted.pem');
    await copyFile(own.cert, ca);
    const home = join(data, 'worker-home');
    const worker = await start(['worker', tlsUrl, app, '--ca', ca, '--data', home], {
      env: { TOMAAT_WORKER_TOKEN: made.stdout.trim() },
    });
    await worker.said(/^Working for/m);
    const client = createClient({ baseUrl: url });
    const predict = async () => {
      const job = await client.predict('slow', { volumes: { volume } });
      return (await client.wait(job.id)).state;
    };
    expect(await predict()).toBe('succeeded');

    const next = await makeCertificate(data, { file: 'next', names: ['localhost', '127.0.0.1'] });
    await copyFile(next.cert, own.cert);
    await copyFile(next.key, own.key);
    server.child.kill('SIGHUP');
    await server.said(/the certificate was replaced/);
    await copyFile(next.cert, ca);
    worker.child.kill('SIGHUP');
    await worker.said(/SIGHUP: reloaded: what is trusted/);
    expect(await predict()).toBe('succeeded');
    expect(worker.child.exitCode).toBeNull();
  });

  /** A Node that is too old, if this machine has one. */
  const oldNode = ['/usr/bin/node', '/usr/local/bin/node'].find((path) => {
    if (!existsSync(path)) return false;
    const version = execFileSync(path, ['--version'], { encoding: 'utf8' });
    const major = Number(version.slice(1).split('.')[0]);
    return major >= 18 && major < 24;
  });
  it.skipIf(!oldNode)('is passed on by the launcher of an older Node', async () => {
    const server = await start(serveArgs(), { node: oldNode, options: [] });
    await server.said(/^Services/m);
    server.child.kill('SIGHUP');
    await server.said(/SIGHUP: reloaded: the certificate/);
    expect(await isAlive(urlsOf(server.text()).url)).toBe(true);
    server.child.kill('SIGTERM');
    expect(await once(server.child, 'exit')).toEqual([0, null]);
  });
});

const python = findPython();
const nohup = findProgram('nohup', ['--version']);

/** Starts a program on a terminal of its own, and obeys words on stdin, such as to close it. Prints how the program ended. */
const onTerminal = `import os, pty, signal, sys, threading
pid, terminal = pty.fork()
if pid == 0: os.execv(sys.argv[1], sys.argv[1:])
def read():
    try:
        while True:
            more = os.read(terminal, 4096)
            if not more: return
            os.write(1, more)
    except OSError: pass
threading.Thread(target=read, daemon=True).start()
print(f'pid={pid}', flush=True)
for line in sys.stdin:
    if line == 'hup\\n': os.kill(pid, signal.SIGHUP)
    if line == 'term\\n': os.kill(pid, signal.SIGTERM)
    if line == 'close\\n': os.close(terminal)
    if line == 'wait\\n':
        _, status = os.waitpid(pid, 0)
        print(f'ended={os.waitstatus_to_exitcode(status)}', flush=True)
`;

describe.skipIf(!python || !nohup)('a terminal that is closed', () => {
  async function startOnTerminal(...command: string[]): Promise<Program> {
    const child = spawn(python!, ['-u', '-c', onTerminal, ...command], {
      stdio: ['pipe', 'pipe', 'inherit'],
      cwd: data,
      env: { ...process.env, ...(await databaseEnv(command.slice(command.indexOf(bin) + 1))) },
    });
    children.add(child);
    let text = '';
    child.stdout!.on('data', (chunk) => {
      text += String(chunk).replaceAll('\r', '');
    });
    return {
      child,
      text: () => text,
      async said(what) {
        await expect.poll(() => text, { timeout: 60_000 }).toMatch(what);
      },
    };
  }
  const send = (program: Program, word: string) => program.child.stdin!.write(`${word}\n`);
  const auditEvents = async () =>
    (await readAudit(data))
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { event: string }).event);

  it('ends what was started there in order; a signal before does not', async () => {
    const program = await startOnTerminal(process.execPath, bin, ...serveArgs());
    await program.said(/^Services/m);
    const { url } = urlsOf(program.text());
    send(program, 'hup');
    await program.said(/SIGHUP: reloaded/);
    expect(await isAlive(url)).toBe(true);
    const job = await createClient({ baseUrl: url }).predict('slow', { volumes: { volume } });
    send(program, 'close');
    send(program, 'wait');
    await program.said(/^ended=0$/m);
    // Its work was done before it went.
    expect(await auditEvents()).toContain('prediction.succeeded');
    expect((await auditEvents()).at(-1)).toBe('server.stopped');
    expect(job.id).toBeDefined();
  });

  it('does not end what was started with nohup', async () => {
    const program = await startOnTerminal(nohup!, process.execPath, bin, ...serveArgs());
    const output = () =>
      existsSync(join(data, 'nohup.out')) ? readFileSync(join(data, 'nohup.out'), 'utf8') : '';
    await expect.poll(output, { timeout: 60_000 }).toMatch(/^Services/m);
    const { url } = urlsOf(output());
    send(program, 'close');
    send(program, 'hup');
    await expect.poll(output).toMatch(/SIGHUP: reloaded/);
    expect(await isAlive(url)).toBe(true);
    send(program, 'term');
    send(program, 'wait');
    await program.said(/^ended=0$/m);
  });
});
