import type { App } from '../apps.ts';
import type { CheckResult } from '../check-app.ts';
import type { ComputeDevice } from '../runtimes/devices.ts';
import type { ModelServers } from '../trust/model-servers.ts';
import { formatSeconds, plain, plainLines } from './console.ts';
import { type EngineFlags, openDevice } from './device-flag.ts';
import { openInterrupt } from './interrupt.ts';
import { loadModelServers, type ModelServerFlags } from './model-servers.ts';

/** Yields each result as soon as it is known; ends at a fault that makes the rest pointless. */
export type CheckApp = (
  folder: string,
  signal: AbortSignal,
  permittedFor: (app: App) => Promise<ModelServers | undefined>,
  device?: ComputeDevice,
) => AsyncIterable<CheckResult>;

/** `tomaat check APP_DIR`: exit code 0 without faults, else 1. `writeHash` first writes the hashes of the models. */
export async function check(
  folder: string,
  flags: ModelServerFlags & EngineFlags & { json?: boolean; writeHash?: boolean },
  checkApp: CheckApp,
): Promise<number> {
  using interrupt = openInterrupt();
  if (flags.writeHash) {
    const { writeHashes } = await import('./write-hash.ts');
    for (const { file, sha256, changed } of await writeHashes(folder))
      if (!flags.json) console.error(`${plain(file)}: ${sha256}${changed ? '' : ', as written'}`);
  }
  const device = await openDevice(flags, interrupt.signal);
  const results: CheckResult[] = [];
  const permittedFor = (app: App) => loadModelServers([app], flags);
  for await (const result of checkApp(folder, interrupt.signal, permittedFor, device)) {
    results.push(result);
    if (flags.json) continue;
    const time = result.seconds === undefined ? '' : ` (${formatSeconds(result.seconds)})`;
    const detail = plainLines(result.detail).replaceAll('\n', '\n         ');
    console.log(`${result.ok ? '  ok   ' : '  WRONG'}  ${plain(result.name)}: ${detail}${time}`);
  }
  interrupt.signal.throwIfAborted();
  const wrong = results.filter((result) => !result.ok).length;
  if (flags.json) console.log(JSON.stringify({ ok: wrong === 0, checks: results }));
  else
    console.log(
      wrong === 0
        ? `${folder} is ready to be served.`
        : `${folder} has ${wrong === 1 ? 'a fault' : `${wrong} faults`}: see above.`,
    );
  return wrong === 0 ? 0 : 1;
}
