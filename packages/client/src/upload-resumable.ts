import { TomaatError } from '@tomaat/core';
import {
  addressOf,
  type Connection,
  headersOf,
  isPassing,
  networkFault,
  pause,
  problemOf,
  repeat,
  startWatchdog,
} from './http.ts';
import {
  fileNameOf,
  goesByXhr,
  readAll,
  sendByXhr,
  toStream,
  type UploadFile,
  type UploadProgress,
  unreadable,
} from './upload.ts';

/** Resumable uploads (tus 1.0). A file that the server already has, identified by SHA-256, is not sent. */

/** The name by which a prediction refers to the file. */
export type FileRef = { upload: string } | { blob: string; fileName: string };

const tusHeaders = { 'tus-resumable': '1.0.0' };
/** Bytes per request: proxies in between may buffer a whole request, or limit its size. */
const requestBytes = 16 * 1024 * 1024;
/** Larger files get no SHA-256 if it can only be computed in memory (browsers). */
const maxBytesInMemory = 256 * 1024 * 1024;
/** Consecutive failures without progress after which an upload is abandoned. */
const maxFaults = 6;

export interface ResumableOptions {
  onUpload?: UploadProgress;
  /**
   * The id of an earlier, incomplete upload of this same file, by another page or process: it continues at the
   * server's offset, and sends nothing if it is complete. A new one is created if it has expired.
   */
  upload?: string;
  /** Called with the id of a new upload, before any of its bytes are sent. */
  onBegin?: (upload: string) => void;
  signal?: AbortSignal;
}

/**
 * Sends a file so that an interruption costs only the bytes in flight. Undefined if the server does not support
 * uploads of this kind. Rejects as `upload` does; BAD_INPUT also if the file changes meanwhile.
 */
export async function uploadResumable(
  connection: Connection,
  file: UploadFile,
  { onUpload, signal, upload, onBegin }: ResumableOptions = {},
): Promise<FileRef | undefined> {
  const totalBytes = sizeOf(file);
  const earlier =
    upload === undefined ? undefined : await findEarlier(connection, upload, totalBytes, signal);
  let path = earlier?.path;
  if (path === undefined) {
    const fileName = fileNameOf(file);
    const digest = await sha256Of(file, signal);
    if (digest !== undefined && (await isThere(connection, digest, signal))) {
      onUpload?.({ sentBytes: totalBytes, totalBytes });
      return { blob: digest, fileName };
    }
    path = await begin(connection, totalBytes, { filename: fileName, sha256: digest?.slice(7) }, signal);
    if (path === undefined) return undefined;
    onBegin?.(idOf(path));
  }
  let offset = earlier?.offset ?? 0;
  let faults = 0;
  onUpload?.({ sentBytes: offset, totalBytes });
  while (offset < totalBytes) {
    try {
      offset = await sendPart(
        connection,
        path,
        file,
        offset,
        (sentBytes) => onUpload?.({ sentBytes, totalBytes }),
        signal,
      );
      faults = 0;
    } catch (error) {
      signal?.throwIfAborted();
      if (!mayGoOn(error) || ++faults > maxFaults) throw error;
      const asked = Number((error as TomaatError).detail?.retryAfterSeconds) || 0;
      await pause(Math.max(asked * 1000, Math.min(300 * 2 ** (faults - 1), 10_000)), signal);
      const reached = await offsetOf(connection, path, signal).catch((fault: unknown) => {
        signal?.throwIfAborted();
        if (!mayGoOn(fault)) throw fault;
        return offset;
      });
      if (reached > offset) faults = 0;
      offset = reached;
      onUpload?.({ sentBytes: offset, totalBytes });
    }
  }
  return { upload: idOf(path) };
}

/**
 * Deletes an upload, complete or not; a job that uses its bytes keeps them until it settles. A missing upload is not
 * an error.
 */
