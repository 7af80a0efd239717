import { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { TomaatError } from '@tomaat/core';
import { settings } from '../settings.ts';
import { JoinedMessage } from './joined-message.ts';

/** The limits of a body. */
export interface BodyLimits {
  readonly maxUploadBytes: number;
  /**
   * The slowest average that is accepted; default 8 KiB/s, 0 for no limit. There is no limit on the
   * whole time, so that a large upload over a slow line can complete.
   */
  readonly minBytesPerSecond?: number;
  /** How long the sender may fall behind that average, from the first byte on; default 30 s. */
  readonly patienceMs?: number;
}

/** Default for the slowest accepted pace of senders and readers. */
export const defaultPace = {
  minBytesPerSecond: settings.minBytesPerSecond.default,
  patienceMs: 30_000,
} as const;

/**
 * A request's raw body, counted and limited while it is read, once. A chunk is valid until the next one is
 * requested; then its memory is freed. To keep bytes, copy them, as readAll() does.
 */
export interface CountedBody extends AsyncIterable<Uint8Array> {
  /** Bytes read so far. */
  readonly bytes: number;
}

/**
 * Counts bytes from the network and stops when a limit is exceeded:
 * UPLOAD_TOO_LARGE (at once if `contentLength` says so, before a byte is read), UPLOAD_TOO_SLOW when the sender
 * stays behind `minBytesPerSecond` by more than `patienceMs` (time in which we are the slow side does not count),
 * BAD_REQUEST when the connection breaks, the length differs from `contentLength` or the body arrives in too many tiny chunks.
 */
export function countBytes(
  source: Readable,
  limits: BodyLimits,
  contentLength?: number | string,
): CountedBody {
  const declared = contentLength === undefined ? undefined : Number(contentLength);
  if (declared !== undefined && !(Number.isSafeInteger(declared) && declared >= 0)) {
    throw new TomaatError(
      'BAD_REQUEST',
      'Content-Length is not a number of bytes. Send the number of bytes of the body',
      { field: 'Content-Length' },
    );
  }
  if (declared !== undefined && declared > limits.maxUploadBytes)
    throw tooLarge(limits.maxUploadBytes, 'Content-Length');
  const counted = {
    bytes: 0,
    [Symbol.asyncIterator]: () => read(source, limits, declared, counted),
  };
  return counted;
}

async function* read(
  source: Readable,
  limits: BodyLimits,
  declared: number | undefined,
  counted: { bytes: number },
): AsyncGenerator<Uint8Array> {
  const {
    maxUploadBytes,
    minBytesPerSecond = defaultPace.minBytesPerSecond,
    patienceMs = defaultPace.patienceMs,
  } = limits;
  // How much further the sender may still fall behind. Bytes earn time, waiting for the sender spends it.
  let creditMs = patienceMs;
  let waiting: { since: number; giveUp: (error: TomaatError) => void } | undefined;
  const watch = () => {
    if (waiting && performance.now() - waiting.since > creditMs) waiting.giveUp(tooSlow(minBytesPerSecond));
  };
  const timer =
    minBytesPerSecond > 0 ? setInterval(watch, Math.min(1000, patienceMs / 4)).unref() : undefined;
  // The request stays open after an error, so that it can be answered.
  const isOurs = (source as { socket?: unknown }).socket instanceof Socket;
  const iterator = source.iterator({ destroyOnReturn: false });
  try {
    for (;;) {
      const since = performance.now();
      const { done, value } = await new Promise<IteratorResult<Buffer>>((resolve, giveUp) => {
        waiting = { since, giveUp };
        iterator.next().then(resolve, giveUp);
      });
      waiting = undefined;
      if (done) break;
      counted.bytes += value.length;
      if (counted.bytes > maxUploadBytes) throw tooLarge(maxUploadBytes);
      if (isInCrumbs(source)) throw inCrumbs();
      if (minBytesPerSecond > 0) {
        const earnedMs = (value.length / minBytesPerSecond) * 1000;
        creditMs = Math.min(patienceMs, creditMs - (performance.now() - since) + earnedMs);
        if (creditMs < 0) throw tooSlow(minBytesPerSecond);
      }
      yield value;
      if (isOurs) giveBack(value);
    }
    if (declared !== undefined && declared !== counted.bytes) throw brokenOff(counted.bytes);
  } catch (error) {
    throw error instanceof TomaatError ? error : brokenOff(counted.bytes, error);
  } finally {
    clearInterval(timer);
    // Not awaited: after giving up, it only settles when the connection ends.
    iterator.return?.()?.catch(() => undefined);
  }
}

/**
 * Frees a chunk that a socket has made, at once: left to the garbage collector, such chunks accumulate to tens of MB
 * (the collector sees only small objects) and need new pages. A chunk that shares its memory is left alone.
 */
function giveBack(chunk: Buffer): void {
  const { buffer } = chunk;
  if (chunk.length < 4096 || chunk.length !== buffer.byteLength) return;
  if (buffer instanceof ArrayBuffer) buffer.transfer(0);
}

/** A whole body in memory, for the few that are always small; UPLOAD_TOO_LARGE beyond `maxBytes`. */
export async function readAll(source: AsyncIterable<Uint8Array>, maxBytes: number): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of source) {
    bytes += chunk.length;
    if (bytes > maxBytes) throw tooLarge(maxBytes);
    chunks.push(Uint8Array.from(chunk));
  }
  return Buffer.concat(chunks);
}

/**
 * Reads and drops the rest of a body after a fault, so that the sender reads the response; true if the body ended in time,
 * otherwise the connection should be closed.
 */
export async function discardRest(
  source: Readable,
  limits: { maxBytes?: number; maxMs?: number } = {},
): Promise<boolean> {
  const { maxBytes = 64 * 1024 * 1024, maxMs = 5000 } = limits;
  if (source.readableEnded || source.destroyed) return source.readableEnded;
  if (isInCrumbs(source)) return false;
  return new Promise((resolve) => {
    let bytes = 0;
    const end = (ended: boolean) => {
      clearTimeout(timer);
      source.off('data', onData).off('end', onEnd).off('close', onBroken).off('error', onBroken);
      source.pause();
      resolve(ended);
    };
    const onData = (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > maxBytes || isInCrumbs(source)) end(false);
    };
    const onEnd = () => end(true);
    const onBroken = () => end(false);
    const timer = setTimeout(onBroken, maxMs);
    source.on('data', onData).on('end', onEnd).on('close', onBroken).on('error', onBroken).resume();
  });
}

const isInCrumbs = (source: Readable) => source instanceof JoinedMessage && source.isInCrumbs;

function tooLarge(maxUploadBytes: number, field?: string): TomaatError {
  return new TomaatError(
    'UPLOAD_TOO_LARGE',
    `The upload is larger than the ${maxUploadBytes} bytes that this server accepts. Crop or compress the volume, or ask the operator for a higher limit`,
    { field, detail: { maxUploadBytes } },
  );
}

function tooSlow(minBytesPerSecond: number): TomaatError {
  return new TomaatError(
    'UPLOAD_TOO_SLOW',
    `The upload was slower than ${minBytesPerSecond} bytes per second. Try again over a faster connection`,
  );
}

function inCrumbs(): TomaatError {
  return new TomaatError(
    'BAD_REQUEST',
    'The body arrived in too many tiny chunks. Send it in larger ones, or with a Content-Length',
  );
}

function brokenOff(bytes: number, cause?: unknown): TomaatError {
  return new TomaatError('BAD_REQUEST', `The body was cut off after ${bytes} bytes. Send it again`, {
    cause,
  });
}
