import type { Audit } from './audit-log.ts';
import type { AuditEvent, AuditFacts } from './events.ts';

/** Events that an unauthenticated client can cause without limit. */
const counted: ReadonlySet<AuditEvent> = new Set(['access.denied', 'login.failed']);

export interface Recorder extends Disposable {
  record(event: AuditEvent, facts?: AuditFacts): void;
}

/**
 * Records events in the audit log so that a flood of refusals does not fill the disk. Of the refusals of one caller
 * (an owner, or all unknown callers) with one outcome, the first in a minute becomes a line at once, and the others
 * in that minute one line with their number. Beyond `maxKinds` kinds in a minute the rest count as one kind without
 * a caller. Every other event becomes a line at once.
 */
export function countRefusals(
  audit: Pick<Audit, 'record'>,
  { everyMs = 60_000, maxKinds = 100 }: { everyMs?: number; maxKinds?: number } = {},
): Recorder {
  const kinds = new Map<string, { event: AuditEvent; facts: AuditFacts; more: number }>();

  function sum(): void {
    for (const { event, facts, more } of kinds.values())
      if (more > 0) audit.record(event, { ...facts, count: more });
    kinds.clear();
  }
  const timer = setInterval(sum, everyMs);
  timer.unref();

  return {
    record(event, facts = {}) {
      if (!counted.has(event)) return audit.record(event, facts);
      const { who, keyId, outcome } = facts;
      const own = JSON.stringify([event, outcome, who ?? keyId]);
      const isOther = !kinds.has(own) && kinds.size >= maxKinds;
      const kind = isOther ? JSON.stringify([event, outcome, 'others']) : own;
      const known = kinds.get(kind);
      if (known) {
        known.more++;
        return;
      }
      kinds.set(kind, { event, facts: isOther ? { outcome } : { who, keyId, outcome }, more: 0 });
      audit.record(event, isOther ? { outcome } : facts);
    },
    [Symbol.dispose]() {
      clearInterval(timer);
      sum();
    },
  };
}
