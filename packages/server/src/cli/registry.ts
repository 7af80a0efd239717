import { mkdir } from 'node:fs/promises';
import { pino } from 'pino';
import { makeFirstAdminKey } from '../access/key-folder.ts';
import type { LoadedConfig } from '../config.ts';
import { startRegistry } from '../registry/start.ts';
import { openCertificate } from '../tls.ts';
import { readCertificates } from './connect.ts';
import { openInterrupt } from './interrupt.ts';
import { pageFolder } from './packaged.ts';
import { accessSettings, adminKeyLines, legacyLine, loginLine, prepareIssuer } from './print-access.ts';

/** `tomaat registry`: runs until it is told to stop. */
export async function registry(
  { config, sources }: LoadedConfig,
  options: { json: boolean },
): Promise<number> {
  const { data, host, registryPort } = config;
  await mkdir(data, { recursive: true, mode: 0o700 });
  await prepareIssuer(config);
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
    allowNet: config.allowNet,
    trust: config.ca && (await readCertificates(config.ca)),
    page: pageFolder(),
    ...accessSettings(config),
    legacyPort: config.registryLegacyPort,
  });
  try {
    const adminKey = config.login ? await makeFirstAdminKey(data, ['registry']) : undefined;
    const { legacyUrl } = running;
    if (options.json) console.log(JSON.stringify({ registry: running.url, legacyUrl, data, adminKey }));
    else {
      console.log(`Registry  ${running.url}`);
      if (legacyUrl) console.log(legacyLine(legacyUrl));
      console.log(`Data      ${data}`);
      if (config.login) console.log(loginLine(config, config.publicUrl ?? running.url));
      if (adminKey) console.log(adminKeyLines(adminKey));
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
