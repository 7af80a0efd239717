import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import pino from 'pino';
import type { GatewayConfig, Rule } from '../src/gateway/config.ts';
import type { Gateway, GatewaySummary, GatewayTools, PeerHealth } from '../src/gateway/gateway-type.ts';
import type { SeenSeries, SeriesRow, SeriesState } from '../src/gateway/series.ts';
import { type GatewayServerOptions, type RunningGateway, startGatewayServer } from '../src/gateway/start.ts';
import { knownDatabaseOf } from './support/tested-database.ts';

/* A gateway whose rows are in memory, behind the real HTTP, database of keys and audit log. */

export const hookSecret = 'the secret of the hook, long enough';

const rule = (id: string, service: string): Rule => ({
  id,
  when: {},
  service,
  destinations: ['pacs'],
  parameters: {},
  results: ['seg.dcm', 'sr.dcm'],
  keepIdentity: false,
  keepPatientCharacteristics: false,
  urgency: 3,
});

export const testConfig: GatewayConfig = {
  sources: {
    door: {
      type: 'orthanc',
      url: 'http://127.0.0.1:8042/dicom-web',
      hookSecret,
      pollMs: 60_000,
      sinceDays: 3,
      quietMs: 60_000,
    },
    archive: {
      type: 'dicomweb',
      url: 'http://127.0.0.1:8080/rs',
      pollMs: 60_000,
      sinceDays: 3,
      quietMs: 60_000,
    },
  },
  services: {
    lungs: { url: 'http://127.0.0.1:9000', service: 'ct-lung' },
    brains: { url: 'http://127.0.0.1:9000', service: 'brain' },
  },
  destinations: { pacs: { type: 'dicomweb', url: 'http://127.0.0.1:8042/dicom-web' } },
  rules: [rule('lungs', 'lungs'), rule('brains', 'brains')],
  limits: {
    concurrency: 2,
    firstPauseMs: 10_000,
    longestPauseMs: 600_000,
    giveUpMs: 86_400_000,
    keepMs: 7 * 86_400_000,
    maxSeriesBytes: 2 ** 31,
  },
};

/** A gateway in memory: `see()` makes a waiting row of the first rule. */
export interface MemoryGateway extends Gateway {
  readonly rows: SeriesRow[];
  readonly seen: SeenSeries[];
  health: { sources: PeerHealth[]; destinations: PeerHealth[] };
  /** What every call throws; none if undefined. */
  fault?: Error;
  tools?: GatewayTools;
  isClosed: boolean;
  add(row: Partial<SeriesRow>): SeriesRow;
}

export function createMemoryGateway(config: GatewayConfig = testConfig): MemoryGateway {
  const rows: SeriesRow[] = [];
  const peers = (names: string[]) => names.map((name) => ({ name, lastOkAt: Date.now() }));
  const at = (id: string) => {
    const index = rows.findIndex((row) => row.id === id);
    if (index < 0) throw new TomaatError('NOT_FOUND', `There is no row ${id}. List them.`);
    return index;
  };
  const change = (id: string, states: readonly SeriesState[], to: Partial<SeriesRow>): SeriesRow => {
    const index = at(id);
    if (!states.includes(rows[index].state))
      throw new TomaatError('CONFLICT', `The row ${id} is ${rows[index].state}. Choose another.`);
    rows[index] = { ...rows[index], ...to, changedAt: Date.now() };
    return rows[index];
  };
  const guard = () => {
    if (gateway.fault) throw gateway.fault;
  };
  const gateway: MemoryGateway = {
    rows,
    seen: [],
    health: {
      sources: peers(Object.keys(config.sources)),
      destinations: peers(Object.keys(config.destinations)),
    },
    isClosed: false,
    add(row) {
      const time = row.seenAt ?? Date.now();
      const full: SeriesRow = {
        id: `row${String(rows.length + 1).padStart(4, '0')}`,
        rule: config.rules[0].id,
        source: 'door',
        study: '1.2.3',
        series: `1.2.3.${rows.length + 1}`,
        state: 'waiting',
        step: 'fetch',
        instances: 20,
        results: [],
        attempts: 0,
        seenAt: time,
        changedAt: time,
        dueAt: time + 60_000,
        digest: 'a digest that is not told',
        seed: 'a seed that is not told',
        ...row,
      };
      rows.push(full);
      return full;
    },
    async see(seen) {
      guard();
      gateway.seen.push(seen);
      const {
        isStable: _stable,
        bodyPart: _part,
        studyDescription: _study,
        callingAet: _aet,
        ...rest
      } = seen;
      gateway.add(rest);
    },
    async list({ state, rule, before, limit }) {
      guard();
      const newest = rows.toReversed();
      const start = before === undefined ? 0 : newest.findIndex(({ id }) => id === before) + 1;
      return newest
        .slice(start)
        .filter((row) => (state ?? row.state) === row.state && (rule ?? row.rule) === row.rule)
        .slice(0, limit);
    },
    async find(id) {
      guard();
      return rows.find((row) => row.id === id);
    },
    retry: async (id) =>
      change(id, ['failed', 'dropped'], {
        state: 'queued',
        attempts: 0,
        reason: undefined,
        endedAt: undefined,
      }),
    drop: async (id) =>
      change(id, ['waiting', 'queued', 'running', 'failed'], { state: 'dropped', endedAt: Date.now() }),
    async summary(): Promise<GatewaySummary> {
      guard();
      const counts = new Map<string, { rule: string; state: SeriesState; count: number }>();
      for (const { rule, state } of rows) {
        const key = `${rule} ${state}`;
        counts.set(key, { rule, state, count: (counts.get(key)?.count ?? 0) + 1 });
      }
      const open = rows.filter(({ endedAt }) => endedAt === undefined);
      return {
        counts: [...counts.values()],
        ...gateway.health,
        oldestWaitingAt: open.length > 0 ? Math.min(...open.map(({ seenAt }) => seenAt)) : undefined,
      };
    },
    async close() {
      gateway.isClosed = true;
    },
  };
  return gateway;
}

export interface TestGateway extends RunningGateway {
  readonly gateway: MemoryGateway;
  readonly dataFolder: string;
  [Symbol.asyncDispose](): Promise<void>;
}

/** The real server of a gateway around a gateway in memory, on a free port of loopback. */
export async function startTestGateway(options: Partial<GatewayServerOptions> = {}): Promise<TestGateway> {
  const dataFolder = options.dataFolder ?? (await mkdtemp(join(tmpdir(), 'tomaat-gateway-')));
  const config = options.config ?? testConfig;
  const gateway = createMemoryGateway(config);
  const running = await startGatewayServer({
    config,
    host: '127.0.0.1',
    port: 0,
    logger: pino({ level: process.env.TEST_LOG ?? 'silent' }),
    open: async (tools) => {
      gateway.tools = tools;
      return gateway;
    },
    database: await knownDatabaseOf(dataFolder),
    ...options,
    dataFolder,
  });
  return {
    ...running,
    gateway,
    dataFolder,
    async [Symbol.asyncDispose]() {
      await running.close();
      if (options.dataFolder === undefined) await rm(dataFolder, { recursive: true, force: true });
    },
  };
}
