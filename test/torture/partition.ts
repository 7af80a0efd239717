import { execFileSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import type { Job } from '@tomaat/client';
import pino from 'pino';
import { startServer } from '../../packages/server/src/server.ts';
import {
  type Finding,
  finding,
  makeVolumes,
  makeWorkerKey,
  octets,
  slowApp,
  startWorkerProcess,
} from './harness.ts';

const space = `tomaat-${process.pid}`;
const near = `tm${process.pid}a`.slice(0, 15);
const far = `tm${process.pid}b`.slice(0, 15);

/**
 * A worker on what counts as another machine (a network namespace), its link cut in mid-job: the job moves to another
 * worker, and the first one's late answer is refused.
 */
export async function partition(folder: string): Promise<Finding[]> {
  const ip = (...args: string[]) => execFileSync('ip', args, { stdio: 'pipe' });
  try {
    ip('netns', 'add', space);
  } catch (error) {
    return [
      finding(
        true,
        'a worker behind a cut link',
        `not tried: no network namespaces here (${(error as Error).message.split('\n')[0]}); the tests cut a line of another process instead`,
      ),
    ];
  }
  await using opened = new AsyncDisposableStack();
  opened.defer(() => void ip('netns', 'del', space));
  ip('link', 'add', near, 'type', 'veth', 'peer', 'name', far);
  ip('link', 'set', far, 'netns', space);
  ip('addr', 'add', '10.213.7.1/24', 'dev', near);
  ip('link', 'set', near, 'up');
  ip('netns', 'exec', space, 'ip', 'addr', 'add', '10.213.7.2/24', 'dev', far);
  ip('netns', 'exec', space, 'ip', 'link', 'set', far, 'up');

  const [bytes] = await makeVolumes();
  const apps = [await slowApp(folder, 'slow', 8000)];
  const dataFolder = join(folder, 'partition');
  const server = await startServer({
    appFolders: apps,
    host: '10.213.7.1',
    port: 0,
    dataFolder,
    login: true,
    tlsSelfMade: true,
    workers: 0,
    leaseMs: 3000,
    logger: pino({ level: 'silent' }),
  });
  opened.defer(() => server.close());
  const token = await makeWorkerKey(dataFolder);
  const authorization = `Bearer ${token}`;
  const url = server.tlsUrl;
  const { certFile } = server.certificate;
  const remote = await startWorkerProcess(
    url,
    token,
    apps,
    ['ip', 'netns', 'exec', space],
    ['--ca', certFile],
  );
  opened.defer(() => remote.kill());
  setDefaultCACertificates([...getCACertificates('default'), await readFile(certFile, 'utf8')]);
  const job = (await (
    await fetch(`${url}/api/services/slow/predictions`, {
      method: 'POST',
      body: bytes,
      headers: { ...octets, authorization },
    })
  ).json()) as Job;
  const look = async () =>
    (await (await fetch(`${url}/api/jobs/${job.id}`, { headers: { authorization } })).json()) as Job;
  const reach = async (is: (job: Job) => boolean, limitMs = 30_000) => {
    for (const end = performance.now() + limitMs; performance.now() < end; await sleep(50)) {
      const now = await look();
      if (is(now)) return now;
    }
    return look();
  };
  const first = await reach(({ stage }) => stage === 'infer');
  const cutMs = performance.now();
  ip('link', 'set', near, 'down');
  // The address goes with the link for some systems: this process reaches the server by the loopback route.
  const lost = await reach(({ state }) => state === 'queued');
  const movedMs = performance.now() - cutMs;
  const other = await startWorkerProcess(url, token, apps, [], ['--ca', certFile]);
  opened.defer(() => other.kill());
  const second = await reach(({ attempt, state }) => attempt === 2 && state === 'running');
  await sleep(6000);
  ip('link', 'set', near, 'up');
  const done = await reach(({ state }) => state === 'succeeded' || state === 'failed');
  await sleep(3000);
  const after = await look();
  const stale = await fetch(`${url}/api/worker/jobs/${job.id}/complete`, {
    method: 'POST',
    headers: { authorization, 'content-type': 'application/json' },
    body: JSON.stringify({ attempt: 1, seconds: 8, outputs: [] }),
  });
  return [
    finding(
      first.attempt === 1 && lost.state === 'queued',
      'the job of a worker whose link is cut is queued again',
      `after ${(movedMs / 1000).toFixed(1)} s (lease 3 s)`,
    ),
    finding(
      second.attempt === 2 && done.state === 'succeeded' && done.attempt === 2,
      'another worker does it',
      `attempt ${done.attempt}, ${done.state}`,
    ),
    finding(
      stale.status === 409 && after.outputs[0]?.digest === done.outputs[0]?.digest,
      'the late answer is refused',
      `HTTP ${stale.status}; the result is the second worker’s`,
    ),
    finding(
      remote.child.exitCode === null,
      'the first worker lives and asks for work again',
      remote.child.exitCode === null ? 'it runs' : 'it ended',
    ),
  ];
}
