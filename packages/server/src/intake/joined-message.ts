import { IncomingMessage } from 'node:http';

const crumbBytes = 256;
const joinedBytes = 16_384;
/** Pieces that any body may arrive in, and the mean size required beyond that: each piece costs about a microsecond. */
const freePieces = 8192;
const meanPieceBytes = 64;

/**
 * A request whose tiny chunks are joined. node:http creates an object per chunk, and its stream counts only bytes: a
 * body in chunks of one byte would be buffered as 70,000 objects in 50 MB. Here the small chunks of one read
 * from the network are buffered as one, and a body of nothing but tiny chunks is not read further.
 */
export class JoinedMessage extends IncomingMessage {
  #pieces = 0;
  #bytes = 0;
  #waiting: Buffer | undefined;
  #waitingBytes = 0;

  /** Whether the body has arrived in more pieces than a legitimate client sends. */
  get isInCrumbs(): boolean {
    return this.#pieces > freePieces + this.#bytes / meanPieceBytes;
  }

  override _read(size: number): void {
    if (!this.isInCrumbs) super._read(size);
  }

  override push(chunk: Buffer | null, encoding?: BufferEncoding): boolean {
    if (chunk !== null) {
      this.#pieces++;
      this.#bytes += chunk.length;
    }
    if (chunk === null || chunk.length >= crumbBytes) {
      this.#passOn();
      return super.push(chunk, encoding);
    }
    if (this.#waitingBytes + chunk.length > joinedBytes) this.#passOn();
    if (!this.#waiting) {
      // Most small bodies are one chunk, which is passed on unchanged.
      this.#waiting = chunk;
      // Not process.nextTick(): the parser lets those run after every chunk.
      setImmediate(() => this.#passOn());
    } else {
      if (this.#waiting.length !== joinedBytes) {
        const first = this.#waiting;
        this.#waiting = Buffer.allocUnsafe(joinedBytes);
        this.#waiting.set(first);
      }
      this.#waiting.set(chunk, this.#waitingBytes);
    }
    this.#waitingBytes += chunk.length;
    return !this.isInCrumbs && this.readableLength + this.#waitingBytes < this.readableHighWaterMark;
  }

  #passOn(): void {
    if (!this.#waiting) return;
    const joined = this.#waiting.subarray(0, this.#waitingBytes);
    this.#waiting = undefined;
    this.#waitingBytes = 0;
    super.push(joined);
  }
}
