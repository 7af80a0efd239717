import { createDicomWeb, type DicomWeb } from '@tomaat/client';
import { type ErrorCode, parseDicom, TomaatError } from '@tomaat/core';
import { createGuardedFetch } from '../trust/guarded-fetch.ts';
import type { BodyPart } from './body-part.ts';
import { type BodyLimits, defaultPace } from './byte-counter.ts';

/*
 * Fetches DICOM series from the archive that the operator configured (PS3.18: QIDO-RS, WADO-RS), as the parts of a request. What a
 * caller learns of the archive is whether it could give this one series: messages hold neither its address nor its
 * answers, which are in the cause, for the log.
 */

export interface SeriesSourceOptions {
  /** Root of the DICOMweb service, which contains `/studies`. */
  readonly url: string;
  /** `USER:PASSWORD`, or a bearer token, which has no colon (RFC 6750, 2.1). */
  readonly credentials?: string;
  /** Certificates (PEM) to trust in addition to those of the system. */
  readonly ca?: string;
  /** For all files of a series together, and for the archive's pace. */
  readonly limits: BodyLimits;
  /** The most files of a series. */
  readonly maxFiles: number;
}

/** A series that was fetched. */
export interface FetchedSeries {
  readonly study: string;
  readonly series: string;
  /** The number of its files, if the archive says it: a part of a series would be another volume. */
  readonly expected?: number;
  /** Files that arrived. */
  files: number;
}

export interface SeriesSource {
  /**
   * Finds a series by its UID alone.
   *
   * @throws TomaatError BAD_INPUT for anything that is not a UID; NOT_FOUND; UPLOAD_TOO_LARGE for too many files; BUSY,
   *   UNREACHABLE or UPSTREAM if the archive fails
   */
  find(series: string, signal: AbortSignal): Promise<FetchedSeries>;
  /**
   * The files of a series that was found, as parts of this name, each in memory while it is read. Ends without an error
   * only if all arrived, and each is of the series.
   *
   * @throws TomaatError as find(); UPLOAD_TOO_LARGE for too many bytes
   */
  parts(found: FetchedSeries, name: string, signal: AbortSignal): AsyncGenerator<BodyPart>;
}

/** Each holds a file in memory. */
const mostAtATime = 4;
/** Of one file: an enhanced CT of 1000 slices. */
const mostFileBytes = 2 ** 29;
/** Of the multipart body around a file. */
const framingBytes = 2 ** 16;

export function openSeriesSource({
  url,
  credentials,
  ca,
  limits,
  maxFiles,
}: SeriesSourceOptions): SeriesSource {
  const { maxUploadBytes, patienceMs = defaultPace.patienceMs } = limits;
  const maxFileBytes = Math.min(maxUploadBytes, mostFileBytes);
  const web = createDicomWeb({
    url,
    headers: credentials === undefined ? {} : { authorization: authorizationOf(credentials) },
    fetch: createGuardedFetch({ ca }),
    silenceMs: patienceMs,
    retries: 1,
  });
  let running = 0;

  return {
    async find(series, signal) {
      if (!isSeriesUid(series)) throw notAUid();
      const [found] = await withoutArchive({ signal, uids: [series] }, () =>
        web.searchSeries({ series }, { limit: 1, includeFields: ['NumberOfSeriesRelatedInstances'], signal }),
      );
      // An archive that does not know the key answers with any series.
      if (found?.seriesInstanceUid !== series) throw noSuchSeries();
      if (!isSeriesUid(found.studyInstanceUid)) throw unusable(undefined);
      if ((found.instanceCount ?? 0) > maxFiles) throw tooManyFiles(maxFiles);
      return { study: found.studyInstanceUid, series, expected: found.instanceCount, files: 0 };
    },

    async *parts(found, name, signal) {
      if (running >= mostAtATime) {
        throw new TomaatError(
          'BUSY',
          `${running} series are already being fetched from the archive. Try again in a minute.`,
        );
      }
      running++;
      const asked = { signal, uids: [found.study, found.series] };
      const check = createCheck(limits, maxFileBytes);
      const files = filesOf(web, found, check, signal);
      try {
        for (;;) {
          check.wait();
          const { done, value } = await withoutArchive(asked, () => files.next(), noSuchSeries);
          check.rest();
          if (done) return;
          if (++found.files > maxFiles) throw tooManyFiles(maxFiles);
          if ((seriesOf(value.bytes) ?? found.series) !== found.series) throw otherSeries();
          yield {
            name,
            fileName: `${found.files}.dcm`,
            contentType: 'application/dicom',
            body: once(value.bytes),
          };
        }
      } finally {
        running--;
        await files.return?.();
      }
    },
  };
}

const filesOf = (
  web: DicomWeb,
  { study, series, expected }: FetchedSeries,
  check: Check,
  signal: AbortSignal,
) =>
  web
    .retrieveSeries(study, series, {
      signal,
      expectedInstances: expected,
      onProgress: ({ instances, receivedBytes }) => check.arrived(receivedBytes, instances),
    })
    [Symbol.asyncIterator]();

