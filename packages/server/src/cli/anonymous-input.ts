import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { anonymousFiles, type FileSource, type UploadFile } from '@tomaat/client';
import { nodePlatform } from '../node-platform.ts';

/** The files of one prediction as sent, and how many texts were removed from their headers. */
export interface AnonymousInputs extends AsyncDisposable {
  readonly volumes: Readonly<Record<string, readonly UploadFile[]>>;
  readonly removed: number;
}

/**
 * Removes identifying text and file names from the files to send. Data that must be recompressed is in an unlinked temporary
 * file until it is disposed of: nothing remains, even after `kill -9`.
 */
export async function anonymousInputs(
  volumes: Readonly<Record<string, readonly FileSource[]>>,
): Promise<AnonymousInputs> {
  await using opened = new AsyncDisposableStack();
  const out: Record<string, readonly UploadFile[]> = {};
  let removed = 0;
  const spool = async (name: string, chunks: AsyncIterable<Uint8Array>) => {
    const file = await spoolFile(name, chunks);
    opened.use(file);
    return file;
  };
  for (const [input, files] of Object.entries(volumes)) {
    const found = await anonymousFiles(input, files, { platform: nodePlatform, spool });
    out[input] = await found.strip();
    removed += found.fields.length;
  }
  const kept = opened.move();
  return { volumes: out, removed, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

export function removedLine(removed: number): string {
  const what = removed === 1 ? 'One text field' : `${removed} text fields`;
  return `${what} in the headers ${removed === 1 ? 'was' : 'were'} removed before sending, as ${removed === 1 ? 'it' : 'they'} may identify the patient (--keep-text sends the files unchanged).`;
}

async function spoolFile(
  name: string,
  chunks: AsyncIterable<Uint8Array>,
): Promise<FileSource & AsyncDisposable> {
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-'));
  const remove = () => rm(folder, { recursive: true, force: true });
  await using opened = new AsyncDisposableStack();
  opened.defer(remove);
  const file = opened.use(await open(join(folder, 'file'), 'wx+', 0o600));
  // Windows removes it only on close.
  if (process.platform !== 'win32') await remove();
  let sizeBytes = 0;
  for await (const chunk of chunks) {
    await file.writev([chunk]);
    sizeBytes += chunk.length;
  }
  const slice = async function* (start: number, end: number) {
    for (let at = start; at < end; ) {
      const { buffer, bytesRead } = await file.read(
        new Uint8Array(Math.min(256 * 1024, end - at)),
        0,
        Math.min(256 * 1024, end - at),
        at,
      );
      if (bytesRead === 0) return;
      at += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  };
  const kept = opened.move();
  return {
    name,
    sizeBytes,
    stream: () => slice(0, sizeBytes),
    slice,
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}
