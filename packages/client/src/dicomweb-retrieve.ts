import { type Bytes, collectBytes, TomaatError } from '@tomaat/core';
import { type FileMeta, isUid, readFileMeta } from './dicom-file-meta.ts';
import { type DicomWebConnection, dicomWebFault, mediaTypeOf, sendDicomWeb } from './dicomweb-http.ts';
import { startWatchdog, type Watchdog } from './http.ts';
import { parseRelatedType, type RelatedPart, readRelated } from './multipart-related.ts';

/** WADO-RS: instances as files (PS3.18, section 10.4). */

/** One instance: a DICOM file (PS3.10), as sent by the server, and its file meta information. */
export interface RetrievedInstance extends FileMeta {
  readonly bytes: Bytes;
}

export interface RetrieveProgress {
  /** Complete ones. */
  readonly instances: number;
  readonly receivedBytes: number;
  /** If the server sends a length. */
  readonly totalBytes?: number;
}

export interface RetrieveOptions {
  /** UID of the requested transfer syntax; `*`, the default, accepts each instance as it is stored. */
  transferSyntax?: string;
  /** The expected number of instances, such as the `instanceCount` of a search: any other number is an error. */
  expectedInstances?: number;
  onProgress?: (progress: RetrieveProgress) => void;
  signal?: AbortSignal;
}

/**
 * The instances at a path, one after the other: only the current one is in memory. Ends without an error only if the
 * response was complete.
 */
export async function* retrieve(
  connection: DicomWebConnection,
  path: string,
  options: RetrieveOptions = {},
): AsyncGenerator<RetrievedInstance> {
  const { transferSyntax = '*', expectedInstances, onProgress, signal } = options;
  if (transferSyntax !== '*' && !isUid(transferSyntax))
    throw new TomaatError(
      'BAD_INPUT',
      `“${transferSyntax}” is not the UID of a transfer syntax. Give one, or *.`,
    );
  const watchdog = startWatchdog(connection, signal);
  try {
    const response = await sendDicomWeb(
      connection,
      {
        path,
        accept: `multipart/related; type="application/dicom"; transfer-syntax=${transferSyntax}`,
        task: 'retrieve',
        signal: watchdog.signal,
      },
      watchdog.alive,
    );
    const totalBytes = statedBytes(response);
    let receivedBytes = 0;
    let instances = 0;
    const onBytes = (count: number) => {
      receivedBytes += count;
      onProgress?.({ instances, receivedBytes, totalBytes });
    };
    const chunks = chunksOf(connection, path, response, watchdog, signal);
    for await (const part of partsOf(connection, response, chunks, onBytes)) {
      const instance = toInstanceFile(connection, part, instances + 1);
      instances++;
      onProgress?.({ instances, receivedBytes, totalBytes });
      yield instance;
    }
    checkCount(connection, path, instances, expectedInstances);
  } finally {
    watchdog.stop();
  }
}

/** The parts of a response, or its whole body if that is one instance. */
async function* partsOf(
  connection: DicomWebConnection,
  response: Response,
  chunks: AsyncGenerator<Uint8Array>,
  onBytes: (count: number) => void,
): AsyncGenerator<RelatedPart> {
  const { host, maxInstanceBytes } = connection;
  const mediaType = mediaTypeOf(response);
  const contentType = response.headers.get('content-type') ?? '';
  if (mediaType === 'application/dicom') {
    const bytes = await collectBytes(counted(connection, chunks, onBytes));
    if (bytes.length > 0) yield { headers: new Map([['content-type', contentType]]), bytes };
    return;
  }
  if (response.status === 204) return;
  const related = parseRelatedType(contentType);
  if (related === undefined || (related.type !== undefined && related.type !== 'application/dicom')) {
    await chunks.return(undefined);
    throw notDicom(host, contentType);
  }
  yield* readRelated(chunks, related.boundary, { from: host, maxPartBytes: maxInstanceBytes, onBytes });
}

/** The same chunks, up to the maximum length of an instance. */
async function* counted(
  { host, maxInstanceBytes }: DicomWebConnection,
  chunks: AsyncIterable<Uint8Array>,
  onBytes: (count: number) => void,
): AsyncGenerator<Uint8Array> {
  let length = 0;
  for await (const chunk of chunks) {
    length += chunk.length;
    if (length > maxInstanceBytes) {
      throw new TomaatError(
        'UPSTREAM',
        `The answer of ${host} is longer than ${maxInstanceBytes} bytes. If it is the right file, allow more by maxInstanceBytes.`,
      );
    }
    onBytes(chunk.length);
    yield chunk;
  }
}

/**
 * The chunks of a body. The watchdog runs only while a chunk is requested: a slow reader does not make the server
 * silent.
 */
async function* chunksOf(
  connection: DicomWebConnection,
  path: string,
  response: Response,
  watchdog: Watchdog,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const reader = response.body?.getReader();
  if (!reader) return;
  try {
    for (;;) {
      watchdog.alive();
      const { done, value } = await reader.read();
      watchdog.rest();
      if (done) return;
      yield value;
    }
  } catch (error) {
    const fault = watchdog.signal.aborted ? watchdog.signal.reason : error;
    throw dicomWebFault(connection, path, fault, signal);
  } finally {
    await reader.cancel().catch(() => {});
  }
}

function toInstanceFile(
  { host }: DicomWebConnection,
  { headers, bytes }: RelatedPart,
  number: number,
): RetrievedInstance {
  const partType = headers.get('content-type')?.split(';')[0].trim().toLowerCase();
  const meta = readFileMeta(bytes);
  if (meta !== undefined && (partType === undefined || partType === 'application/dicom'))
    return { bytes, ...meta };
  throw new TomaatError(
    'UPSTREAM',
    `Part ${number} of the answer of ${host} is not a DICOM file${partType ? `, but ${partType}` : ''}. Check the server's log.`,
  );
}

function checkCount({ host }: DicomWebConnection, path: string, found: number, expected?: number): void {
  if (found === 0) {
    throw new TomaatError(
      'NOT_FOUND',
      `${host} answered without a single instance of ${path.slice(1)}. Search for it: it may be archived, or deleted.`,
    );
  }
  if (expected !== undefined && found !== expected) {
    throw new TomaatError(
      'UPSTREAM',
      `${host} gave ${found} instances of ${path.slice(1)} and not ${expected}. If it is still arriving there, search again and retrieve it later.`,
      { detail: { found, expected } },
    );
  }
}

function notDicom(host: string, contentType: string): TomaatError {
  const what = contentType === '' ? 'without a Content-Type' : `with ${contentType.slice(0, 100)}`;
  const remedy = contentType.startsWith('multipart/')
    ? 'It must be multipart/related of the type application/dicom, with a boundary of 1 to 70 characters: report it to its operator.'
    : 'Check that url is the root of its DICOMweb service, and whether a page for login is in front of it.';
  return new TomaatError('UPSTREAM', `${host} answered ${what} instead of DICOM files. ${remedy}`);
}

function statedBytes({ headers }: Response): number | undefined {
  const length = headers.get('content-length');
  return length === null || headers.has('content-encoding') ? undefined : Number(length);
}
