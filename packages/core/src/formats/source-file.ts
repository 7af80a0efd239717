/** A file to read. Only the name's last part is ever looked at; it is never a path to open. */
export interface SourceFile {
  name: string;
  /** Its name is not the one that the header of its pair may know: whether they belong together was seen before. */
  renamed?: boolean;
  sizeBytes?: number;
  /** The bytes from `start` (default 0) to the end; may be called several times. */
  open(start?: number): AsyncIterable<Uint8Array>;
}
