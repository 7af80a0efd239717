import { randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { exportJWK, generateKeyPair, type JWK } from 'jose';
import Provider from 'oidc-provider';
import MemoryAdapter from 'oidc-provider/lib/adapters/memory_adapter.js';

/**
 * The certified issuer `oidc-provider` on loopback, with its own defaults: claims of scopes are only at userinfo
 * (`conformIdTokenClaims`), PKCE is required, and an unregistered address is refused.
 */
export interface RealIssuer extends AsyncDisposable {
  readonly issuer: string;
  readonly clientId: string;
  readonly clientSecret: string;
  /** A client of its own for programs: client_credentials. */
  readonly robot: { readonly clientId: string; readonly clientSecret: string };
  /** The audience of access tokens for programs. */
  readonly audience: string;
  /** Claims by account. */
  readonly accounts: Map<string, Record<string, unknown>>;
  /** Who logs in next, without being asked; `undefined` refuses as a user who presses Cancel. */
  user: string | undefined;
  /** Registers the site of the server: its callback, and the address to come back to after a logout. */
  register(site: string): Promise<void>;
  /** Signs with a new key from now on; the old one is withdrawn. */
  rotateKeys(): Promise<void>;
  /** Stops to listen, and listens again on the same port. */
  stop(): Promise<void>;
  start(): Promise<void>;
  /** A JWT that the token endpoint gives to the robot. */
  tokenOfRobot(): Promise<string>;
  /** Whether its userinfo endpoint fails. */
  userinfoFails: boolean;
  /** Requests by path. */
  readonly asked: string[];
  /** Errors that it reports of itself. */
  readonly faults: unknown[];
}

export interface RealIssuerOptions {
  /** Its default is true. */
  readonly conformIdTokenClaims?: boolean;
  /** Whether it offers `end_session_endpoint`; true if missing. */
  readonly endsSessions?: boolean;
  /** How the client shows who it is at the token endpoint; `none`: a public client. */
  readonly authentication?: 'client_secret_basic' | 'client_secret_post' | 'none';
  /** How long an ID token is valid, s. */
  readonly idTokenSeconds?: number;
}

/** Of its own kind, for the issuer warns of its usual one. */
class Store extends MemoryAdapter {}

const resource = 'urn:tomaat:api';
/** How long a token of the robot is valid. */
export const robotSeconds = 600;

export async function openRealIssuer(options: RealIssuerOptions = {}): Promise<RealIssuer> {
  const { authentication = 'client_secret_basic' } = options;
  const audience = 'tomaat-api';
  const name = randomBytes(6).toString('hex');
  const [clientId, robotId] = [`tomaat-${name}`, `robot-${name}`];
  const [clientSecret, robotSecret] = [`a+secret with: signs% ${name}`, randomBytes(24).toString('hex')];
  const cookieKey = randomBytes(24).toString('hex');
  const sites: string[] = [];
  let keys = [await newKey()];
  let handle: (request: IncomingMessage, response: ServerResponse) => Promise<void>;
  const server = createServer((request, response) => {
    issuer.asked.push(new URL(request.url!, 'http://issuer.invalid').pathname);
    handle(request, response).catch((error: unknown) => {
      issuer.faults.push(error);
      response.statusCode = 500;
      response.end();
    });
  });
  const listen = (port: number) =>
    new Promise<void>((resolve) => server.listen(port, '127.0.0.1', () => resolve()));
  await listen(0);
  const { port } = server.address() as AddressInfo;
  const address = `http://127.0.0.1:${port}`;

  const issuer: RealIssuer = {
    issuer: address,
    clientId,
    clientSecret,
    robot: { clientId: robotId, clientSecret: robotSecret },
    audience,
    accounts: new Map(),
    user: undefined,
    userinfoFails: false,
    asked: [],
    faults: [],
    async register(site) {
      sites.push(site);
      build();
    },
    async rotateKeys() {
      keys = [await newKey()];
      build();
    },
    async stop() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
    start: () => listen(port),
    async tokenOfRobot() {
      const response = await fetch(`${address}/token`, {
        method: 'POST',
        headers: { authorization: `Basic ${btoa(`${robotId}:${robotSecret}`)}` },
        body: new URLSearchParams({ grant_type: 'client_credentials', resource }),
      });
      const { access_token: token } = (await response.json()) as { access_token?: string };
      if (token === undefined) throw new Error(`the issuer gave no token (${response.status})`);
      return token;
    },
    async [Symbol.asyncDispose]() {
      if (server.listening) await issuer.stop();
    },
  };

  /** Sessions and grants are in the memory adapter, which all providers of this process share. */
  function build(): void {
    const provider = new Provider(address, {
      clients: [
        {
          client_id: clientId,
          ...(authentication !== 'none' && { client_secret: clientSecret }),
          token_endpoint_auth_method: authentication,
          grant_types: ['authorization_code'],
          response_types: ['code'],
          redirect_uris: sites.map((site) => `${site}/auth/oidc/callback`),
          post_logout_redirect_uris: sites.map((site) => `${site}/`),
        },
        {
          client_id: robotId,
          client_secret: robotSecret,
          grant_types: ['client_credentials'],
          response_types: [],
          redirect_uris: [],
        },
      ],
      ...(authentication !== 'none' && {
        clientAuthMethods: ['client_secret_basic', 'client_secret_post'],
      }),
      ...(options.conformIdTokenClaims !== undefined && {
        conformIdTokenClaims: options.conformIdTokenClaims,
      }),
      cookies: { keys: [cookieKey] },
      adapter: Store,
      pkce: { required: () => true },
      ttl: {
        AccessToken: 600,
        ClientCredentials: robotSeconds,
        IdToken: options.idTokenSeconds ?? 3600,
        Interaction: 600,
        Grant: 14 * 86_400,
        Session: 14 * 86_400,
      },
      jwks: { keys },
      claims: {
        openid: ['sub'],
        profile: ['name', 'preferred_username', 'groups'],
        email: ['email', 'email_verified'],
      },
      findAccount: (_context: unknown, id: string) =>
        issuer.accounts.has(id)
          ? { accountId: id, claims: () => ({ ...issuer.accounts.get(id), sub: id }) }
          : undefined,
      features: {
        devInteractions: { enabled: false },
        clientCredentials: { enabled: true },
        rpInitiatedLogout: { enabled: options.endsSessions ?? true, logoutSource },
        resourceIndicators: {
          enabled: true,
          getResourceServerInfo: () => ({
            scope: 'predict',
            audience,
            accessTokenFormat: 'jwt',
            jwt: { sign: { alg: 'RS256' } },
          }),
        },
      },
      interactions: { url: (_context: unknown, { uid }: { uid: string }) => `/interaction/${uid}` },
    });
    provider.on('server_error', (_context, error) => issuer.faults.push(error));
    const answer = provider.callback();
    handle = async (request, response) => {
      if (issuer.userinfoFails && request.url!.startsWith('/me')) {
        response.statusCode = 500;
        response.end();
      } else if (request.url!.startsWith('/interaction/')) await interact(provider, request, response);
      else await answer(request, response);
    };
  }

  /** What a user would do in the forms of an issuer. */
  async function interact(provider: Provider, request: IncomingMessage, response: ServerResponse) {
    const { prompt, params, session } = await provider.interactionDetails(request, response);
    const finish = (result: Record<string, unknown>) =>
      provider.interactionFinished(request, response, result);
    if (prompt.name === 'login') {
      if (issuer.user === undefined)
        return finish({ error: 'access_denied', error_description: 'the user pressed Cancel' });
      return finish({ login: { accountId: issuer.user } });
    }
    const grant = new provider.Grant({ accountId: session!.accountId, clientId: String(params.client_id) });
    grant.addOIDCScope(String(params.scope));
    return finish({ consent: { grantId: await grant.save() } });
  }

  build();
  return issuer;
}

/** Its own page without the look: asks whether the session shall end. */
function logoutSource(context: { body: string }, form: string): void {
  context.body = `<!doctype html><title>Issuer</title>${form}
    <button form="op.logoutForm" name="logout" value="yes">Yes</button>
    <button form="op.logoutForm">No</button>`;
}

async function newKey(): Promise<JWK> {
  const { privateKey } = await generateKeyPair('RS256', { extractable: true });
  return { ...(await exportJWK(privateKey)), kid: randomBytes(8).toString('hex'), alg: 'RS256', use: 'sig' };
}
