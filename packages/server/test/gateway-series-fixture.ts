import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { belongingOf, createUidKey, parseDicom } from '@tomaat/core';
import type { AuditEvent, AuditFacts } from '../src/audit/events.ts';
import { connectTo } from '../src/cli/connect.ts';
import type { GatewayConfig, Rule, RuleConditions } from '../src/gateway/config.ts';
import type { Connect, SeriesDependencies } from '../src/gateway/dependencies.ts';
import { openDestination } from '../src/gateway/destinations/open-destination.ts';
import { createProcessSeries } from '../src/gateway/process-series.ts';
import type { Destination, SeriesContext, SeriesRow, Source } from '../src/gateway/series.ts';

/* A gateway around one series: a source, a row in memory, and the steps, with all that they need. */

/** As the command line connects, with a folder of its own for known hosts. */
export const connectWith =
  (data: string): Connect =>
  (address, options) =>
    connectTo(address, { ...options, data, ask: async () => false });

/** The files of a folder as a source: each file belongs to the series that it says. */
export function folderSource(folder: string): Source {
  const filesOf = async (study: string, series: string) => {
    const names = (await readdir(folder)).sort();
    const files = await Promise.all(
      names.map(async (name) => ({ name, bytes: new Uint8Array(await readFile(join(folder, name))) })),
    );
    return files
      .map((file) => ({ ...file, ...belongingOf(parseDicom(file.bytes)!) }))
      .filter(({ studyUid, seriesUid }) => studyUid === study && seriesUid === series);
  };
  return {
    name: 'folder',
    async *search() {},
    async look(study, series) {
      const { length } = await filesOf(study, series);
      return length === 0 ? undefined : { source: 'folder', study, series, instances: length };
    },
    instances: async (study, series) =>
      (await filesOf(study, series)).map(({ sopInstanceUid }) => sopInstanceUid),
    async *fetch(study, series) {
      yield* await filesOf(study, series);
    },
  };
}

/** Writes the files of a series to a folder, and says which it is. */
export async function putSeries(
  folder: string,
  files: readonly Uint8Array[],
): Promise<{ study: string; series: string }> {
  await mkdir(folder, { recursive: true });
  for (const [i, bytes] of files.entries()) await writeFile(join(folder, `${i}.dcm`), bytes);
  const { studyUid, seriesUid } = belongingOf(parseDicom(files[0])!);
  return { study: studyUid, series: seriesUid };
}

export const ruleOf = (more: Partial<Rule> = {}): Rule => ({
  id: 'rule',
  when: {} satisfies RuleConditions,
  service: 'service',
  destinations: ['out'],
  parameters: {},
  results: ['seg.dcm'],
  keepIdentity: false,
  keepPatientCharacteristics: false,
  urgency: 3,
  ...more,
});

export const rowOf = (ids: { study: string; series: string }, more: Partial<SeriesRow> = {}): SeriesRow => ({
  id: 'row',
  rule: 'rule',
  source: 'folder',
  ...ids,
  state: 'running',
  step: 'fetch',
  instances: 1,
  results: [],
  attempts: 0,
  seenAt: Date.UTC(2026, 2, 4, 5, 6, 7),
  changedAt: 0,
  dueAt: 0,
  ...more,
});

export interface Gateway {
  /** Where everything lies: the data folder, originals, destinations. */
  readonly folder: string;
  readonly service: { url: string; service: string };
  readonly rule?: Partial<Rule>;
  readonly source: Source;
  readonly destinations?: readonly Destination[];
  readonly maxSeriesBytes?: number;
  readonly predecessor?: SeriesRow;
  readonly matchVolume?: SeriesDependencies['matchVolume'];
  readonly uidKey?: Uint8Array;
  readonly signal?: AbortSignal;
  /** Called before each save; what it throws ends the run there, as kill -9 does. */
  onSave?(saves: number): void;
}

export interface Run {
  /** As it was saved last. */
  readonly row: SeriesRow;
  readonly error?: unknown;
  readonly audit: readonly (AuditFacts & { event: AuditEvent })[];
  readonly saves: number;
}

export const uidKey = createUidKey();

export const configOf = ({ service, rule, maxSeriesBytes = 2 ** 30 }: Gateway): GatewayConfig => ({
  sources: {},
  services: { service },
  destinations: {},
  rules: [ruleOf(rule)],
  limits: {
    concurrency: 1,
    firstPauseMs: 1000,
    longestPauseMs: 1000,
    giveUpMs: 1000,
    keepMs: 1000,
    maxSeriesBytes,
  },
});

/** Takes a row through its steps once. */
export async function runSeries(row: SeriesRow, gateway: Gateway): Promise<Run> {
  const { folder, predecessor, signal = new AbortController().signal } = gateway;
  const config = configOf(gateway);
  const connect = connectWith(folder);
  const audit: (AuditFacts & { event: AuditEvent })[] = [];
  const process = createProcessSeries({
    connect,
    uidKey: gateway.uidKey ?? uidKey,
    matchVolume: gateway.matchVolume ?? (() => undefined),
    audit: (event, facts) => void audit.push({ event, ...facts }),
  });
  let saved = row;
  let saves = 0;
  const context: SeriesContext = {
    config,
    rule: config.rules[0],
    source: gateway.source,
    destinations: gateway.destinations ?? [await folderDestination(join(folder, 'out'), connect)],
    folder: join(folder, 'work'),
    predecessor,
    async save(change) {
      const at = saves++;
      gateway.onSave?.(at);
      saved = { ...saved, ...change };
    },
    signal,
  };
  try {
    await process(row, context);
    return { row: saved, audit, saves };
  } catch (error) {
    return { row: saved, error, audit, saves };
  }
}

export async function folderDestination(path: string, connect: Connect, name = 'out'): Promise<Destination> {
  await mkdir(path, { recursive: true });
  return openDestination(name, { type: 'folder', path }, connect);
}

/** The files below a folder, by their paths. */
export async function filesIn(folder: string): Promise<Map<string, Uint8Array<ArrayBuffer>>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = await Promise.all(
    entries
      .filter((entry) => entry.isFile())
      .map(async (entry) => {
        const path = join(entry.parentPath, entry.name);
        return [path.slice(folder.length + 1), new Uint8Array(await readFile(path))] as const;
      }),
  );
  return new Map(files.sort(([a], [b]) => Number(a > b) - Number(a < b)));
}
