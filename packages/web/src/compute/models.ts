import { TomaatError } from '@tomaat/core';
import { baseUrl, keptAt } from '../base.ts';
import { sha256Of } from '../sha256.ts';
import { client } from '../site.ts';

/** Networks that this browser keeps between predictions, by their digest, which is checked whenever one is taken. */

const cacheName = keptAt('tomaat.models');
/** The oldest goes when there is one more. */
const mostKept = 8;
const keyOf = (sha256: string) => `${baseUrl}/models/${sha256}`;

/**
 * The file of a network of a service: from this browser, else from the server.
 *
 * @throws TomaatError UPSTREAM if the server sends another file than its manifest names; as the client's model()
 */
export async function fetchModel(
  serviceId: string,
  sha256: string,
  { signal, onProgress }: { signal: AbortSignal; onProgress(done: number, total: number): void },
): Promise<Blob> {
  const cache = await openCache();
  const kept = await cache?.match(keyOf(sha256)).then((found) => found?.blob());
  if (kept) {
    if ((await sha256Of(kept)) === sha256) return kept;
    await cache?.delete(keyOf(sha256));
  }
  signal.throwIfAborted();
  const file = await client.model(serviceId, { sha256, signal });
  const parts: BlobPart[] = [];
  let done = 0;
  for await (const part of readerOf(file.stream)) {
    parts.push(part);
    done += part.length;
    onProgress(done, file.sizeBytes ?? done);
  }
  const blob = new Blob(parts);
  if ((await sha256Of(blob)) !== sha256) {
    throw new TomaatError(
      'UPSTREAM',
      'The network that the server sent is not the one that its manifest names. Try again, and tell the operator of the server if it happens again.',
    );
  }
  signal.throwIfAborted();
  if (cache) await keep(cache, sha256, blob);
  return blob;
}

/** Forgets all of them: who uses this browser next may not be allowed to have them. */
export async function forgetModels(): Promise<void> {
  if (typeof caches !== 'undefined') await caches.delete(cacheName).catch(() => false);
}

/** Missing where the browser keeps nothing, as in some private windows. */
async function openCache(): Promise<Cache | undefined> {
  if (typeof caches === 'undefined') return undefined;
  return caches.open(cacheName).catch(() => undefined);
}

/** Without room for it, it is fetched again the next time. */
async function keep(cache: Cache, sha256: string, blob: Blob): Promise<void> {
  try {
    await cache.put(keyOf(sha256), new Response(blob));
    const all = await cache.keys();
    for (const old of all.slice(0, Math.max(0, all.length - mostKept))) await cache.delete(old);
  } catch {
    await cache.delete(keyOf(sha256)).catch(() => false);
  }
}

/** Not every browser lets a stream be iterated. */
async function* readerOf(stream: ReadableStream<Uint8Array<ArrayBuffer>>) {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
}
