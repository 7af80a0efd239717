import { execFileSync, spawn } from 'node:child_process';
import { randomFillSync, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { rm, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Job } from '@tomaat/client';
import { ownNodeOptions } from '../../packages/server/src/source.ts';
import { bin, endsWithTest } from '../../packages/server/test/cli-fixture.ts';
import {
  callersFiles,
  type Finding,
  finding,
  makeVolumes,
  octets,
  openMortalServer,
  predictionUrl,
  resultOf,
  settledJob,
  slowApp,
  submit,
} from './harness.ts';
import { inOwnMounts, mountSmall, pageBytes } from './small-disk.ts';

/**
 * A disk that is really full, and one that can only be read: refusals with a reason, no job that was accepted is lost or
 * wrong, and all goes on by itself when there is room again.
 */
export const disk = (folder: string): Promise<Finding[]> => inOwnMounts(import.meta.filename, folder);

async function fullDisk(folder: string): Promise<Finding[]> {
  const [bytes] = await makeVolumes();
  const mounted = join(folder, 'small');
  await mountSmall(mounted, 48);
  const dataFolder = join(mounted, 'data');
  const filler = join(mounted, 'filler');
  const app = await slowApp(folder, 'good', 5);
  const server = await openMortalServer([app], { dataFolder, minFreeBytes: 0 });
  const half: string[] = [];
  const counts = { refused: 0, succeeded: 0, failed: 0 };
  let longestMs = 0;
  let readOnly = '';
  let floor = 0;
  try {
    const first = (await (await submit(server.url, 'good', bytes)).json()) as Job;
    const expected = await resultOf(server.url, (await settledJob(server.url, first.id))!);
    const points = 40;
    for (let pages = 0; pages < points; pages++) {
      const { bavail, bsize } = await statfs(mounted);
      await writeFile(filler, randomFillSync(new Uint8Array(bavail * bsize - pages * pageBytes)));
      const headers = { ...octets, 'idempotency-key': randomUUID() };
      const response = await fetch(predictionUrl(server.url, 'good'), {
        method: 'POST',
        body: bytes,
        headers,
      });
      const answer = (await response.json()) as Job & { code?: string };
      const point = `with ${pages} pages left`;
      const health = await fetch(`${server.url}/health/live`);
      if (!health.ok) half.push(`${point}: health ${health.status}`);
      // Long enough that what can still be written is.
      if (response.status === 202) await sleep(60);
      await rm(filler);
      const freedMs = performance.now();
      if (response.status === 202) {
        const job = (await settledJob(server.url, answer.id, 15_000))!;
        longestMs = Math.max(longestMs, performance.now() - freedMs);
        const result = await resultOf(server.url, job);
        if (result === expected) counts.succeeded++;
        else if (job.error?.code === 'DISK_FULL') counts.failed++;
        else half.push(`${point}: the job ends as ${result}`);
        await fetch(`${server.url}/api/jobs/${job.id}`, { method: 'DELETE' });
      } else if (response.status === 507 && answer.code === 'DISK_FULL') counts.refused++;
      else half.push(`${point}: refused with ${response.status} ${answer.code}`);
    }
    const again = await fetch(predictionUrl(server.url, 'good'), {
      method: 'POST',
      body: bytes,
      headers: octets,
    });
    const last = await settledJob(server.url, ((await again.json()) as Job).id);
    if (last?.state !== 'succeeded') half.push('afterwards no job succeeds');
    else await fetch(`${server.url}/api/jobs/${last.id}`, { method: 'DELETE' });
    await server.kill();
    await server.start();
    const kept = (await (await fetch(`${server.url}/api/jobs/${first.id}`)).json()) as Job;
    if ((await resultOf(server.url, kept)) !== expected) half.push('the first result is lost');
    const left = await callersFiles(dataFolder);
    if (left.length !== 1) half.push(`${left.length} files are left`);

    // Under the floor of free space nothing is taken, before its body is read.
    await server.kill();
    const guarded = await openMortalServer([app], { dataFolder, minFreeBytes: 64e6 });
    floor = (await submit(guarded.url, 'good', bytes)).status;
    await guarded.close();

    execFileSync('mount', ['-o', 'remount,ro', mounted]);
    readOnly = await refusalOf(['serve', app, '--data', dataFolder, '--port', '0', '--tls-port', '0']);
    execFileSync('mount', ['-o', 'remount,rw', mounted]);
    return [
      finding(
        half.length === 0 && counts.refused > 0 && counts.succeeded > 0,
        'a disk that is full at any page is a clean refusal',
        `${points} points: ${counts.refused} refused with 507, ${counts.succeeded} succeeded, ${counts.failed} failed as DISK_FULL, settled at most ${Math.round(longestMs)} ms after there was room${half.length > 0 ? `; ${half.slice(0, 5).join(' | ')}` : ''}`,
      ),
      finding(floor === 507, 'under the floor of free space nothing is taken', `HTTP ${floor}`),
      finding(
        /^[1-9]\d* .*can only be read/.test(readOnly),
        'a server whose disk can only be read says so and ends',
        readOnly,
      ),
    ];
  } finally {
    await server.close();
    execFileSync('umount', ['-l', mounted]);
  }
}

/** The exit code of a command that should refuse to start, and what it says. */
async function refusalOf(args: readonly string[]): Promise<string> {
  const child = spawn(process.execPath, [...ownNodeOptions, ...endsWithTest, bin, ...args], {
    stdio: ['pipe', 'ignore', 'pipe'],
  });
  let said = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    said += chunk.toString('utf8');
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), 20_000);
  const [code] = (await once(child, 'close')) as [number | null];
  clearTimeout(timer);
  return `${code} ${said.trim()}`;
}

if (process.argv[1] === import.meta.filename) console.log(JSON.stringify(await fullDisk(process.argv[2])));
