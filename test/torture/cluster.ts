import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { isSettled, type Job, verifyReceipt } from '@tomaat/client';
import { verifyAuditTable } from '../../packages/server/src/audit/verify-audit.ts';
import { postgresBin } from '../../packages/server/test/support/postgres.ts';
import { type FaultName, faultNames, faults } from './cluster-faults.ts';
import { type Cluster, insistOn, leaseMs, openCluster, type Step, stepsOf } from './cluster-world.ts';
import {
  type Finding,
  finding,
  insist,
  load,
  makeVolumes,
  octets,
  predictionUrl,
  quantile,
  randomOf,
  sha256,
  slowApp,
} from './harness.ts';

/** The services, with the most predictions of each at a time. */
const limits: Record<string, number> = { one: 1, two: 2, three: 3, long: 2 };
/** Those of the callers under faults; the others are for the outage. */
const busyServices = ['one', 'two', 'three'];
const owners = 3;
/** How long a job may take to settle when all is well again. */
const settleLimitMs = 180_000;

interface Sent {
  readonly id: string;
  readonly owner: string;
  readonly service: string;
  readonly volume: number;
}

/** A job, followed by its events until they say that it has ended. */
interface Followed {
  readonly job: Job | undefined;
  readonly atMs: number;
  readonly connections: number;
}

/**
 * Two servers over one PostgreSQL, three workers, three owners; kill -9 and pauses of each, connections that are cut, kill -9 of the
 * database. PostgreSQL itself notes each change of a state, and what it noted is checked.
 *
 * @param seconds for how long faults go on; each of `only` is made once at least
 */
export async function cluster(
  folder: string,
  { seconds, seed, only = faultNames }: { seconds: number; seed: number; only?: readonly FaultName[] },
): Promise<Finding[]> {
  if (!postgresBin)
    return [finding(true, 'servers over one PostgreSQL', 'not tried: PostgreSQL is not here')];
  const volumes = await makeVolumes();
  const computeMs: Record<string, number> = {
    one: 60,
    two: 200,
    three: 400,
    long: leaseMs * 3,
  };
  const apps: string[] = [];
  for (const [id, concurrency] of Object.entries(limits))
    apps.push(await slowApp(folder, id, computeMs[id], { limits: { concurrency } }));
  await using world = await openCluster(folder, apps, { owners });
  const expected = await undisturbed(world, volumes);
  const findings = [await fairness(world, volumes), await outage(world, volumes, expected)];
  findings.push(...(await disturbed(world, volumes, expected, { seconds, random: randomOf(seed), only })));
  return findings;
}

/** The digest of each result, by service and volume, before anything is disturbed. */
async function undisturbed(
  world: Cluster,
  volumes: readonly Uint8Array<ArrayBuffer>[],
): Promise<Map<string, string>> {
  const until = AbortSignal.timeout(120_000);
  const asked = busyServices.flatMap((service) => volumes.map((_, volume) => ({ service, volume })));
  asked.push({ service: 'long', volume: 0 });
  const digests = new Map<string, string>();
  await Promise.all(
    asked.map(async (one) => {
      const sent = await send(world, volumes, { ...one, owner: world.owners[0] }, until);
      const { job } = await follow(world, sent, until);
      digests.set(nameOf(sent), job ? await resultOf(world, sent, job, until) : 'none');
    }),
  );
  return digests;
}

const nameOf = ({ service, volume }: Pick<Sent, 'service' | 'volume'>) => `${service} ${volume}`;
const bearer = (key: string) => ({ authorization: `Bearer ${key}` });

/** Sends a prediction until a server has accepted it. */
async function send(
  { url }: Cluster,
  volumes: readonly Uint8Array<ArrayBuffer>[],
  { service, volume, owner }: Omit<Sent, 'id'>,
  until: AbortSignal,
): Promise<Sent> {
  const headers = { ...octets, ...bearer(owner), 'idempotency-key': randomUUID() };
  const init = { method: 'POST', body: volumes[volume], headers };
  const response = await insist(predictionUrl(url, service), init, until);
  const text = await response.text();
  if (response.status !== 202) throw new Error(`${service} answered ${response.status}: ${text}`);
  return { id: (JSON.parse(text) as Job).id, service, volume, owner };
}

