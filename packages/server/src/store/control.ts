import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type ErrorData, TomaatError } from '@tomaat/core';
import { lockDataFolder } from './database/database.ts';
import { writeWhole } from './files/whole-file.ts';

/**
 * Requests of commands to the server that holds their data folder: files in `control`, which only the folder's owner can
 * write to. `ID.request.json` is renamed to `ID.taken.json` when the server begins, and `ID.answer.json` holds the outcome.
 */
export interface ControlRequests {
  /** Begins a new file of the audit log. */
  rotateAudit: { request: object; answer: { closed?: string } };
  /** Erases the data of an owner: jobs in every state, results, uploads. */
  eraseOwner: { request: { owner: string; keyId?: string }; answer: { jobs: number; uploads: number } };
}
type Kind = keyof ControlRequests;
type Request<K extends Kind> = { type: K } & ControlRequests[K]['request'];

/** What a process does of these; a gateway holds no jobs to erase. */
export type ControlHandlers = {
  [K in Kind]?: (request: ControlRequests[K]['request']) => Promise<ControlRequests[K]['answer']>;
};

const controlFolder = 'control';
const lookEveryMs = 500;
const pollMs = 50;
/** A server of another version does not look for requests. */
const takenWithinMs = 15_000;
/** The request of a command that did not wait for the response. */
const staleMs = 600_000;

/**
 * Does `work` while this process holds the data folder, or has the server that holds it do the same.
 * @throws TomaatError NOT_FOUND if there is no data folder, BUSY if the server does not respond, and the server's own errors.
 */
export async function doAsHolder<K extends Kind>(
  dataFolder: string,
  request: Request<K>,
  work: () => Promise<ControlRequests[K]['answer']>,
): Promise<ControlRequests[K]['answer']> {
  if (!existsSync(dataFolder))
    throw new TomaatError('NOT_FOUND', `There is no data folder ${resolve(dataFolder)}. Check --data.`);
  for (;;) {
    using lock = tryLock(dataFolder);
    if (lock) return await work();
    const answer = await ask(dataFolder, request);
    if (answer !== undefined) return answer;
  }
}

function tryLock(dataFolder: string): Disposable | undefined {
  try {
    return lockDataFolder(dataFolder);
  } catch (error) {
    if (error instanceof TomaatError && error.code === 'CONFLICT') return undefined;
    throw error;
  }
}

/** The answer of the process that holds the folder; undefined if that process ended first. */
async function ask<K extends Kind>(
  dataFolder: string,
  request: Request<K>,
): Promise<ControlRequests[K]['answer'] | undefined> {
  const folder = join(dataFolder, controlFolder);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const stem = join(folder, randomUUID());
  const startedMs = performance.now();
  try {
    await writeWhole(`${stem}.request.json`, JSON.stringify(request));
    for (;;) {
      await delay(pollMs);
      const answer = await readIfThere(`${stem}.answer.json`);
      if (answer !== undefined) {
        const { error, ...rest } = JSON.parse(answer) as { error?: ErrorData };
        if (error) throw TomaatError.from(error);
        return rest as ControlRequests[K]['answer'];
      }
      if (!isAlive(dataFolder)) return undefined;
      if (performance.now() - startedMs < takenWithinMs || !existsSync(`${stem}.request.json`)) continue;
      throw new TomaatError(
        'BUSY',
        `The server of ${resolve(dataFolder)} is not responding. If it is an earlier version, restart it; otherwise stop it and run the command again.`,
      );
    }
  } finally {
    for (const end of ['request', 'taken', 'answer']) await rm(`${stem}.${end}.json`, { force: true });
  }
}

/** Whether the process that holds the folder still runs, as far as this process can see. */
function isAlive(dataFolder: string): boolean {
  try {
    process.kill(Number.parseInt(readFileSync(join(dataFolder, 'lock.pid'), 'utf8'), 10), 0);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EPERM') return true;
    // It has just taken the folder, ended, or is in another container: the lock decides.
    using lock = tryLock(dataFolder);
    return lock === undefined;
  }
}

/** Answers the requests of commands until it is disposed of; for the process that holds the data folder. */
export function answerRequests(
  dataFolder: string,
  handlers: ControlHandlers,
  onFault: (error: unknown) => void,
): AsyncDisposable {
  const folder = join(dataFolder, controlFolder);
  let looking: Promise<void> = Promise.resolve();
  const look = () => {
    looking = looking.then(() => answerAll(folder, handlers, onFault)).catch(onFault);
  };
  const timer = setInterval(look, lookEveryMs);
  timer.unref();
  return {
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      await looking;
    },
  };
}

async function answerAll(
  folder: string,
  handlers: ControlHandlers,
  onFault: (error: unknown) => void,
): Promise<void> {
  let names: string[];
  try {
    names = await readdir(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return;
  }
  for (const name of names) {
    const path = join(folder, name);
    if (!name.endsWith('.request.json')) {
      const ageMs = await stat(path).then(
        ({ mtimeMs }) => Date.now() - mtimeMs,
        () => 0, // Already gone.
      );
      if (ageMs > staleMs) await rm(path, { force: true });
      continue;
    }
    const stem = path.slice(0, -'.request.json'.length);
    const taken = `${stem}.taken.json`;
    try {
      await rename(path, taken);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') continue; // Nobody is waiting any longer.
      throw error;
    }
    const answer = await handle(await readFile(taken, 'utf8'), handlers, onFault);
    await writeWhole(`${stem}.answer.json`, JSON.stringify(answer));
    await rm(taken, { force: true });
  }
}

async function handle(
  text: string,
  handlers: ControlHandlers,
  onFault: (error: unknown) => void,
): Promise<object> {
  try {
    const request = JSON.parse(text) as Request<Kind>;
    if (!Object.hasOwn(handlers, request.type))
      throw new TomaatError(
        'BAD_REQUEST',
        'The server does not know this request. Restart it with this version.',
      );
    return await (handlers[request.type] as (request: object) => Promise<object>)(request);
  } catch (error) {
    onFault(error);
    const known =
      error instanceof TomaatError
        ? error
        : new TomaatError('INTERNAL', 'The server could not do this. See its log for the reason.', {
            cause: error,
          });
    return { error: known.toJSON() };
  }
}

async function readIfThere(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return undefined;
  }
}
