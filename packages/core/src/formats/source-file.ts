/** A file to read. Only the last part of the name is used; it is never a path to open. */
export interface SourceFile {
  name: string;
  /** Its name may differ from the one in the header of its pair: the caller has checked that they belong together. */
  renamed?: boolean;
  sizeBytes?: number;
  /**
   * The bytes from `start` (default 0) to the end; may be called several times.
   *
   * @param room memory that a caller of many files offers for the bytes: chunks may be views of it, each behind the one
   *   before. A source may ignore it.
   */
  open(start?: number, room?: Uint8Array<ArrayBuffer>): AsyncIterable<Uint8Array>;
}
