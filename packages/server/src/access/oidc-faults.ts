import { TomaatError } from '@tomaat/core';
import { errors } from 'jose';
import { AuthorizationResponseError, ResponseBodyError, WWWAuthenticateChallengeError } from 'openid-client';
import type { OidcSettings } from './claims.ts';

/** Why a login by an issuer failed: a word for the page, an error for programs, a report for the operator's log. */

/** In the address of the page, and `detail.reason` of the error. */
export type LoginFault =
  | 'expired'
  | 'refused'
  | 'settings'
  | 'clock'
  | 'failed'
  | 'not-allowed'
  | 'unreachable';

/** For the log: the issuer's own words, without anything secret. */
export interface LoginReport {
  /** What happened and what to do. */
  readonly why: string;
  /** `error` and `error_description` of the issuer (RFC 6749). */
  readonly issuerError?: string;
  readonly issuerDescription?: string;
}

export class LoginError extends TomaatError {
  readonly report: LoginReport;

  constructor(
    code: 'UNAUTHORIZED' | 'FORBIDDEN' | 'UNREACHABLE',
    reason: LoginFault,
    message: string,
    report: LoginReport,
    cause?: unknown,
  ) {
    super(code, message, { detail: { reason }, cause });
    this.name = 'LoginError';
    this.report = report;
  }
}

/** What must not appear in a log, such as the client secret and the code of this login. */
export type Secrets = readonly (string | undefined)[];

/** The error of a login for anything thrown while it ended. `nowSeconds`: our clock, s since 1970. */
export async function explainFault(
  error: unknown,
  settings: OidcSettings,
  secrets: Secrets,
  nowSeconds: number,
): Promise<TomaatError> {
  if (error instanceof TomaatError) return error;
  const { host } = new URL(settings.issuer);
  const said = await saidBy(error, secrets);
  const words = [said.issuerError, said.issuerDescription].filter(Boolean).join(': ');
  const quoted = words === '' ? '' : ` (${words})`;
  const make = (code: 'UNAUTHORIZED' | 'UNREACHABLE', reason: LoginFault, message: string, why: string) =>
    new LoginError(code, reason, message, { why, ...said }, error);

  if (isUnreachable(error, said.issuerError)) {
    const { message, report } = unreachable(settings.issuer, error);
    return make(
      'UNREACHABLE',
      'unreachable',
      message,
      quoted ? `${host} cannot log in now${quoted}.` : report.why,
    );
  }
  if (error instanceof AuthorizationResponseError && isRefusal(said.issuerError)) {
    return make(
      'UNAUTHORIZED',
      'refused',
      `${host} did not log you in. Try again, or ask the operator of ${host}.`,
      `${host} did not log the user in${quoted}.`,
    );
  }
  const hint = settingsHint(error, said.issuerError, settings);
  if (hint !== undefined) {
    return make(
      'UNAUTHORIZED',
      'settings',
      `${host} rejects the configuration of this server. Only the operator of this server can fix that; its log names the fault. Until then, log in with an API key.`,
      `${host} rejects this server's request${quoted}. ${hint}`,
    );
  }
  const clock = clockFault(error, nowSeconds);
  if (clock !== undefined) {
    return make(
      'UNAUTHORIZED',
      'clock',
      `The clocks of ${host} and this server differ too much. Only the operator can fix that. Until then, log in with an API key.`,
      `The ID token of ${host} ${clock}. Compare both clocks; they may differ by a minute at most.`,
    );
  }
  return make(
    'UNAUTHORIZED',
    'failed',
    `${host} sent an invalid response, so nobody was logged in. Try again. If it fails again, the operator of this server can find the reason in its log.`,
    `${host} sent an invalid response${quoted || `: ${reasonOf(error, secrets)}`}.`,
  );
}

async function saidBy(
  error: unknown,
  secrets: Secrets,
): Promise<Pick<LoginReport, 'issuerError' | 'issuerDescription'>> {
  let given: { error?: unknown; error_description?: unknown } = {};
  if (error instanceof AuthorizationResponseError || error instanceof ResponseBodyError) given = error;
  else if (error instanceof WWWAuthenticateChallengeError) given = await bodyOf(error.response);
  return {
    issuerError: cleanWords(given.error, secrets),
    issuerDescription: cleanWords(given.error_description, secrets),
  };
}

async function bodyOf(response: Response): Promise<Record<string, unknown>> {
  try {
    const body: unknown = await response.json();
    return typeof body === 'object' && body !== null ? (body as Record<string, unknown>) : {};
  } catch {
    return {}; // Not JSON, or already read: only the status is known.
  }
}

const maxWordsLength = 400;
/** Longer words may be codes or tokens. */
const maxWordLength = 60;

/** Text from another party, for a log: on one line, limited, without secrets. */
export function cleanWords(text: unknown, secrets: Secrets): string | undefined {
  if (typeof text !== 'string') return undefined;
  let plain = text.slice(0, 4 * maxWordsLength);
  for (const secret of secrets) if (secret) plain = plain.replaceAll(secret, '…');
  const words = plain
    .replace(/\p{C}/gu, ' ')
    .split(/\s/)
    .filter((word) => word !== '')
    .map((word) => (word.length > maxWordLength ? `${word.slice(0, 8)}…` : word));
  const line = words.join(' ').slice(0, maxWordsLength);
  return line === '' ? undefined : line;
}

