import { copyFile, mkdir } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Kysely, sql } from 'kysely';
import { createKey } from '../../packages/server/src/access/keys.ts';
import type { Database } from '../../packages/server/src/store/database/database.ts';
import type { KeySchema } from '../../packages/server/src/store/database/key-schema.ts';
import {
  openServerDatabase,
  type ServerSchema,
} from '../../packages/server/src/store/database/server-database.ts';
import { type CuttableLink, createCuttableLink } from '../../packages/server/test/support/cuttable-link.ts';
import { type OwnPostgres, startOwnPostgres } from '../../packages/server/test/support/postgres.ts';
import { type MortalServer, openMortalServer, startWorkerProcess, type WorkerProcess } from './harness.ts';

/** Two servers over one PostgreSQL and one folder of files, workers, and what forwards connections to whichever server is there. */

export const replicaCount = 2;
export const workerCount = 3;
export const leaseMs = 4000;

export interface Cluster extends AsyncDisposable {
  /** The one address that workers and callers know. */
  readonly url: string;
  readonly folder: string;
  readonly database: Database<ServerSchema>;
  readonly postgres: OwnPostgres;
  readonly replicas: readonly MortalServer[];
  /** Between each server and the database. */
  readonly links: readonly CuttableLink[];
  readonly workers: WorkerProcess[];
  readonly balancer: Balancer;
  /** Keys of callers: each is an owner, since a login is required. */
  readonly owners: readonly string[];
  startWorker(index: number): Promise<void>;
  /** Started again until it stays, as a service manager does. */
  restart(replica: MortalServer): Promise<void>;
}

export async function openCluster(
  folder: string,
  apps: readonly string[],
  { owners: ownerCount }: { owners: number },
): Promise<Cluster> {
  await using opened = new AsyncDisposableStack();
  // Commits have to survive a kill.
  const postgres = opened.use(await startOwnPostgres({ isDurable: true }));
  const address = await postgres.database();
  const replicas: MortalServer[] = [];
  const links: CuttableLink[] = [];
  for (let index = 0; index < replicaCount; index++) {
    const dataFolder = join(folder, `replica-${index}`);
    await mkdir(dataFolder, { recursive: true, mode: 0o700 });
    if (index > 0)
      for (const file of ['identity.key', 'pseudonym.key'])
        await copyFile(join(folder, 'replica-0', file), join(dataFolder, file));
    const link = opened.use(await createCuttableLink(Number(new URL(address).port)));
    links.push(link);
    const throughLink = new URL(address);
    throughLink.port = String(link.port);
    const options = {
      dataFolder,
      database: throughLink.href,
      blobs: join(folder, 'blobs'),
      workers: 0,
      leaseMs,
    };
    replicas.push(await openMortalServer(apps, { ...options, login: true, maxQueued: 500 }));
    opened.defer(() => replicas[index].close());
  }
  const database = opened.use(await openServerDatabase(join(folder, 'replica-0'), address));
  await traceStates(database);
  const keyOf = async (label: string, scopes: readonly ('predict' | 'worker')[]) =>
    (await createKey(database.db as unknown as Kysely<KeySchema>, { label, scopes })).key;
  const owners: string[] = [];
  for (let index = 0; index < ownerCount; index++) owners.push(await keyOf(`owner ${index}`, ['predict']));
  const token = await keyOf('worker', ['worker']);
  const balancer = opened.use(await openBalancer(replicas.map(({ port }) => port)));
  const workers: WorkerProcess[] = [];
  const startWorker = async (index: number) => {
    workers[index] = await startWorkerProcess(balancer.url, token, apps, [], ['--workers', '2']);
  };
  opened.defer(async () => {
    await Promise.all(workers.map((worker) => worker.kill()));
  });
  for (let index = 0; index < workerCount; index++) await startWorker(index);
  const stack = opened.move();
  return {
    url: balancer.url,
    folder,
    database,
    postgres,
    replicas,
    links,
    workers,
    balancer,
    owners,
    startWorker,
    async restart(replica) {
      for (let left = 20; ; left--) {
        try {
          return await replica.start();
        } catch (error) {
          if (left === 0) throw error;
          await replica.close();
          await sleep(500);
        }
      }
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

interface Balancer extends AsyncDisposable {
  readonly url: string;
  /** Ends all connections, and takes no new ones for this long. */
  cut(ms: number): Promise<void>;
}

/** Forwards each connection to the next server that takes it. */
async function openBalancer(ports: readonly number[]): Promise<Balancer> {
  const sockets = new Set<Socket>();
  let turn = 0;
  let isCut = false;
  const track = (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
  };
  const forward = (from: Socket, left: number) => {
    if (left === 0 || isCut) return void from.destroy();
    const to = connect(ports[turn++ % ports.length], '127.0.0.1');
    track(to);
    let isConnected = false;
    to.once('connect', () => {
      isConnected = true;
      from.pipe(to).pipe(from);
    });
    to.on('close', () => (isConnected ? from.destroy() : forward(from, left - 1)));
    from.on('close', () => to.destroy());
  };
  const server = createServer((socket) => {
    track(socket);
    forward(socket, ports.length);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const endAll = () => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    url: `http://127.0.0.1:${port}`,
    async cut(ms) {
      isCut = true;
      endAll();
      await sleep(ms);
      isCut = false;
    },
    async [Symbol.asyncDispose]() {
      server.close();
      endAll();
    },
  };
}

/** A change of the state of a job, as PostgreSQL itself noted it. */
export interface Step {
  readonly seq: number;
  readonly at_ms: number;
  readonly job: string;
  readonly service: string;
  readonly owner: string;
  readonly attempt: number;
  readonly was: string | null;
  readonly state: string;
}

/** A trigger notes every change of a state; what is rolled back is not noted. */
async function traceStates({ db }: Database<ServerSchema>): Promise<void> {
  await sql`CREATE TABLE torture_step (seq BIGSERIAL PRIMARY KEY, at_ms BIGINT NOT NULL, job TEXT NOT NULL,
    service TEXT NOT NULL, owner TEXT NOT NULL, attempt BIGINT NOT NULL, was TEXT, state TEXT NOT NULL)`.execute(
    db,
  );
  await sql`CREATE FUNCTION torture_note() RETURNS trigger AS $$ BEGIN
    IF TG_OP = 'INSERT' OR OLD.state <> NEW.state OR OLD.attempt <> NEW.attempt THEN
      INSERT INTO torture_step (at_ms, job, service, owner, attempt, was, state)
        VALUES ((extract(epoch FROM clock_timestamp()) * 1000)::bigint, NEW.id, NEW.service, NEW.owner, NEW.attempt,
          CASE WHEN TG_OP = 'UPDATE' THEN OLD.state END, NEW.state);
    END IF;
    RETURN NEW;
  END $$ LANGUAGE plpgsql`.execute(db);
  await sql`CREATE TRIGGER torture_trace AFTER INSERT OR UPDATE ON job FOR EACH ROW EXECUTE FUNCTION torture_note()`.execute(
    db,
  );
}

/** Asks again while the database is away. */
export async function insistOn<T>(ask: () => Promise<T>): Promise<T> {
  for (let left = 100; ; left--) {
    try {
      return await ask();
    } catch (error) {
      if (left === 0) throw error;
      await sleep(200);
    }
  }
}

export const stepsOf = ({ database: { db } }: Cluster): Promise<Step[]> =>
  insistOn(async () => (await sql<Step>`SELECT * FROM torture_step ORDER BY seq`.execute(db)).rows);
