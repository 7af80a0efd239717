import { fork } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { fileURLToPath } from 'node:url';
import type { ServerOptions } from '../src/server/options.ts';
import { ownNodeOptions } from '../src/source.ts';
import { leftFiles } from './left-files.ts';
import { sharedOptions } from './support/tested-database.ts';
import { temporaryFolder } from './test-server.ts';

const processFile = fileURLToPath(new URL('./server-process.ts', import.meta.url));

/** A server as it is in use: a process of its own, a port, a folder. */
export interface RealServer extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  readonly tlsPort: number;
  readonly pid: number;
  readonly dataFolder: string;
  /** Files of inputs, results and work in progress: what must be gone after a fault. */
  files(): Promise<string[]>;
  /** Resident memory now, and the most since the last call of `rest()`. Linux only. */
  memory(): Promise<{ rssBytes: number; peakBytes: number } | undefined>;
  restPeak(): Promise<void>;
  ask<T>(message: string): Promise<T>;
  tell(message: string): void;
  /** Resolves when the process is gone. */
  kill(signal: NodeJS.Signals): Promise<void>;
}

export async function startRealServer(
  appFolders: readonly string[],
  options: Partial<Omit<ServerOptions, 'logger'>> = {},
): Promise<RealServer> {
  const dataFolder = options.dataFolder ?? (await temporaryFolder());
  const all = {
    appFolders,
    port: 0,
    tlsPort: 0,
    ...(await sharedOptions(dataFolder)),
    ...options,
    dataFolder,
  };
  const child = fork(processFile, [JSON.stringify(all)], { execArgv: [...ownNodeOptions] });
  const exit = once(child, 'exit');
  const answer = async <T>() => (await Promise.race([once(child, 'message'), exit.then(() => [])]))[0] as T;
  const ready = await answer<{ url: string; tlsUrl: string } | undefined>();
  if (!ready) throw new Error('the server did not start');
  const status = `/proc/${child.pid}`;
  return {
    url: ready.url,
    port: Number(new URL(ready.url).port),
    tlsPort: Number(new URL(ready.tlsUrl).port),
    pid: child.pid!,
    dataFolder,
    async files() {
      return leftFiles(dataFolder, ['blobs', 'work', 'converted']);
    },
    async memory() {
      if (!existsSync(status)) return undefined;
      const text = await readFile(`${status}/status`, 'utf8');
      const kb = (name: string) => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(text)?.[1]) * 1024;
      return { rssBytes: kb('VmRSS'), peakBytes: kb('VmHWM') };
    },
    async restPeak() {
      if (existsSync(status)) await writeFile(`${status}/clear_refs`, '5');
    },
    tell: (message) => void child.send(message),
    ask<T>(message: string) {
      child.send(message);
      return answer<T>();
    },
    async kill(signal) {
      child.kill(signal);
      await exit;
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill('SIGKILL');
        await exit;
      }
      if (!options.dataFolder) await rm(dataFolder, { recursive: true, force: true });
    },
  };
}

export interface RawAnswer {
  status: number;
  headers: Record<string, string>;
  body: Buffer;
}

/**
 * Writes bytes to a port as they are, all of them before it looks at the answer, as simple clients do; what is
 * answered is read to its Content-Length. Undefined when the connection ended without an answer.
 */
export async function sendRaw(
  port: number,
  bytes: Uint8Array | readonly Uint8Array[],
  { limitMs = 20_000, secure = false } = {},
): Promise<RawAnswer | undefined> {
  const to = { port, host: '127.0.0.1' };
  const socket = secure ? connectTls({ ...to, rejectUnauthorized: false }) : connect(to);
  let received = Buffer.alloc(0);
  const answer = new Promise<RawAnswer | undefined>((resolve) => {
    const timer = setTimeout(() => socket.destroy(), limitMs);
    socket.on('data', (chunk) => {
      received = Buffer.concat([received, chunk]);
      const whole = parseAnswer(received);
      if (whole) resolve(whole);
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      clearTimeout(timer);
      resolve(parseAnswer(received));
    });
  });
  try {
    for (const chunk of [bytes].flat() as Uint8Array[]) await write(socket, chunk);
    return await answer;
  } finally {
    socket.destroy();
  }
}

function write(socket: Socket, chunk: Uint8Array): Promise<void> {
  if (socket.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      socket.off('close', done);
      resolve();
    };
    socket.once('close', done);
    socket.write(chunk, done);
  });
}

function parseAnswer(bytes: Buffer): RawAnswer | undefined {
  const end = bytes.indexOf('\r\n\r\n');
  if (end < 0) return undefined;
  const [first, ...lines] = bytes.toString('latin1', 0, end).split('\r\n');
  const status = Number(first.split(' ')[1]);
  if (status === 100) return parseAnswer(bytes.subarray(end + 4));
  const headers = Object.fromEntries(
    lines.map((line) => [
      line.slice(0, line.indexOf(':')).toLowerCase(),
      line.slice(line.indexOf(':') + 1).trim(),
    ]),
  );
  const body = bytes.subarray(end + 4);
  const length = headers['content-length'];
  if (length !== undefined && body.length < Number(length)) return undefined;
  return { status, headers, body };
}

/** A request as bytes; a header that is undefined is left out, one that is a list is sent several times. */
export function rawRequest(
  method: string,
  path: string,
  headers: Record<string, string | readonly string[] | undefined> = {},
  body: Uint8Array = Buffer.alloc(0),
  version = '1.1',
): Buffer {
  const all = {
    Host: 'localhost',
    'Content-Length': method === 'GET' || method === 'HEAD' ? undefined : String(body.length),
    ...headers,
  };
  const lines = Object.entries(all).flatMap(([name, value]) =>
    value === undefined ? [] : [value].flat().map((one) => `${name}: ${one}\r\n`),
  );
  return Buffer.concat([
    Buffer.from(`${method} ${path} HTTP/${version}\r\n${lines.join('')}\r\n`, 'latin1'),
    body,
  ]);
}

const boundary = 'tomaat-test-boundary';
export const multipartType = `multipart/form-data; boundary=${boundary}`;
/** What ends a part and with it the form. */
export const closing = `\r\n--${boundary}--\r\n`;

/** multipart/form-data; a field that is bytes is a file of the given name, or a plain field if `fileName` is undefined. */
export function multipart(
  fields: readonly (readonly [name: string, value: string | Uint8Array, fileName?: string])[],
): Buffer {
  const parts = fields.flatMap(([name, value, fileName]) => [
    Buffer.from(
      `--${boundary}\r\nContent-Disposition: form-data; name="${name}"${fileName === undefined ? '' : `; filename="${fileName}"`}\r\n\r\n`,
    ),
    Buffer.from(value as Uint8Array),
    Buffer.from('\r\n'),
  ]);
  return Buffer.concat([...parts, Buffer.from(`--${boundary}--\r\n`)]);
}
