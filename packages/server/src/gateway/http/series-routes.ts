import {
  type GatewaySeries,
  type GatewaySummary as GatewaySummaryWire,
  gatewaySeriesQuery,
} from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { AuditEvent } from '../../audit/events.ts';
import type { Recorder } from '../../audit/refusals.ts';
import { digestOfUid } from '../../audit/uid-digest.ts';
import { queryWords } from '../../intake/query.ts';
import { checkJson } from '../../intake/read-json.ts';
import type { GatewayConfig } from '../config.ts';
import type { Gateway, GatewaySummary, PeerHealth } from '../gateway-type.ts';
import type { SeriesRow } from '../series.ts';
import type { Summary } from '../summary.ts';

export interface SeriesRoutes {
  readonly config: GatewayConfig;
  readonly gateway: Gateway;
  readonly audit: Pick<Recorder, 'record'>;
  readonly summary: Summary;
}

/** The API of the page: what came, what waits, what failed and why; again, or no more. */
export function registerSeriesRoutes(
  app: FastifyInstance,
  { config, gateway, audit, summary }: SeriesRoutes,
): void {
  app.get('/api/gateway/summary', async () => summaryToWire(await summary.now(), config));

  app.get('/api/gateway/series', async (request) => {
    const query = checkJson(
      queryWords(request),
      gatewaySeriesQuery,
      'Correct the query; GET /api/openapi.json describes it.',
    );
    const { limit } = query;
    const rows = await gateway.list({ ...query, limit: limit + 1 });
    const shown = rows.slice(0, limit);
    return { series: shown.map(rowToWire), next: rows.length > limit ? shown.at(-1)?.id : undefined };
  });

  app.get('/api/gateway/series/:id', async (request) => {
    const id = idOf(request);
    const row = await gateway.find(id);
    if (!row) throw unknownRow(id);
    return rowToWire(row);
  });

  app.post('/api/gateway/series/:id/retry', async (request) => {
    const row = await gateway.retry(idOf(request));
    summary.forget();
    note('series.retried', row, request);
    return rowToWire(row);
  });

  app.delete('/api/gateway/series/:id', async (request) => {
    const row = await gateway.drop(idOf(request));
    summary.forget();
    note('series.dropped', row, request);
    return rowToWire(row);
  });

  function note(event: AuditEvent, row: SeriesRow, { principal }: FastifyRequest): void {
    const { rule, source, study, series } = row;
    const uids = { study: digestOfUid(study), series: digestOfUid(series) };
    audit.record(event, { who: principal?.owner, keyId: principal?.keyId, rule, source, ...uids });
  }
}

const idOf = (request: FastifyRequest) => (request.params as { id: string }).id;

const unknownRow = (id: string) =>
  new TomaatError(
    'NOT_FOUND',
    `There is no row ${id.slice(0, 100)}: it was deleted some days after its end, or the id is wrong. GET /api/gateway/series lists them.`,
  );

const timeOf = (ms: number): string => new Date(ms).toISOString();
const timeIfAny = (ms: number | undefined) => (ms === undefined ? undefined : timeOf(ms));

/** A row as it is told: what is here and nothing else. */
export function rowToWire(row: SeriesRow): GatewaySeries {
  return {
    id: row.id,
    rule: row.rule,
    source: row.source,
    study: row.study,
    series: row.series,
    modality: row.modality,
    description: row.description,
    state: row.state,
    step: row.step,
    instances: row.instances,
    predecessor: row.predecessor,
    job: row.job,
    results: row.results.map(({ format, sopClass, sopInstance, series, storedAt }) => ({
      format,
      sopClass,
      sopInstance,
      series,
      storedAt: [...storedAt],
    })),
    reason: row.reason && { code: row.reason.code, message: row.reason.message },
    attempts: row.attempts,
    seenTime: timeOf(row.seenAt),
    changedTime: timeOf(row.changedAt),
    dueTime: row.endedAt === undefined ? timeOf(row.dueAt) : undefined,
    endedTime: timeIfAny(row.endedAt),
  };
}

function summaryToWire(
  { counts, sources, destinations, oldestWaitingAt, databaseFault }: GatewaySummary,
  { rules }: GatewayConfig,
): GatewaySummaryWire {
  return {
    rules: rules.map(({ id, service, destinations }) => ({ id, service, destinations: [...destinations] })),
    counts: counts.map(({ rule, state, count }) => ({ rule, state, count })),
    sources: sources.map(peerToWire),
    destinations: destinations.map(peerToWire),
    oldestWaitingTime: timeIfAny(oldestWaitingAt),
    databaseFault: databaseFault && { code: databaseFault.code, message: databaseFault.message },
  };
}

const peerToWire = ({ name, lastOkAt, fault }: PeerHealth): GatewaySummaryWire['sources'][number] => ({
  name,
  lastOkTime: timeIfAny(lastOkAt),
  fault: fault && { code: fault.code, message: fault.message, sinceTime: timeOf(fault.since) },
});
