import type { Dataset, DicomElement, Encoding } from './dataset.ts';
import type { Tag } from './tags.ts';
import { hasLongLength, type Vr } from './value-representations.ts';

/**
 * The bytes of a data set in chunks; long values are views of the input. Elements are written in the order of their
 * tags.
 */
export function encodeDataset(dataset: Dataset, encoding: Encoding): Uint8Array[] {
  const sink = createSink();
  writeElements(dataset, encoding, sink);
  return sink.pieces();
}

/** Total length of the chunks in bytes. */
export const lengthOf = (pieces: readonly Uint8Array[]): number =>
  pieces.reduce((total, { length }) => total + length, 0);

function writeElements(dataset: Dataset, encoding: Encoding, sink: Sink): void {
  for (const [, element] of [...dataset].sort(([a], [b]) => a - b)) writeElement(element, encoding, sink);
}

function writeElement(element: DicomElement, encoding: Encoding, sink: Sink): void {
  const { tag, vr } = element;
  switch (element.kind) {
    case 'value': {
      const padding = element.bytes.length % 2;
      sink.write(headOf(tag, vr, element.bytes.length + padding, encoding));
      sink.write(element.bytes);
      if (padding === 1) sink.write(paddingOf(vr));
      return;
    }
    case 'sequence': {
      const inner = element.implicitItems ? { explicit: false, littleEndian: true } : encoding;
      const head = sink.open(headOf(tag, element.implicitItems ? 'UN' : 'SQ', 0, encoding));
      for (const item of element.items) {
        const itemHead = sink.open(itemOf(itemTag, 0, inner));
        writeElements(item, inner, sink);
        itemHead.close(inner);
      }
      head.close(encoding);
      return;
    }
    case 'fragments': {
      const table = new Uint8Array(element.offsets.length * 4);
      const view = new DataView(table.buffer);
      for (const [i, offset] of element.offsets.entries())
        view.setUint32(4 * i, offset, encoding.littleEndian);
      sink.write(headOf(tag, vr ?? 'OB', undefinedLength, encoding));
      for (const bytes of [table, ...element.fragments]) {
        const padding = bytes.length % 2;
        sink.write(itemOf(itemTag, bytes.length + padding, encoding));
        sink.write(bytes);
        if (padding === 1) sink.write(zero);
      }
      sink.write(itemOf(sequenceEnd, 0, encoding));
    }
  }
}

/** Receives bytes in order; short ones are copied together, so that many small elements become a few chunks. */
interface Sink {
  write(bytes: Uint8Array): void;
  /** Writes a header that ends with the 32-bit length of everything written until it is closed. */
  open(head: Uint8Array): { close(encoding: Pick<Encoding, 'littleEndian'>): void };
  pieces(): Uint8Array[];
}

const chunkBytes = 2 ** 16;
const longestCopied = 2 ** 12;

function createSink(): Sink {
  const done: Uint8Array[] = [];
  let chunk = new Uint8Array(chunkBytes);
  let start = 0;
  let used = 0;
  let total = 0;
  const flush = () => {
    if (used > start) done.push(chunk.subarray(start, used));
    start = used;
  };
  const write = (bytes: Uint8Array) => {
    total += bytes.length;
    if (bytes.length > longestCopied) {
      flush();
      done.push(bytes);
      return;
    }
    if (used + bytes.length > chunkBytes) {
      flush();
      chunk = new Uint8Array(chunkBytes);
      start = used = 0;
    }
    chunk.set(bytes, used);
    used += bytes.length;
  };
  return {
    write,
    open(head) {
      write(head);
      const [place, at, from] = [chunk, used - 4, total];
      return {
        close: ({ littleEndian }) => new DataView(place.buffer).setUint32(at, total - from, littleEndian),
      };
    },
    pieces() {
      flush();
      return done;
    },
  };
}

const undefinedLength = 0xffffffff;
const itemTag = 0xfffee000;
const sequenceEnd = 0xfffee0dd;
const zero = Uint8Array.of(0);
const space = Uint8Array.of(32);

/** UIDs and binary values are padded with a zero byte, text with a space (PS3.5 6.2). */
const paddingOf = (vr: Vr | undefined): Uint8Array =>
  vr === undefined || ['UI', 'OB', 'OW', 'UN', 'OD', 'OF', 'OL', 'OV'].includes(vr) ? zero : space;

/**
 * Tag, VR and length. In explicit VR a value of an unknown VR, or one that is too long for the 16-bit length of its
 * VR, is written as UN (CP-1066).
 */
function headOf(
  tag: Tag,
  vr: Vr | undefined,
  length: number,
  { explicit, littleEndian }: Encoding,
): Uint8Array {
  if (!explicit) return itemOf(tag, length, { littleEndian });
  const fits = vr !== undefined && (hasLongLength(vr) || length <= 0xfffe);
  const written = fits ? vr : 'UN';
  const head = new Uint8Array(hasLongLength(written) ? 12 : 8);
  const view = new DataView(head.buffer);
  setTag(view, tag, littleEndian);
  head[4] = written.charCodeAt(0);
  head[5] = written.charCodeAt(1);
  if (hasLongLength(written)) view.setUint32(8, length, littleEndian);
  else view.setUint16(6, length, littleEndian);
  return head;
}

function itemOf(tag: Tag, length: number, { littleEndian }: Pick<Encoding, 'littleEndian'>): Uint8Array {
  const head = new Uint8Array(8);
  const view = new DataView(head.buffer);
  setTag(view, tag, littleEndian);
  view.setUint32(4, length, littleEndian);
  return head;
}

function setTag(view: DataView, tag: Tag, littleEndian: boolean): void {
  view.setUint16(0, Math.floor(tag / 65536), littleEndian);
  view.setUint16(2, tag % 65536, littleEndian);
}
