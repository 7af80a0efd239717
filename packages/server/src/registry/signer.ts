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
import { type Kysely, sql } from 'kysely';
import type { Identity } from '../identity.ts';
import type { DeploymentSchema } from '../store/database/deployment-schema.ts';
import { writeWhole } from '../store/files/whole-file.ts';

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
  /** The database of several servers that announce the same services: their epochs are one row. */
  shared?: Kysely<DeploymentSchema>;
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
  shared,
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

  /** Greater than that of any server, whose clocks need not be the same. */
  async function nextShared(db: Kysely<DeploymentSchema>): Promise<number> {
    const { rows } = await sql<{ value: string }>`INSERT INTO deployment (name, value)
      VALUES ('epoch', ${String(Math.max(last + 1, now()))}) ON CONFLICT (name) DO UPDATE
      SET value = greatest(deployment.value::bigint + 1, excluded.value::bigint)::text RETURNING value`.execute(
      db,
    );
    return Number(rows[0].value);
  }

  async function nextEpoch(): Promise<number> {
    if (shared) return nextShared(shared);
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
