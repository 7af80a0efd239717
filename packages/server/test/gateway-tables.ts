import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { GatewayConfig, Rule } from '../src/gateway/config.ts';
import { type GatewayOptions, startGateway } from '../src/gateway/gateway.ts';
import type { Destination, ProcessSeries, SeenSeries, Source } from '../src/gateway/series.ts';
import { gatewayFolder, openGatewayDatabase } from '../src/store/database/gateway-database.ts';

/* For tests: a gateway whose source and destination are tables in memory, and whose clock is set by hand. */

export const rule = (id: string, more: Partial<Rule> = {}): Rule => ({
  id,
  when: {},
  service: 'brain',
  destinations: ['archive'],
  parameters: {},
  results: [],
  keepIdentity: false,
  keepPatientCharacteristics: false,
  urgency: 3,
  ...more,
});

export function configOf(more: Partial<GatewayConfig> = {}): GatewayConfig {
  const source = {
    type: 'dicomweb',
    url: 'http://127.0.0.1:1',
    pollMs: 1e9,
    sinceDays: 2,
    quietMs: 60_000,
  } as const;
  return {
    sources: { pacs: source, second: source },
    services: { brain: { url: 'http://127.0.0.1:1', service: 'brain' } },
    destinations: { archive: { type: 'folder', path: '/nowhere' } },
    rules: [rule('liver')],
    limits: {
      concurrency: 2,
      firstPauseMs: 1000,
      longestPauseMs: 60_000,
      giveUpMs: 3_600_000,
      keepMs: 86_400_000,
      maxSeriesBytes: 1e9,
    },
    ...more,
  };
}

export interface ArchivedSeries {
  study: string;
  modality?: string;
  uids: string[];
}

/** A source that holds what is put into `series`, by series UID. `fault` is thrown by all that it is asked. */
export interface TableSource extends Source {
  readonly series: Map<string, ArchivedSeries>;
  fault?: unknown;
  asked: number;
}

export function tableSource(name: string): TableSource {
  const series = new Map<string, ArchivedSeries>();
  const seenOf = (uid: string, { study, modality, uids }: ArchivedSeries): SeenSeries => ({
    source: name,
    study,
    series: uid,
    modality,
    instances: uids.length,
  });
  const source: TableSource = {
    name,
    series,
    asked: 0,
    async *search() {
      ask();
      for (const [uid, one] of series) yield seenOf(uid, one);
    },
    async look(_study, uid) {
      ask();
      const found = series.get(uid);
      return found && seenOf(uid, found);
    },
    async instances(_study, uid) {
      ask();
      return series.get(uid)?.uids ?? [];
    },
    async *fetch(_study, uid) {
      ask();
      for (const each of series.get(uid)?.uids ?? []) yield { name: each, bytes: Buffer.from(each) };
    },
  };
  function ask() {
    source.asked++;
    if (source.fault) throw source.fault;
  }
  return source;
}

/** UIDs of so many instances, the same for the same series. */
export const uidsOf = (series: string, count: number): string[] =>
  Array.from({ length: count }, (_, index) => `${series}.${index + 1}`);

export interface TestGateway extends AsyncDisposable {
  readonly gateway: Awaited<ReturnType<typeof startGateway>>;
  readonly dataFolder: string;
  readonly pacs: TableSource;
  readonly second: TableSource;
  /** What was stored, by result UID: how often. */
  readonly stored: Map<string, number>;
  readonly database: Awaited<ReturnType<typeof openGatewayDatabase>>;
  readonly faults: unknown[];
  /** Sets the steady clock forward, and has the database looked at. */
  pass(ms: number): void;
  nowMs(): number;
  /** Ends the gateway and starts it again, with other options. */
  restart(more?: Partial<GatewayOptions>): Promise<void>;
}

/** As steps do: the result's UID is made of rule and digest, saved, and stored where it is not yet. */
export const storeResult: ProcessSeries = async (row, { source, destinations, save, signal }) => {
  const uids: string[] = [];
  for await (const { name } of source.fetch(row.study, row.series, signal)) uids.push(name);
  await save({ step: 'predict', digest: row.digest });
  await save({ step: 'store' });
  const instance = `${row.rule}:${row.series}:${uids.length}`;
  await destinations[0].store([{ bytes: Buffer.from(instance) } as never], signal);
  const storedAt = [destinations[0].name];
  await save({
    results: [
      { format: 'seg.dcm', sopClass: '1.2', sopInstance: instance, series: `${row.series}.9999`, storedAt },
    ],
  });
};

export async function openTestGateway(options: Partial<GatewayOptions> = {}): Promise<TestGateway> {
  const dataFolder = await mkdtemp(join(tmpdir(), 'tomaat-gateway-'));
  const [pacs, second] = [tableSource('pacs'), tableSource('second')];
  const stored = new Map<string, number>();
  const archive: Destination = {
    name: 'archive',
    async store(objects, signal) {
      signal.throwIfAborted();
      for (const { bytes } of objects as unknown as { bytes: Uint8Array }[]) {
        const uid = Buffer.from(bytes).toString();
        stored.set(uid, (stored.get(uid) ?? 0) + 1);
      }
    },
  };
  let clockMs = Date.UTC(2026, 0, 1);
  const faults: unknown[] = [];
  const open = async (more: Partial<GatewayOptions>) => {
    const database = await openGatewayDatabase(dataFolder);
    const gateway = await startGateway({
      config: configOf(),
      database,
      dataFolder,
      folder: gatewayFolder(dataFolder),
      matchSeen: (rules) => rules,
      processSeries: storeResult,
      destinations: [archive],
      sources: new Map([
        ['pacs', pacs],
        ['second', second],
      ]),
      onFault: (error) => void faults.push(error),
      clock: { nowMs: () => clockMs, settle: async () => 0 },
      tickMs: 5,
      ...more,
    });
    return { database, gateway };
  };
  let opened = await open(options);
  const close = async () => {
    await opened.gateway.close();
    await opened.database.close();
  };
  return {
    get gateway() {
      return opened.gateway;
    },
    get database() {
      return opened.database;
    },
    dataFolder,
    pacs,
    second,
    stored,
    faults,
    pass: (ms) => {
      clockMs += ms;
    },
    nowMs: () => clockMs,
    async restart(more = {}) {
      await close();
      opened = await open({ ...options, ...more });
    },
    async [Symbol.asyncDispose]() {
      await close();
      await rm(dataFolder, { recursive: true, force: true });
    },
  };
}

export const quietMs = 60_000;
export const one = '1.2.3';

/** Has the source hold a series with so many instances, and say so. */
export async function arrive(
  test: TestGateway,
  count: number,
  more: Partial<SeenSeries> = {},
): Promise<void> {
  const { source = 'pacs', series = one, study = '1.2' } = more;
  (source === 'pacs' ? test.pacs : test.second).series.set(series, { study, uids: uidsOf(series, count) });
  await test.gateway.see({ source, study, series, modality: 'CT', instances: count, ...more });
}

export const all = (test: TestGateway) => test.gateway.list({ limit: 1000 });
export const states = async (test: TestGateway) => (await all(test)).map(({ state }) => state);
export const becomes = (test: TestGateway, expected: string[]) =>
  expect.poll(() => states(test), { interval: 5 }).toEqual(expected);
