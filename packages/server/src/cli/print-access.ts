import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type OidcSettings, parseClaimRule } from '../access/claims.ts';
import { openKeyFolder, type SharedPlace } from '../access/key-folder.ts';
import { revokeKey } from '../access/keys.ts';
import type { Config } from '../config.ts';
import { type FaceName, faceTitles } from '../settings.ts';
import { trustEverywhere } from './connect.ts';

/** The lines about access that are printed at startup. */

/** The access settings that server and registry share. */
export function accessSettings(config: Config) {
  const { login, contact, tlsSelfMade, publicUrl, allowHost, allowOrigin, legacyPerMinute } = config;
  const oidc = oidcSettings(config);
  return { login, contact, tlsSelfMade, publicUrl, allowHost, allowOrigin, legacyPerMinute, oidc };
}

function oidcSettings(config: Config): OidcSettings | undefined {
  const { oidcIssuer: issuer, oidcClientId: clientId } = config;
  if (issuer === undefined || clientId === undefined) return undefined;
  // The configuration has already rejected invalid rules.
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

/** An issuer within a clinic often has a certificate from the clinic's own authority (--ca). */
export async function prepareIssuer({ oidcIssuer, ca }: Config): Promise<void> {
  if (oidcIssuer !== undefined && ca !== undefined) await trustEverywhere(ca);
}

/** Where a browser logs in, and which addresses to register at the issuer. `url`: the address of the page. */
export function loginLines(config: Config, url: string, others: readonly string[] = []): string {
  if (config.oidcIssuer === undefined) return `Login     ${url}/   asks for a key`;
  const { host } = new URL(config.oidcIssuer);
  return [
    `Login     ${url}/   asks for a key, or sends you to ${host}`,
    ...[url, ...others].map(
      (one) => `  register there: redirect address ${one}/auth/oidc/callback, after a logout ${one}/`,
    ),
  ].join('\n');
}

const adminKeyFile = 'first-admin.key';

/**
 * What is printed about the first administrator's key. On a terminal that is the key. Elsewhere stdout goes to a journal or a
 * log that is kept and that others read, so the key is written to a file that only its owner can read.
 */
export async function adminKeyLines(key: string, dataFolder: string, at: SharedPlace = {}): Promise<string> {
  const use = [
    `  page: enter it when asked; programs: the header “Authorization: Bearer tmt_…”; tomaat: --api-key or TOMAAT_API_KEY`,
    `  more keys: tomaat keys create --label NAME --scope predict`,
  ];
  if (process.stdout.isTTY) {
    return [
      `Login is on. The first key, which has every permission; it is not shown again:`,
      `  ${key}`,
      ...use,
    ].join('\n');
  }
  const file = join(dataFolder, adminKeyFile);
  try {
    await rm(file, { force: true });
    await writeFile(file, `${key}\n`, { mode: 0o600, flag: 'wx', flush: true });
  } catch (error) {
    // Otherwise a key that nobody saw would prevent the next start from creating one.
    await using keys = await openKeyFolder(dataFolder, undefined, at);
    for (const db of keys.databases) await revokeKey(db, key.split('_')[1]);
    throw error;
  }
  return [
    `Login is on. The first key, which has every permission, is in this file, which only its owner can read; keep the key elsewhere and delete the file:`,
    `  ${file}`,
    ...use,
  ].join('\n');
}

export function legacyLine(url: string, faces: readonly FaceName[] = []): string {
  const served = faces.length > 0 ? faces : (['v1'] as const);
  return `Legacy    ${url}   ${served.map((face) => faceTitles[face]).join(' and ')} only, without login`;
}

/** The addresses that users enter into other programs. OHIF needs the slash at the end. */
export const faceLines = ({ faces, publicUrl }: Config, url: string): string[] =>
  faces
    .filter((face) => face !== 'v1')
    .map((face) => `${faceTitles[face].padEnd(11)} ${publicUrl ?? url}/${face}/`);
