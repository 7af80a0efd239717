import { createRemoteJWKSet, customFetch as keySetFetch } from 'jose';
import {
  allowInsecureRequests,
  type ClientAuth,
  ClientSecretBasic,
  ClientSecretPost,
  Configuration,
  clockSkew,
  clockTolerance,
  customFetch,
  discovery,
  None,
  type ServerMetadata,
} from 'openid-client';
import { isLoopback } from '../addresses.ts';
import type { OidcSettings } from './claims.ts';
import { unreachable } from './oidc-faults.ts';

/** What is known about an issuer: its metadata (OpenID Connect Discovery 1.0) and its keys. */

export interface Issuer {
  readonly metadata: ServerMetadata;
  readonly keys: ReturnType<typeof createRemoteJWKSet>;
  /** For requests of openid-client, with the current clock. */
  configure(): Configuration;
}

/** Only signatures with a public key: a secret that both sides know (HS256) would let the client forge tokens. */
export const signatureAlgorithms = ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519'];
/** How far the clocks of the issuer and of this machine may differ. */
export const clockToleranceSeconds = 60;
/** Endpoints and features of an issuer may change: its metadata is fetched again after this time. */
const metadataMs = 3_600_000;
const maxAnswerBytes = 1_048_576;
const patienceMs = 10_000;

/** Fetches the issuer's metadata once, and again after an hour; after a failure, not at every request. */
export function createDiscovery(
  settings: OidcSettings,
  now: () => number,
  retryMs: number,
): () => Promise<Issuer> {
  let known: Issuer | undefined;
  let asked: Promise<Issuer> | undefined;
  /** Until then `known`, or the last failure, is used. */
  let askAgainMs = Number.NEGATIVE_INFINITY;

  return async () => {
    if (asked === undefined && now() < askAgainMs) {
      if (known) return known;
      throw unreachable(settings.issuer);
    }
    const asking = (asked ??= askIssuer(settings, now, retryMs));
    try {
      known = await asking;
      askAgainMs = now() + metadataMs;
      return known;
    } catch (error) {
      askAgainMs = now() + retryMs;
      // The metadata of an hour ago is most likely still valid.
      if (known) return known;
      throw unreachable(settings.issuer, error);
    } finally {
      if (asked === asking) asked = undefined;
    }
  };
}

async function askIssuer(settings: OidcSettings, now: () => number, retryMs: number): Promise<Issuer> {
  const { issuer, clientId } = settings;
  const execute = new URL(issuer).protocol === 'http:' ? [allowInsecureRequests] : [];
  const found = await discovery(new URL(issuer), clientId, undefined, None(), {
    execute,
    [customFetch]: boundedFetch,
  });
  const metadata = found.serverMetadata();
  if (metadata.jwks_uri === undefined) throw new Error('the issuer names no keys (jwks_uri)');
  const authentication = clientAuthentication(settings, metadata);
  return {
    metadata,
    keys: createRemoteJWKSet(new URL(metadata.jwks_uri), {
      timeoutDuration: patienceMs,
      // After a rotation the first token with an unknown key id fetches the keys; other tokens must not trigger a fetch.
      cooldownDuration: retryMs,
      [keySetFetch]: boundedFetch,
    }),
    configure() {
      const skewSeconds = Math.round((now() - Date.now()) / 1000);
      const client = { [clockTolerance]: clockToleranceSeconds, [clockSkew]: skewSeconds };
      const config = new Configuration(metadata, clientId, client, authentication);
      config[customFetch] = boundedFetch;
      for (const extend of execute) extend(config);
      return config;
    },
  };
}

const authenticationMethods = ({ token_endpoint_auth_methods_supported: methods }: ServerMetadata) =>
  // The default of OpenID Connect Discovery 1.0, section 3.
  methods ?? ['client_secret_basic'];

function clientAuthentication({ clientSecret }: OidcSettings, metadata: ServerMetadata): ClientAuth {
  if (clientSecret === undefined) return None();
  return authenticationMethods(metadata).includes('client_secret_post')
    ? ClientSecretPost(clientSecret)
    : ClientSecretBasic(clientSecret);
}

/** Conflicts between the settings and the issuer's metadata, in words for the operator. */
export function findMisfits({ issuer, clientSecret }: OidcSettings, metadata: ServerMetadata): string[] {
  const { host } = new URL(issuer);
  const misfits: string[] = [];
  const methods = authenticationMethods(metadata);
  // Not an error: some issuers (Keycloak) accept public clients although they do not list `none`.
  if (clientSecret === undefined && !methods.includes('none')) {
    misfits.push(
      `No client secret is set, and ${host} requires one from clients (token_endpoint_auth_methods_supported: ${methods.join(', ')}). Every login will fail unless this client is registered there as a public one. Set TOMAAT_OIDC_CLIENT_SECRET, or oidcClientSecret in the settings file.`,
    );
  }
  const usable = methods.includes('client_secret_basic') || methods.includes('client_secret_post');
  if (clientSecret !== undefined && !usable) {
    misfits.push(
      `A client secret is set, but ${host} does not accept it by a supported method: it offers ${methods.join(', ')}; supported methods are client_secret_basic and client_secret_post.`,
    );
  }
  const signed = metadata.id_token_signing_alg_values_supported;
  if (Array.isArray(signed) && !signed.some((name) => signatureAlgorithms.includes(name))) {
    misfits.push(
      `${host} signs ID tokens with ${signed.join(', ')}; supported are ${signatureAlgorithms.join(', ')}. Configure this client there to use one of them.`,
    );
  }
  return misfits;
}

/** fetch for requests to an issuer: encrypted unless it is on this machine, without redirects, limited in time and size. */
async function boundedFetch(address: string, init: object = {}): Promise<Response> {
  const url = new URL(address);
  if (url.protocol !== 'https:' && !isLoopback(url.hostname))
    throw new Error(`${url.origin} is not contacted: it is not encrypted`);
  const given = init as RequestInit;
  const patience = AbortSignal.timeout(patienceMs);
  const response = await fetch(url, {
    ...given,
    redirect: 'manual',
    signal: given.signal ? AbortSignal.any([given.signal, patience]) : patience,
  });
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const chunk of response.body ?? []) {
    sizeBytes += chunk.byteLength;
    if (sizeBytes > maxAnswerBytes)
      throw new Error(`${url.origin} answered with more than ${maxAnswerBytes} bytes`);
    chunks.push(chunk);
  }
  const body = sizeBytes === 0 ? null : Buffer.concat(chunks);
  // The body is already decompressed, so its length differs.
  const headers = new Headers(response.headers);
  headers.delete('content-encoding');
  headers.delete('content-length');
  return new Response(body, { status: response.status, headers });
}
