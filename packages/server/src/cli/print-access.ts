import type { Config } from '../config.ts';

/** What is said at the start about who gets in. */

/** The settings of access that server and registry have in common. */
export function accessSettings(config: Config) {
  const { login, tlsSelfMade, publicUrl, allowHost, allowOrigin, legacyPerMinute } = config;
  return { login, tlsSelfMade, publicUrl, allowHost, allowOrigin, legacyPerMinute };
}

export function adminKeyLines(key: string): string {
  return [
    `Login is on. The first key, which may do everything; it is not shown again:`,
    `  ${key}`,
    `  page: give it at the login; programs: the header “Authorization: Bearer tmt_…”; tomaat: --api-key or TOMAAT_API_KEY`,
    `  more keys: tomaat keys create --label NAME --scope predict`,
  ].join('\n');
}

export const legacyLine = (url: string) => `Legacy    ${url}   TOMAAT v1 alone, without login`;