/** Reads the events of a job until its last; a connection that ends before is made again. */
async function follow({ url }: Cluster, { id, owner }: Sent, until: AbortSignal): Promise<Followed> {
  for (let connections = 1; ; connections++) {
    until.throwIfAborted();
    try {
      const response = await fetch(`${url}/api/jobs/${id}/events`, { headers: bearer(owner), signal: until });
      if (response.status === 404) return { job: undefined, atMs: Date.now(), connections };
      let text = '';
      if (response.ok && response.body) {
        for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
          text += chunk;
          for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
            const data = text
              .slice(0, end)
              .split('\n')
              .find((line) => line.startsWith('data: {"id"'));
            text = text.slice(end + 2);
            const job = data && (JSON.parse(data.slice(6)) as Job);
            if (job && isSettled(job)) return { job, atMs: Date.now(), connections };
          }
        }
      }
    } catch {
      until.throwIfAborted();
    }
    await sleep(100);
  }
}

/** The digest of a job's result, if the bytes, the job and the signed receipt agree. */
async function resultOf({ url }: Cluster, { owner }: Sent, job: Job, until: AbortSignal): Promise<string> {
  const primary = job.outputs.find((output) => output.primary);
  if (!primary) return `${job.state} ${job.error?.code ?? ''}`;
  const init = { headers: bearer(owner) };
  const bytes = new Uint8Array(await (await insist(`${url}${primary.url}`, init, until)).arrayBuffer());
  const digest = `sha256:${sha256(bytes)}`;
  if (digest !== primary.digest) return 'torn';
  const text = await (await insist(`${url}/api/jobs/${job.id}/receipt`, init, until)).text();
  const { receipt } = await verifyReceipt(text);
  return receipt.job === job.id && receipt.outputs[0]?.digest === digest ? digest : 'another receipt';
}

/** One owner has many jobs; the first of another, sent later, is among the next two that start. */
async function fairness(world: Cluster, volumes: readonly Uint8Array<ArrayBuffer>[]): Promise<Finding> {
  const until = AbortSignal.timeout(120_000);
  const [first, second] = world.owners;
  const of = (owner: string) => send(world, volumes, { service: 'one', volume: 0, owner }, until);
  const many = await Promise.all(Array.from({ length: 30 }, () => of(first)));
  const late = await of(second);
  await Promise.all([...many, late].map((sent) => follow(world, sent, until)));
  const steps = (await stepsOf(world)).filter(({ service }) => service === 'one');
  const sentAt = steps.find(({ job, was }) => job === late.id && was === null)!.seq;
  const starts = steps.filter(({ seq, state }) => seq > sentAt && state === 'running');
  const place = starts.findIndex(({ job }) => job === late.id) + 1;
  const waited = many.length - steps.filter(({ seq, state }) => seq < sentAt && state === 'running').length;
  return finding(
    place >= 1 && place <= 2,
    'a second owner starts within two starts',
    `as number ${place}; about ${waited} of the first owner waited`,
  );
}

/** The database is away for longer than a lease, while workers compute: none of their jobs is given to another. */
async function outage(
  world: Cluster,
  volumes: readonly Uint8Array<ArrayBuffer>[],
  expected: ReadonlyMap<string, string>,
): Promise<Finding> {
  const until = AbortSignal.timeout(120_000);
  const [owner] = world.owners;
  const sent = await Promise.all(
    ['long', 'long', 'three'].map((service) => send(world, volumes, { service, volume: 0, owner }, until)),
  );
  const isOne = ({ job }: Step) => sent.some(({ id }) => id === job);
  const running = async () =>
    (await stepsOf(world)).filter((step) => isOne(step) && step.state === 'running').length;
  while ((await running()) < sent.length) {
    until.throwIfAborted();
    await sleep(100);
  }
  await world.postgres.kill();
  await sleep(leaseMs * 1.5);
  await world.postgres.start();
  const followed = await Promise.all(sent.map((one) => follow(world, one, until)));
  let right = 0;
  for (const [index, { job }] of followed.entries())
    if (job && (await resultOf(world, sent[index], job, until)) === expected.get(nameOf(sent[index])))
      right++;
  const requeued = (await stepsOf(world)).filter(
    (step) => isOne(step) && step.was === 'running' && step.state === 'queued',
  );
  return finding(
    right === sent.length && requeued.length === 0,
    'an outage of the database that is longer than a lease requeues nothing',
    `${right} of ${sent.length} with the right result, ${requeued.length} requeued`,
  );
}

