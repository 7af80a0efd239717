import { randomBytes } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { request as httpRequest } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Job } from '@tomaat/client';
import { databaseBytes, onPostgres } from '../../packages/server/test/support/tested-database.ts';
import {
  callersFiles,
  type Finding,
  finding,
  load,
  makeVolumes,
  octets,
  openFiles,
  openMortalServer,
  predictionUrl,
  rssMb,
  slowApp,
} from './harness.ts';

const tus = { 'tus-resumable': '1.0.0' };

/**
 * `count` uploads that are broken off or deleted and `count` jobs that are cancelled and deleted: a minute later nothing of
 * them is there.
 */
export async function leftovers(
  folder: string,
  { count, sweepSeconds = 60 }: { count: number; sweepSeconds?: number },
): Promise<Finding[]> {
  const [bytes] = await makeVolumes();
  const server = await openMortalServer([await slowApp(folder, 'slow', 60_000)], {
    dataFolder: join(folder, 'leftovers'),
    sweepMs: Math.min(30_000, sweepSeconds * 400),
    maxQueued: 100_000,
  });
  // It stands in file names and parameters, and must be in no file afterwards.
  const marker = `PatientMuster${randomBytes(6).toString('hex')}`;
  try {
    const doOne = [
      // A form that is broken off in its middle.
      async () => {
        const request = httpRequest(predictionUrl(server.url, 'slow'), {
          method: 'POST',
          headers: { ...octets, 'content-length': bytes.length },
        });
        request.on('error', () => {});
        const gone = new Promise((resolve) => request.on('close', resolve));
        await new Promise((resolve) => request.write(bytes.subarray(0, bytes.length / 2), resolve));
        request.destroy();
        await gone;
      },
      // A resumable upload that is deleted before its end.
      async () => {
        const metadata = `filename ${Buffer.from(`${marker}.nii.gz`).toString('base64')}`;
        const begun = await fetch(`${server.url}/api/uploads`, {
          method: 'POST',
          headers: { ...tus, 'upload-length': String(bytes.length), 'upload-metadata': metadata },
        });
        const url = `${server.url}${begun.headers.get('location')}`;
        const headers = { ...tus, 'upload-offset': '0', 'content-type': 'application/offset+octet-stream' };
        await fetch(url, { method: 'PATCH', headers, body: bytes.subarray(0, 300) });
        await fetch(url, { method: 'DELETE', headers: tus });
      },
    ];
    /** A job that is cancelled, queued or in the middle of its computation, then deleted. */
    const cancelJob = async (isRunning: boolean) => {
      const form = new FormData();
      form.append('volume', new Blob([bytes]), `${marker}.nii.gz`);
      const answer = await fetch(predictionUrl(server.url, 'slow'), { method: 'POST', body: form });
      const url = `${server.url}/api/jobs/${((await answer.json()) as Job).id}`;
      for (const end = Date.now() + 5000; isRunning && Date.now() < end; await sleep(20))
        if (((await (await fetch(url)).json()) as Job).stage === 'infer') break;
      const canceled = (await (await fetch(url, { method: 'DELETE' })).json()) as Job;
      if (canceled.state !== 'canceled') throw new Error(`a job that was cancelled is ${canceled.state}`);
      if (isRunning && canceled.startedTime !== undefined) cut++;
      await fetch(url, { method: 'DELETE' });
    };
    let cut = 0;
    const round = async (i: number) => {
      // One of them computes, the others wait behind it.
      await Promise.all([doOne[i % 2](), doOne[(i + 1) % 2](), cancelJob(i % 10 === 0), cancelJob(false)]);
    };
    const state = async () => {
      await sleep(500);
      return { files: await openFiles(server.pid), rss: await rssMb(server.pid) };
    };
    // The first ones load code and fill caches.
    for (let i = 0; i < count / 20; i++) await round(i);
    const before = await state();
    for (let i = 0; i < count / 4; i++) await round(i);
    const middle = await state();
    for (let i = 0; i < count / 4; i++) await round(i);
    await sleep(sweepSeconds * 1000);
    const after = await state();
    const left = await callersFiles(server.dataFolder);
    const marked: string[] = [];
    for (const entry of await readdir(server.dataFolder, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const content = await readFile(join(entry.parentPath, entry.name));
      if (content.includes(marker)) marked.push(entry.name);
    }
    if (onPostgres && (await databaseBytes(server.dataFolder)).includes(marker)) marked.push('the database');
    return [
      finding(
        left.length === 0,
        `${count} cancelled uploads and ${count} jobs leave no byte after ${sweepSeconds} s`,
        `${left.length} files, ${left.reduce((sum, file) => sum + file.sizeBytes, 0)} bytes; ${cut} jobs were cancelled while they ran`,
      ),
      finding(
        marked.length === 0,
        'no name is left in any file, the database and its log included',
        marked.join(', ') || 'none',
      ),
      finding(
        after.files <= before.files + 8,
        'open files stay level',
        `${before.files} before, ${middle.files} after half of them, ${after.files} after`,
      ),
      finding(
        after.rss <= Math.max(before.rss, middle.rss) + 50,
        'memory stays level',
        `${before.rss.toFixed(0)} MB before, ${middle.rss.toFixed(0)} MB after half of them, ${after.rss.toFixed(0)} MB after, ${load()}`,
      ),
    ];
  } finally {
    await server.close();
  }
}
