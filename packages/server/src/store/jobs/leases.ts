/**
 * The jobs that remote workers hold. A worker that is silent for the time of its lease loses its job. Leases use a
 * monotonic clock: setting the wall clock neither ends nor prolongs them.
 */
export interface Leases {
  readonly leaseMs: number;
  /** A worker has claimed the job. */
  begin(id: string): void;
  /** The job was claimed before this process started; its worker has the time of a lease to reconnect. */
  resume(id: string): void;
  /** Its worker was heard from; has no effect on a job that no worker holds. */
  renew(id: string): void;
  end(id: string): void;
  has(id: string): boolean;
  /** Ends the expired leases. `heard`: whether this process ever heard from the worker. */
  takeLapsed(): { id: string; heard: boolean }[];
}

export function createLeases(leaseMs: number, monotonicMs: () => number): Leases {
  const leases = new Map<string, { untilMs: number; heard: boolean }>();
  const set = (id: string, heard: boolean) => leases.set(id, { untilMs: monotonicMs() + leaseMs, heard });
  return {
    leaseMs,
    begin: (id) => void set(id, true),
    resume: (id) => void set(id, false),
    renew(id) {
      if (leases.has(id)) set(id, true);
    },
    end: (id) => void leases.delete(id),
    has: (id) => leases.has(id),
    takeLapsed() {
      const nowMs = monotonicMs();
      const lapsed = [...leases].filter(([, { untilMs }]) => untilMs <= nowMs);
      for (const [id] of lapsed) leases.delete(id);
      return lapsed.map(([id, { heard }]) => ({ id, heard }));
    },
  };
}
