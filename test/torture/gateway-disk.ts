import { execFileSync } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { rm, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { endedRows, judgeWorld, openWorld, push } from './gateway-world.ts';
import { type Finding, finding } from './harness.ts';
import { inOwnMounts, mountSmall, pageBytes } from './small-disk.ts';

/**
 * The gateway's disk becomes full while a series is found, fetched, computed and stored, and it is killed there now and then: it
 * stays up or starts again when there is room, and nothing that came is lost.
 */
export const gatewayDisk = (folder: string): Promise<Finding[]> => inOwnMounts(import.meta.filename, folder);

/** More than the gateway wants to be free before it fetches a series (fetch-series.ts). */
const sizeMb = 192;
const points = 32;
/** Each of these is a kill with the disk full. */
const killEvery = 8;

async function fullDisk(folder: string): Promise<Finding[]> {
  const mounted = join(folder, 'small');
  await mountSmall(mounted, sizeMb);
  const filler = join(mounted, 'filler');
  const limits = 'firstPause: 1s, longestPause: 2s';
  await using world = await openWorld(folder, { jobMs: 50, limits, data: join(mounted, 'data') });
  if (!world) return [finding(true, 'skipped', 'Orthanc is not installed on this machine')];
  const { archive, data, gateway, gatewayUrl } = world;
  const half: string[] = [];
  let told = 0;
  for (let pages = 0; pages < points; pages++) {
    await push(archive, pages);
    // It is found after 5 s at the latest, quiet for 1 s, and then takes about 1 s: the disk is full from any of its steps on.
    await sleep((pages * 7500) / points);
    const { bavail, bsize } = await statfs(mounted);
    await writeFile(filler, randomFillSync(new Uint8Array(bavail * bsize - pages * pageBytes))).catch(
      (error: NodeJS.ErrnoException) => {
        // The gateway took a page meanwhile.
        if (error.code !== 'ENOSPC') throw error;
      },
    );
    await sleep(4000);
    const health = await fetch(`${gatewayUrl}/health/live`).catch((error: Error) => error);
    if (!(health instanceof Response) || !health.ok) half.push(`with ${pages} pages left: health ${health}`);
    const rows = await fetch(`${gatewayUrl}/api/gateway/series`);
    if (/disk of the gateway is (nearly )?full/.test(await rows.text())) told++;
    const isKilled = pages % killEvery === killEvery - 1;
    if (isKilled) await gateway.kill();
    await rm(filler);
    if (isKilled) await gateway.start();
    // What runs on would take the pages of the next point.
    await endedRows(data, pages + 1);
  }
  const findings = await judgeWorld(world, points, `a disk with 0 to ${points - 1} pages left`);
  execFileSync('umount', ['-l', mounted]);
  return [
    finding(half.length === 0, 'the gateway stays up', half.join('; ') || 'at every point'),
    finding(told > 0, 'the list names the full disk', `at ${told} of ${points} points`),
    ...findings,
  ];
}

if (process.argv[1] === import.meta.filename) console.log(JSON.stringify(await fullDisk(process.argv[2])));
