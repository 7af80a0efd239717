import { type Bytes, TomaatError } from '@tomaat/core';
import {
  addressOf,
  type Call,
  type Connection,
  headersOf,
  networkFault,
  problemOf,
  repeat,
  startWatchdog,
} from './http.ts';

/** A file that is read while it is sent, never whole in memory. `stream` is called again for every attempt. */
export interface FileSource {
  readonly name: string;
  readonly sizeBytes: number;
  /** Sent unchanged, under its name: identifying text was removed before, or is meant to stay. */
  readonly asIs?: boolean;
  stream(): ReadableStream<Uint8Array> | AsyncIterable<Uint8Array>;
  /**
   * The bytes from `start` up to, but not including, `end`; without this method, the preceding bytes are read and
   * discarded.
   */
  slice?(start: number, end: number): ReadableStream<Uint8Array> | AsyncIterable<Uint8Array>;
}

/** Bytes in memory under a file name, such as scan.nii.gz. They are copied when the call begins. */
export interface NamedBytes {
  readonly name: string;
  readonly bytes: Uint8Array | ArrayBuffer;
}

export type UploadFile = Blob | FileSource;

/**
 * A file in any form that callers may pass; bytes alone are a file without a name, which is enough if one file
 * contains the whole volume.
 * @throws {TomaatError} BAD_INPUT for anything else, such as a path
 */
export function toUploadFile(
  field: string,
  file: UploadFile | NamedBytes | Uint8Array | ArrayBuffer,
): UploadFile {
  if (isBytes(file)) return new Blob([ownedCopy(file)]);
  if (typeof file === 'object' && file !== null) {
    if (file instanceof Blob) return file;
    if ('bytes' in file && isBytes(file.bytes)) return new File([ownedCopy(file.bytes)], String(file.name));
    if ('stream' in file && typeof file.stream === 'function') return file;
  }
  const given: unknown = file;
  const found = given === null ? 'null' : typeof given === 'string' ? 'a string' : `of type ${typeof given}`;
  throw new TomaatError(
    'BAD_INPUT',
    `The file for ${field} is ${found}. Give a File, a Blob, bytes as { name, bytes }, a source { name, sizeBytes, stream() }, or what upload() returned. In Node, openAsBlob() of node:fs opens a path.`,
    { field },
  );
}

/** By its tag: the bytes may come from another realm, such as an iframe. */
function isBytes(value: unknown): value is Uint8Array | ArrayBuffer {
  if (value instanceof Uint8Array || value instanceof ArrayBuffer) return true;
  const tag = Object.prototype.toString.call(value);
  return (
    tag === '[object Uint8Array]' || tag === '[object ArrayBuffer]' || tag === '[object SharedArrayBuffer]'
  );
}

/** Blob copies its input, but does not accept shared memory. */
function ownedCopy(bytes: Uint8Array | ArrayBuffer): Bytes | ArrayBuffer {
  const view = ArrayBuffer.isView(bytes) ? bytes : new Uint8Array(bytes);
  return view.buffer instanceof ArrayBuffer ? (view as Bytes) : new Uint8Array(view);
}
export type UploadProgress = (progress: { sentBytes: number; totalBytes: number }) => void;

export interface Form {
  /** TOMAAT v1 expects files as plain fields. */
  withoutFileNames?: boolean;
  fields: readonly (readonly [name: string, value: string])[];
  /** Several files with the same name belong together (.hdr and .img). */
  files: readonly (readonly [name: string, file: UploadFile])[];
}

/** Sends a form as multipart/form-data of known length, the fields first, and returns the response if it is 2xx. */
export async function upload(
  connection: Connection,
  path: string,
  form: Form,
  call: Call & { onUpload?: UploadProgress; withoutFileNames?: boolean },
): Promise<Response> {
  const address = addressOf(connection, path, call.query);
  const watchdog = startWatchdog(connection, call.signal);
  const report: UploadProgress = (progress) => {
    watchdog.alive();
    call.onUpload?.(progress);
  };
  const post = goesByXhr(connection) ? postByXhr : inBrowser() ? postForm : postStream;
  try {
    return await repeat(connection, call.repeatable ?? false, watchdog.signal, watchdog.alive, async () => {
      const request = {
        connection,
        address,
        headers: headersOf(connection, call.headers),
        signal: watchdog.signal,
        report,
      };
      const response = await post(request, { ...form, withoutFileNames: call.withoutFileNames });
      if (!response.ok) throw await problemOf(response, address);
      return response;
    });
  } finally {
    watchdog.stop();
  }
}