export async function removeUpload(
  connection: Connection,
  upload: string,
  signal?: AbortSignal,
): Promise<void> {
  try {
    await calling(connection, 'DELETE', pathOf(upload), tusHeaders, signal);
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
}

const pathOf = (upload: string): string => `/api/uploads/${encodeURIComponent(upload)}`;
const idOf = (path: string): string => decodeURIComponent(path.slice(path.lastIndexOf('/') + 1));
const isMissing = (error: unknown): boolean => error instanceof TomaatError && error.code === 'NOT_FOUND';

/** The offset of an earlier upload of a file of this length; undefined if it no longer exists. */
async function findEarlier(
  connection: Connection,
  upload: string,
  totalBytes: number,
  signal?: AbortSignal,
): Promise<{ path: string; offset: number } | undefined> {
  const path = pathOf(upload);
  try {
    const response = await calling(connection, 'HEAD', path, tusHeaders, signal);
    if (Number(response.headers.get('upload-length')) !== totalBytes) return undefined;
    return { path, offset: offsetIn(response, addressOf(connection, path)) };
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** A lost connection, a busy server, a restart, or an unexpected offset: asking for the offset may help. */
function mayGoOn(error: unknown): error is TomaatError {
  if (!(error instanceof TomaatError) || error.detail?.hopeless === true) {
    return error instanceof TomaatError && error.detail?.reason === 'ECONNREFUSED';
  }
  return error.code === 'CONFLICT' || error.code === 'UPLOAD_TOO_SLOW' || isPassing(error);
}

async function begin(
  connection: Connection,
  totalBytes: number,
  metadata: Record<string, string | undefined>,
  signal?: AbortSignal,
): Promise<string | undefined> {
  const pairs = Object.entries(metadata).flatMap(([key, value]) =>
    value === undefined ? [] : [`${key} ${toBase64(value)}`],
  );
  const headers = { ...tusHeaders, 'upload-length': String(totalBytes), 'upload-metadata': pairs.join(',') };
  try {
    // If repeated, it leaves an empty upload behind, which expires.
    const response = await calling(connection, 'POST', '/api/uploads', headers, signal);
    const location = response.headers.get('location');
    // Only its path is used: a proxy in front may have another host name.
    if (location === null) return undefined;
    const path = new URL(location, connection.baseUrl).pathname;
    return path.slice(Math.max(0, path.lastIndexOf('/api/uploads/')));
  } catch (error) {
    const isOlder = error instanceof TomaatError && ['NOT_FOUND', 'METHOD_NOT_ALLOWED'].includes(error.code);
    if (isOlder) return undefined;
    throw error;
  }
}

async function isThere(connection: Connection, digest: string, signal?: AbortSignal): Promise<boolean> {
  try {
    await calling(connection, 'HEAD', `/api/blobs/${digest}`, {}, signal);
    return true;
  } catch (error) {
    if (
      error instanceof TomaatError &&
      ['NOT_FOUND', 'METHOD_NOT_ALLOWED', 'BAD_REQUEST'].includes(error.code)
    )
      return false;
    throw error;
  }
}

async function offsetOf(connection: Connection, path: string, signal?: AbortSignal): Promise<number> {
  const response = await call(connection, 'HEAD', path, tusHeaders, signal);
  return offsetIn(response, addressOf(connection, path));
}

function offsetIn(response: Response, address: string): number {
  const offset = Number(response.headers.get('upload-offset') ?? Number.NaN);
  if (Number.isSafeInteger(offset)) return offset;
  throw new TomaatError(
    'BAD_REQUEST',
    `${address} does not say how much of the upload is there. Check whether a proxy stands in between.`,
  );
}

/** A request without a body. */
async function call(
  connection: Connection,
  method: string,
  path: string,
  headers: Record<string, string>,
  signal?: AbortSignal,
): Promise<Response> {
  const address = addressOf(connection, path);
  const watchdog = startWatchdog(connection, signal);
  try {
    const response = await connection.fetch(address, {
      method,
      headers: headersOf(connection, headers),
      signal: watchdog.signal,
    });
    if (!response.ok) throw await problemOf(response, address);
    return response;
  } catch (error) {
    throw networkFault(watchdog.signal.aborted ? watchdog.signal.reason : error, address, signal);
  } finally {
    watchdog.stop();
  }
}

/** The same, with retries after a network error. */
function calling(...request: Parameters<typeof call>): Promise<Response> {
  const [connection, , , , signal] = request;
  return repeat(
    connection,
    true,
    signal,
    () => {},
    () => call(...request),
  );
}

/** Sends the next bytes; returns the server's new offset. */
async function sendPart(
  connection: Connection,
  path: string,
  file: UploadFile,
  offset: number,
  report: (sentBytes: number) => void,
  signal?: AbortSignal,
): Promise<number> {
  const address = addressOf(connection, path);
  const end = Math.min(offset + requestBytes, sizeOf(file));
  const watchdog = startWatchdog(connection, signal);
  // Browsers cannot send streams.
  const isCollected = !(file instanceof Blob) && goesByXhr(connection);
  const part = partOf(file, offset, end, (sentBytes) => {
    watchdog.alive();
    // Here a source is read before the request begins, which reports its own progress.
    if (!isCollected) report(sentBytes);
  });
  const headers = headersOf(connection, {
    ...tusHeaders,
    'upload-offset': String(offset),
    'content-type': 'application/offset+octet-stream',
    ...(part.isStream && !isCollected && { 'content-length': String(end - offset) }),
  });
  try {
    const body = isCollected ? await new Response(part.body).blob() : part.body;
    const response =
      body instanceof Blob && goesByXhr(connection)
        ? await sendByXhr('PATCH', address, headers, body, watchdog.signal, ({ sentBytes }) => {
            watchdog.alive();
            report(offset + sentBytes);
          })
        : await connection.fetch(address, {
            method: 'PATCH',
            headers,
            body,
            signal: watchdog.signal,
            ...(part.isStream && { duplex: 'half' }),
          } as RequestInit);
    if (!response.ok) throw await problemOf(response, address);
    report(end);
    return offsetIn(response, address);
  } catch (error) {
    throw (
      part.fault() ?? networkFault(watchdog.signal.aborted ? watchdog.signal.reason : error, address, signal)
    );
  } finally {
    watchdog.stop();
  }
}

/** A slice of a file: browsers stream a Blob themselves; elsewhere it is read while it is sent. */
function partOf(file: UploadFile, start: number, end: number, report: (sentBytes: number) => void) {
  if (file instanceof Blob) return { body: file.slice(start, end), isStream: false, fault: () => undefined };
  let fault: TomaatError | undefined;
  async function* read(source: Exclude<UploadFile, Blob>): AsyncGenerator<Uint8Array> {
    let at = source.slice ? start : 0;
    try {
      for await (const chunk of readAll(source.slice ? source.slice(start, end) : source.stream())) {
        const from = Math.max(start - at, 0);
        const to = Math.min(end - at, chunk.length);
        at += chunk.length;
        if (from >= to) continue;
        yield chunk.subarray(from, to);
        report(Math.min(at, end));
        if (at >= end) return;
      }
    } catch (cause) {
      fault = unreadable(cause);
      throw fault;
    }
    if (at >= end) return;
    fault = new TomaatError(
      'BAD_INPUT',
      `${source.name} changed while it was being sent. Send it again when it is complete.`,
    );
    throw fault;
  }
  return { body: toStream(read(file)), isStream: true, fault: () => fault };
}

const sizeOf = (file: UploadFile): number => (file instanceof Blob ? file.size : file.sizeBytes);

function toBase64(text: string): string {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}

interface NodeCrypto {
  createHash(name: 'sha256'): { update(data: Uint8Array): unknown; digest(encoding: 'hex'): string };
}

/** `sha256:…` of a file; undefined where it cannot be computed (large files in browsers, pages over plain HTTP). */
async function sha256Of(file: UploadFile, signal?: AbortSignal): Promise<string | undefined> {
  const { process } = globalThis as { process?: { getBuiltinModule?(name: string): unknown } };
  const node = process?.getBuiltinModule?.('node:crypto') as NodeCrypto | undefined;
  if (node) {
    const hash = node.createHash('sha256');
    for await (const chunk of readAll(file)) {
      signal?.throwIfAborted();
      hash.update(chunk);
    }
    return `sha256:${hash.digest('hex')}`;
  }
  const subtle = globalThis.crypto?.subtle;
  if (!subtle || !(file instanceof Blob) || file.size > maxBytesInMemory) return undefined;
  const bytes = new Uint8Array(await subtle.digest('SHA-256', await file.arrayBuffer()));
  return `sha256:${Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}
