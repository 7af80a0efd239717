import type { JWTPayload } from 'jose';
import { isLoopback } from '../addresses.ts';

/** An operator's settings for an OpenID Connect issuer and its users; without the library that talks to it. */

export interface OidcSettings {
  readonly issuer: string;
  readonly clientId: string;
  readonly clientSecret?: string;
  readonly scopes: readonly string[];
  /** Which of the issuer's users the server accepts: any that match; empty: all. */
  readonly allow: readonly ClaimRule[];
  /** Which of them have the scope admin. */
  readonly admin: readonly ClaimRule[];
  /** The audience of tokens that programs may send as `Authorization: Bearer …`; missing: none are accepted. */
  readonly audience?: string;
}

/** A claim of the token and the value it must have (or contain, if it is a list). */
export interface ClaimRule {
  readonly claim: string;
  readonly value: string;
}

/** Parses CLAIM=VALUE; undefined for anything else. */
export function parseClaimRule(text: string): ClaimRule | undefined {
  const at = text.indexOf('=');
  const rule = { claim: text.slice(0, at).trim(), value: text.slice(at + 1).trim() };
  return at > 0 && rule.claim !== '' && rule.value !== '' ? rule : undefined;
}

/** Whether an issuer's address is acceptable: https, or http on this machine. */
export function isIssuerAddress(address: string): boolean {
  const url = URL.parse(address);
  if (!url || url.search || url.hash || url.username || url.password || address.includes('|')) return false;
  return url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback(url.hostname));
}

/**
 * Whether the claims fulfil a rule. `groups` may be a list; `realm_access.roles` is a claim in a claim. An e-mail address
 * counts only if the issuer has verified it; `email=@hospital.example` means all of that domain.
 */
export function fulfils(claims: JWTPayload, { claim, value }: ClaimRule): boolean {
  const found = valuesOf(claims, claim);
  if (claim !== 'email') return found.includes(value);
  if (claims.email_verified !== true) return false;
  const wanted = value.toLowerCase();
  return found.some((email) => {
    const given = email.toLowerCase();
    return wanted.startsWith('@') ? /^[^@]+@[^@]+$/.test(given) && given.endsWith(wanted) : given === wanted;
  });
}

/** Whether the claim is present, whatever its value; an e-mail address counts only together with `email_verified`. */
export function hasClaim(claims: JWTPayload, claim: string): boolean {
  if (valuesOf(claims, claim).length === 0) return false;
  return claim !== 'email' || claims.email_verified !== undefined;
}

/**
 * The claims of an ID token, with those that only the userinfo endpoint has. The token takes precedence; `email` and
 * `email_verified` always come from the same source.
 */
export function mergeClaims(token: JWTPayload, userinfo: JWTPayload): JWTPayload {
  const merged = { ...userinfo, ...token };
  if (hasClaim(token, 'email')) return merged;
  const { email = token.email, email_verified } = userinfo;
  return { ...merged, email, email_verified: userinfo.email === undefined ? undefined : email_verified };
}

function valuesOf(claims: JWTPayload, path: string): string[] {
  const whole = own(claims, path);
  const found = whole ?? path.split('.').reduce<unknown>(own, claims);
  return [found]
    .flat()
    .flatMap((value) => (['string', 'number', 'boolean'].includes(typeof value) ? [String(value)] : []));
}

const own = (value: unknown, name: string): unknown =>
  typeof value === 'object' && value !== null && Object.hasOwn(value, name)
    ? (value as Record<string, unknown>)[name]
    : undefined;
