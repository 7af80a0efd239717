import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { AuditEvent, AuditFacts } from './events.ts';
import { countRefusals } from './refusals.ts';

let lines: [AuditEvent, AuditFacts | undefined][];
const audit = { record: (event: AuditEvent, facts?: AuditFacts) => void lines.push([event, facts]) };
beforeEach(() => {
  lines = [];
  vi.useFakeTimers();
});
afterEach(() => vi.useRealTimers());

describe('countRefusals()', () => {
  it('writes two lines a minute for any number of equal refusals', () => {
    using recorder = countRefusals(audit);
    for (let i = 0; i < 1000; i++)
      recorder.record('access.denied', { outcome: 'UNAUTHORIZED', route: `GET /${i}` });
    expect(lines).toEqual([['access.denied', { outcome: 'UNAUTHORIZED', route: 'GET /0' }]]);
    vi.advanceTimersByTime(60_000);
    expect(lines.slice(1)).toEqual([['access.denied', { outcome: 'UNAUTHORIZED', count: 999 }]]);
    vi.advanceTimersByTime(600_000);
    expect(lines).toHaveLength(2);
    recorder.record('access.denied', { outcome: 'UNAUTHORIZED' });
    expect(lines).toHaveLength(3);
  });

  it('keeps callers, outcomes and failed logins apart', () => {
    using recorder = countRefusals(audit);
    for (const facts of [
      { who: 'key:a', keyId: 'a', outcome: 'FORBIDDEN' },
      { who: 'key:b', keyId: 'b', outcome: 'FORBIDDEN' },
      { who: 'key:a', keyId: 'a', outcome: 'NOT_FOUND', job: 'j' },
    ])
      for (let i = 0; i < 3; i++) recorder.record('access.denied', facts);
    recorder.record('login.failed', { outcome: 'FORBIDDEN' });
    expect(lines.map(([event, facts]) => [event, facts?.who, facts?.outcome, facts?.job])).toEqual([
      ['access.denied', 'key:a', 'FORBIDDEN', undefined],
      ['access.denied', 'key:b', 'FORBIDDEN', undefined],
      ['access.denied', 'key:a', 'NOT_FOUND', 'j'],
      ['login.failed', undefined, 'FORBIDDEN', undefined],
    ]);
    vi.advanceTimersByTime(60_000);
    expect(lines.slice(4).map(([, facts]) => [facts?.who, facts?.count, facts?.job])).toEqual([
      ['key:a', 2, undefined],
      ['key:b', 2, undefined],
      ['key:a', 2, undefined],
    ]);
  });

  it('limits the kinds per minute: all further ones count as one', () => {
    using recorder = countRefusals(audit, { maxKinds: 5 });
    for (let i = 0; i < 50; i++)
      for (let n = 0; n < 2; n++)
        recorder.record('access.denied', { who: `legacy:${i}`, outcome: 'NOT_FOUND' });
    vi.advanceTimersByTime(60_000);
    const counted = lines.reduce((sum, [, facts]) => sum + (facts?.count ?? 1), 0);
    expect(counted).toBe(100);
    expect(lines).toHaveLength(5 + 1 + 5 + 1);
    expect(lines.filter(([, facts]) => facts?.who === undefined)).toEqual([
      ['access.denied', { outcome: 'NOT_FOUND' }],
      ['access.denied', { outcome: 'NOT_FOUND', count: 89 }],
    ]);
  });

  it('writes the rest when disposed, and passes all other events on', () => {
    const recorder = countRefusals(audit);
    for (let i = 0; i < 3; i++) recorder.record('result.read', { job: `${i}` });
    recorder.record('access.denied', { outcome: 'FORBIDDEN' });
    recorder.record('access.denied', { outcome: 'FORBIDDEN' });
    recorder[Symbol.dispose]();
    expect(lines.map(([event]) => event)).toEqual([
      ...['result.read', 'result.read', 'result.read', 'access.denied', 'access.denied'],
    ]);
    expect(lines.at(-1)?.[1]).toEqual({ outcome: 'FORBIDDEN', count: 1 });
  });

  it('counts until the end of a minute, and stops when disposed', () => {
    const recorder = countRefusals(audit);
    for (let i = 0; i < 2; i++) recorder.record('access.denied');
    expect(lines).toEqual([['access.denied', {}]]);
    vi.advanceTimersByTime(59_999);
    expect(lines).toHaveLength(1);
    vi.advanceTimersByTime(1);
    expect(lines).toEqual([
      ['access.denied', {}],
      ['access.denied', { count: 1 }],
    ]);
    recorder[Symbol.dispose]();
    expect(vi.getTimerCount()).toBe(0);
    expect(lines).toHaveLength(2);
  });

  it('goes by the key where no owner is known', () => {
    using recorder = countRefusals(audit, { everyMs: 10 });
    for (const keyId of ['a', 'b', 'a']) recorder.record('access.denied', { keyId, outcome: 'FORBIDDEN' });
    recorder.record('access.denied', { who: 'key:a', keyId: 'b', outcome: 'FORBIDDEN' });
    recorder.record('access.denied', { who: 'key:a', keyId: 'c', outcome: 'FORBIDDEN' });
    expect(lines.map(([, facts]) => [facts?.who, facts?.keyId])).toEqual([
      [undefined, 'a'],
      [undefined, 'b'],
      ['key:a', 'b'],
    ]);
    vi.advanceTimersByTime(10);
    expect(lines.slice(3).map(([, facts]) => facts)).toEqual([
      { keyId: 'a', outcome: 'FORBIDDEN', count: 1 },
      { who: 'key:a', keyId: 'b', outcome: 'FORBIDDEN', count: 1 },
    ]);
  });

  it('distinguishes a hundred kinds', () => {
    using recorder = countRefusals(audit);
    for (let i = 0; i < 101; i++)
      recorder.record('access.denied', { who: `legacy:${i}`, outcome: 'NOT_FOUND' });
    expect(lines[99][1]).toEqual({ who: 'legacy:99', outcome: 'NOT_FOUND' });
    expect(lines[100][1]).toEqual({ outcome: 'NOT_FOUND' });
  });
});
