import { jobStates } from '@tomaat/client';
import type { FastifyInstance } from 'fastify';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { Certificates } from '../certificates.ts';
import type { Jobs } from '../store/jobs/jobs.ts';

export interface ServerMetrics {
  readonly registry: Registry;
  text(): Promise<string>;
  predictionSettled(service: string, outcome: string, seconds?: number): void;
}

/** The server's metrics. Labels are names from manifests and routes, never anything that a caller sent. */
export function createServerMetrics(
  app: FastifyInstance,
  jobs: Jobs,
  services: readonly string[],
): ServerMetrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  new Gauge({
    name: 'tomaat_jobs',
    help: 'Jobs on disk, by state',
    labelNames: ['state'],
    registers,
    async collect() {
      const counts = await jobs.counts();
      for (const state of jobStates) this.set({ state }, counts[state] ?? 0);
    },
  });
  new Gauge({
    name: 'tomaat_service_jobs',
    help: 'Unsettled jobs by service and state (queued or running): how many workers there is work for',
    labelNames: ['service', 'state'],
    registers,
    async collect() {
      // A service without jobs has zeros, so that who starts workers can tell it from one that does not exist.
      for (const service of services)
        for (const state of ['queued', 'running']) this.set({ service, state }, 0);
      for (const { service, state, count } of await jobs.unsettledCounts())
        if (services.includes(service)) this.set({ service, state }, count);
    },
  });
  const predictions = new Counter({
    name: 'tomaat_predictions_total',
    help: 'Settled predictions, by service and outcome (succeeded or an error code)',
    labelNames: ['service', 'outcome'],
    registers,
  });
  const seconds = new Histogram({
    name: 'tomaat_prediction_seconds',
    help: 'Time of successful predictions in their worker, s',
    labelNames: ['service'],
    buckets: [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000],
    registers,
  });
  const requests = new Histogram({
    name: 'tomaat_http_request_seconds',
    help: 'Time of HTTP requests, s',
    labelNames: ['method', 'route', 'status'],
    buckets: [0.005, 0.02, 0.1, 0.5, 2, 10, 60],
    registers,
  });
  app.addHook('onResponse', async (request, reply) => {
    const labels = {
      method: request.method,
      route: request.routeOptions.url ?? 'unknown',
      status: reply.statusCode,
    };
    requests.observe(labels, reply.elapsedTime / 1000);
  });
  return {
    registry,
    text: () => registry.metrics(),
    predictionSettled(service, outcome, took) {
      predictions.inc({ service, outcome });
      if (took !== undefined) seconds.observe({ service }, took);
    },
  };
}

/** When the certificate expires, for an alarm before it does. */
export function addCertificateExpiry(registry: Registry, certificates: Certificates): void {
  new Gauge({
    name: 'tomaat_certificate_expiry_timestamp_seconds',
    help: 'When the TLS certificate expires, s since 1970',
    registers: [registry],
    collect() {
      this.set(certificates.current.validToMs / 1000);
    },
  });
}
