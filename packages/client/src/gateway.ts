import {
  type GatewaySeries,
  type GatewaySeriesState,
  type GatewaySummary,
  gatewayListSchema,
  gatewaySeriesSchema,
  gatewaySummarySchema,
} from './contract/gateway.ts';
import { type ConnectionOptions, callJson, openConnection } from './http.ts';

export interface GatewayListOptions {
  state?: GatewaySeriesState;
  /** Id of a rule. */
  rule?: string;
  /** `next` of the list before. */
  before?: string;
  /** 1 to 200; 50 if missing. */
  limit?: number;
  signal?: AbortSignal;
}

interface Signalled {
  signal?: AbortSignal;
}

/** A client of a gateway, for those who run it. */
export interface GatewayClient {
  readonly baseUrl: string;
  summary(options?: Signalled): Promise<GatewaySummary>;
  /** Rows, newest first. */
  series(options?: GatewayListOptions): Promise<{ series: GatewaySeries[]; next?: string }>;
  /** @throws TomaatError NOT_FOUND for an unknown row, as all of these */
  find(id: string, options?: Signalled): Promise<GatewaySeries>;
  /** Begins again with a series that has failed or was dropped. */
  retry(id: string, options?: Signalled): Promise<GatewaySeries>;
  /** Stops work on a series; results that are stored already stay. */
  drop(id: string, options?: Signalled): Promise<GatewaySeries>;
}

/** A client of a gateway. Rejects as `createClient` does. */
export function createGatewayClient(options: ConnectionOptions): GatewayClient {
  const connection = openConnection(options);
  const at = (id: string) => `/api/gateway/series/${encodeURIComponent(id)}`;
  return {
    baseUrl: connection.baseUrl,
    async summary({ signal } = {}) {
      return (await callJson(connection, '/api/gateway/summary', gatewaySummarySchema, { signal }))!;
    },
    async series({ signal, ...query } = {}) {
      return (await callJson(connection, '/api/gateway/series', gatewayListSchema, { query, signal }))!;
    },
    async find(id, { signal } = {}) {
      return (await callJson(connection, at(id), gatewaySeriesSchema, { signal }))!;
    },
    async retry(id, { signal } = {}) {
      return (await callJson(connection, `${at(id)}/retry`, gatewaySeriesSchema, {
        method: 'POST',
        signal,
      }))!;
    },
    async drop(id, { signal } = {}) {
      return (await callJson(connection, at(id), gatewaySeriesSchema, { method: 'DELETE', signal }))!;
    },
  };
}
