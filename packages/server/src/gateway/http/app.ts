import type { FastifyBaseLogger, FastifyInstance } from 'fastify';
import type { Kysely } from 'kysely';
import { type Access, registerAccess } from '../../access/access.ts';
import type { OidcSettings } from '../../access/claims.ts';
import { createHostPolicy, type HostOptions } from '../../access/hosts.ts';
import { type Pseudonyms, withPseudonyms } from '../../access/pseudonyms.ts';
import type { Recorder } from '../../audit/refusals.ts';
import { createApp } from '../../http/app.ts';
import { createLogin, type Login, openOidc } from '../../http/login.ts';
import { registerOperations } from '../../http/operations.ts';
import { gatewayDocument, registerPage } from '../../http/page.ts';
import { openPublicAddress } from '../../http/public-address.ts';
import type { Database } from '../../store/database/database.ts';
import type { GatewaySchema } from '../../store/database/gateway-database.ts';
import type { KeySchema } from '../../store/database/key-schema.ts';
import { version } from '../../version.ts';
import type { GatewayConfig } from '../config.ts';
import type { Gateway, GatewaySummary } from '../gateway-type.ts';
import type { GatewayMetrics } from '../metrics.ts';
import type { Summary } from '../summary.ts';
import { registerHook } from './hook.ts';
import { registerSeriesRoutes } from './series-routes.ts';

export interface GatewayAppOptions {
  readonly config: GatewayConfig;
  readonly gateway: Gateway;
  /** Of `gateway`. */
  readonly summary: Summary;
  readonly metrics: GatewayMetrics;
  readonly database: Database<GatewaySchema>;
  readonly pseudonyms: Pseudonyms;
  readonly audit: Pick<Recorder, 'record'>;
  readonly logger: FastifyBaseLogger | false;
  /** Names and origins that are ours; only loopback if missing. */
  readonly hosts?: HostOptions;
  /** Whether callers need a key. */
  readonly login?: boolean;
  /** The issuer for logins, in addition to keys. */
  readonly oidc?: OidcSettings;
  /** The address at which others reach the gateway, such as that of a proxy in front of it. */
  readonly publicUrl?: string;
  /** Folder of the built page, served at `/`. */
  readonly page?: string;
}

export interface GatewayApp {
  readonly app: FastifyInstance;
  readonly access: Access;
  readonly login: Login;
}

/** The HTTP of a gateway without a port. */
export async function createGatewayApp(options: GatewayAppOptions): Promise<GatewayApp> {
  const { config, gateway, summary, metrics, database, pseudonyms, audit } = options;
  const address = openPublicAddress(options.publicUrl);
  const app = createApp(options.logger, {
    address,
    index: { path: '/api/openapi.json', lists: 'what there is', link: 'See the series' },
  });
  const login = createLogin({
    db: database.db,
    required: options.login ?? false,
    scope: 'admin',
    oidc: withPseudonyms(await openOidc(options.oidc), pseudonyms),
    address,
    audit,
  });
  if (options.logger) void login.checkIssuer(options.logger);
  const access = registerAccess(app, {
    keys: database.db as unknown as Kysely<KeySchema>,
    hosts: createHostPolicy(options.hosts ?? {}),
    login: options.login,
    sessions: login.principalOf,
    audit,
    storedOwner: pseudonyms.of,
    realm: 'TOMAAT gateway',
  });
  login.register(app, access.recognise);
  registerHook(app, {
    sources: config.sources,
    async see(seen) {
      await gateway.see(seen);
      summary.forget();
    },
  });
  registerSeriesRoutes(app, { config, gateway, audit, summary });
  registerOperations(app, {
    on: 'gateway',
    version,
    metrics: () => metrics.registry.metrics(),
    ready: () => readiness(summary),
  });
  await registerPage(app, options.page, gatewayDocument);
  return { app, access, login };
}

/** A source that is away stops none of the others, so it only counts. */
async function readiness({ now }: Summary) {
  const { databaseFault, sources, destinations } = await now();
  if (databaseFault) return { reason: `the database cannot be written (${databaseFault.code})` };
  const away = (peers: GatewaySummary['sources']) => peers.filter(({ fault }) => fault).length;
  return { away: { sources: away(sources), destinations: away(destinations) } };
}
