import type { Serializable } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { hasOwnNetworks, type NetworkReport, TomaatError, verifiedDevices } from '@tomaat/core';
import type { FastifyBaseLogger } from 'fastify';
import type { App } from '../apps.ts';
import { type ComputeDevice, isCard, kindOf, processor } from '../runtimes/devices.ts';
import { ownExtension } from '../source.ts';
import { type ModelServers, modelServersFor } from '../trust/model-servers.ts';
import { askChild } from './ask-child.ts';
import type { MemoryPolicy } from './memory-limit.ts';
import { keepRunBytes } from './run-bytes.ts';

/** The result of loading one model of an app, and of trying it if it is a network. */
export interface ModelReport extends NetworkReport {
  /** The file, or the program. */
  readonly name: string;
  /** How its answer on a card compares with that of the processor, in words; missing on the processor. */
  readonly compared?: string;
  /** Why it could not be tried: its model server cannot be reached, or gave no answer in time. Not a fault of the app. */
  readonly away?: string;
  /** Bytes that a run takes per voxel of its input, measured; missing where that depends on no volume, or could not be measured. */
  readonly runBytes?: number;
}

const childFile = fileURLToPath(new URL(`./verify-child${ownExtension}`, import.meta.url));

/**
 * Loads every model of an app in a separate process, and tries networks on one window of zeros; on a card also on an input whose labels the
 * processor computes, too. If the process dies, it is a fault of the model. `permitted` is what the app may use of model servers.
 * @throws the reason of `signal` when it aborts
 */
export async function verifyApp(
  app: App,
  memory: MemoryPolicy,
  signal: AbortSignal,
  {
    permitted,
    device = processor,
    isUrgent,
  }: { permitted?: ModelServers; device?: ComputeDevice; isUrgent?: boolean } = {},
): Promise<ModelReport[]> {
  const onCard = isCard(device) && hasOwnNetworks(app.manifest);
  const limit = onCard ? undefined : memory(app);
  const args = [app.folder, JSON.stringify(device), JSON.stringify(limit ?? null)];
  const said = await askChild<ModelReport[]>(childFile, args, {
    dataMb: limit?.dataMb,
    isUrgent,
    environment: device.environment,
    message: modelServersFor(app, permitted) as Serializable | undefined,
    signal,
  });
  if ('answer' in said) {
    for (const [i, { runBytes }] of said.answer.entries()) keepRunBytes(app.manifest.model[i], runBytes);
    return said.answer;
  }
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
    devices = [processor],
    modelServers,
    atATime,
    signal,
    onVerified,
  }: {
    memory: MemoryPolicy;
    /** What computes networks: each app is verified on each. */
    devices?: readonly ComputeDevice[];
    modelServers?: ModelServers;
    atATime: number;
    signal: AbortSignal;
    onVerified(app: App, reports: readonly ModelReport[], seconds: number, device: ComputeDevice): void;
  },
): Promise<void> {
  const waiting = [...apps];
  const faults: string[] = [];
  async function work(): Promise<void> {
    for (let app = waiting.shift(); app; app = waiting.shift()) {
      // A card makes no difference to an app without networks.
      for (const device of hasOwnNetworks(app.manifest) ? devices : devices.slice(0, 1)) {
        const startMs = performance.now();
        const reports = await verifyApp(app, memory, signal, { permitted: modelServers, device });
        const found = faultLines(reports);
        if (found.length === 0) onVerified(app, reports, (performance.now() - startMs) / 1000, device);
        else faults.push(`The app ${app.manifest.id} cannot be served:\n${found.join('\n')}`);
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(atATime, apps.length) }, work));
  if (faults.length > 0)
    throw new TomaatError('BAD_MANIFEST', `${faults.join('\n')}\n“tomaat check APP_DIR” shows the same.`);
}

/** Logs the result for each app. */
export const logVerified =
  (logger: FastifyBaseLogger) =>
  (app: App, reports: readonly ModelReport[], seconds: number, device = processor): void => {
    // A server must not depend on the start of another: the service is offered, and its jobs fail until then.
    for (const { away } of reports)
      if (away)
        logger.warn({ app: app.manifest.id, away }, 'app not verified: its model server gave no answer');
    const tried = reports.filter(({ away }) => away === undefined);
    if (tried.length === 0) return;
    const models = tried
      .map(({ name, summary, compared }) => `${name}: ${summary}${compared ? `, ${compared}` : ''}`)
      .join('; ');
    logger.info(
      { app: app.manifest.id, models, device: device.title, seconds: Math.round(seconds * 10) / 10 },
      'app verified',
    );
    const unverified = unverifiedDevice(app, device);
    if (unverified) logger.warn({ app: app.manifest.id, device: device.title }, unverified);
  };

/** What is to be known of a device on which the author of an app has not compared its results; undefined for the others. */
export function unverifiedDevice(
  { manifest }: Pick<App, 'manifest'>,
  { device }: ComputeDevice,
): string | undefined {
  const verified = verifiedDevices(manifest);
  if (!hasOwnNetworks(manifest) || verified.includes(kindOf(device))) return undefined;
  return `its author has compared the results of ${manifest.id} on ${verified.join(', ')}, not on ${kindOf(device)}: compare some with those of --device cpu, and ask the author to add it to \`devices\` of the manifest`;
}

/** A line for each fault, with the model that has it, and for each model server that gave no answer. */
export const allFaultLines = (reports: readonly ModelReport[]): string[] =>
  reports.flatMap(({ name, faults, away = [] }) =>
    [...faults, ...[away].flat()].map((fault) => `  ${name}: ${fault}`),
  );

/** A line for each fault, with the model that has it. */
export const faultLines = (reports: readonly ModelReport[]): string[] =>
  reports.flatMap(({ name, faults }) => faults.map((fault) => `  ${name}: ${fault}`));