async function disturbed(
  world: Cluster,
  volumes: readonly Uint8Array<ArrayBuffer>[],
  expected: ReadonlyMap<string, string>,
  { seconds, random, only }: { seconds: number; random: () => number; only: readonly FaultName[] },
): Promise<Finding[]> {
  const stop = new AbortController();
  const late = new AbortController();
  const sent: Sent[] = [];
  const following: Promise<Followed | undefined>[] = [];
  const refused: string[] = [];
  let unsettled = 0;
  const callers = world.owners.flatMap((owner, which) =>
    busyServices.map(async (service, index) => {
      for (let turn = index; !stop.signal.aborted; turn++) {
        const volume = (turn + which) % volumes.length;
        try {
          const one = await send(world, volumes, { service, volume, owner }, stop.signal);
          sent.push(one);
          unsettled++;
          const follows = follow(world, one, late.signal).catch(() => undefined);
          following.push(follows);
          void follows.then(() => unsettled--);
        } catch (error) {
          if (!stop.signal.aborted) refused.push(String(error));
        }
        // Some wait, without the queue growing for as long as this takes.
        do await sleep(100);
        while (unsettled > 60 && !stop.signal.aborted);
      }
    }),
  );
  const counts = new Map<FaultName, number>();
  const endMs = performance.now() + seconds * 1000;
  for (let done = 0; done < only.length || performance.now() < endMs; done++) {
    await sleep(200 + random() * 1500);
    // Each once before any twice.
    const fewest = Math.min(...only.map((name) => counts.get(name) ?? 0));
    const rare = only.filter((name) => (counts.get(name) ?? 0) === fewest);
    const name = rare[Math.floor(random() * rare.length)];
    counts.set(name, (counts.get(name) ?? 0) + 1);
    await faults[name](world, random);
  }
  stop.abort();
  await Promise.all(callers);
  const limit = setTimeout(() => late.abort(), settleLimitMs);
  const followed = await Promise.all(following);
  clearTimeout(limit);
  const until = AbortSignal.timeout(settleLimitMs);
  const results: string[] = [];
  for (const [index, one] of sent.entries()) {
    const job = followed[index]?.job;
    results.push(job ? await resultOf(world, one, job, until) : 'none');
  }
  const what = `${[...counts].map(([name, count]) => `${count} ${name}`).join(', ')}; ${sent.length} jobs accepted`;
  const steps = await stepsOf(world);
  return [
    ...checkJobs({ sent, followed, results, refused, what, expected, steps }),
    ...checkSteps(steps, sent),
    await checkAudit(world, steps),
  ];
}

