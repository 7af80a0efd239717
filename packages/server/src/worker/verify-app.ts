import type { Serializable } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type NetworkReport, TomaatError } from '@tomaat/core';
import type { FastifyBaseLogger } from 'fastify';
import type { App } from '../apps.ts';
import { ownExtension } from '../source.ts';
import { type ModelServers, modelServersFor } from '../trust/model-servers.ts';
import { askChild } from './ask-child.ts';
import type { MemoryPolicy } from './memory-limit.ts';

/** The result of loading one model of an app, and of trying it if it is a network. */
export interface ModelReport extends NetworkReport {
  /** The file, or the program. */
  readonly name: string;
  /** Why it could not be tried: its model server cannot be reached, or gave no answer in time. Not a fault of the app. */
  readonly away?: string;
}

const childFile = fileURLToPath(new URL(`./verify-child${ownExtension}`, import.meta.url));

/**
 * Loads every model of an app in a separate process, and tries networks on one window of zeros. If the process dies, it is a
 * fault of the model. `permitted` is what the app may use of model servers.
 * @throws the reason of `signal` when it aborts
 */
export async function verifyApp(
  app: App,
  memory: MemoryPolicy,
  signal: AbortSignal,
  permitted?: ModelServers,
): Promise<ModelReport[]> {
  const said = await askChild<ModelReport[]>(childFile, [app.folder], {
    dataMb: memory(app)?.dataMb,
    message: modelServersFor(app, permitted) as Serializable | undefined,
    signal,
  });
  if ('answer' in said) return said.answer;
  const fault = `The process that loaded it ${said.died}: ${said.lastWords}`;
  return [{ name: 'the model', faults: [fault], summary: '' }];
}

/**
 * Verifies apps before they are served, at most `atATime` at once.
 * @throws {TomaatError} BAD_MANIFEST, which lists every fault of every app
 */
export async function verifyApps(
  apps: readonly App[],
  {
    memory,
    modelServers,
    atATime,
    signal,
    onVerified,
  }: {
    memory: MemoryPolicy;
    modelServers?: ModelServers;
    atATime: number;
    signal: AbortSignal;
    onVerified(app: App, reports: readonly ModelReport[], seconds: number): void;
  },
): Promise<void> {
  const waiting = [...apps];
  const faults: string[] = [];
  async function work(): Promise<void> {
    for (let app = waiting.shift(); app; app = waiting.shift()) {
      const startMs = performance.now();
      const reports = await verifyApp(app, memory, signal, modelServers);
      const found = faultLines(reports);
      if (found.length === 0) onVerified(app, reports, (performance.now() - startMs) / 1000);
      else faults.push(`The app ${app.manifest.id} cannot be served:\n${found.join('\n')}`);
    }
  }
  await Promise.all(Array.from({ length: Math.min(atATime, apps.length) }, work));
  if (faults.length > 0)
    throw new TomaatError('BAD_MANIFEST', `${faults.join('\n')}\n“tomaat check APP_DIR” shows the same.`);
}

/** Logs the result for each app. */
export const logVerified =
  (logger: FastifyBaseLogger) =>
  (app: App, reports: readonly ModelReport[], seconds: number): void => {
    // A server must not depend on the start of another: the service is offered, and its jobs fail until then.
    for (const { away } of reports)
      if (away)
        logger.warn({ app: app.manifest.id, away }, 'app not verified: its model server gave no answer');
    const tried = reports.filter(({ away }) => away === undefined);
    if (tried.length === 0) return;
    const models = tried.map(({ name, summary }) => `${name}: ${summary}`).join('; ');
    logger.info({ app: app.manifest.id, models, seconds: Math.round(seconds * 10) / 10 }, 'app verified');
  };

/** A line for each fault, with the model that has it, and for each model server that gave no answer. */
export const allFaultLines = (reports: readonly ModelReport[]): string[] =>
  reports.flatMap(({ name, faults, away = [] }) =>
    [...faults, ...[away].flat()].map((fault) => `  ${name}: ${fault}`),
  );

/** A line for each fault, with the model that has it. */
export const faultLines = (reports: readonly ModelReport[]): string[] =>
  reports.flatMap(({ name, faults }) => faults.map((fault) => `  ${name}: ${fault}`));
