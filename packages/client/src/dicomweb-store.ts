import { TomaatError } from '@tomaat/core';
import { fileMetaBytes, readFileMeta } from './dicom-file-meta.ts';
import {
  type DicomDataset,
  type DicomKeyword,
  dicomItems,
  dicomNumber,
  dicomText,
  toDatasets,
} from './dicom-json.ts';
import {
  type DicomWebCall,
  type DicomWebConnection,
  dicomWebFault,
  refusalOf,
  sendDicomWeb,
} from './dicomweb-http.ts';
import { readText, startWatchdog } from './http.ts';
import { writeRelated } from './multipart-related.ts';
import { type NamedBytes, readAll, toBlob, toUploadFile, type UploadFile } from './upload.ts';

/** STOW-RS: stores instances (PS3.18, section 10.5) and looks up each one in the response. */

/**
 * A DICOM file (PS3.10): a File or Blob, bytes with or without a name, or a source that is read when its turn comes.
 */
export type DicomFile = UploadFile | NamedBytes | Uint8Array | ArrayBuffer;

export interface StoreProgress {
  /** Those confirmed by a response. */
  readonly instances: number;
  readonly sentBytes: number;
  readonly totalBytes: number;
}

/** A DICOM status code (PS3.7, annex C; PS3.4, table GG.4-1) and its meaning. */
export interface StoreReason {
  readonly code: number;
  readonly meaning: string;
}

export interface StoredInstance {
  /** Its index in the input, starting at 0. */
  readonly index: number;
  readonly sopInstanceUid: string;
  readonly retrieveUrl?: string;
  /** What the server changed or discarded. */
  readonly warning?: StoreReason;
}

export interface FailedInstance {
  readonly index: number;
  readonly sopInstanceUid: string;
  /** Missing if the server does not mention the instance at all. */
  readonly reason?: StoreReason;
  /** Why it is not stored, as a sentence. */
  readonly message: string;
}

/** The outcome for every given instance: each is in one of the two lists. */
export interface StoreReport {
  readonly stored: readonly StoredInstance[];
  readonly failed: readonly FailedInstance[];
  /** Reasons that the server gave without naming an instance. */
  readonly otherFailures: readonly StoreReason[];
}

export interface StoreOptions {
  /** Study Instance UID: makes the server refuse instances of other studies. */
  study?: string;
  onProgress?: (progress: StoreProgress) => void;
  signal?: AbortSignal;
}

const maxAnswerBytes = 2 ** 25;

interface Sent {
  index: number;
  sopInstanceUid: string;
  sizeBytes: number;
  file: UploadFile;
}

/** Like `DicomWeb.store`, at a path. */
export async function store(
  connection: DicomWebConnection,
  path: string,
  files: readonly DicomFile[],
  { onProgress, signal }: StoreOptions,
): Promise<StoreReport> {
  const all = await openFiles(files);
  const totalBytes = all.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const report: { stored: StoredInstance[]; failed: FailedInstance[]; otherFailures: StoreReason[] } = {
    stored: [],
    failed: [],
    otherFailures: [],
  };
  const waiting = batchesOf(all, connection.batchBytes);
  let sentBytes = 0;
  for (let batch = waiting.shift(); batch; batch = waiting.shift()) {
    try {
      const found = await storeBatch(connection, path, batch, signal);
      report.stored.push(...found.stored);
      report.failed.push(...found.failed);
      report.otherFailures.push(...found.otherFailures);
    } catch (error) {
      if (error instanceof TomaatError && error.code === 'UPLOAD_TOO_LARGE' && batch.length > 1) {
        const half = batch.length >> 1;
        waiting.unshift(batch.slice(0, half), batch.slice(half));
        continue;
      }
      throw withStored(error, report.stored);
    }
    sentBytes += batch.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    const instances = report.stored.length + report.failed.length;
    onProgress?.({ instances, sentBytes, totalBytes });
  }
  return report;
}

/**
 * Throws if any instance in a report is not stored.
 * @throws {TomaatError} UPSTREAM; its message lists the first reasons, `detail.failed` has all of them
 */
export function requireStored(report: StoreReport): void {
  const { stored, failed } = report;
  if (failed.length === 0) return;
  const reasons = [...new Set(failed.map(({ message }) => message))].slice(0, 3).join(' ');
  throw new TomaatError(
    'UPSTREAM',
    `${failed.length} of ${failed.length + stored.length} instances are not stored. ${reasons}`,
    { detail: { failed } },
  );
}

