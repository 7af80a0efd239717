import { mkdir } from 'node:fs/promises';
import { makeFirstAdminKey } from '../access/key-folder.ts';
import type { LoadedConfig } from '../config.ts';
import { startRegistry } from '../registry/start.ts';
import { readCertificates } from './connect.ts';
import { openHangup } from './hangup.ts';
import { openInterrupt } from './interrupt.ts';
import { openLog } from './log.ts';
import { pageFolder } from './packaged.ts';
import { prepareFolder } from './prepare-folder.ts';
import { accessSettings, adminKeyLines, legacyLine, loginLines, prepareIssuer } from './print-access.ts';
import { databaseOf } from './shared-database.ts';

/** `tomaat registry`: runs until it is stopped. */
export async function registry(loaded: LoadedConfig, options: { json: boolean }): Promise<number> {
  const { config, sources } = loaded;
  const { data, host, registryPort } = config;
  // The first lines on stdout are the addresses; the log goes to stderr.
  const logger = openLog(config.logLevel);
  using hangup = openHangup(logger);
  await prepareFolder(data, logger);
  await mkdir(data, { recursive: true, mode: 0o700 });
  await prepareIssuer(config);
  const database = databaseOf(loaded);
  const running = await startRegistry({
    host,
    port: registryPort,
    strictPort: sources.registryPort !== 'default',
    dataFolder: data,
    database,
    logger,
    tlsCert: config.tlsCert,
    tlsKey: config.tlsKey,
    allowNet: config.allowNet,
    trust: config.ca && (await readCertificates(config.ca)),
    page: pageFolder(),
    ...accessSettings(config),
    legacyPort: config.registryLegacyPort,
  });
  const { certificates } = running;
  if (certificates) hangup.add('the certificate', () => certificates.reload());
  try {
    const adminKey = config.login
      ? await makeFirstAdminKey(data, ['registry'], { shared: database })
      : undefined;
    const { legacyUrl } = running;
    if (options.json) console.log(JSON.stringify({ registry: running.url, legacyUrl, data, adminKey }));
    else {
      console.log(`Registry  ${running.url}`);
      if (legacyUrl) console.log(legacyLine(legacyUrl));
      console.log(`Data      ${data}`);
      const fault = certificates?.fault();
      if (fault) console.log(fault);
      if (config.login) console.log(loginLines(config, config.publicUrl ?? running.url));
      if (adminKey) console.log(await adminKeyLines(adminKey, data, { shared: database }));
      if (sources.registryPort === 'default' && running.port !== registryPort) {
        console.log(`Port ${registryPort} is in use: using port ${running.port} instead.`);
      }
    }
    using interrupt = openInterrupt();
    await new Promise((resolve) => interrupt.signal.addEventListener('abort', resolve, { once: true }));
  } finally {
    await running.close();
  }
  return 0;
}
