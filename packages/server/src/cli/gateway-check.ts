import { access, constants } from 'node:fs/promises';
import { TomaatError } from '@tomaat/core';
import { dataFolderFor } from '../config.ts';
import { openArchive } from '../gateway/archive.ts';
import type { DestinationConfig, GatewayConfig } from '../gateway/config.ts';
import type { Connect } from '../gateway/dependencies.ts';
import { readGatewayConfig } from '../gateway/parse-config.ts';
import { openService } from '../gateway/service.ts';
import { openSources } from '../gateway/sources/open-sources.ts';
import { plain, plainLines, systemFault } from './console.ts';
import { connectFor } from './gateway.ts';
import { openInterrupt } from './interrupt.ts';

export interface GatewayCheckFlags {
  connect?: boolean;
  data?: string;
  json?: boolean;
}

interface Checked {
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string;
}

/** `tomaat gateway check`: exit code 0, or 1 if something does not answer; the file's own faults are thrown. */
export async function gatewayCheck(file: string, flags: GatewayCheckFlags): Promise<number> {
  using interrupt = openInterrupt();
  const { config, warnings } = await readGatewayConfig(file);
  if (!flags.json)
    for (const { line, path, message } of warnings)
      console.error(`  warning  ${line ? `line ${line}: ` : ''}${plain(path)}: ${plain(message)}`);
  const checks: Checked[] = [];
  if (flags.connect) {
    const connect = connectFor(dataFolderFor(flags));
    for await (const checked of askAll(config, connect, interrupt.signal)) {
      checks.push(checked);
      if (flags.json) continue;
      const detail = plainLines(checked.detail).replaceAll('\n', '\n         ');
      console.log(`${checked.ok ? '  ok   ' : '  WRONG'}  ${plain(checked.name)}: ${detail}`);
    }
    interrupt.signal.throwIfAborted();
  }
  const wrong = checks.filter(({ ok }) => !ok).length;
  const counts = {
    rules: config.rules.length,
    sources: Object.keys(config.sources).length,
    services: Object.keys(config.services).length,
    destinations: Object.keys(config.destinations).length,
  };
  if (flags.json) console.log(JSON.stringify({ ok: wrong === 0, ...counts, warnings, checks }));
  else
    console.log(
      wrong > 0
        ? `${file} has no faults, but ${wrong} of ${checks.length} parts do not work: see above.`
        : `${file} has no faults: ${Object.entries(counts)
            .map(([what, count]) => `${count} ${count === 1 ? what.slice(0, -1) : what}`)
            .join(', ')}.`,
    );
  return wrong === 0 ? 0 : 1;
}

/** Asks each part. Nothing is stored, and of series only whether there are any is asked. */
async function* askAll(
  config: GatewayConfig,
  connect: Connect,
  signal: AbortSignal,
): AsyncGenerator<Checked> {
  for (const [name, source] of openSources(config, connect))
    yield await check(`source ${name}`, signal, async () => {
      for await (const { modality = 'series' } of source.search(signal))
        return `answers, and has ${modality}`;
      return 'answers, and has no series that are young enough';
    });
  for (const rule of config.rules)
    yield await check(`rule ${rule.id}`, signal, async () => {
      const { service, results } = await openService(rule, config.services[rule.service], connect, signal);
      const made = results.map(({ format, output }) => `${format} of ${output}`).join(', ');
      return `${service.id} ${service.version} gives ${made}`;
    });
  for (const [name, destination] of Object.entries(config.destinations))
    yield await check(`destination ${name}`, signal, () => askDestination(destination, connect, signal));
}

async function askDestination(
  destination: DestinationConfig,
  connect: Connect,
  signal: AbortSignal,
): Promise<string> {
  if (destination.type === 'folder') {
    await access(destination.path, constants.W_OK | constants.X_OK);
    return `${destination.path} can be written to`;
  }
  await openArchive(destination, connect, { retries: 0 }).searchStudies({}, { limit: 1, signal });
  return 'answers. Whether it stores is known only from the first result';
}

async function check(name: string, signal: AbortSignal, ask: () => Promise<string>): Promise<Checked> {
  try {
    return { name, ok: true, detail: await ask() };
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof TomaatError) return { name, ok: false, detail: error.message };
    const fault = error as NodeJS.ErrnoException;
    if (fault.path === undefined) throw error;
    return { name, ok: false, detail: systemFault(fault) };
  }
}
