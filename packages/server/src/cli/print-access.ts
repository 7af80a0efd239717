import { type OidcSettings, parseClaimRule } from '../access/claims.ts';
import type { Config } from '../config.ts';
import { trustEverywhere } from './connect.ts';

/** What is said at the start about who gets in. */

/** The settings of access that server and registry have in common. */
export function accessSettings(config: Config) {
  const { login, tlsSelfMade, publicUrl, allowHost, allowOrigin, legacyPerMinute } = config;
  const oidc = oidcSettings(config);
  return { login, tlsSelfMade, publicUrl, allowHost, allowOrigin, legacyPerMinute, oidc };
}

function oidcSettings(config: Config): OidcSettings | undefined {
  const { oidcIssuer: issuer, oidcClientId: clientId } = config;
  if (issuer === undefined || clientId === undefined) return undefined;
  // What is no rule, the configuration has refused.
  const rulesOf = (texts: readonly string[]) => texts.flatMap((text) => parseClaimRule(text) ?? []);
  return {
    issuer,
    clientId,
    clientSecret: config.oidcClientSecret,
    scopes: config.oidcScopes,
    allow: rulesOf(config.oidcAllow),
    admin: rulesOf(config.oidcAdmin),
    audience: config.oidcAudience,
  };
}

/** An issuer within a clinic often has a certificate of the clinic's own (--ca). */
export async function prepareIssuer({ oidcIssuer, ca }: Config): Promise<void> {
  if (oidcIssuer !== undefined && ca !== undefined) await trustEverywhere(ca);
}

/** Where a browser logs in. */
export function loginLine(config: Config, url: string): string {
  const issuer =
    config.oidcIssuer === undefined ? '' : `, or sends you to ${new URL(config.oidcIssuer).host}`;
  return `Login     ${url}/   asks for a key${issuer}`;
}

export function adminKeyLines(key: string): string {
  return [
    `Login is on. The first key, which may do everything; it is not shown again:`,
    `  ${key}`,
    `  page: give it where it asks; programs: the header “Authorization: Bearer tmt_…”; tomaat: --api-key or TOMAAT_API_KEY`,
    `  more keys: tomaat keys create --label NAME --scope predict`,
  ].join('\n');
}

export const legacyLine = (url: string) => `Legacy    ${url}   TOMAAT v1 alone, without login`;
