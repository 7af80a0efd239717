import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  appendFileSync,
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { findPostgres } from '../../../../test/programs.ts';

/** A PostgreSQL server of tests. */
export interface TestPostgres extends AsyncDisposable {
  /** The address of a new, empty database. */
  database(): Promise<string>;
}

/** One of a test alone, with a folder of its own. */
export interface OwnPostgres extends TestPostgres {
  /** Kills all of it, as a loss of power does. */
  kill(): Promise<void>;
  start(): Promise<void>;
}

/** Its programs; undefined where they are missing: then the tests that need them skip. */
export const postgresBin = findPostgres();

/** PostgreSQL refuses to run as root. */
function userOf(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const id = (flag: string) => Number(spawnSync('id', [flag, 'postgres'], { encoding: 'utf8' }).stdout);
  return { uid: id('-u'), gid: id('-g') };
}

/** The server of all test files of a run; the first file that asks starts it (`shared-postgres.ts` ends it). */
export async function startPostgres(): Promise<TestPostgres> {
  const folder = process.env.TOMAAT_TEST_POSTGRES;
  if (folder === undefined) return startOwnPostgres();
  const ready = join(folder, 'port');
  if (isFirst(folder)) {
    const port = await createCluster(folder, 'off');
    const { child } = await launch(folder, port);
    child.unref();
    writeFileSync(`${ready}.part`, String(port));
    renameSync(`${ready}.part`, ready);
  }
  for (let left = 1200; !existsSync(ready); left--) {
    if (left === 0) throw new Error('PostgreSQL did not start for another test file');
    await delay(50);
  }
  const port = Number(readFileSync(ready, 'utf8'));
  return { database: () => createDatabase(port), async [Symbol.asyncDispose]() {} };
}

/** Starts a server on loopback for the caller alone. `isDurable`: whether commits survive kill(), for a price. */
export async function startOwnPostgres({ isDurable = false } = {}): Promise<OwnPostgres> {
  const folder = mkdtempSync(join(tmpdir(), 'tomaat-postgres-'));
  const port = await createCluster(folder, isDurable ? 'on' : 'off');
  let server = await launch(folder, port);
  return {
    database: () => createDatabase(port),
    async kill() {
      // All of its processes: a killed parent leaves those of its connections for a while.
      const { stdout } = spawnSync('pgrep', ['-P', String(server.child.pid)], { encoding: 'utf8' });
      for (const pid of [server.child.pid!, ...stdout.split('\n').filter(Boolean).map(Number)])
        signal(pid, 'SIGKILL');
      await server.ended;
    },
    async start() {
      server = await launch(folder, port);
    },
    async [Symbol.asyncDispose]() {
      server.child.kill('SIGQUIT');
      await server.ended;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Ends the server of a folder that another process has started. */
export async function stopPostgresOf(folder: string): Promise<void> {
  const file = join(folder, 'data', 'postmaster.pid');
  const pid = existsSync(file) ? Number(readFileSync(file, 'utf8').split('\n')[0]) : undefined;
  if (pid !== undefined) {
    signal(pid, 'SIGQUIT');
    for (let left = 200; left > 0 && existsSync(`/proc/${pid}`); left--) await delay(50);
  }
  rmSync(folder, { recursive: true, force: true });
}

/** Whether no other process has begun to start the server of this folder. */
function isFirst(folder: string): boolean {
  try {
    mkdirSync(join(folder, 'begun'));
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

function run(program: string, args: readonly string[], cwd = '/'): void {
  const done = spawnSync(join(postgresBin!, program), args, { cwd, encoding: 'utf8', ...userOf() });
  if (done.status !== 0) throw new Error(`${program}: ${done.stderr}${done.stdout}`);
}

/** Returns its port. */
async function createCluster(folder: string, fsync: 'on' | 'off'): Promise<number> {
  const user = userOf();
  if (user) chownSync(folder, user.uid, user.gid);
  chmodSync(folder, 0o700);
  const data = join(folder, 'data');
  run('initdb', ['-D', data, '-A', 'trust', '-U', 'postgres', '-N', '--locale=C', '-E', 'UTF8'], folder);
  const port = await freePort();
  appendFileSync(
    join(data, 'postgresql.conf'),
    `port=${port}\nlisten_addresses='127.0.0.1'\nunix_socket_directories='${folder}'\nmax_connections=200\nfsync=${fsync}\nlog_min_messages=fatal\n`,
  );
  return port;
}

async function launch(folder: string, port: number) {
  const args = ['-D', join(folder, 'data')];
  const child = spawn(join(postgresBin!, 'postgres'), args, { cwd: folder, stdio: 'ignore', ...userOf() });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  for (let left = 600; left > 0 && child.exitCode === null; left--) {
    const asked = spawnSync(join(postgresBin!, 'pg_isready'), ['-q', '-h', '127.0.0.1', '-p', String(port)]);
    if (asked.status === 0) return { child, ended };
    await delay(50);
  }
  throw new Error('PostgreSQL did not start');
}

async function createDatabase(port: number): Promise<string> {
  const name = `t${randomBytes(6).toString('hex')}`;
  run('createdb', ['-h', '127.0.0.1', '-p', String(port), '-U', 'postgres', name]);
  return `postgres://postgres@127.0.0.1:${port}/${name}`;
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended by itself.
  }
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve));
  const { port } = probe.address() as { port: number };
  await new Promise((resolve) => probe.close(resolve));
  return port;
}
