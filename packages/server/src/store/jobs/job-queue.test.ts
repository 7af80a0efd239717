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

  it('raises waiting jobs to prevent starvation', () => {
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

  it('keeps a service to its limit until a job ends; others continue', () => {
    const queue = filled([job('1'), job('2'), job('other', { service: 't' })], { s: 1 });
    queue.start('1', { service: 's', owner: 'a', attempt: 1 });
    expect(queue.next(['s', 't'])?.id).toBe('other');
    expect(queue.next(['s'])).toBeUndefined();
    queue.remove('1');
    expect(queue.next(['s'])?.id).toBe('2');
  });

  it('ignores jobs for services that are not requested', () => {
    expect(filled([job('1')]).next(['t'])).toBeUndefined();
    expect(filled([job('1')]).positionOf('2')).toBeUndefined();
  });

  it('raises a job by one class at the end of each five minutes', () => {
    const jobs = (createdMs: number) => [job('old', { urgency: 4, createdMs }), job('new', { createdMs: 0 })];
    const rises = (nowMs: number) => serve(filled(jobs(0), {}, nowMs))[0];
    // Both wait as long: the more urgent one stays ahead until both are of the first class.
    expect(rises(299_999)).toBe('new');
    const late = (nowMs: number) =>
      serve(
        filled([job('old', { urgency: 4, createdMs: 0 }), job('new', { createdMs: nowMs })], {}, nowMs),
      )[0];
    expect(late(299_999)).toBe('new');
    expect(late(300_000)).toBe('old');
    expect(serve(filled(jobs(0), {}, 1_200_000))).toEqual(['old', 'new']);
    // A clock that is set back makes none less urgent.
    expect(
      serve(filled([job('1', { createdMs: 900_000 }), job('2', { urgency: 4, createdMs: 0 })], {}, 0)),
    ).toEqual(['1', '2']);
  });

  it('reports positions again after each change', () => {
    const [one, two, three] = [job('1'), job('2'), job('3', { owner: 'b' })];
    const queue = filled([one, two]);
    const positions = () => ['1', '2', '3'].map((id) => queue.positionOf(id));
    expect(positions()).toEqual([0, 1, undefined]);
    queue.add(three);
    expect(positions()).toEqual([0, 2, 1]);
    queue.start('1', { service: 's', owner: 'a', attempt: 1 });
    expect(positions()).toEqual([undefined, 1, 0]);
    queue.remove('3');
    expect(positions()).toEqual([undefined, 0, undefined]);
    queue.add(three);
    // The end of what runs gives its owner the place back that the turn took.
    queue.remove('1');
    expect(positions()).toEqual([undefined, 1, 0]);
  });

  it('counts the jobs of an owner that run for their positions', () => {
    const queue = filled([job('a1'), job('a2'), job('b1', { owner: 'b' }), job('b2', { owner: 'b' })]);
    queue.start('a0', { service: 's', owner: 'a', attempt: 1 });
    expect(['b1', 'b2', 'a1', 'a2'].map((id) => queue.positionOf(id))).toEqual([0, 1, 2, 3]);
    queue.start('a00', { service: 's', owner: 'a', attempt: 1 });
    expect(['b1', 'b2', 'a1', 'a2'].map((id) => queue.positionOf(id))).toEqual([0, 1, 2, 3]);
    queue.remove('a0');
    queue.remove('a00');
    queue.start('b0', { service: 's', owner: 'b', attempt: 1 });
    queue.remove('b0');
    expect(['a1', 'b1', 'a2', 'b2'].map((id) => queue.positionOf(id))).toEqual([0, 1, 2, 3]);
  });

  it('counts an owner’s jobs separately for each urgency', () => {
    const jobs = [
      job('a1', { urgency: 0 }),
      job('a2', { urgency: 0 }),
      job('a3', { createdMs: 1000 }),
      job('b1', { owner: 'b', createdMs: 1001 }),
    ];
    const queue = filled(jobs, {}, 1001);
    expect(jobs.map(({ id }) => queue.positionOf(id))).toEqual([0, 1, 2, 3]);
  });

  it('knows what waits and what runs', () => {
    const queue = filled([job('1'), job('2', { owner: 'b' }), job('3')]);
    expect(queue.length).toBe(3);
    expect(queue.ownersWaiting()).toEqual(['a', 'b', 'a']);
    queue.start('2', { service: 's', owner: 'b', attempt: 4 });
    expect(queue.length).toBe(2);
    expect(queue.ownersWaiting()).toEqual(['a', 'a']);
    expect(queue.attemptOf('2')).toBe(4);
    expect(queue.attemptOf('1')).toBeUndefined();
    expect([...queue.running()]).toEqual([['2', { service: 's', owner: 'b', attempt: 4 }]]);
    expect(queue.remove('1')).toBe(false);
    expect(queue.remove('2')).toBe(true);
    expect(queue.remove('2')).toBe(false);
    expect(queue.attemptOf('2')).toBeUndefined();
    expect([...queue.running()]).toEqual([]);
    expect(queue.length).toBe(1);
  });

  it('goes by arrival among jobs of one millisecond, however they were added', () => {
    const [first, second] = [job('first'), job('second')];
    expect(serve(filled([second, first]))).toEqual(['first', 'second']);
    const queue = filled([second, first]);
    expect([queue.positionOf('first'), queue.positionOf('second')]).toEqual([0, 1]);
  });

  it('lets as many jobs of a service run as its limit says', () => {
    const queue = filled([job('1'), job('2'), job('3')], { s: 2 });
    queue.start('1', { service: 's', owner: 'a', attempt: 1 });
    expect(queue.next(['s'])?.id).toBe('2');
    queue.start('2', { service: 's', owner: 'a', attempt: 1 });
    expect(queue.next(['s'])).toBeUndefined();
    expect(filled([job('1')], { s: 0 }).next(['s'])).toBeUndefined();
  });
});