interface UploadRequest {
  connection: Connection;
  address: string;
  headers: Record<string, string>;
  signal: AbortSignal;
  report: UploadProgress;
}

const inBrowser = () => 'document' in globalThis || 'WorkerGlobalScope' in globalThis;
const hasXhr = () => 'XMLHttpRequest' in globalThis;

/** Node and similar: the body is written by hand, so that its length is known and it streams. */
async function postStream(
  { connection, address, headers, signal, report }: UploadRequest,
  form: Form,
): Promise<Response> {
  const body = multipart(form, report);
  try {
    return await connection.fetch(address, {
      method: 'POST',
      headers: { ...headers, 'content-type': body.contentType, 'content-length': String(body.sizeBytes) },
      body: body.stream,
      signal,
      duplex: 'half',
    } as RequestInit);
  } catch (error) {
    throw body.fault() ?? networkFault(error, address, signal);
  }
}

/** A browser without XMLHttpRequest (a service worker), or a custom fetch: no progress. */
async function postForm(
  { connection, address, headers, signal }: UploadRequest,
  form: Form,
): Promise<Response> {
  const body = await formData(form);
  try {
    return await connection.fetch(address, { method: 'POST', headers, body, signal });
  } catch (error) {
    throw networkFault(error, address, signal);
  }
}

async function postByXhr({ address, headers, signal, report }: UploadRequest, form: Form): Promise<Response> {
  return sendByXhr('POST', address, headers, await formData(form), signal, report);
}

/** Whether requests of this connection can use `sendByXhr`: in a browser, without a custom fetch. */
export const goesByXhr = (connection: Connection): boolean => inBrowser() && !connection.ownFetch && hasXhr();

/** A request in a browser: only XMLHttpRequest reports upload progress. */
export function sendByXhr(
  method: string,
  address: string,
  headers: Record<string, string>,
  body: FormData | Blob,
  signal: AbortSignal,
  report: UploadProgress,
): Promise<Response> {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    const abort = () => xhr.abort();
    const settle = (act: () => void) => () => {
      signal.removeEventListener('abort', abort);
      act();
    };
    if (signal.aborted) return reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    xhr.open(method, address);
    for (const [name, value] of Object.entries(headers)) xhr.setRequestHeader(name, value);
    xhr.upload.onprogress = (event) => {
      if (event.lengthComputable) report({ sentBytes: event.loaded, totalBytes: event.total });
    };
    xhr.onload = settle(() => {
      const answered = new Headers();
      for (const line of xhr.getAllResponseHeaders().split('\r\n')) {
        const colon = line.indexOf(':');
        if (colon > 0) answered.append(line.slice(0, colon), line.slice(colon + 1).trim());
      }
      const empty = xhr.status === 204 || xhr.status === 304;
      resolve(new Response(empty ? null : xhr.responseText, { status: xhr.status, headers: answered }));
    });
    xhr.onerror = settle(() => reject(networkFault(new TypeError('upload failed'), address, signal)));
    xhr.onabort = settle(() => reject(signal.reason));
    xhr.send(body);
  });
}

async function formData(form: Form): Promise<FormData> {
  const data = new FormData();
  for (const [name, value] of form.fields) data.append(name, value);
  for (const [name, file] of form.files) {
    if (form.withoutFileNames)
      data.append(name, await (file instanceof Blob ? file : await toBlob(file.stream())).text());
    else if (file instanceof Blob) data.append(name, file, fileNameOf(file));
    else data.append(name, await toBlob(file.stream()), file.name);
  }
  return data;
}

export function fileNameOf(file: UploadFile): string {
  const name = (file as { name?: unknown }).name;
  return typeof name === 'string' && name !== '' ? name : 'volume';
}

/** All bytes as a Blob; an error of the chunks is thrown as it is. */
export async function toBlob(chunks: ReadableStream<Uint8Array> | AsyncIterable<Uint8Array>): Promise<Blob> {
  // Browsers give an error of their own, “Failed to fetch”, in place of that of the stream.
  let fault: { error: unknown } | undefined;
  async function* noted() {
    try {
      yield* readAll(chunks);
    } catch (error) {
      fault = { error };
      throw error;
    }
  }
  return new Response(toStream(noted())).blob().catch((error: unknown) => {
    throw fault ? fault.error : error;
  });
}

