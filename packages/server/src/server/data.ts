import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { computesSuv, formatUidKey } from '@tomaat/core';
import type { Kysely } from 'kysely';
import { checkDeployment, requireNotMovedAway } from '../access/deployment.ts';
import { hasKeyWith } from '../access/keys.ts';
import { hideOwners, openPseudonyms, type Pseudonyms } from '../access/pseudonyms.ts';
import type { App } from '../apps.ts';
import { type Audit, openAudit } from '../audit/audit-log.ts';
import { openAuditTable } from '../audit/audit-table.ts';
import { createWitness } from '../audit/receipts.ts';
import { countRefusals, type Recorder } from '../audit/refusals.ts';
import { createProcessing, type ProcessingFacts } from '../http/processing.ts';
import { type Identity, openIdentity } from '../identity.ts';
import { type HeaderReader, openHeaderReader } from '../intake/header-reader.ts';
import { hideName, type Stripping, stripUpload } from '../intake/strip-received.ts';
import { type Blobs, openBlobs } from '../store/blobs/blobs.ts';
import { isBucketAddress } from '../store/blobs/bucket.ts';
import { cacheFolder, openBucketBlobs } from '../store/blobs/bucket-blobs.ts';
import { type Database, lockDataFolder } from '../store/database/database.ts';
import { openDatabaseClock } from '../store/database/database-clock.ts';
import type { DeploymentSchema } from '../store/database/deployment-schema.ts';
import type { KeySchema } from '../store/database/key-schema.ts';
import { markMoved, movedTo } from '../store/database/moved.ts';
import {
  openServerDatabase,
  type ServerSchema,
  serverDatabaseFile,
} from '../store/database/server-database.ts';
import { createSteadyClock, type SteadyClock } from '../store/database/steady-clock.ts';
import { openUidKey } from '../store/files/uid-key.ts';
import { createJobs, type Jobs } from '../store/jobs/jobs.ts';
import { openUploads, type Uploads } from '../store/uploads/uploads.ts';
import { version } from '../version.ts';
import { type Converter, openConverter } from '../worker/converter.ts';
import { findLeftAttempts } from '../worker/survivors.ts';
import type { FilledOptions } from './options.ts';

/** The data folder of a server, held by it alone, and what works in it. Disposing closes all of it, in the reverse order. */
export interface ServerData extends AsyncDisposable {
  readonly identity: Identity;
  readonly audit: Audit;
  /** Writes to the audit log, and counts refusals of one kind instead of writing each. */
  readonly recorder: Recorder;
  readonly database: Database<ServerSchema>;
  readonly pseudonyms: Pseudonyms;
  readonly blobs: Blobs;
  readonly clock: SteadyClock;
  readonly jobs: Jobs;
  readonly uploads: Uploads;
  readonly headers: HeaderReader;
  readonly processing: ProcessingFacts;
  /** How identity is removed from inputs; undefined if it is not. */
  readonly stripping?: Stripping;
  readonly converter: Converter;
  /** Folder for the children's work. */
  readonly workFolder: string;
}

/**
 * Locks and opens a data folder, and recovers what the last server left in it.
 * @throws {TomaatError} if another process holds the folder, or it is of a newer version
 */
