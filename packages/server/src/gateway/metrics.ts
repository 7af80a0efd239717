import { gatewaySeriesStates } from '@tomaat/client';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { GatewayMeter, GatewaySummary } from './gateway-type.ts';

export interface GatewayMetrics {
  readonly registry: Registry;
  readonly meter: GatewayMeter;
}

/**
 * The gateway's metrics. Labels are names of the file of rules, steps and codes of errors, never UIDs.
 * @param summary what is true now; undefined if the database cannot say
 */
export function createGatewayMetrics(
  rules: readonly string[],
  summary: () => Promise<GatewaySummary | undefined>,
): GatewayMetrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  new Gauge({
    name: 'tomaat_gateway_series',
    help: 'Series in the database, by rule and state',
    labelNames: ['rule', 'state'] as const,
    registers,
    async collect() {
      this.reset();
      for (const rule of rules) for (const state of gatewaySeriesStates) this.set({ rule, state }, 0);
      for (const { rule, state, count } of (await summary())?.counts ?? []) this.set({ rule, state }, count);
    },
  });
  new Gauge({
    name: 'tomaat_gateway_oldest_waiting_timestamp_seconds',
    help: 'When the oldest series that has not ended was seen, s since 1970; 0 if there is none',
    registers,
    async collect() {
      this.set(((await summary())?.oldestWaitingAt ?? 0) / 1000);
    },
  });
  for (const kind of ['source', 'destination'] as const) {
    const peers = async () => (await summary())?.[`${kind}s`] ?? [];
    new Gauge({
      name: `tomaat_gateway_${kind}_up`,
      help: `Whether the last contact with a ${kind} was without a fault`,
      labelNames: [kind],
      registers,
      async collect() {
        this.reset();
        for (const { name, fault } of await peers()) this.set({ [kind]: name }, fault ? 0 : 1);
      },
    });
    new Gauge({
      name: `tomaat_gateway_${kind}_last_contact_timestamp_seconds`,
      help: `Last contact with a ${kind} without a fault, s since 1970; 0 if there was none`,
      labelNames: [kind],
      registers,
      async collect() {
        this.reset();
        for (const { name, lastOkAt = 0 } of await peers()) this.set({ [kind]: name }, lastOkAt / 1000);
      },
    });
  }
  const seconds = new Histogram({
    name: 'tomaat_gateway_step_seconds',
    help: 'Time of steps that ended well, s',
    labelNames: ['rule', 'step'] as const,
    buckets: [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000],
    registers,
  });
  const faults = new Counter({
    name: 'tomaat_gateway_step_faults_total',
    help: 'Steps that failed, for a while or for good, by the error’s code',
    labelNames: ['rule', 'step', 'code'] as const,
    registers,
  });
  return {
    registry,
    meter: {
      stepEnded: (rule, step, took) => seconds.observe({ rule, step }, took),
      stepFailed: (rule, step, code) => faults.inc({ rule, step, code }),
    },
  };
}
