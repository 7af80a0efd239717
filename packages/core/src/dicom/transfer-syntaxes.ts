import type { Encoding } from './dataset.ts';

/** The transfer syntaxes that are read (PS3.5 10, PS3.6 A). */
export const transferSyntaxes = {
  implicitLittleEndian: '1.2.840.10008.1.2',
  explicitLittleEndian: '1.2.840.10008.1.2.1',
  deflated: '1.2.840.10008.1.2.1.99',
  explicitBigEndian: '1.2.840.10008.1.2.2',
  rleLossless: '1.2.840.10008.1.2.5',
} as const;

/** How the data set is written in a transfer syntax: all but three are explicit VR little endian. */
export const encodingOf = (transferSyntax: string): Encoding => ({
  explicit: transferSyntax !== transferSyntaxes.implicitLittleEndian,
  littleEndian: transferSyntax !== transferSyntaxes.explicitBigEndian,
});
