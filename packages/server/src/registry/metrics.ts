import { Counter, Gauge, Registry } from 'prom-client';
import type { Entries } from './entries.ts';
import type { RelayOutcome } from './relay.ts';

export interface RegistryMetrics {
  readonly registry: Registry;
  readonly announcements: Counter<'face' | 'outcome'>;
  readonly relayed: Counter<'outcome'>;
  countOutcome(outcome: RelayOutcome): void;
}

/** The registry's figures, in a separate collection, so that several apps may run in one process. */
export function createRegistryMetrics(entries: Pick<Entries, 'count'>): RegistryMetrics {
  const registry = new Registry();
  const registers = [registry];
  new Gauge({
    name: 'tomaat_registry_entries',
    help: 'Entries, by how they were announced and whether they are live',
    labelNames: ['face', 'live'],
    registers,
    async collect() {
      this.reset();
      for (const face of ['api', 'v1'] as const) {
        for (const live of [true, false]) this.set({ face, live: String(live) }, 0);
      }
      for (const { face, live, entries: number } of await entries.count())
        this.set({ face, live: String(live) }, number);
    },
  });
  const announcements = new Counter({
    name: 'tomaat_registry_announcements_total',
    help: 'Announcements and renewals',
    labelNames: ['face', 'outcome'] as const,
    registers,
  });
  const relayed = new Counter({
    name: 'tomaat_registry_relayed_requests_total',
    help: 'Relayed requests of the promise, by outcome',
    labelNames: ['outcome'] as const,
    registers,
  });
  return { registry, announcements, relayed, countOutcome: (outcome) => relayed.inc({ outcome }) };
}
