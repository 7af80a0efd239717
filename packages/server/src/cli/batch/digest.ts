import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { basename } from 'node:path';

/** SHA-256 over the names and contents of files, in their order. */
export async function digestOf(paths: readonly string[], signal?: AbortSignal): Promise<string> {
  const all = createHash('sha256');
  for (const path of paths) {
    const one = createHash('sha256');
    for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024, signal }))
      one.update(chunk);
    all.update(`${basename(path)}\0${one.digest('hex')}\0`);
  }
  return all.digest('hex');
}
