import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { findApache, findCaddy, findHaproxy, findNginx } from './programs.ts';

/** Real proxies in front of a server under test: children in the foreground, on free ports of 127.0.0.1, without root. */

export interface RunningProxy extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  /** What it logged. */
  log(): Promise<string>;
}

interface Plan {
  program: string;
  args: readonly string[];
  /** Text of each file, by its name in the folder. */
  files: Record<string, string>;
}

export interface Place {
  /** Where its configuration, log and temporary files are. */
  folder: string;
  port: number;
}

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

async function startProxy(plan: (place: Place) => Plan, scheme = 'http'): Promise<RunningProxy> {
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-proxy-'));
  for (let attempt = 1; ; attempt++) {
    const port = await freePort();
    const { program, args, files } = plan({ folder, port });
    for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
    await mkdir(join(folder, 'tmp'), { recursive: true });
    const child = spawn(program, args, {
      cwd: folder,
      env: { ...process.env, HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let said = '';
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => {
        said += text;
      });
    const exit = once(child, 'exit');
    const log = async () => said + (await readFile(join(folder, 'error.log'), 'utf8').catch(() => ''));
    if (await isListening(port, exit)) {
      return {
        url: `${scheme}://127.0.0.1:${port}`,
        port,
        log,
        async [Symbol.asyncDispose]() {
          child.kill('SIGTERM');
          const force = setTimeout(() => child.kill('SIGKILL'), 5000);
          await exit;
          clearTimeout(force);
          await rm(folder, { recursive: true, force: true });
        },
      };
    }
    // Somebody else may have been quicker with the port.
    if (attempt === 3) throw new Error(`${program} did not start:\n${await log()}`);
  }
}

async function isListening(port: number, exit: Promise<unknown>): Promise<boolean> {
  let isOver = false;
  void exit.then(() => {
    isOver = true;
  });
  while (!isOver) {
    const socket = connect(port, '127.0.0.1');
    const isOpen = await Promise.race([
      once(socket, 'connect').then(
        () => true,
        () => false,
      ),
      delay(1000, false),
    ]);
    socket.destroy();
    if (isOpen) return true;
    await delay(50);
  }
  return false;
}

const portOf = (url: string) => Number(new URL(url).port);

/** nginx with these blocks in its `http`; what they do not say has the default. */
export function startNginx(http: (place: Place) => string, scheme?: string): Promise<RunningProxy> {
  return startProxy(({ folder, port }) => {
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
      (name) => `${name}_temp_path ${folder}/tmp/${name};`,
    );
    const text = `daemon off; master_process off; pid ${folder}/pid; error_log ${folder}/error.log info;
events { worker_connections 256; }
http { access_log off; ${temporary.join(' ')}
${http({ folder, port })}
}`;
    return {
      program: findNginx()!,
      args: ['-p', folder, '-c', join(folder, 'nginx.conf')],
      files: { 'nginx.conf': text },
    };
  }, scheme);
}

/** @param inside more lines for the location */
export const plainNginx = (upstream: string, inside = '') =>
  startNginx(
    ({ port }) =>
      `server { listen 127.0.0.1:${port}; client_max_body_size 0; location / { proxy_pass ${upstream}; ${inside} } }`,
  );

/** @param inside more lines for reverse_proxy */
export const startCaddy = (upstream: string, inside = ''): Promise<RunningProxy> =>
  startProxy(({ port, folder }) => ({
    program: findCaddy()!,
    args: ['run', '--config', join(folder, 'Caddyfile'), '--adapter', 'caddyfile'],
    files: {
      Caddyfile: `{\n admin off\n auto_https off\n}\nhttp://:${port} {\n bind 127.0.0.1\n reverse_proxy 127.0.0.1:${portOf(upstream)} {\n${inside}\n }\n}\n`,
    },
  }));

/** @param inside more lines, beside ProxyPass */
export const startApache = (upstream: string, inside = ''): Promise<RunningProxy> =>
  startProxy(({ port, folder }) => {
    const modules = ['mpm_event', 'authz_core', 'proxy', 'proxy_http'].map(
      (name) => `LoadModule ${name}_module /usr/lib/apache2/modules/mod_${name}.so`,
    );
    const text = [
      `ServerRoot ${folder}`,
      'ServerName localhost',
      ...modules,
      `Listen 127.0.0.1:${port}`,
      `PidFile ${folder}/pid`,
      `DefaultRuntimeDir ${folder}`,
      `ErrorLog ${folder}/error.log`,
      'User nobody',
      'Group nogroup',
      inside,
      `ProxyPass / ${upstream}/`,
    ].join('\n');
    return {
      program: findApache()!,
      args: ['-D', 'FOREGROUND', '-f', join(folder, 'apache.conf')],
      files: { 'apache.conf': `${text}\n` },
    };
  });

/** @param inside more lines for the defaults */
export const startHaproxy = (upstream: string, inside = ''): Promise<RunningProxy> =>
  startProxy(({ port, folder }) => ({
    program: findHaproxy()!,
    args: ['-db', '-f', join(folder, 'haproxy.cfg')],
    files: {
      'haproxy.cfg': `global\n maxconn 200\ndefaults\n mode http\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n${inside}\nfrontend f\n bind 127.0.0.1:${port}\n default_backend b\nbackend b\n server s 127.0.0.1:${portOf(upstream)}\n`,
    },
  }));
