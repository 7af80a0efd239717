import { createHash } from 'node:crypto';
import { type BigIntStats, fstatSync } from 'node:fs';
import { pipeline, type Readable, Transform, type TransformCallback } from 'node:stream';
import { TomaatError } from '@tomaat/core';

/** Blob files whose bytes were found not to match their name; a file that replaces one of them is a different file. */
export interface DamageList {
  add(digest: string, file: BigIntStats): void;
  has(digest: string, file: BigIntStats): boolean;
}

export function createDamageList(): DamageList {
  const damaged = new Map<string, string>();
  const identityOf = ({ ino, mtimeNs, size }: BigIntStats) => `${ino} ${mtimeNs} ${size}`;
  return {
    add: (digest, file) => void damaged.set(digest, identityOf(file)),
    has(digest, file) {
      if (damaged.get(digest) === identityOf(file)) return true;
      damaged.delete(digest);
      return false;
    },
  };
}

export const statOf = (fd: number): BigIntStats => fstatSync(fd, { bigint: true });

/** The error for a reader; `why` and `path` are for the log. */
export function damagedError(path: string, why: string): TomaatError {
  return new TomaatError(
    'DAMAGED',
    'A stored file is damaged on the server. Send the prediction again, and report it to the operator: the disk of the server may be failing.',
    { cause: new Error(`${path} is damaged: ${why}`) },
  );
}

/**
 * The same bytes. If their SHA-256 is not the blob's, the stream fails before its end, so that no reader takes them for
 * complete: the last chunk is held back until all are hashed.
 */
export function checkWhole(
  bytes: Readable,
  { digest }: { readonly digest: string },
  onMismatch: () => Error,
): Readable {
  const hash = createHash('sha256');
  let held: Buffer | undefined;
  const checked = new Transform({
    transform(chunk: Buffer, _encoding, done: TransformCallback) {
      hash.update(chunk);
      const before = held;
      held = chunk;
      done(null, before);
    },
    flush(done: TransformCallback) {
      if (`sha256:${hash.digest('hex')}` === digest) done(null, held);
      else done(onMismatch());
    },
  });
  // Each closes the other; readers see the error on `checked`.
  pipeline(bytes, checked, () => {});
  return checked;
}
