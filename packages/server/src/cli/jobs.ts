import { type Client, createClient, isSettled, type Job } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import Table from 'cli-table3';
import { type ConnectOptions, connectTo, dataFolderOf } from './connect.ts';
import { openTable, plain, printError } from './console.ts';
import { storedKeyFor } from './keyring.ts';
import { type OwnJob, ownJobs } from './own-jobs.ts';

export interface JobsFlags extends ConnectOptions {
  /** All that are remembered. */
  all?: boolean;
  /** The server of jobs that were not made here. */
  server?: string;
  json?: boolean;
}

/** As long as a server may take to answer. */
const longestWaitMs = 10_000;

/** Jobs that are listed without --all. */
const shownJobs = 20;

interface ListedJob extends OwnJob {
  /** `gone` from its server; `unknown` where the server does not answer. */
  readonly state: Job['state'] | 'gone' | 'unknown';
  readonly expiresTime?: string;
}

/** `tomaat jobs`: what this user has sent from this machine, and how far it is. */
export async function jobs(flags: JobsFlags): Promise<number> {
  const own = await ownJobs(await dataFolderOf(flags));
  const chosen = flags.all ? own : own.slice(0, shownJobs);
  const servers = new Map<string, Promise<Client>>();
  const faults = new Map<string, string>();
  const listed = await Promise.all(
    chosen.map((job) => look(job, openAt(job.server, servers, flags), faults)),
  );
  if (flags.json) for (const job of listed) console.log(JSON.stringify(job));
  else print(listed, own.length);
  for (const [server, message] of faults) console.error(plain(`${server}: ${message}`));
  return 0;
}

function print(listed: readonly ListedJob[], total: number): void {
  if (listed.length === 0) {
    console.log('No job was sent from this machine. Send one with: tomaat predict SERVICE --volume FILE');
    return;
  }
  const rows = listed.map(({ time, state, service, input, job }) => [
    new Date(time).toLocaleString('sv-SE').slice(0, 16),
    state,
    service,
    input,
    job,
  ]);
  console.log(openTable(Table, ['SENT', 'STATE', 'SERVICE', 'INPUT', 'JOB'], rows));
  if (total > listed.length) console.log(`${total - listed.length} older ones are listed with --all.`);
}

function openAt(server: string, servers: Map<string, Promise<Client>>, flags: JobsFlags): Promise<Client> {
  const known = servers.get(server);
  if (known) return known;
  const opened = openServer(server, flags);
  // Every job of a server that cannot be reached waits for it.
  opened.catch(() => {});
  servers.set(server, opened);
  return opened;
}

async function openServer(baseUrl: string, flags: ConnectOptions): Promise<Client> {
  const apiKey = flags.apiKey ?? (await storedKeyFor(baseUrl, await dataFolderOf(flags)));
  const { fetch } = await connectTo(baseUrl, { ...flags, apiKey });
  return createClient({ baseUrl, apiKey, fetch, retries: 0 });
}

async function look(job: OwnJob, client: Promise<Client>, faults: Map<string, string>): Promise<ListedJob> {
  try {
    const signal = AbortSignal.timeout(longestWaitMs);
    const { state, expiresTime } = await (await client).job(job.job, { signal });
    return { ...job, state, ...(expiresTime && { expiresTime }) };
  } catch (error) {
    if (error instanceof TomaatError && error.code === 'NOT_FOUND') return { ...job, state: 'gone' };
    const isLate = (error as Error).name === 'TimeoutError';
    const late = `No answer within ${longestWaitMs / 1000} s. Check the server, and try again.`;
    faults.set(job.server, isLate ? late : (error as Error).message);
    return { ...job, state: 'unknown' };
  }
}

/** `tomaat cancel JOB…`: by the id, or its first characters. A job that has ended is left as it is. */
export async function cancel(ids: readonly string[], flags: JobsFlags): Promise<number> {
  const own = await ownJobs(await dataFolderOf(flags));
  let exitCode = 0;
  for (const id of ids) {
    try {
      const { job, server } = find(id, own, flags.server);
      const client = await openServer(server, flags);
      const before = await client.job(job);
      const ended = isSettled(before) ? before : await client.cancel(job);
      console.log(
        ended.state === 'canceled' && !isSettled(before)
          ? `${job} is cancelled.`
          : `${job} had already ended: ${ended.state}.`,
      );
    } catch (error) {
      printError(error);
      exitCode = 1;
    }
  }
  return exitCode;
}

/** Fewer characters could mean another job. */
const leastCharacters = 6;

function find(
  id: string,
  own: readonly OwnJob[],
  server: string | undefined,
): { job: string; server: string } {
  if (server !== undefined) return { job: id, server };
  const meant = own.filter(({ job }) => job === id || (id.length >= leastCharacters && job.startsWith(id)));
  if (new Set(meant.map(({ job }) => job)).size === 1) return meant[0];
  throw new TomaatError(
    'BAD_INPUT',
    meant.length === 0
      ? `No job ${id} was sent from this machine. “tomaat jobs --all” lists them; give --server URL for one of another machine.`
      : `${id} could mean several jobs. Give more of it.`,
  );
}
