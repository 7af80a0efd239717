/** The definition of a target, and helpers that targets share. */
import type { LongRuns } from './long-runs.ts';

export interface Target {
  readonly description: string;
  /** Valid inputs, from which the changes start. */
  seeds(): Promise<Uint8Array[]>;
  /** Texts with places for long runs of one character, for readers of text; each text is also run once, unchanged. */
  readonly longRuns?: LongRuns;
  /** Words of the format, to be inserted. */
  readonly words: readonly string[];
  readonly maxBytes?: number;
  run(input: Uint8Array): void | Promise<void>;
}

/** Fails if an accepted input does not keep what was promised. */
export function must(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Error(`broken promise: ${what}`);
}

export const bytesOf = (text: string) => new Uint8Array(Buffer.from(text, 'latin1'));
export const textOf = (bytes: Uint8Array) =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
export const equal = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;

/** The bytes in chunks whose lengths follow from a number. */
export async function* inPieces(bytes: Uint8Array, salt: number): AsyncGenerator<Uint8Array> {
  let state = salt | 1;
  for (let at = 0; at < bytes.length; ) {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    const length = salt === 0 ? bytes.length : 1 + ((state >> 8) % (salt & 1 ? 7 : 300));
    yield bytes.slice(at, at + length);
    at += length;
  }
}
