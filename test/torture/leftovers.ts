import { randomBytes } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { request as httpRequest } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Job } from '@tomaat/client';
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

/** Uploads that are broken off or deleted, jobs that are cancelled and deleted: a minute later nothing of them is there. */
export async function leftovers(
  folder: string,
  { count, sweepSeconds = 65 }: { count: number; sweepSeconds?: number },
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
      // A job that is cancelled, then deleted.
      async () => {
        const form = new FormData();
        form.append('volume', new Blob([bytes]), `${marker}.nii.gz`);
        const job = (await (
          await fetch(predictionUrl(server.url, 'slow'), { method: 'POST', body: form })
        ).json()) as Job;
        await fetch(`${server.url}/api/jobs/${job.id}`, { method: 'DELETE' });
        await fetch(`${server.url}/api/jobs/${job.id}`, { method: 'DELETE' });
      },
    ];
    for (let i = 0; i < 12; i++) await doOne[i % 3]();
    await sleep(500);
    const before = { files: await openFiles(server.pid), rss: await rssMb(server.pid) };
    for (let i = 0; i < count; i += 4) await Promise.all([0, 1, 2, 3].map((n) => doOne[(i + n) % 3]()));
    await sleep(sweepSeconds * 1000);
    const after = { files: await openFiles(server.pid), rss: await rssMb(server.pid) };
    const left = await callersFiles(server.dataFolder);
    const marked: string[] = [];
    for (const entry of await readdir(server.dataFolder, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const content = await readFile(join(entry.parentPath, entry.name));
      if (content.includes(marker)) marked.push(entry.name);
    }
    return [
      finding(
        left.length === 0,
        `${count} cancelled uploads and jobs leave no byte after ${sweepSeconds} s`,
        `${left.length} files, ${left.reduce((sum, file) => sum + file.sizeBytes, 0)} bytes`,
      ),
      finding(
        marked.length === 0,
        'no name is left in any file, the database and its log included',
        marked.join(', ') || 'none',
      ),
      finding(
        after.files <= before.files + 8,
        'open files stay level',
        `${before.files} before, ${after.files} after`,
      ),
      finding(
        after.rss <= before.rss + 150,
        'memory stays level',
        `${before.rss.toFixed(0)} MB before, ${after.rss.toFixed(0)} MB after, ${load()}`,
      ),
    ];
  } finally {
    await server.close();
  }
}
