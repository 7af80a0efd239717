import type { Dataset, DicomElement, Encoding } from './dataset.ts';
import type { Tag } from './tags.ts';
import { hasLongLength, type Vr } from './value-representations.ts';

/** The bytes of a data set, in pieces; values are views of what was given. Elements are written in the order of their tags. */
export function encodeDataset(dataset: Dataset, encoding: Encoding): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (const [, element] of [...dataset].sort(([a], [b]) => a - b))
    pieces.push(...encodeElement(element, encoding));
  return pieces;
}

/** Bytes that pieces take together. */
export const lengthOf = (pieces: readonly Uint8Array[]): number =>
  pieces.reduce((total, { length }) => total + length, 0);

function encodeElement(element: DicomElement, encoding: Encoding): Uint8Array[] {
  const { tag, vr } = element;
  switch (element.kind) {
    case 'value': {
      const padding = element.bytes.length % 2 === 1 ? [paddingOf(vr)] : [];
      const length = element.bytes.length + padding.length;
      return [headOf(tag, vr, length, encoding), element.bytes, ...padding];
    }
    case 'sequence': {
      const inner = element.implicitItems ? { explicit: false, littleEndian: true } : encoding;
      const pieces = element.items.flatMap((item) => {
        const content = encodeDataset(item, inner);
        return [itemOf(itemTag, lengthOf(content), inner), ...content];
      });
      return [headOf(tag, element.implicitItems ? 'UN' : 'SQ', lengthOf(pieces), encoding), ...pieces];
    }
    case 'fragments': {
      const table = new Uint8Array(element.offsets.length * 4);
      const view = new DataView(table.buffer);
      for (const [i, offset] of element.offsets.entries())
        view.setUint32(4 * i, offset, encoding.littleEndian);
      return [
        headOf(tag, vr ?? 'OB', undefinedLength, encoding),
        ...[table, ...element.fragments].flatMap((bytes) => {
          const padding = bytes.length % 2 === 1 ? [zero] : [];
          return [itemOf(itemTag, bytes.length + padding.length, encoding), bytes, ...padding];
        }),
        itemOf(sequenceEnd, 0, encoding),
      ];
    }
  }
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
 * Tag, VR and length. In explicit VR a value of an unknown VR, or one that is too long for the 16 bits that its VR has for a
 * length, is written as UN (CP-1066).
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
