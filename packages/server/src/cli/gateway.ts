import { TomaatError } from '@tomaat/core';
import type { Logger } from 'pino';
import { makeFirstAdminKey } from '../access/key-folder.ts';
import { digestOfUid } from '../audit/uid-digest.ts';
import type { LoadedConfig } from '../config.ts';
import type { GatewayConfig } from '../gateway/config.ts';
import type { Connect } from '../gateway/dependencies.ts';
import { openDestination } from '../gateway/destinations/open-destination.ts';
import { startGateway } from '../gateway/gateway.ts';
import type { Gateway, GatewayTools } from '../gateway/gateway-type.ts';
import { matchSeen, matchVolume } from '../gateway/match-rules.ts';
import { readGatewayConfig } from '../gateway/parse-config.ts';
import { createProcessSeries, forgetSeries } from '../gateway/process-series.ts';
import { openSources } from '../gateway/sources/open-sources.ts';
import { type RunningGateway, startGatewayServer } from '../gateway/start.ts';
import { openUidKey } from '../store/files/uid-key.ts';
import { connectTo } from './connect.ts';
import { plain } from './console.ts';
import { openHangup } from './hangup.ts';
import { openInterrupt } from './interrupt.ts';
import { openLog } from './log.ts';
import { pageFolder } from './packaged.ts';
import { prepareFolder } from './prepare-folder.ts';
import { accessSettings, adminKeyLines, loginLines, prepareIssuer } from './print-access.ts';
import { databaseOf } from './shared-database.ts';

/** How the gateway reaches services and archives: as the other commands do, but nobody is asked about a certificate. */
export const connectFor =
  (dataFolder: string): Connect =>
  (address, options) =>
    connectTo(address, { ...options, data: dataFolder, ask: async () => false });

/** `tomaat gateway --config FILE`: runs until it is stopped. */
export async function gateway(
  loaded: LoadedConfig,
  { rulesFile, json }: { rulesFile?: string; json: boolean },
): Promise<number> {
  const { config: settings, sources } = loaded;
  if (rulesFile === undefined)
    throw new TomaatError(
      'BAD_REQUEST',
      'The file of rules is missing. Give it with --config, such as --config gateway.yaml.',
    );
  const logger = openLog(settings.logLevel);
  using hangup = openHangup(logger);
  // From here on as the owner of the data folder, who must be able to read the secrets.
  await prepareFolder(settings.data, logger);
  const { config, warnings } = await readGatewayConfig(rulesFile);
  for (const { line, path, message } of warnings) logger.warn({ line, path }, `${rulesFile}: ${message}`);
  await prepareIssuer(settings);
  const database = databaseOf(loaded);
  using interrupt = openInterrupt();
  await using opened = new AsyncDisposableStack();
  const running = await startGatewayServer({
    config,
    dataFolder: settings.data,
    database,
    host: settings.host,
    port: settings.gatewayPort,
    strictPort: sources.gatewayPort !== 'default',
    logger,
    open: (tools) => openWork(config, tools, logger),
    tlsCert: settings.tlsCert,
    tlsKey: settings.tlsKey,
    page: pageFolder(),
    ...accessSettings(settings),
  });
  opened.defer(() => running.close());
  const { certificates } = running;
  if (certificates) hangup.add('the certificate', () => certificates.reload());
  hangup.add('the audit log', () => running.reopenFiles());
  await printStart(loaded, config, running, { database, json });
  await new Promise<void>((resolve) => {
    if (interrupt.signal.aborted) resolve();
    else interrupt.signal.addEventListener('abort', () => resolve(), { once: true });
  });
  return 0;
}

/** What works on series, with its parts put together. */
async function openWork(config: GatewayConfig, tools: GatewayTools, logger: Logger): Promise<Gateway> {
  const connect = connectFor(tools.dataFolder);
  const uidKey = await openUidKey(tools.dataFolder);
  return startGateway({
    ...tools,
    config,
    matchSeen,
    processSeries: createProcessSeries({
      connect,
      uidKey,
      matchVolume,
      audit: (event, facts) => tools.audit.record(event, facts),
    }),
    sources: openSources(config, connect),
    destinations: Object.entries(config.destinations).map(([name, destination]) =>
      openDestination(name, destination, connect),
    ),
    forgetJob: (row) => forgetSeries(row, config, { connect }),
    onFault: (error, what) => logger.error({ err: error }, what),
    witness: {
      matched: ({ rule, source, study, series }) =>
        tools.audit.record('series.matched', {
          rule,
          source,
          study: digestOfUid(study),
          series: digestOfUid(series),
        }),
      failed: ({ id, rule }, { code, message }) =>
        logger.warn({ id, rule, code }, `series ${id} failed: ${message}`),
    },
  });
}

async function printStart(
  { config: settings, sources }: LoadedConfig,
  config: GatewayConfig,
  running: RunningGateway,
  { database, json }: { database?: string; json: boolean },
): Promise<void> {
  const adminKey = settings.login
    ? await makeFirstAdminKey(settings.data, ['gateway'], { shared: database })
    : undefined;
  const names = (map: object) => Object.keys(map);
  const facts = {
    gateway: running.url,
    rules: config.rules.length,
    sources: names(config.sources),
    data: settings.data,
    adminKey,
  };
  if (json) {
    console.log(JSON.stringify(facts));
    return;
  }
  const lines = [
    `Gateway   ${running.url}`,
    `Rules     ${config.rules.map(({ id }) => id).join(', ')}`,
    `Sources   ${facts.sources.map(plain).join(', ')}`,
    `Data      ${settings.data}`,
  ];
  for (const [name, { type }] of Object.entries(config.sources))
    if (type === 'orthanc') lines.push(`Hook      ${running.localUrl}/hooks/orthanc/${name}`);
  const fault = running.certificates?.fault();
  if (fault) lines.push(fault);
  if (settings.login) lines.push(loginLines(settings, settings.publicUrl ?? running.url));
  if (adminKey) lines.push(await adminKeyLines(adminKey, settings.data, { shared: database }));
  if (sources.gatewayPort === 'default' && running.port !== settings.gatewayPort)
    lines.push(`Port ${settings.gatewayPort} is in use: using port ${running.port} instead.`);
  console.log(lines.join('\n'));
}
