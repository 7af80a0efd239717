/** A file to read. Only the last part of the name is used; it is never a path to open. */
export interface SourceFile {
  name: string;
  /** Its name may differ from the one in the header of its pair: the caller has checked that they belong together. */
  renamed?: boolean;
  sizeBytes?: number;
  /** The bytes from `start` (default 0) to the end; may be called several times. */
  open(start?: number): AsyncIterable<Uint8Array>;
}
