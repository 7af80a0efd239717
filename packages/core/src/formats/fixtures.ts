/** Shared by the tests of NIfTI: the offsets of header fields, and functions that write them. */

export type Kind = 'text' | 'u8' | 'i16' | 'i32' | 'i64' | 'f32' | 'f64';
export type Version = 1 | 2;
export const widths = { text: 1, u8: 1, i16: 2, i32: 4, i64: 8, f32: 4, f64: 8 };

/** Writes numbers, or the characters of a text, one after the other. */
export function put(
  bytes: Uint8Array,
  at: number,
  kind: Kind,
  little: boolean,
  held: string | readonly number[],
) {
  const view = new DataView(bytes.buffer);
  const values = typeof held === 'string' ? [...held].map((letter) => letter.charCodeAt(0)) : held;
  for (const [i, value] of values.entries()) {
    const to = at + i * widths[kind];
    if (kind === 'i16') view.setInt16(to, value, little);
    else if (kind === 'i32') view.setInt32(to, value, little);
    else if (kind === 'i64') view.setBigInt64(to, BigInt(value), little);
    else if (kind === 'f32') view.setFloat32(to, value, little);
    else if (kind === 'f64') view.setFloat64(to, value, little);
    else bytes[to] = value;
  }
}

/** Offsets of nifti1.h, nifti2.h and dbh.h, bytes. */
export const niftiFields = {
  1: {
    intent: [68, 'i16'],
    datatype: [70, 'i16'],
    bitpix: [72, 'i16'],
    dim: [40, 'i16'],
    parameters: [56, 'f32'],
    pixdim: [76, 'f32'],
    voxOffset: [108, 'f32'],
    slope: [112, 'f32'],
    intercept: [116, 'f32'],
    units: [123, 'u8'],
    qformCode: [252, 'i16'],
    sformCode: [254, 'i16'],
    qform: [256, 'f32'],
    sform: [280, 'f32'],
    magic: [344, 'text'],
    flag: [348, 'u8'],
  },
  2: {
    magic: [4, 'text'],
    datatype: [12, 'i16'],
    bitpix: [14, 'i16'],
    dim: [16, 'i64'],
    parameters: [80, 'f64'],
    pixdim: [104, 'f64'],
    voxOffset: [168, 'i64'],
    slope: [176, 'f64'],
    intercept: [184, 'f64'],
    qformCode: [344, 'i32'],
    sformCode: [348, 'i32'],
    qform: [352, 'f64'],
    sform: [400, 'f64'],
    units: [500, 'i32'],
    intent: [504, 'i32'],
    flag: [540, 'u8'],
  },
} as const satisfies Record<Version, Record<string, readonly [number, Kind]>>;
