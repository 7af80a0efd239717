import { mkdir } from 'node:fs/promises';
import { TomaatError } from '@tomaat/core';
import { pino } from 'pino';
import type { LoadedConfig } from '../config.ts';
import { startRegistry } from '../registry/start.ts';
import { isLoopback } from '../registry/targets.ts';
import { openCertificate } from '../tls.ts';
import { readCertificates } from './connect.ts';
import { openInterrupt } from './interrupt.ts';
import { pageFolder } from './packaged.ts';

/** `tomaat registry`: runs until it is told to stop. */
export async function registry(
  { config, sources }: LoadedConfig,
  options: { json: boolean },
): Promise<number> {
  const { data, host, registryPort } = config;
  if (!isLoopback(host) && !config.insecureNoLogin) {
    throw new TomaatError(
      'BAD_REQUEST',
      `${host} is not this machine alone, and there is no login yet: anyone who reaches the port could use the services announced here. Give --host 127.0.0.1, or --insecure-no-login if the network is trusted.`,
    );
  }
  await mkdir(data, { recursive: true, mode: 0o700 });
  // The first lines on stdout are the addresses; the log goes to stderr.
  const logger = pino({ level: config.logLevel }, pino.destination(2));
  const running = await startRegistry({
    host,
    port: registryPort,
    strictPort: sources.registryPort !== 'default',
    dataFolder: data,
    logger,
    tls: config.tlsCert
      ? await openCertificate(data, { cert: config.tlsCert, key: config.tlsKey })
      : undefined,
    publicUrl: config.publicUrl,
    allowNet: config.allowNet,
    trust: config.ca && (await readCertificates(config.ca)),
    page: pageFolder(),
  });
  try {
    if (options.json) console.log(JSON.stringify({ registry: running.url, data }));
    else {
      console.log(`Registry  ${running.url}`);
      console.log(`Data      ${data}`);
      if (sources.registryPort === 'default' && running.port !== registryPort) {
        console.log(`Port ${registryPort} is taken: port ${running.port} is used instead.`);
      }
    }
    using interrupt = openInterrupt();
    await new Promise((resolve) => interrupt.signal.addEventListener('abort', resolve, { once: true }));
  } finally {
    await running.close();
  }
  return 0;
}
