import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type AnnouncedParity,
  type Announcement,
  announcementId,
  announcementLifeSeconds,
  announcementType,
  audienceOf,
  type SignedAnnouncement,
} from '@tomaat/client';
import type { Identity } from '../identity.ts';
import { writeWhole } from '../store/whole-file.ts';

/** Signs the announcements of a server, each for one registry and for two minutes. */
export interface AnnouncementSigner {
  /** The id of a service, at every registry. */
  idOf(serviceId: string): string;
  /** The compact JWS of an announcement for the registry at this address. */
  sign(announcement: Announcement & { parity?: AnnouncedParity }, registryUrl: string): Promise<string>;
}

export interface SignerOptions {
  dataFolder: string;
  identity: Identity;
  /** SHA-256 fingerprint of the certificate that clients see; a function if it may be replaced. */
  certificate: string | (() => string);
  /** The clock, in ms since 1970. */
  now?: () => number;
}

const epochFile = 'announcement-epoch';
/** Written to disk ahead of use, so that not every announcement writes. */
const reservedMs = 60_000;

/**
 * The epoch of an announcement is the time in ms, and always greater than the last one: the file holds a number that
 * no epoch has reached yet, so that epochs grow across restarts even if the clock was set back.
 */
export async function openSigner({
  dataFolder,
  identity,
  certificate,
  now = Date.now,
}: SignerOptions): Promise<AnnouncementSigner> {
  const file = join(dataFolder, epochFile);
  let last = await readEpoch(file);
  let reserved = 0;
  let writing = Promise.resolve();

  async function reserve(until: number): Promise<void> {
    try {
      await writeWhole(file, `${until}\n`);
    } catch (error) {
      // The next announcement tries again.
      reserved = 0;
      throw error;
    }
  }

  async function nextEpoch(): Promise<number> {
    const epoch = Math.max(last + 1, now());
    last = epoch;
    if (epoch >= reserved) {
      reserved = epoch + reservedMs;
      writing = reserve(reserved);
    }
    await writing;
    return epoch;
  }

  return {
    idOf: (serviceId) => announcementId(identity.thumbprint, serviceId),
    async sign({ parity, ...announcement }, registryUrl) {
      const iat = Math.floor(now() / 1000);
      const payload: SignedAnnouncement = {
        ...announcement,
        id: announcementId(identity.thumbprint, announcement.serviceId),
        sub: identity.thumbprint,
        aud: audienceOf(registryUrl),
        iat,
        exp: iat + announcementLifeSeconds,
        epoch: await nextEpoch(),
        certificate: typeof certificate === 'string' ? certificate : certificate(),
      };
      return identity.sign(announcementType, payload, { parity });
    },
  };
}

async function readEpoch(file: string): Promise<number> {
  try {
    const epoch = Number((await readFile(file, 'utf8')).trim());
    return Number.isSafeInteger(epoch) && epoch > 0 ? epoch : 0;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return 0;
  }
}
