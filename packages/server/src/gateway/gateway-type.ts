import type { Recorder } from '../audit/refusals.ts';
import type { Database } from '../store/database/database.ts';
import type { GatewaySchema } from '../store/database/gateway-database.ts';
import type { SeenSeries, SeriesRow, SeriesState, Step } from './series.ts';

/*
 * What works on series (started by `startGateway()`), as HTTP, the page and the commands see it; and what it is given to work with.
 */

export interface Gateway {
  /** Commits a row for each rule that matches. A series that is known as it is changes nothing. */
  see(seen: SeenSeries): Promise<void>;
  /** Newest first. `before`: the id of the last row of the list before. */
  list(filter: SeriesFilter): Promise<SeriesRow[]>;
  find(id: string): Promise<SeriesRow | undefined>;
  /** @throws TomaatError NOT_FOUND, or CONFLICT for a row that is neither failed nor dropped */
  retry(id: string): Promise<SeriesRow>;
  /** @throws TomaatError NOT_FOUND, or CONFLICT for a row that has ended otherwise */
  drop(id: string): Promise<SeriesRow>;
  summary(): Promise<GatewaySummary>;
  close(): Promise<void>;
}

export interface SeriesFilter {
  readonly state?: SeriesState;
  readonly rule?: string;
  readonly before?: string;
  readonly limit: number;
}

export interface GatewaySummary {
  readonly counts: readonly { rule: string; state: SeriesState; count: number }[];
  readonly sources: readonly PeerHealth[];
  readonly destinations: readonly PeerHealth[];
  /** When the oldest row that has not ended was seen, ms since 1970. */
  readonly oldestWaitingAt?: number;
  readonly databaseFault?: { readonly code: string; readonly message: string };
}

/** Whether a source or destination answers. */
export interface PeerHealth {
  readonly name: string;
  /** Last contact without a fault, ms since 1970. */
  readonly lastOkAt?: number;
  readonly fault?: { readonly code: string; readonly message: string; readonly since: number };
}

/** Notes what is measured; names of rules and steps and codes of errors alone become labels. */
export interface GatewayMeter {
  /** A step has ended well. */
  stepEnded(rule: string, step: Step, seconds: number): void;
  /** A step has failed, to be tried again or for good. */
  stepFailed(rule: string, step: Step, code: string): void;
}

/** What the server of the gateway gives to what works on series. Closed after it. */
export interface GatewayTools {
  readonly database: Database<GatewaySchema>;
  /** The gateway's own part of the data folder (`DATA/gateway`), held by this process. */
  readonly folder: string;
  readonly dataFolder: string;
  readonly audit: Pick<Recorder, 'record'>;
  readonly meter: GatewayMeter;
}
export type OpenGateway = (tools: GatewayTools) => Promise<Gateway>;