export async function openServerData(apps: readonly App[], options: FilledOptions): Promise<ServerData> {
  const { dataFolder, logger } = options;
  await using opened = new AsyncDisposableStack();
  opened.use(lockDataFolder(dataFolder));
  const identity = await openIdentity(dataFolder);
  const database = opened.use(await openServerDatabase(dataFolder, options.database));
  const isShared = database.dialect === 'postgres';
  if (isShared) await requireNotMovedAway(database.db as unknown as Kysely<DeploymentSchema>);
  const auditOptions = {
    identity,
    onFault: (error: unknown) => logger.error({ err: error }, 'the audit log cannot be written'),
  };
  const audit = opened.use(
    isShared
      ? await openAuditTable(database, { ...auditOptions, dataFolder })
      : await openAudit(dataFolder, auditOptions),
  );
  if (identity.isNew && audit.head().sequence > 0)
    logger.warn(
      { identity: identity.thumbprint },
      'identity.key was missing: the server has a new identity, which clients and registries do not know',
    );
  audit.record('server.started', { version, service: apps.map(({ manifest }) => manifest.id).join(' ') });
  opened.defer(() => audit.record('server.stopped'));
  const recorder = opened.use(countRefusals(audit));
  const pseudonyms = await openPseudonyms(dataFolder);
  if (!isShared && (await hideOwners(database.db as unknown as Kysely<unknown>, pseudonyms)) > 0)
    await database.truncateWal();
  const blobsPlace = options.blobs ?? join(dataFolder, 'blobs');
  const blobs = opened.use(
    isBucketAddress(blobsPlace)
      ? await openBucketBlobs(blobsPlace, {
          folder: cacheFolder(dataFolder),
          minFreeBytes: options.minFreeBytes,
          maxBytes: options.maxCacheBytes,
        })
      : await openBlobs(blobsPlace, {
          minFreeBytes: options.minFreeBytes,
          isShared: options.blobs !== undefined,
        }),
  );
  const clock = isShared ? await openDatabaseClock(database) : createSteadyClock();
  const { nowMs } = clock;
  const jobs = opened.use(
    createJobs({
      database,
      blobs,
      steadyMs: nowMs,
      resultTtlMs: options.resultTtlMs,
      maxQueued: options.maxQueued,
      leaseMs: options.leaseMs,
      deleteAfterMs: options.deleteAfterMs,
      witness: createWitness(apps, audit),
      concurrencyOf: (service) =>
        apps.find(({ manifest }) => manifest.id === service)?.manifest.limits.concurrency,
    }),
  );
  const headers = opened.use(openHeaderReader());
  const processing = await createProcessing({
    policy: options.allowIdentity,
    isLocal: options.isLocal,
    publicUrl: options.publicUrl,
    allowHost: options.allowHost,
    slots: options.workers,
    devices: options.devices?.map(({ device }) => device),
    stripsInputs: options.stripInputs,
    hasWorkerKey: () => hasKeyWith('worker', database.db as unknown as Kysely<KeySchema>),
  });
  const limits = { maxVoxels: options.maxVoxels };
  const stripping = options.stripInputs
    ? {
        blobs,
        headers,
        // An upload may be for any of the services.
        limits: {
          ...limits,
          maxBytes: options.maxUploadBytes,
          keepPatientCharacteristics: apps.some(({ manifest }) => computesSuv(manifest)),
        },
        uidKey: formatUidKey(await openUidKey(dataFolder)),
      }
    : undefined;
  if (isShared) {
    const doubt = await checkDeployment(database.db as unknown as Kysely<DeploymentSchema>, {
      identity,
      pseudonyms,
      uidKey: stripping?.uidKey,
      blobs: blobsPlace,
      dataFolder,
    });
    if (doubt !== undefined) logger.warn(doubt);
  }
  if (options.database !== undefined) {
    if (existsSync(serverDatabaseFile(dataFolder))) {
      if (!movedTo(dataFolder))
        logger.warn(
          `${serverDatabaseFile(dataFolder)} is not used, and nothing in it expires: the server has a shared database. Move it there with “tomaat migrate”, or delete it.`,
        );
    } else if (!movedTo(dataFolder)) await markMoved(dataFolder, options.database);
  }
  const uploads = opened.use(
    await openUploads({
      database,
      blobs,
      folder: join(dataFolder, 'uploads'),
      shared: isShared ? { hold: jobs.hold, release: jobs.release, drop: jobs.dropNow } : undefined,
      maxBytes: options.maxUploadBytes,
      leaseMs: options.uploadTtlMs,
      now: nowMs,
      isHeld: jobs.isHeld,
      async strip(file, keep) {
        if (await processing.refusesIdentity()) await headers.refuseIdentity([file], limits);
        return stripping ? stripUpload(file, stripping, keep) : false;
      },
      hideName: stripping && hideName,
      witness: {
        received: ({ id, owner, digest }, trx) =>
          audit.recordIn(trx, 'upload.received', { who: owner, upload: id, digest }),
        removed: ({ id, owner }, why, trx) =>
          audit.recordIn(trx, why === 'expired' ? 'upload.expired' : 'upload.deleted', {
            who: owner,
            upload: id,
          }),
        refused: ({ id }, who) => recorder.record('access.denied', { who, upload: id, outcome: 'NOT_FOUND' }),
      },
    }),
  );
  jobs.keepAlso(uploads.keeps);
  await uploads.recover((upload, error) =>
    logger.warn({ upload, err: error }, 'an upload could not be completed, and was deleted'),
  );
  const workFolder = join(dataFolder, 'work');
  const recovered = await jobs.recover(
    apps.map(({ manifest }) => manifest.id),
    await findLeftAttempts(workFolder),
  );
  if (recovered.requeued + recovered.failed > 0)
    logger.warn(recovered, 'unfinished jobs of the last run were found');
  const converter = await openConverter(join(dataFolder, 'converted'));
  opened.defer(() => converter.close());
  const stack = opened.move();
  return {
    identity,
    audit,
    recorder,
    database,
    pseudonyms,
    blobs,
    clock,
    jobs,
    uploads,
    headers,
    processing,
    stripping,
    converter,
    workFolder,
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}
