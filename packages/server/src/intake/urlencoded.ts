import { TomaatError } from '@tomaat/core';
import type { BodyPart } from './body-part.ts';
import { defaultPartLimits, type PartLimits } from './multipart.ts';

/**
 * The values of an application/x-www-form-urlencoded body (WHATWG URL, section 5), one after the other, each as a
 * stream of decoded bytes: '+' is a space, percent escapes may span chunks. Strict: a broken escape, or a name
 * that is empty, too long or not UTF-8, is BAD_REQUEST, which names the field. `maxParts` limits the fields.
 */
export async function* readUrlencoded(
  source: AsyncIterable<Uint8Array>,
  limits: PartLimits = {},
): AsyncGenerator<BodyPart> {
  const { maxParts = defaultPartLimits.maxParts, maxHeaderBytes = defaultPartLimits.maxHeaderBytes } = limits;
  const scanner = new Scanner(source);
  try {
    for (let fields = 0; !(await scanner.isAtEnd()); ) {
      const name = await readName(scanner, maxHeaderBytes);
      if (++fields > maxParts) throw malformed(`has more than ${maxParts} fields`);
      if (name === '' && scanner.stoppedAt !== equals) continue; // Nothing between two '&'.
      if (name === '') throw malformed('has a value without a name');
      const hasValue = scanner.stoppedAt === equals;
      const body = hasValue ? scanner.until(false, `the value of field ${fields}`) : nothing();
      yield { name, body };
      while (!(await body.next()).done);
      if (hasValue && scanner.stoppedAt !== ampersand) {
        // The rest of a value that the caller did not read to its end.
        for await (const _ of scanner.until(false, `the value of field ${fields}`));
      }
    }
  } finally {
    await scanner.close();
  }
}

const ampersand = 38;
const equals = 61;
const percent = 37;
const plus = 43;
const space = 32;

/** The value of a hexadecimal digit, or 255. */
const digits = new Uint8Array(256).fill(255);
for (const [index, character] of Array.from('0123456789abcdef').entries()) {
  digits[character.charCodeAt(0)] = index;
  digits[character.toUpperCase().charCodeAt(0)] = index;
}

async function readName(scanner: Scanner, maxBytes: number): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of scanner.until(true, 'a name')) {
    bytes += chunk.length;
    if (bytes > maxBytes) throw malformed(`has a name of more than ${maxBytes} bytes`);
    chunks.push(Uint8Array.from(chunk));
  }
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.concat(chunks));
  } catch (error) {
    throw malformed('has a name that is not UTF-8', error);
  }
}

const nothingLeft = new Uint8Array(0);

async function* nothing(): AsyncGenerator<Uint8Array> {}

/** Cuts and decodes the chunks of a body. */
class Scanner {
  readonly #iterator: AsyncIterator<Uint8Array>;
  #chunk: Uint8Array = nothingLeft;
  #at = 0;
  #offset = 0;
  #output: Buffer | undefined;
  /** The character that ended what was read last; undefined at the end of the body, or before an end. */
  stoppedAt: number | undefined;

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#iterator = source[Symbol.asyncIterator]();
  }

  async isAtEnd(): Promise<boolean> {
    return !(await this.#fill());
  }

  /** The decoded input before '&', for a name also before '='; afterwards the scanner is past that character. */
  async *until(isName: boolean, where: string): AsyncGenerator<Uint8Array> {
    this.stoppedAt = undefined;
    /** Characters of an escape that spans chunks. */
    let partial: number[] = [];
    while (await this.#fill()) {
      const chunk = this.#chunk;
      let at = this.#at;
      const start = at;
      const limit = Math.min(chunk.length, at + outputBytes);
      this.#output ??= Buffer.allocUnsafeSlow(outputBytes);
      const output = this.#output;
      let count = 0;
      let stop: number | undefined;
      for (; at < limit; at++) {
        const code = chunk[at];
        if (partial.length > 0) {
          partial.push(code);
          if (digits[code] === 255) throw this.#brokenEscape(partial, where, at);
          if (partial.length < 3) continue;
          output[count++] = digits[partial[1]] * 16 + digits[partial[2]];
          partial = [];
        } else if (code === percent) {
          if (at + 2 < limit) {
            const high = digits[chunk[at + 1]];
            const low = digits[chunk[at + 2]];
            if (high === 255 || low === 255)
              throw this.#brokenEscape([code, chunk[at + 1], chunk[at + 2]], where, at + 2);
            output[count++] = high * 16 + low;
            at += 2;
          } else partial = [code];
        } else if (code === ampersand || (isName && code === equals)) {
          stop = code;
          at++;
          break;
        } else output[count++] = code === plus ? space : code;
      }
      this.#offset += at - start;
      this.#at = at;
      if (stop !== undefined) this.stoppedAt = stop;
      if (count > 0) yield output.subarray(0, count);
      if (stop !== undefined) return;
    }
    if (partial.length > 0) throw malformed(`ends in the middle of an escape in ${where}`);
    // The end of the body ends a field as '&' does.
    this.stoppedAt = ampersand;
  }

  async close(): Promise<void> {
    await this.#iterator.return?.();
  }

  /** Makes sure that there is something to read; false at the end of the body. */
  async #fill(): Promise<boolean> {
    while (this.#at === this.#chunk.length) {
      // The chunk is no longer ours when the next one is requested.
      this.#chunk = nothingLeft;
      this.#at = 0;
      const { done, value } = await this.#iterator.next();
      if (done) return false;
      this.#chunk = value;
    }
    return true;
  }

  #brokenEscape(partial: number[], where: string, at: number): TomaatError {
    const offset = this.#offset + at - this.#at - partial.length + 1;
    return malformed(`has a '%' at offset ${offset}, in ${where}, which is not an escape (write '%' as %25)`);
  }
}

const outputBytes = 64 * 1024;

function malformed(what: string, cause?: unknown): TomaatError {
  return new TomaatError('BAD_REQUEST', `The urlencoded body ${what}. Let the HTTP library write the form`, {
    cause,
  });
}
