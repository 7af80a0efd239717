/* Small DICOM files and multipart bodies for tests. */

const ascii = (text: string) => Array.from(text, (character) => character.charCodeAt(0));

/** An explicit VR little endian element with a short length; UIDs are padded with NUL. */
function element(group: number, number: number, vr: string, text: string): number[] {
  const value = ascii(text.length % 2 === 0 ? text : `${text}\0`);
  return [group & 255, group >> 8, number & 255, number >> 8, ...ascii(vr), value.length, 0, ...value];
}

/** A file with its file meta information, followed by `size` bytes in place of its data set. */
export function dicomFile(
  sopInstanceUid: string,
  { size = 20, transferSyntaxUid = '1.2.840.10008.1.2.1' } = {},
): Uint8Array<ArrayBuffer> {
  const meta = [
    // (0002,0001) is OB, which has a 32-bit length.
    ...[2, 0, 1, 0, ...ascii('OB'), 0, 0, 2, 0, 0, 0, 0, 1],
    ...element(2, 2, 'UI', '1.2.840.10008.5.1.4.1.1.4'),
    ...element(2, 3, 'UI', sopInstanceUid),
    ...element(2, 16, 'UI', transferSyntaxUid),
  ];
  const length = element(2, 0, 'UL', '1234').slice(0, 8);
  return Uint8Array.from([
    ...Array<number>(128).fill(0),
    ...ascii('DICM'),
    ...length,
    meta.length & 255,
    meta.length >> 8,
    0,
    0,
    ...meta,
    ...Array.from({ length: size }, (_, index) => (index * 7 + sopInstanceUid.length) & 255),
  ]);
}

/** A multipart/related body with the files as its parts. */
export function relatedBody(files: readonly Uint8Array[], boundary: string): Uint8Array<ArrayBuffer> {
  const pieces = files.flatMap((file) => [
    ...ascii(`\r\n--${boundary}\r\nContent-Type: application/dicom\r\n\r\n`),
    ...file,
  ]);
  return Uint8Array.from([...pieces, ...ascii(`\r\n--${boundary}--\r\n`)]);
}
