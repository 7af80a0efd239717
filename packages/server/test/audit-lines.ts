import { createHash } from 'node:crypto';

export const sha256Of = (text: string): string => createHash('sha256').update(text).digest('hex');

export interface AuditLine {
  readonly text: string;
  readonly sequence: number;
  readonly sha256: string;
}

/** A line of an audit log, whose hash is right; `from` are its first fields as JSON without braces. */
export function auditLineOf(sequence: number, prev: string, from = eventAt(sequence % 60)): AuditLine {
  const body = `{"seq":${sequence},${from},"prev":"${prev}"}`;
  const sha256 = sha256Of(body);
  return { sequence, sha256, text: `${body.slice(0, -1)},"hash":"${sha256}"}` };
}

/** An event at so many seconds after 2026 began. */
export const eventAt = (second: number, event = 'job.deleted'): string =>
  `"time":"${new Date(Date.UTC(2026, 0, 1, 0, 0, second)).toISOString()}","event":"${event}"`;

/** Lines that follow one another, from the number after `before` on. */
export function auditChain(
  count: number,
  before: Pick<AuditLine, 'sequence' | 'sha256'> = { sequence: 0, sha256: '0'.repeat(64) },
): AuditLine[] {
  const lines: AuditLine[] = [];
  for (let i = 0; i < count; i++) {
    const last = lines.at(-1) ?? before;
    lines.push(auditLineOf(last.sequence + 1, last.sha256));
  }
  return lines;
}

export const textOf = (lines: readonly AuditLine[]): string => lines.map(({ text }) => `${text}\n`).join('');
