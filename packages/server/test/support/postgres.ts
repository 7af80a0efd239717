import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { appendFileSync, chmodSync, chownSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { findPostgres } from '../../../../test/programs.ts';

/** A PostgreSQL server of a test, with a folder of its own. */
export interface TestPostgres extends AsyncDisposable {
  /** The address of a new, empty database. */
  database(): Promise<string>;
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

/** Starts a server on loopback. `isDurable`: whether commits survive kill(), for a price. */
export async function startPostgres({ isDurable = false } = {}): Promise<TestPostgres> {
  const bin = postgresBin!;
  const folder = mkdtempSync(join(tmpdir(), 'tomaat-postgres-'));
  const user = userOf();
  if (user) chownSync(folder, user.uid, user.gid);
  chmodSync(folder, 0o700);
  const data = join(folder, 'data');
  const run = (program: string, args: readonly string[]) => {
    const done = spawnSync(join(bin, program), args, { cwd: folder, encoding: 'utf8', ...user });
    if (done.status !== 0) throw new Error(`${program}: ${done.stderr}${done.stdout}`);
  };
  run('initdb', ['-D', data, '-A', 'trust', '-U', 'postgres', '-N', '--locale=C', '-E', 'UTF8']);
  const port = await freePort();
  appendFileSync(
    join(data, 'postgresql.conf'),
    `port=${port}\nlisten_addresses='127.0.0.1'\nunix_socket_directories='${folder}'\nmax_connections=200\nfsync=${isDurable ? 'on' : 'off'}\nlog_min_messages=fatal\n`,
  );
  const addressOf = (name: string) => `postgres://postgres@127.0.0.1:${port}/${name}`;
  let server = await launch();

  async function launch() {
    const child = spawn(join(bin, 'postgres'), ['-D', data], { cwd: folder, stdio: 'ignore', ...user });
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    for (let left = 600; left > 0 && child.exitCode === null; left--) {
      const asked = spawnSync(join(bin, 'pg_isready'), ['-q', '-h', '127.0.0.1', '-p', String(port)]);
      if (asked.status === 0) return { child, ended };
      await delay(50);
    }
    throw new Error('PostgreSQL did not start');
  }

  /** All of its processes: a killed parent leaves those of its connections for a while. */
  function processes(): number[] {
    const { pid } = server.child;
    const { stdout } = spawnSync('pgrep', ['-P', String(pid)], { encoding: 'utf8' });
    return [pid!, ...stdout.split('\n').filter(Boolean).map(Number)];
  }

  const stop = async (signal: NodeJS.Signals, pids: readonly number[]) => {
    for (const pid of pids) {
      try {
        process.kill(pid, signal);
      } catch {
        // It has ended by itself.
      }
    }
    await server.ended;
  };

  return {
    async database() {
      const name = `t${randomBytes(6).toString('hex')}`;
      run('createdb', ['-h', '127.0.0.1', '-p', String(port), '-U', 'postgres', name]);
      return addressOf(name);
    },
    kill: () => stop('SIGKILL', processes()),
    async start() {
      server = await launch();
    },
    async [Symbol.asyncDispose]() {
      if (server.child.exitCode === null && server.child.signalCode === null)
        await stop('SIGQUIT', [Number(readFileSync(join(data, 'postmaster.pid'), 'utf8').split('\n')[0])]);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve));
  const { port } = probe.address() as { port: number };
  await new Promise((resolve) => probe.close(resolve));
  return port;
}
