import { type Bytes, TomaatError } from '@tomaat/core';
import { dispositionName } from './header-value.ts';
import { addressOf, type Connection, jobPath, networkFault, send, startWatchdog } from './http.ts';

export interface OutputFile {
  /**
   * The bytes; the stream fails with UNREACHABLE if the connection breaks. They can be read once: from this stream,
   * or by one call of one of the methods below. A second read rejects with BAD_REQUEST.
   */
  readonly stream: ReadableStream<Bytes>;
  readonly fileName: string;
  readonly sizeBytes?: number;
  readonly mediaType: string;
  blob(): Promise<Blob>;
  bytes(): Promise<Bytes>;
  /** The bytes as UTF-8 text. */
  text(): Promise<string>;
  /**
   * The parsed text of Measurements, and of other outputs requested with the format json. UPSTREAM if it is not JSON.
   */
  json<T = unknown>(): Promise<T>;
}

/** Opens the file of a job’s output; see `Client.output`. */
export const openOutput = (
  connection: Connection,
  jobId: string,
  name: string,
  { format, signal }: { format?: string; signal?: AbortSignal } = {},
): Promise<OutputFile> =>
  openFile(connection, `${jobPath(jobId)}/outputs/${encodeURIComponent(name)}`, {
    name: `output ${name}`,
    fileName: name,
    query: { format },
    signal,
  });

/** A file that a server has. */
interface FileRequest {
  /** For messages: `output mask`. */
  readonly name: string;
  /** If the answer names none. */
  readonly fileName: string;
  readonly query: Readonly<Record<string, string | undefined>>;
  readonly signal?: AbortSignal;
}

/** Opens a file at an address of the server. */
export async function openFile(
  connection: Connection,
  path: string,
  { name, fileName, query, signal }: FileRequest,
): Promise<OutputFile> {
  const address = addressOf(connection, path, query);
  const watchdog = startWatchdog(connection, signal);
  try {
    // The raw bytes: a .nii.gz must not be decompressed on the way.
    const headers = { 'accept-encoding': 'identity' };
    const response = await send(
      connection,
      path,
      { query, headers, signal: watchdog.signal },
      watchdog.alive,
    );
    const length = response.headers.get('content-length');
    const sizeBytes =
      length === null || response.headers.has('content-encoding') ? undefined : Number(length);
    const stream = guarded(response.body ?? new ReadableStream(), sizeBytes, address, watchdog, signal);
    const mediaType = response.headers.get('content-type') ?? 'application/octet-stream';
    return {
      stream,
      fileName: dispositionName(response.headers.get('content-disposition')) ?? fileName,
      sizeBytes,
      mediaType,
      ...readersOf(stream, name, mediaType),
    };
  } catch (error) {
    watchdog.stop();
    throw error;
  }
}

/** The ways to read a whole file. */
function readersOf(
  stream: ReadableStream<Bytes>,
  name: string,
  mediaType: string,
): Pick<OutputFile, 'blob' | 'bytes' | 'text' | 'json'> {
  const whole = () => {
    try {
      return new Response(stream);
    } catch (cause) {
      throw new TomaatError(
        'BAD_REQUEST',
        `The ${name} was read before, and its bytes come once. Keep what the first read gave, or ask for it again.`,
        { cause },
      );
    }
  };
  return {
    blob: async () => new Blob([await whole().blob()], { type: mediaType }),
    bytes: async () => new Uint8Array(await whole().arrayBuffer()),
    text: async () => await whole().text(),
    async json<T>() {
      const text = await whole().text();
      try {
        return JSON.parse(text) as T;
      } catch (cause) {
        throw new TomaatError(
          'UPSTREAM',
          `The ${name} is not JSON but ${mediaType}. Ask for the format json where its type has it: { format: 'json' }.`,
          { cause },
        );
      }
    },
  };
}

/**
 * The same bytes; a broken connection, a timeout or a short response makes the stream fail with UNREACHABLE instead
 * of ending it.
 */
function guarded(
  body: ReadableStream<Bytes>,
  sizeBytes: number | undefined,
  address: string,
  watchdog: ReturnType<typeof startWatchdog>,
  signal?: AbortSignal,
): ReadableStream<Bytes> {
  const reader = body.getReader();
  let seenBytes = 0;
  // Only while waiting for a chunk: a slow reader does not make the server silent.
  watchdog.rest();
  return new ReadableStream(
    {
      async pull(controller) {
        watchdog.alive();
        try {
          const { done, value } = await reader.read();
          watchdog.rest();
          if (done && sizeBytes !== undefined && seenBytes !== sizeBytes) throw new TypeError('short answer');
          if (done) {
            watchdog.stop();
            return controller.close();
          }
          seenBytes += value.length;
          controller.enqueue(value);
        } catch (error) {
          watchdog.stop();
          throw networkFault(watchdog.signal.aborted ? watchdog.signal.reason : error, address, signal);
        }
      },
      async cancel(reason) {
        watchdog.stop();
        await reader.cancel(reason);
      },
    },
    { highWaterMark: 0 },
  );
}