function checkJobs({
  sent,
  followed,
  results,
  refused,
  what,
  expected,
  steps,
}: {
  sent: readonly Sent[];
  followed: readonly (Followed | undefined)[];
  results: readonly string[];
  refused: readonly string[];
  what: string;
  expected: ReadonlyMap<string, string>;
  steps: readonly Step[];
}): Finding[] {
  const settledMs = new Map(steps.filter(({ state }) => isEnd(state)).map(({ job, at_ms }) => [job, at_ms]));
  const lost = sent.filter(({ id }) => !settledMs.has(id)).length;
  // What kills a child from outside is, for its worker, a system that is short of memory.
  const lossCodes = ['failed WORKER_DIED', 'failed OUT_OF_MEMORY'];
  const givenUp = results.filter((result) => lossCodes.includes(result)).length;
  const wrong = results.filter(
    (result, index) => result !== expected.get(nameOf(sent[index])) && !lossCodes.includes(result),
  );
  const silent = followed.filter((one) => !one?.job).length;
  const delays = followed.flatMap((one, index) => {
    const at = settledMs.get(sent[index].id);
    return one && at !== undefined ? [one.atMs - at] : [];
  });
  const again = followed.filter((one) => one && one.connections > 1).length;
  return [
    finding(lost === 0, 'no accepted job is lost', `${what}, ${lost} lost, ${load()}`),
    finding(refused.length === 0, 'no request is refused', `${refused.length} ${refused[0] ?? ''}`),
    finding(wrong.length === 0, 'no result or receipt is wrong', `${wrong.length} ${wrong[0] ?? ''}`),
    finding(
      givenUp <= sent.length / 20,
      'few jobs are given up, after three losses or the death of their child',
      `${givenUp} of ${sent.length}`,
    ),
    finding(
      silent === 0,
      'the events of every job end with its end',
      `${silent} did not; ${again} needed more than one connection; p50 ${quantile(delays, 0.5)} ms, p95 ${quantile(delays, 0.95)} ms, max ${Math.max(0, ...delays)} ms after it`,
    ),
  ];
}

const isEnd = (state: string) => state === 'succeeded' || state === 'failed' || state === 'canceled';

/** What PostgreSQL noted, in its order: a start is noted under the lock of claims, after every end that it could see. */
function checkSteps(steps: readonly Step[], sent: readonly Sent[]): Finding[] {
  const running = new Map<string, Set<string>>();
  const most = new Map<string, number>();
  const ends = new Map<string, number>();
  let impossible = 0;
  let taken = 0;
  const states = new Map<string, string>();
  for (const { job, service, was, state } of steps) {
    if ((states.get(job) ?? null) !== was) impossible++;
    states.set(job, state);
    const now = running.get(service) ?? new Set();
    running.set(service, now);
    if (state === 'running') now.add(job);
    else now.delete(job);
    if (was === 'running' && state === 'queued') taken++;
    if (isEnd(state)) ends.set(job, (ends.get(job) ?? 0) + 1);
    most.set(service, Math.max(most.get(service) ?? 0, now.size));
  }
  const over = Object.entries(limits).filter(([service, limit]) => (most.get(service) ?? 0) > limit);
  const accepted = new Set(steps.map(({ job }) => job));
  const unknown = sent.filter(({ id }) => !accepted.has(id)).length;
  const twice = [...ends.values()].filter((count) => count > 1).length;
  return [
    finding(unknown === 0, 'every accepted job is in the database', `${unknown} of ${sent.length} are not`),
    finding(
      twice === 0 && impossible === 0,
      'no job is settled twice, and each state follows the one before',
      `${ends.size} settled, ${twice} twice, ${impossible} impossible steps, ${taken} went back to the queue`,
    ),
    finding(
      over.length === 0,
      'no limit of a service is exceeded',
      Object.entries(limits)
        .map(([service, limit]) => `${service} ${most.get(service) ?? 0}/${limit}`)
        .join(', '),
    ),
  ];
}

/** The chain is whole, and has one line for each end of a job. */
async function checkAudit({ database: { db } }: Cluster, steps: readonly Step[]): Promise<Finding> {
  const what = 'the audit log is whole, with one line for each job accepted and ended';
  try {
    const report = await insistOn(() => verifyAuditTable(db as never));
    const number = (names: readonly string[]) =>
      names.reduce((sum, name) => sum + (report.events[name] ?? 0), 0);
    const ended = number(['prediction.succeeded', 'prediction.failed', 'prediction.canceled']);
    const accepted = number(['prediction.accepted']);
    const expectedEnds = steps.filter(({ state }) => isEnd(state)).length;
    const expectedAccepted = steps.filter(({ was }) => was === null).length;
    return finding(
      ended === expectedEnds && accepted === expectedAccepted,
      what,
      `${report.lines} lines; ${accepted} of ${expectedAccepted} accepted, ${ended} of ${expectedEnds} ended`,
    );
  } catch (error) {
    return finding(false, what, String(error));
  }
}
