import { setTimeout as sleep } from 'node:timers/promises';
import { countEnded, judgeWorld, openWorld, push } from './gateway-world.ts';
import { type Finding, finding, randomOf } from './harness.ts';

/** Series that are sent before the earlier ones have ended. */
const mostAhead = 6;

/**
 * kill -9 of the gateway, the server and Orthanc at random moments while series come in: each series ends with one
 * segmentation and one report of its patient, or with one reason.
 */
export async function gatewayKills(
  folder: string,
  { kills, seed }: { kills: number; seed: number },
): Promise<Finding[]> {
  const random = randomOf(seed);
  await using world = await openWorld(folder, {
    jobMs: 100,
    limits: 'firstPause: 1s, longestPause: 2s',
  });
  if (!world) return [finding(true, 'skipped', 'Orthanc is not installed on this machine')];
  const { archive, gateway, server, data } = world;
  const counts = { gateway: 0, server: 0, archive: 0 };
  const targets = {
    gateway: [gateway.kill, gateway.start],
    server: [server.kill, server.start],
    archive: [archive.kill, archive.restart],
  } as const;
  const stop = new AbortController();
  let sent = 0;
  const stream = (async () => {
    for (; !stop.signal.aborted; sent++) {
      await push(archive, sent);
      // A few wait, not hundreds: the kills are for series in work.
      while (sent - (await countEnded(data)) > mostAhead && !stop.signal.aborted) await sleep(300);
    }
  })();
  try {
    for (let kill = 0; kill < kills; kill++) {
      await sleep(200 + random() * 4000);
      const names = Object.keys(targets) as (keyof typeof targets)[];
      const name = names[Math.floor(random() * names.length)];
      counts[name]++;
      await targets[name][0]();
      await targets[name][1]();
    }
  } finally {
    stop.abort();
  }
  await stream;
  const how = `${kills} kills (${counts.gateway} gateway, ${counts.server} server, ${counts.archive} Orthanc)`;
  return await judgeWorld(world, sent, how);
}