/** SeriesInstanceUID of a file; undefined if it has none or cannot be parsed here: reading the volume reports that. */
function seriesOf(bytes: Uint8Array): string | undefined {
  try {
    const element = parseDicom(bytes)?.dataset.get(0x0020000e);
    if (element?.kind !== 'value') return undefined;
    return Buffer.from(element.bytes)
      .toString('latin1')
      .replace(/[\0 ]$/, '');
  } catch (error) {
    if (error instanceof TomaatError) return undefined;
    throw error;
  }
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

interface Check {
  /** From now on the archive is waited for. */
  wait(): void;
  rest(): void;
  /** @throws TomaatError for too many bytes, or bytes that come too slowly */
  arrived(receivedBytes: number, files: number): void;
}

/** Bytes earn the archive time, waiting for it spends that; see countBytes(). */
function createCheck(
  {
    maxUploadBytes,
    minBytesPerSecond = defaultPace.minBytesPerSecond,
    patienceMs = defaultPace.patienceMs,
  }: BodyLimits,
  maxFileBytes: number,
): Check {
  let since: number | undefined;
  let creditMs = patienceMs;
  let [seenBytes, startOfFile, filesBefore] = [0, 0, 0];
  const spend = () => {
    const now = performance.now();
    if (since !== undefined) creditMs -= now - since;
    since = now;
  };
  return {
    wait: () => {
      since = performance.now();
    },
    rest: () => {
      since = undefined;
    },
    arrived(receivedBytes, files) {
      if (receivedBytes > maxUploadBytes + framingBytes) throw tooLarge(maxUploadBytes);
      if (files > filesBefore) [filesBefore, startOfFile] = [files, receivedBytes];
      if (receivedBytes - startOfFile > maxFileBytes + framingBytes) throw tooLarge(maxFileBytes);
      if (minBytesPerSecond === 0) return;
      spend();
      const earnedMs = ((receivedBytes - seenBytes) / minBytesPerSecond) * 1000;
      creditMs = Math.min(patienceMs, creditMs + earnedMs);
      seenBytes = receivedBytes;
      if (creditMs < 0) throw tooSlow(minBytesPerSecond);
    },
  };
}

/** A UID as in PS3.5, 9.1, which as a part of an address is nothing else; leading zeros occur. */
export const isSeriesUid = (text: string): boolean =>
  text.length <= 64 && text.split('.').every((component) => /^\d+$/.test(component));

/** The value of Authorization for `USER:PASSWORD` (RFC 7617), or for a bearer token (RFC 6750). */
function authorizationOf(credentials: string): string {
  return credentials.includes(':')
    ? `Basic ${Buffer.from(credentials, 'utf8').toString('base64')}`
    : `Bearer ${credentials}`;
}

interface Asked {
  readonly signal: AbortSignal;
  /** That may be part of the archive's errors. */
  readonly uids: readonly string[];
}

/** The archive's errors in words that say nothing about it. Its own are the causes. `missing` makes the one for a 404. */
async function withoutArchive<T>(
  { signal, uids }: Asked,
  ask: () => Promise<T>,
  missing: (cause: unknown) => TomaatError = unusable,
): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof TomaatError) || error.field === field) throw error;
    const cause = forLog(error, uids);
    const say = wordings[error.code] ?? unusable;
    throw error.code === 'NOT_FOUND' ? missing(cause) : say(cause);
  }
}

/** What the log may hold of an error: neither UIDs, nor the archive's answer, which may name a patient. */
function forLog({ code, message, detail }: TomaatError, uids: readonly string[]): TomaatError {
  const text = uids.reduce((rest, uid) => rest.replaceAll(uid, '…'), message);
  return new TomaatError(code, text, { detail: { httpStatus: detail?.httpStatus, reason: detail?.reason } });
}

const refused = (cause: unknown) =>
  new TomaatError(
    'UPSTREAM',
    'The archive does not let this server in. Its operator must check the setting dicomwebCredentials.',
    { cause },
  );
const unusable = (cause: unknown) =>
  new TomaatError(
    'UPSTREAM',
    'The archive gave no answer that this server can use. The log of this server tells its operator why.',
    { cause },
  );
/** As with an archive, or a cache in front of it, that mixes answers up: the result would lie over another patient's images. */
const otherSeries = () =>
  unusable(new TomaatError('UPSTREAM', 'The archive sent a file of another series than the one requested.'));
const wordings: Partial<Record<ErrorCode, (cause: unknown) => TomaatError>> = {
  UNAUTHORIZED: refused,
  FORBIDDEN: refused,
  BUSY: (cause) => new TomaatError('BUSY', 'The archive is busy. Try again in a minute.', { cause }),
  UNREACHABLE: (cause) =>
    new TomaatError(
      'UNREACHABLE',
      'The archive cannot be reached, or its answer was cut off. Try again; if it persists, the log of this server tells its operator why.',
      { cause },
    ),
};

const field = 'image';
const notAUid = () =>
  new TomaatError(
    'BAD_INPUT',
    'image is not the UID of a DICOM series: 1 to 64 digits and dots, such as 1.2.840.1. Send the SeriesInstanceUID.',
    { field },
  );
const noSuchSeries = (cause?: unknown) =>
  new TomaatError('NOT_FOUND', 'The archive has no series with this UID. Check the SeriesInstanceUID.', {
    field,
    cause,
  });
const tooManyFiles = (maxFiles: number) =>
  new TomaatError(
    'UPLOAD_TOO_LARGE',
    `The series has more than the ${maxFiles} files that this server takes. Choose a smaller one.`,
    { field },
  );
const tooLarge = (maxBytes: number) =>
  new TomaatError(
    'UPLOAD_TOO_LARGE',
    `The series, or one of its files, is larger than the ${maxBytes} bytes that this server takes. Choose a smaller one, or ask the operator for a higher limit.`,
    { field },
  );
const tooSlow = (minBytesPerSecond: number) =>
  new TomaatError(
    'UNREACHABLE',
    `The archive sent less than ${minBytesPerSecond} bytes per second. Try again later.`,
    { field },
  );
