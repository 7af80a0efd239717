import { TomaatError, withoutTrailingSlashes } from '@tomaat/core';
import {
  type AnnouncedParity,
  announcedParitySchema,
  type Entry,
  type SignedAnnouncement,
  signedAnnouncementSchema,
} from './contract/registry.ts';
import { verifySigned } from './signed.ts';

/**
 * What a server signs when it announces a service, and how it is checked. The registry checks it once, on receipt; a
 * client checks it again, so that it does not have to trust the registry's copy of an address or a name.
 */

export const announcementType = 'tomaat-announcement+jws';
/**
 * The longest validity of a signed announcement, and the tolerated difference between the clocks of signer and
 * checker.
 */
export const announcementLifeSeconds = 120;
const clockSkewSeconds = 60;

export interface AnnouncementCheck {
  /** Whether this address (`aud`) is the registry's, as far as the checker knows. */
  isAudience(address: string): boolean;
  /** The clock, in ms since 1970. */
  nowMs: number;
}

/** The content of a signed announcement, with the parity of its header. */
export type VerifiedAnnouncement = SignedAnnouncement & { readonly parity?: AnnouncedParity };

/** The address of a registry as announcements name it: without trailing slash, query or fragment. */
export function audienceOf(registryUrl: string): string {
  const url = new URL(registryUrl);
  return url.origin + withoutTrailingSlashes(url.pathname);
}

/** The id of a service in all announcements: the thumbprint of its server's key, a dot, its id on the server. */
export const announcementId = (thumbprint: string, serviceId: string): string => `${thumbprint}.${serviceId}`;

/**
 * Checks signature, type, content, signer, audience and time of a signed announcement.
 * @throws TomaatError BAD_SIGNATURE that names the failed check, BAD_INPUT for invalid content.
 */
export async function verifyAnnouncement(
  text: string,
  { isAudience, nowMs }: AnnouncementCheck,
): Promise<VerifiedAnnouncement> {
  const { payload, header, thumbprint } = await verifySigned(text, announcementType);
  const parsed = signedAnnouncementSchema.safeParse(payload);
  const parity = announcedParitySchema.optional().safeParse(header.parity);
  if (!parsed.success || !parity.success) {
    const faultsOf = (error: typeof parsed.error | typeof parity.error, place: string) =>
      (error?.issues ?? []).map((issue) => `${issue.path.join('.') || place}: ${issue.message}`);
    const faults = [...faultsOf(parsed.error, 'payload'), ...faultsOf(parity.error, 'parity')];
    throw new TomaatError(
      'BAD_INPUT',
      `The announcement has faults: ${faults.join('; ')}. Mend them, and sign it again.`,
      { detail: { faults } },
    );
  }
  const announcement = parsed.data;
  if (announcement.sub !== thumbprint) {
    throw refused(
      `The announcement says that the key ${announcement.sub} signed it, but ${thumbprint} did. A server signs for itself alone.`,
    );
  }
  if (announcement.id !== announcementId(thumbprint, announcement.serviceId)) {
    throw refused(
      `The id ${announcement.id} is not that of the service ${announcement.serviceId} of the key ${thumbprint}, which is ${announcementId(thumbprint, announcement.serviceId)}.`,
    );
  }
  if (!isAudience(announcement.aud)) {
    throw refused(
      `The announcement was made for the registry at ${announcement.aud}, not for this one. Use the registry by that address; if it is this one, its operator names it with --public-url.`,
    );
  }
  checkTime(announcement, Math.floor(nowMs / 1000));
  return parity.data === undefined ? announcement : { ...announcement, parity: parity.data };
}

function checkTime({ iat, exp }: SignedAnnouncement, now: number): void {
  if (exp <= iat || exp - iat > announcementLifeSeconds) {
    throw refused(
      `The announcement would be good for ${exp - iat} s; at most ${announcementLifeSeconds} s are allowed.`,
    );
  }
  if (iat > now + clockSkewSeconds) {
    throw refused(
      `The announcement was signed ${iat - now} s in the future: the clock here and the server's differ by ${iat - now} s or more, and ${clockSkewSeconds} s are allowed. Set the clocks.`,
    );
  }
  if (now >= exp) {
    throw refused(
      `The announcement has expired: it was signed ${now - iat} s ago and was good for ${exp - iat} s. If the server runs, its clock and the one here differ by up to ${now - iat} s: set the clocks.`,
    );
  }
}

/**
 * Checks an entry of a registry: its announcement, and that it matches what was signed.
 * @throws TomaatError BAD_SIGNATURE.
 */
export async function verifyEntry(entry: Entry, check: AnnouncementCheck): Promise<VerifiedAnnouncement> {
  if (!entry.signed) {
    throw refused(`${entry.name} is announced without a signature, so nobody vouches for its address.`);
  }
  const announcement = await verifyAnnouncement(entry.signed, check);
  const changed: string[] = shownFields.filter(
    (field) => (entry[field] ?? none[field]) !== (announcement[field] ?? none[field]),
  );
  // A registry of 0.1 shows none.
  if (entry.parity && !isSameParity(entry.parity, announcement.parity)) changed.push('parity');
  if (changed.length > 0) {
    throw refused(
      `The registry shows another ${changed.join(', ')} of ${entry.name} than its server signed. Do not use it; tell the registry's operator.`,
    );
  }
  return announcement;
}

const shownFields = [
  'id',
  'name',
  'modality',
  'anatomy',
  'task',
  'description',
  'predictionUrl',
  'interfaceUrl',
  'serverUrl',
  'serviceId',
  'version',
  'default',
  'volumes',
] as const satisfies readonly (keyof SignedAnnouncement & keyof Entry)[];

const isSameParity = (a: AnnouncedParity, b: AnnouncedParity | undefined): boolean =>
  a.verdict === b?.verdict && a.agree === b.agree && a.cases === b.cases && a.conditions === b.conditions;

const none: Partial<Record<(typeof shownFields)[number], unknown>> = { default: false };

/** Whether two addresses name the same registry: same host and path, where all names of this machine count as one. */
export function isSameRegistry(aud: string, asked: string, otherHosts: readonly string[] = []): boolean {
  if (!URL.canParse(aud)) return false;
  const [a, b] = [new URL(aud), new URL(asked)];
  const hosts = [b.hostname, ...otherHosts].map((host) => host.toLowerCase());
  const sameHost = hosts.includes(a.hostname) || (isThisMachine(a.hostname) && hosts.some(isThisMachine));
  return sameHost && portOf(a) === portOf(b) && pathOf(a) === pathOf(b);
}

const isThisMachine = (host: string) =>
  host === 'localhost' || host === '[::1]' || /^127(\.\d+){3}$/.test(host);
const portOf = (url: URL) => url.port || (url.protocol === 'https:' ? '443' : '80');
const pathOf = (url: URL) => withoutTrailingSlashes(url.pathname);

function refused(message: string): TomaatError {
  return new TomaatError('BAD_SIGNATURE', message);
}
