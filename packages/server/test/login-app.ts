import { rm } from 'node:fs/promises';
import { TomaatError } from '@tomaat/core';
import { pino } from 'pino';
import type { OidcSettings } from '../src/access/claims.ts';
import { createKey, findKey } from '../src/access/keys.ts';
import { createOidc } from '../src/access/oidc.ts';
import type { KeyScope } from '../src/access/scopes.ts';
import { createApp, listenHttp, listenHttps } from '../src/http/app.ts';
import { createLogin } from '../src/http/login.ts';
import { openPublicAddress } from '../src/http/public-address.ts';
import { openServerDatabase } from '../src/store/database/server-database.ts';
import { openCertificate } from '../src/tls.ts';
import type { OidcProvider } from './oidc-provider.ts';
import { databaseOf } from './support/tested-database.ts';
import { temporaryFolder } from './test-server.ts';

export type LogLine = Record<string, unknown> & { level: number; msg: string };

/** The login of a server without the rest of it: the routes, and two of a caller's own that need somebody. */
export async function openLoginApp({
  oidc: settings,
  publicUrl,
  required = true,
  contact,
  tls = false,
}: {
  oidc?: OidcSettings;
  publicUrl?: string;
  required?: boolean;
  contact?: string;
  tls?: boolean;
} = {}) {
  const folder = await temporaryFolder();
  const database = await openServerDatabase(folder, await databaseOf(folder));
  const clock = { ms: 0 };
  const now = () => Date.now() + clock.ms;
  const oidc = settings && createOidc({ settings, now, retryMs: 0 });
  const log: LogLine[] = [];
  const logger = pino({ level: 'debug' }, { write: (line: string) => log.push(JSON.parse(line)) });
  const address = openPublicAddress(publicUrl);
  const login = createLogin({ db: database.db, required, contact, scope: 'predict', oidc, address, now });
  const app = createApp(logger, { address });
  login.register(app, (key) => findKey(database.db, key, now()));
  const who = async (request: Parameters<typeof login.principalOf>[0]) => {
    const principal = await login.principalOf(request);
    if (!principal) throw new TomaatError('UNAUTHORIZED', 'Log in.');
    return principal;
  };
  app.get('/who', who);
  app.delete('/who', who);
  app.get('/', async () => 'the page');
  app.get('/jobs/:id', async () => 'a job');
  const listener = tls
    ? await listenHttps(app, await openCertificate(folder, { host: '127.0.0.1' }), '127.0.0.1', 0)
    : await listenHttp(app, '127.0.0.1', 0);
  const scheme = tls ? 'https' : 'http';
  return {
    app,
    database,
    clock,
    /** Lines of the log so far. */
    log,
    logger,
    login,
    port: listener.port,
    // Another site than the issuer's.
    url: `${scheme}://localhost:${listener.port}`,
    key: async (scopes: KeyScope[] = ['predict'], label = 'ward 3') =>
      createKey(database.db, { label, scopes }),
    async [Symbol.asyncDispose]() {
      await listener.close();
      await app.close();
      await database.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
export type LoginApp = Awaited<ReturnType<typeof openLoginApp>>;

type IssuerOfTest = Pick<OidcProvider, 'issuer' | 'clientId' | 'clientSecret'>;

export const settingsOf = (provider: IssuerOfTest, change: Partial<OidcSettings> = {}): OidcSettings => ({
  issuer: provider.issuer,
  clientId: provider.clientId,
  clientSecret: provider.clientSecret,
  scopes: ['openid', 'profile', 'email'],
  allow: [],
  admin: [],
  ...change,
});
