import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { auditFile } from '../../packages/server/src/audit/audit-files.ts';
import { gatewayFolder } from '../../packages/server/src/store/database/gateway-database.ts';
import { type GatewayWorld, judgeWorld, openWorld, push, rowsOf } from './gateway-world.ts';
import { type Finding, finding } from './harness.ts';

const series = 12;

/**
 * The archive is away for minutes, with the limits that rules have by default, while series are searched, fetched, computed and
 * stored: the gateway waits without work, says what is wrong, loses nothing, and goes on by itself.
 */
export async function gatewayOutage(folder: string, { minutes }: { minutes: number }): Promise<Finding[]> {
  await using world = await openWorld(folder, { jobMs: 1500 });
  if (!world) return [finding(true, 'skipped', 'Orthanc is not installed on this machine')];
  const { archive, data, gateway, gatewayUrl, log } = world;
  for (let number = 0; number < series; number++) await push(archive, number);
  while (!(await rowsOf(data)).some(({ state }) => state === 'done')) await sleep(100);
  await archive.kill();
  const before = await countsOf(world);
  // The first tries fail at once; the rest is waiting.
  await sleep(minutes * 30_000);
  const middle = await cpuSecondsOf(gateway.pid);
  const summary = await (await fetch(`${gatewayUrl}/api/gateway/summary`)).text();
  const health = await fetch(`${gatewayUrl}/health/ready`);
  const said = `${health.status} ${await health.text()}`;
  await sleep(minutes * 30_000);
  const after = await countsOf(world);
  const cpu = (await cpuSecondsOf(gateway.pid)) - middle;
  const during = await rowsOf(data);
  const waiting = during.filter(({ state }) => state !== 'done');
  await archive.restart();
  const restartedMs = performance.now();
  const findings = await judgeWorld(world, series, `away for ${minutes} minutes`, 12 * 60_000);
  const seconds = Math.round((performance.now() - restartedMs) / 1000);
  const lines = after.logLines - before.logLines;
  const lastLog = (await readFile(log, 'utf8')).trim().split('\n').slice(-3).join(' | ');
  return [
    finding(
      waiting.length > 0 && during.every(({ state }) => state !== 'failed'),
      'series wait',
      `${waiting.length} of ${series} (${[...new Set(during.map(({ state, step }) => `${state} ${step ?? ''}`.trim()))]})`,
    ),
    finding(/UNREACHABLE/.test(summary), 'the summary names the fault', summary.slice(0, 600)),
    finding(true, 'health', said.slice(0, 300)),
    finding(cpu < minutes * 30 * 0.05, 'idle meanwhile', `${cpu.toFixed(1)} s of CPU in ${minutes * 30} s`),
    finding(
      lines < minutes * 30 && after.auditBytes - before.auditBytes < 100_000,
      'the logs stay short',
      `${lines} lines of log, ${after.auditBytes - before.auditBytes} bytes of audit log; the last: ${lastLog.slice(0, 600)}`,
    ),
    ...findings,
    finding(seconds < 11 * 60, 'goes on by itself', `all ended ${seconds} s after the archive was back`),
  ];
}

async function countsOf({ data, log }: GatewayWorld): Promise<{ logLines: number; auditBytes: number }> {
  const audit = await stat(join(gatewayFolder(data), auditFile)).catch(() => ({ size: 0 }));
  return { logLines: (await readFile(log, 'utf8')).split('\n').length - 1, auditBytes: audit.size };
}

/** User and system time of a process, s (proc(5): fields 14 and 15 of `stat`, in ticks of 10 ms). */
async function cpuSecondsOf(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
