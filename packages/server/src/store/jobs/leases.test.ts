import { describe, expect, it } from 'vitest';
import { createLeases } from './leases.ts';

describe('createLeases()', () => {
  it('ends a lease at its last millisecond, reporting if its worker was heard', () => {
    let nowMs = 100;
    const leases = createLeases(5000, () => nowMs);
    expect(leases.leaseMs).toBe(5000);
    leases.begin('claimed');
    leases.resume('resumed');
    leases.resume('back');
    leases.renew('none');
    expect(['claimed', 'resumed', 'back', 'none'].map((id) => leases.has(id))).toEqual([
      ...[true, true, true, false],
    ]);
    nowMs = 5099;
    expect(leases.takeLapsed()).toEqual([]);
    leases.renew('back');
    nowMs = 5100;
    expect(leases.takeLapsed()).toEqual([
      { id: 'claimed', heard: true },
      { id: 'resumed', heard: false },
    ]);
    expect(leases.has('claimed')).toBe(false);
    expect(leases.takeLapsed()).toEqual([]);
    nowMs = 10_099;
    expect(leases.takeLapsed()).toEqual([{ id: 'back', heard: true }]);
  });

  it('ends none that was given back', () => {
    let nowMs = 0;
    const leases = createLeases(10, () => nowMs);
    leases.begin('a');
    leases.end('a');
    expect(leases.has('a')).toBe(false);
    nowMs = 10;
    expect(leases.takeLapsed()).toEqual([]);
  });
});
