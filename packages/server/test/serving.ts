import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { bin, endsWithTest } from './cli-fixture.ts';
import { databaseEnv } from './support/tested-database.ts';

/** What a serving command prints with --json. */
export interface Addresses {
  server: string;
  serverTls: string;
  registry?: string;
  legacyUrl?: string;
  registryLegacyUrl?: string;
  identity: string;
  data: string;
  adminKey?: string;
}

export interface Serving extends AsyncDisposable {
  readonly child: ChildProcess;
  readonly addresses: Addresses;
  /** All of the log so far. */
  log(): string;
  /** Ends it in order, and gives its exit code. */
  stop(): Promise<number | null>;
}

const ports = ['--port', '0', '--tls-port', '0'];

/** Runs `tomaat serve` or `tomaat up` on free ports, perhaps as another user, until it is disposed of. */
export async function startServing(
  args: readonly string[],
  options: { uid?: number; gid?: number; env?: NodeJS.ProcessEnv; drainSeconds?: number } = {},
): Promise<Serving> {
  const { env, drainSeconds = 0, ...user } = options;
  const registryPort = args[0] === 'up' ? ['--registry-port', '0'] : [];
  const all = [
    ...endsWithTest,
    bin,
    ...args,
    ...ports,
    '--drain-seconds',
    String(drainSeconds),
    ...registryPort,
    '--json',
  ];
  const child = spawn(process.execPath, all, {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, NODE_OPTIONS: '', ...(await databaseEnv(args)), ...env },
    ...user,
  });
  let [out, log] = ['', ''];
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    log += text;
  });
  const ended = once(child, 'close');
  await new Promise<void>((resolve) => {
    child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      out += text;
      if (out.includes('\n')) resolve();
    });
    void ended.then(() => resolve());
  });
  if (!out.includes('\n')) throw new Error(`it ended early: ${log}`);
  const stop = async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
    await ended;
    return child.exitCode;
  };
  return {
    child,
    addresses: JSON.parse(out) as Addresses,
    log: () => log,
    stop,
    async [Symbol.asyncDispose]() {
      await stop();
    },
  };
}