function isUnreachable(error: unknown, issuerError: string | undefined): boolean {
  if (issuerError === 'temporarily_unavailable' || issuerError === 'server_error') return true;
  if (error instanceof errors.JWKSTimeout) return true;
  for (let at = error, depth = 0; at instanceof Error && depth < 4; at = at.cause, depth++) {
    if (at.name === 'TimeoutError' || (at as { code?: unknown }).code === 'OAUTH_TIMEOUT') return true;
    // How fetch of Node reports what happened on the network, certificates included.
    if (at instanceof TypeError && ['fetch failed', 'terminated'].includes(at.message)) return true;
    if (at.cause instanceof Response && at.cause.status >= 500) return true;
  }
  return false;
}

/** The error if an issuer's metadata or keys are unavailable. */
export function unreachable(issuer: string, cause?: unknown): LoginError {
  const { host } = new URL(issuer);
  const why =
    cause === undefined
      ? `${host} did not respond correctly a moment ago.`
      : `${host} is not responding correctly: ${reasonOf(cause, [])}. ${unreachableHint(cause)}`;
  const message = `The login server ${host} is not responding correctly. Try again soon, or log in with an API key.`;
  return new LoginError('UNREACHABLE', 'unreachable', message, { why }, cause);
}

function unreachableHint(error: unknown): string {
  const { cause } = error as { cause?: unknown };
  const { attribute, body } = (cause ?? {}) as { attribute?: unknown; body?: { issuer?: unknown } };
  if (attribute === 'issuer')
    return `Its issuer name is ${cleanWords(body?.issuer, [])}. Set oidcIssuer to exactly that.`;
  if (cause instanceof Response)
    return `It answered with ${cause.status}. Check oidcIssuer: the address without /.well-known/openid-configuration.`;
  const code = (cause as { code?: unknown } | undefined)?.code;
  if (typeof code === 'string' && /CERT|SIGNATURE|SELF_SIGNED/.test(code))
    return 'If its certificate was issued by a private authority, give that authority with --ca.';
  return 'The next login tries again.';
}

/** The errors of RFC 6749 and OpenID Connect Core with which an issuer rejects this user, not this server. */
const isRefusal = (error: string | undefined) =>
  [
    'access_denied',
    'login_required',
    'interaction_required',
    'consent_required',
    'account_selection_required',
  ].includes(error ?? '');

/** What the operator should check; undefined if the settings are not the cause. */
function settingsHint(
  error: unknown,
  issuerError: string | undefined,
  { clientId, clientSecret, scopes }: OidcSettings,
): string | undefined {
  const isUnauthorized = error instanceof WWWAuthenticateChallengeError && error.status === 401;
  if (isUnauthorized || issuerError === 'invalid_client' || issuerError === 'unauthorized_client') {
    return clientSecret === undefined
      ? `No client secret is set. Set TOMAAT_OIDC_CLIENT_SECRET to that of the client '${clientId}'.`
      : `Check that the client '${clientId}' exists there as a confidential web client, and that TOMAAT_OIDC_CLIENT_SECRET is its current secret.`;
  }
  if (issuerError === 'invalid_scope')
    return `Check oidcScopes: the client '${clientId}' asks for ${scopes.join(' ')}.`;
  if (
    error instanceof AuthorizationResponseError ||
    issuerError === 'invalid_request' ||
    issuerError === 'unsupported_grant_type'
  ) {
    return `Check that the client '${clientId}' may use the authorization code flow with PKCE (S256), and that the redirect address of this server is registered there.`;
  }
  return undefined;
}

/** How far off a token's times are, if that is the fault. */
function clockFault(error: unknown, nowSeconds: number): string | undefined {
  const { claim, payload } = error as { claim?: unknown; payload?: Record<string, unknown> };
  const cause = (error as Error).cause as { cause?: unknown; claim?: unknown; claims?: unknown } | undefined;
  const isTime =
    error instanceof errors.JWTExpired ||
    (error instanceof errors.JWTClaimValidationFailed && (claim === 'nbf' || claim === 'iat')) ||
    (error as { code?: unknown }).code === 'OAUTH_JWT_TIMESTAMP_CHECK_FAILED';
  if (!isTime) return undefined;
  const deeper = (cause?.cause ?? cause) as
    | { claim?: unknown; claims?: Record<string, unknown>; now?: unknown }
    | undefined;
  const name = String(claim ?? deeper?.claim);
  const time = (payload ?? deeper?.claims)?.[name];
  if (typeof time !== 'number' || !Number.isFinite(time)) return 'has an invalid time';
  const seconds = Math.round(Math.abs(nowSeconds - time));
  return name === 'exp' ? `expired ${seconds} s ago` : `is not valid for another ${seconds} s`;
}

/** The library's description of what was wrong with a token or an answer. */
function reasonOf(error: unknown, secrets: Secrets): string {
  const words: string[] = [];
  for (let at = error, depth = 0; at instanceof Error && depth < 3; at = at.cause, depth++) {
    const text = cleanWords(at.message, secrets);
    if (text !== undefined && !words.includes(text)) words.push(text);
  }
  return words.join('; ') || 'unknown reason';
}