/**
 * The meaning of a failure or warning of a store request: PS3.18, tables I.2-1 and I.2-2; PS3.4, table B.2-1; PS3.7,
 * annex C. Preceded by the code in hex digits.
 */
export function storeReason(code: number): StoreReason {
  const hex = code.toString(16).toUpperCase().padStart(4, '0');
  const exact: Readonly<Record<string, string>> = {
    '0105': 'an attribute is not known',
    '0106': 'the value of an attribute is not valid',
    '0110': 'the server failed to process it',
    '0111': 'an instance of this UID is already there',
    '0112': 'the instance that it refers to is not there',
    '0117': 'the UID of the instance is not valid',
    '0118': 'its kind (SOP class) is not known',
    '0119': 'the instance is of another kind (SOP class) than stated',
    '0120': 'an attribute that is required is missing',
    '0121': 'the value of an attribute that is required is missing',
    '0122': 'the server does not store this kind of object (SOP class)',
    '0124': 'this user may not store it',
    '0210': 'the server sees it as sent twice',
    '0211': 'the server does not know this operation',
    '0212': 'the server does not take an argument of this operation',
    '0213': 'the server has no resources for it left',
    B000: 'the server changed values of attributes',
    B006: 'the server dropped attributes',
    B007: 'its attributes do not match its kind (SOP class)',
    C122: 'the server does not take its transfer syntax',
  };
  const families: readonly (readonly [prefix: string, meaning: string])[] = [
    ['A7', 'the server has no resources, such as space on its disk, left'],
    ['A9', 'its attributes do not match its kind (SOP class)'],
    ['C', 'the server cannot understand the file'],
  ];
  const meaning =
    exact[hex] ??
    families.find(([prefix]) => hex.startsWith(prefix))?.[1] ??
    'the server gives a reason that is not in the standard';
  return { code, meaning: `${hex}: ${meaning}` };
}

/** Identifies the instances by the UIDs in the files, before the first byte is sent. */
async function openFiles(files: readonly DicomFile[]): Promise<Sent[]> {
  const places = new Map<string, number>();
  const all: Sent[] = [];
  for (const [index, given] of files.entries()) {
    const file = toUploadFile(`instance ${index + 1}`, given);
    const uid = readFileMeta(await prefixOf(file))?.sopInstanceUid;
    if (uid === undefined) {
      throw new TomaatError(
        'BAD_INPUT',
        `Instance ${index + 1} is not a DICOM file that can be stored: it has no “DICM” after 128 bytes, or no Media Storage SOP Instance UID (0002,0003). Nothing was sent. Leave it out, or write it with a file header.`,
        { detail: { index } },
      );
    }
    const before = places.get(uid);
    if (before !== undefined) {
      throw new TomaatError(
        'BAD_INPUT',
        `Instances ${before + 1} and ${index + 1} have the same SOP Instance UID, so that a server keeps only one of them. Nothing was sent. Leave one out, or give it a UID of its own.`,
        { detail: { index } },
      );
    }
    places.set(uid, index);
    const sizeBytes = file instanceof Blob ? file.size : file.sizeBytes;
    all.push({ index, sopInstanceUid: uid, sizeBytes, file });
  }
  return all;
}

async function prefixOf(file: UploadFile): Promise<Uint8Array> {
  if (file instanceof Blob) return new Uint8Array(await file.slice(0, fileMetaBytes).arrayBuffer());
  const prefix = new Uint8Array(Math.min(fileMetaBytes, file.sizeBytes));
  let length = 0;
  for await (const chunk of readAll(file.slice?.(0, prefix.length) ?? file)) {
    prefix.set(chunk.subarray(0, prefix.length - length), length);
    length = Math.min(prefix.length, length + chunk.length);
    if (length === prefix.length) break;
  }
  return prefix.subarray(0, length);
}

/** In order, as many per request as fit; one that does not fit goes alone. */
function batchesOf(all: readonly Sent[], maxBytes: number): Sent[][] {
  const batches: Sent[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const sent of all) {
    if (bytes + sent.sizeBytes > maxBytes) {
      batches.push([]);
      bytes = 0;
    }
    batches.at(-1)!.push(sent);
    bytes += sent.sizeBytes;
  }
  return batches;
}

