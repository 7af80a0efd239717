import { canaryElement, rows } from '../../core/test/canaries.ts';
import { dataset, dicomFile, fileBytes, image, value } from '../../core/test/deidentification-files.ts';

/* An oblique series with a canary in every attribute of the table of PS3.15 E that may name a patient. */

export interface NamedFile {
  name: string;
  data: Uint8Array<ArrayBuffer>;
}

export const slices = 4;
export const [columns, height] = [3, 2];
export const slicePixels = (slice: number) =>
  Uint8Array.from({ length: 2 * columns * height }, (_, i) => (i % 2 === 0 ? 60 * slice + 9 * i : 0));
/** Attributes that the volume needs, which the table replaces or that must be read. */
const needed = new Set([
  0x00080016, 0x00080018, 0x0020000d, 0x0020000e, 0x00200052, 0x00080005, 0x00080060, 0x7fe00010,
]);
// Times are kept where dates are shifted.
export const planted = rows.flatMap(({ tag, vr }) =>
  vr === undefined || vr === 'TM' || Math.floor(tag / 65536) === 2 || needed.has(tag)
    ? []
    : [canaryElement(tag, vr)],
);
/** Short ones occur by chance. */
export const traces = [...new Set([...planted.map(({ trace }) => trace), '98765432'])].filter(
  (trace) => trace.length >= 4,
);
export const root = '1.2.276.0.98765432';

/** A slice of an oblique series, with a value in every attribute of the table. */
export function slice(
  index: number,
  series = 4,
  more: readonly Readonly<Parameters<typeof value>>[] = [],
): Uint8Array<ArrayBuffer> {
  const elements = [
    ...planted.map(({ element }) => element),
    value(0x00080018, 'UI', `${root}.5.${series}.${index + 1}`),
    value(0x0020000d, 'UI', `${root}.3`),
    value(0x0020000e, 'UI', `${root}.${series}`),
    value(0x00200052, 'UI', `${root}.6`),
    value(0x00100010, 'PN', 'Canary^Meyer'),
    value(0x00100020, 'LO', 'Canary 7Q'),
    value(0x00200013, 'IS', String(index + 1)),
    value(0x00200032, 'DS', `${-3 + 0.6 * 2.5 * index}\\7\\${11 + 0.8 * 2.5 * index}`),
    value(0x00200037, 'DS', '0.8\\0\\-0.6\\0\\1\\0'),
    value(0x00280030, 'DS', '1.5\\0.75'),
    value(0x00280002, 'US', Uint8Array.of(1, 0)),
    value(0x00280004, 'CS', 'MONOCHROME2'),
    value(0x00280100, 'US', Uint8Array.of(16, 0)),
    value(0x00280101, 'US', Uint8Array.of(16, 0)),
    value(0x00280102, 'US', Uint8Array.of(15, 0)),
    value(0x00280103, 'US', Uint8Array.of(0, 0)),
    value(0x7fe00010, 'OW', slicePixels(index)),
    ...more.map((given) => value(...given)),
  ];
  const sorted = [...image(...elements).values()].sort((a, b) => a.tag - b.tag);
  return new Uint8Array(fileBytes(dicomFile(dataset(...sorted))));
}
