import { execFileSync } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { rm, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { judgeWorld, openWorld, push } from './gateway-world.ts';
import { type Finding, finding } from './harness.ts';
import { inOwnMounts, mountSmall, pageBytes } from './small-disk.ts';

/**
 * The gateway's disk is full at any page while a series comes in, and it is killed there now and then: it stays up or starts
 * again when there is room, and nothing that came is lost.
 */
export const gatewayDisk = (folder: string): Promise<Finding[]> => inOwnMounts(import.meta.filename, folder);

const points = 40;
/** Each of these is a kill with the disk full. */
const killEvery = 8;

async function fullDisk(folder: string): Promise<Finding[]> {
  const mounted = join(folder, 'small');
  await mountSmall(mounted);
  const filler = join(mounted, 'filler');
  const limits = 'firstPause: 1s, longestPause: 2s';
  await using world = await openWorld(folder, { jobMs: 50, limits, data: join(mounted, 'data') });
  if (!world) return [finding(true, 'skipped', 'Orthanc is not installed on this machine')];
  const { archive, gateway, gatewayUrl } = world;
  const half: string[] = [];
  let told = 0;
  for (let pages = 0; pages < points; pages++) {
    const { bavail, bsize } = await statfs(mounted);
    await writeFile(filler, randomFillSync(new Uint8Array(bavail * bsize - pages * pageBytes)));
    await push(archive, pages);
    await sleep(7000);
    const health = await fetch(`${gatewayUrl}/health/live`).catch((error: Error) => error);
    if (!(health instanceof Response) || !health.ok) half.push(`with ${pages} pages left: health ${health}`);
    const rows = await fetch(`${gatewayUrl}/api/gateway/series`);
    if (/DISK_FULL/.test(await rows.text())) told++;
    const isKilled = pages % killEvery === killEvery - 1;
    if (isKilled) await gateway.kill();
    await rm(filler);
    if (isKilled) await gateway.start();
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