async function storeBatch(
  connection: DicomWebConnection,
  path: string,
  batch: readonly Sent[],
  signal?: AbortSignal,
): Promise<StoreReport> {
  const files = await Promise.all(
    batch.map(({ file }) => (file instanceof Blob ? file : toBlob(file.stream()))),
  );
  const { contentType, body } = writeRelated('application/dicom', files);
  const watchdog = startWatchdog(connection, signal);
  // The length of a Blob is known, so fetch sends it: some servers lose data from chunked requests.
  const call: DicomWebCall = {
    method: 'POST',
    path,
    accept: 'application/dicom+json',
    contentType,
    body,
    task: 'store',
    signal: watchdog.signal,
    takes: mayBeReport,
  };
  try {
    const response = await sendDicomWeb(connection, call, watchdog.alive);
    const text = await readText(response, maxAnswerBytes, connection.host);
    const dataset = parseAnswer(text, connection.host);
    if (!response.ok && !isReport(dataset)) throw await refusalOf(connection, call, response, text);
    return compare(batch, dataset, `${connection.host} (HTTP ${response.status})`);
  } catch (error) {
    const fault = watchdog.signal.aborted ? watchdog.signal.reason : error;
    throw dicomWebFault(connection, path, fault, signal);
  } finally {
    watchdog.stop();
  }
}

/**
 * Servers report on each instance with 409, as PS3.18 specifies, but also with 400 or 500; Orthanc then omits the
 * Content-Type.
 */
const mayBeReport = ({ status }: Response): boolean => [400, 409, 422, 500].includes(status);

const lists = ['ReferencedSOPSequence', 'FailedSOPSequence', 'OtherFailuresSequence'] as const;
const isReport = (dataset: DicomDataset) => lists.some((list) => dicomItems(dataset, list).length > 0);

/** The response's data set; empty if it is not DICOM JSON, so that no instance counts as stored. */
function parseAnswer(text: string, host: string): DicomDataset {
  try {
    return toDatasets(JSON.parse(text), host)[0] ?? {};
  } catch {
    return {};
  }
}

/** Classifies every instance sent by the response; one in neither list is not stored. */
function compare(batch: readonly Sent[], answer: DicomDataset, from: string): StoreReport {
  const byUid = (list: DicomKeyword) =>
    new Map(dicomItems(answer, list).map((item) => [dicomText(item, 'ReferencedSOPInstanceUID'), item]));
  const [referenced, refused] = [byUid('ReferencedSOPSequence'), byUid('FailedSOPSequence')];
  const stored: StoredInstance[] = [];
  const failed: FailedInstance[] = [];
  const otherFailures = dicomItems(answer, 'OtherFailuresSequence').flatMap(
    (item) => reasonOf(item, 'FailureReason') ?? [],
  );
  for (const { index, sopInstanceUid } of batch) {
    const [good, bad] = [referenced.get(sopInstanceUid), refused.get(sopInstanceUid)];
    if (bad) {
      const reason = reasonOf(bad, 'FailureReason');
      const message = `${from} did not store an instance${reason ? `, ${reason.meaning}` : ' and gives no reason'}.`;
      failed.push({ index, sopInstanceUid, reason, message });
    } else if (good) {
      const [retrieveUrl, warning] = [dicomText(good, 'RetrieveURL'), reasonOf(good, 'WarningReason')];
      stored.push({ index, sopInstanceUid, retrieveUrl, warning });
    } else {
      const others = otherFailures.map(({ meaning }) => meaning).join('; ');
      const message = `${from} did not confirm that it stored an instance${others ? ` (${others})` : ''}. Check the file, and the server's log.`;
      failed.push({ index, sopInstanceUid, message });
    }
  }
  return { stored, failed, otherFailures };
}

function reasonOf(item: DicomDataset, attribute: DicomKeyword): StoreReason | undefined {
  const code = dicomNumber(item, attribute);
  return code !== undefined && Number.isInteger(code) && code > 0 ? storeReason(code) : undefined;
}

/** An error during the transfer, with the instances that were stored before it. */
function withStored(error: unknown, stored: readonly StoredInstance[]): unknown {
  if (!(error instanceof TomaatError)) return error;
  const storedSopInstanceUids = stored.map(({ sopInstanceUid }) => sopInstanceUid);
  return new TomaatError(error.code, error.message, {
    cause: error,
    detail: { ...error.detail, storedSopInstanceUids },
  });
}