export function toStream(
  chunks: ReadableStream<Uint8Array> | AsyncIterable<Uint8Array>,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  if (chunks instanceof ReadableStream) return chunks as ReadableStream<Uint8Array<ArrayBuffer>>;
  const iterator = chunks[Symbol.asyncIterator]();
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await iterator.next();
      if (done) controller.close();
      else controller.enqueue(value as Uint8Array<ArrayBuffer>);
    },
    async cancel() {
      await iterator.return?.();
    },
  });
}

/**
 * The form as a stream of multipart/form-data (RFC 7578), with its exact length. `fault` reports whether a file,
 * rather than the network, broke the stream.
 */
export function multipart(form: Form, report: UploadProgress = () => {}) {
  const boundary = `tomaat-${randomHex(16)}`;
  const encoder = new TextEncoder();
  // The way browsers escape names (WHATWG, multipart/form-data encoding).
  const quote = (name: string) =>
    `"${name.replaceAll('\r', '%0D').replaceAll('\n', '%0A').replaceAll('"', '%22')}"`;
  const head = (rest: string) => encoder.encode(`--${boundary}\r\nContent-Disposition: form-data; ${rest}`);
  const pieces: (Uint8Array | UploadFile)[] = [];
  for (const [name, value] of form.fields) pieces.push(head(`name=${quote(name)}\r\n\r\n${value}\r\n`));
  for (const [name, file] of form.files) {
    const rest = `; filename=${quote(fileNameOf(file))}\r\nContent-Type: application/octet-stream`;
    pieces.push(
      head(`name=${quote(name)}${form.withoutFileNames ? '' : rest}\r\n\r\n`),
      file,
      encoder.encode('\r\n'),
    );
  }
  pieces.push(encoder.encode(`--${boundary}--\r\n`));
  const sizeOf = (piece: Uint8Array | UploadFile) =>
    piece instanceof Uint8Array ? piece.length : piece instanceof Blob ? piece.size : piece.sizeBytes;
  const totalBytes = pieces.reduce((sum, piece) => sum + sizeOf(piece), 0);
  let fault: unknown;

  async function* generate(): AsyncGenerator<Uint8Array> {
    let sentBytes = 0;
    try {
      for (const piece of pieces) {
        if (piece instanceof Uint8Array) {
          sentBytes += piece.length;
          yield piece;
          continue;
        }
        let left = sizeOf(piece);
        for await (const chunk of readAll(piece)) {
          left -= chunk.length;
          if (left < 0) break;
          sentBytes += chunk.length;
          yield chunk;
          report({ sentBytes, totalBytes });
        }
        if (left !== 0) {
          throw new TomaatError(
            'BAD_INPUT',
            `${fileNameOf(piece)} changed while it was being sent. Send it again when it is complete.`,
          );
        }
      }
      report({ sentBytes: totalBytes, totalBytes });
    } catch (error) {
      fault ??= error instanceof TomaatError ? error : unreadable(error);
      throw fault;
    }
  }

  return {
    contentType: `multipart/form-data; boundary=${boundary}`,
    sizeBytes: totalBytes,
    stream: toStream(generate()),
    fault: () => fault,
  };
}

/** The error of a file's source that cannot be read. */
export function unreadable(cause: unknown): TomaatError {
  return new TomaatError(
    'BAD_INPUT',
    `The file cannot be read: ${(cause as Error).message}. Check that it is there and may be read.`,
    {
      cause,
    },
  );
}

export async function* readAll(
  file: UploadFile | ReadableStream<Uint8Array> | AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  const chunks = 'stream' in file ? file.stream() : file;
  if (!(chunks instanceof ReadableStream)) {
    yield* chunks;
    return;
  }
  // By hand: not every browser can iterate over streams.
  const reader = chunks.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** Random hex digits; `crypto.randomUUID` is missing in pages loaded over plain HTTP. */
export function randomHex(bytes: number): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (byte) =>
    byte.toString(16).padStart(2, '0'),
  ).join('');
}
