import { describe, expect, it } from 'vitest';
import { createJobQueue, type QueuedJob } from './job-queue.ts';

let order = 0;
const job = (id: string, more: Partial<QueuedJob> = {}): QueuedJob => ({
  id,
  service: 's',
  owner: 'a',
  urgency: 3,
  createdMs: 1000,
  attempt: 0,
  order: order++,
  ...more,
});

/** Ids in the order in which they are served, each ending before the next one starts. */
function serve(queue: ReturnType<typeof createJobQueue>, services = ['s']): string[] {
  const ids: string[] = [];
  for (let next = queue.next(services); next; next = queue.next(services)) {
    ids.push(next.id);
    queue.start(next.id, { service: next.service, owner: next.owner, attempt: 1 });
    queue.remove(next.id);
  }
  return ids;
}

function filled(jobs: readonly QueuedJob[], limits: Record<string, number> = {}, nowMs = 1000) {
  const queue = createJobQueue(
    (service) => limits[service],
    () => nowMs,
  );
  for (const one of jobs) queue.add(one);
  return queue;
}

describe('createJobQueue()', () => {
  it('serves first come, first served', () => {
    expect(serve(filled([job('2', { createdMs: 1001 }), job('1'), job('3', { createdMs: 1002 })]))).toEqual([
      '1',
      '2',
      '3',
    ]);
  });

  it('serves the more urgent first', () => {
    expect(serve(filled([job('1'), job('late', { urgency: 7 }), job('now', { urgency: 0 })]))).toEqual([
      'now',
      '1',
      'late',
    ]);
  });

  it('raises what waits, so that nothing starves', () => {
    const jobs = [job('old', { urgency: 7, createdMs: 0 }), job('new', { urgency: 3, createdMs: 1_300_000 })];
    expect(serve(filled(jobs, {}, 1_300_000))).toEqual(['old', 'new']);
    expect(serve(filled(jobs, {}, 600_000))).toEqual(['new', 'old']);
  });

  it('lets owners take turns, however many jobs one of them has', () => {
    const jobs = [
      job('a1'),
      job('a2'),
      job('a3'),
      job('b1', { owner: 'b', createdMs: 2000 }),
      job('b2', { owner: 'b', createdMs: 2000 }),
    ];
    const queue = filled(jobs);
    const positions = jobs.map(({ id }) => queue.positionOf(id));
    const served = serve(queue);
    expect(served).toEqual(['a1', 'b1', 'a2', 'b2', 'a3']);
    expect(positions).toEqual(jobs.map(({ id }) => served.indexOf(id)));
  });

  it('prefers the owner with the fewest jobs running', () => {
    const queue = filled([job('a1'), job('b1', { owner: 'b', createdMs: 2000 })]);
    queue.start('a0', { service: 's', owner: 'a', attempt: 1 });
    expect(queue.next(['s'])?.id).toBe('b1');
  });

  it('keeps a service to its limit while others go on, and frees its place at the end of a job', () => {
    const queue = filled([job('1'), job('2'), job('other', { service: 't' })], { s: 1 });
    queue.start('1', { service: 's', owner: 'a', attempt: 1 });
    expect(queue.next(['s', 't'])?.id).toBe('other');
    expect(queue.next(['s'])).toBeUndefined();
    queue.remove('1');
    expect(queue.next(['s'])?.id).toBe('2');
  });

  it('knows nothing of jobs for services that nobody asks for', () => {
    expect(filled([job('1')]).next(['t'])).toBeUndefined();
    expect(filled([job('1')]).positionOf('2')).toBeUndefined();
  });
});
