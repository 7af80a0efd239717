import { isDicom, isDicomUnlikeText } from '../dicom/parse.ts';
import { TomaatError } from '../errors.ts';
import type { HeaderOf } from './header.ts';
import { findMetaImage, findNrrd, longestHeader } from './identifying-lines.ts';
import { findNifti, niftiTextLength } from './identifying-nifti.ts';
import { beginsWithField, isMetaImage, parseMetaImage, writeMetaImage } from './metaimage.ts';
import { beginsWithSize, isNifti, niftiEndings, parseNifti, writeNifti } from './nifti.ts';
import { isNrrd, isNrrdLine, parseNrrd, writeNrrd } from './nrrd.ts';
import { clues, type FileEnding, hasEnding, type VolumeFormatRow } from './volume-format.ts';

/*
 * The formats of volumes, defined once. Everything that depends on the set of formats uses this table: reading and writing,
 * file extensions, media types, messages, docs/reference/formats.md. CONTRIBUTING.md describes how to add one.
 */

const nifti = {
  name: 'NIfTI',
  versions: { nifti1: 'NIfTI-1', nifti2: 'NIfTI-2' },
  endings: niftiEndings,
  detached: 'same stem',
  clue: 'numbers',
  matches: isNifti,
  unlikeBase64: beginsWithSize,
  reads: { from: 'one header', parse: parseNifti },
  text: { length: niftiTextLength, find: (header, { name }) => findNifti(header, name) },
  write: writeNifti,
  rewrite: 'nibabel.save(nibabel.load("old.nii"), "new.nii")',
} as const satisfies VolumeFormatRow;

const metaImage = {
  name: 'MetaImage',
  versions: { metaimage: 'MetaImage' },
  endings: [
    { ending: '.mha', holds: 'volume', mediaType: 'application/x-metaimage' },
    { ending: '.mhd', holds: 'header' },
  ],
  detached: { field: 'ElementDataFile', line: /^\s*ElementDataFile\s*=/i, endings: ['.raw', '.zraw'] },
  clue: 'words',
  matches: isMetaImage,
  unlikeBase64: beginsWithField,
  reads: { from: 'one header', parse: parseMetaImage },
  text: {
    length: () => longestHeader,
    find: (header, { whole, dataFile }) => findMetaImage(header, whole, dataFile),
  },
  write: writeMetaImage,
  rewrite: 'SimpleITK.WriteImage(SimpleITK.ReadImage("old.nrrd"), "new.nrrd")',
} as const satisfies VolumeFormatRow;

const nrrd = {
  name: 'NRRD',
  versions: { nrrd: 'NRRD' },
  endings: [
    { ending: '.nrrd', holds: 'volume', mediaType: 'application/x-nrrd' },
    { ending: '.nhdr', holds: 'header' },
  ],
  detached: { field: 'data file', line: /^\s*data ?file\s*:/i, endings: ['.raw'] },
  clue: 'magic',
  matches: isNrrd,
  unlikeBase64: isNrrdLine,
  reads: { from: 'one header', parse: parseNrrd },
  text: {
    length: () => longestHeader,
    find: (header, { whole, dataFile }) => findNrrd(header, whole, dataFile),
  },
  write: writeNrrd,
  rewrite: 'SimpleITK.WriteImage(SimpleITK.ReadImage("old.nrrd"), "new.nrrd")',
} as const satisfies VolumeFormatRow;

const dicom = {
  name: 'DICOM',
  versions: { dicom: 'DICOM' },
  // Files of a series have any names.
  endings: [],
  clue: 'magic',
  matches: isDicom,
  unlikeBase64: isDicomUnlikeText,
  reads: { from: 'many headers' },
  rewrite: 'SimpleITK.WriteImage(SimpleITK.ReadImage(names), "new.nrrd")',
} as const satisfies VolumeFormatRow;

const rows = [nifti, metaImage, nrrd, dicom] as const;
type Row = (typeof rows)[number];

/** In the order in which they are listed for users. */
export const volumeFormats: readonly VolumeFormatRow[] = rows;

type VersionOf<R> = R extends { versions: infer Versions } ? keyof Versions & string : never;
type WrittenOf<R> = R extends { write: unknown; endings: readonly (infer E)[] } ? WrittenEnding<E> : never;
type WrittenEnding<E> = E extends { holds: 'volume'; ending: `.${infer Extension}` } ? Extension : never;

export type VolumeFormat = VersionOf<Row>;
/** The written kinds of file, by extension without the leading dot. */
export type VolumeExtension = WrittenOf<Row>;
export type VolumeHeader = HeaderOf<VolumeFormat, VolumeExtension>;

// ---- Formats ----

const byClue = clues.flatMap((clue) => rows.filter((format) => format.clue === clue));

/** The format of a file from its first bytes, decompressed; undefined if they are not a volume's header. */
export const formatOf = (bytes: Uint8Array): Row | undefined => byClue.find(({ matches }) => matches(bytes));

/** The row that has a value of `VolumeHeader.format`. */
export const rowOf = (format: string): VolumeFormatRow =>
  volumeFormats.find(({ versions }) => Object.hasOwn(versions, format))!;

/** The usual name of each value of `VolumeHeader.format`. */
export const formatNames = Object.assign({}, ...volumeFormats.map(({ versions }) => versions)) as Readonly<
  Record<VolumeFormat, string>
>;

/** Texts as a list with “or”, as in “NIfTI, MetaImage or NRRD”. */
export const listedWithOr = (texts: readonly string[]): string =>
  [texts.slice(0, -1).join(', '), ...texts.slice(-1)].filter((text) => text !== '').join(' or ');

/** “NIfTI, MetaImage, NRRD or DICOM”. */
export const formatList = listedWithOr(volumeFormats.map(({ name }) => name));

/** Whether the first bytes are those of a volume file that no base64 text can begin with. */
export const isVolumeUnlikeBase64 = (bytes: Uint8Array): boolean =>
  volumeFormats.some(({ unlikeBase64 }) => unlikeBase64(bytes));

/** Whether files of a format may be compressed with gzip as a whole. */
export const isPackable = ({ endings }: VolumeFormatRow): boolean =>
  endings.some(({ ending }) => isPackedEnding(ending));

const isPackedEnding = (ending: string) => ending.endsWith('.gz');

// ---- Endings of names ----

/** Every file extension in the table, with its format. */
export const volumeEndings: readonly (FileEnding & { readonly format: VolumeFormatRow })[] =
  volumeFormats.flatMap((format) => format.endings.map((ending) => ({ ...ending, format })));

/** The file-name endings of volumes that can be read, for file pickers. */
export const readableEndings: readonly string[] = volumeEndings.map(({ ending }) => ending);

/** The table's entry for a file's name: its extension, what such a file holds, its format. Undefined for other names. */
export const endingOf = (name: string): (typeof volumeEndings)[number] | undefined =>
  volumeEndings.find(({ ending }) => hasEnding(name, ending));

/** A file's name without the ending of a volume; the same name if it has none. */
export const withoutVolumeEnding = (name: string): string =>
  name.slice(0, name.length - (endingOf(name)?.ending.length ?? 0));

/** The usual extensions of files that headers name for their voxels, uncompressed. */
export const dataFileEndings: readonly string[] = [
  ...new Set(volumeFormats.flatMap(({ detached }) => (typeof detached === 'object' ? detached.endings : []))),
];

const voxelEndings: readonly string[] = [
  ...volumeEndings.flatMap(({ holds, ending }) => (holds === 'voxels' ? ending : [])),
  ...dataFileEndings,
];
const unpackedEndings = [...readableEndings, ...dataFileEndings].filter((ending) => !isPackedEnding(ending));

/** The extension of a name, split into the part before a .gz and the .gz. */
function unpackedEnding(name: string): { ending: string | undefined; packed: string } {
  const packed = hasEnding(name, '.gz') ? '.gz' : '';
  const plain = name.slice(0, name.length - packed.length);
  return { ending: unpackedEndings.find((ending) => hasEnding(plain, ending)), packed };
}

/** The kind of a file by its extension, for messages: a name may identify the patient. */
export function kindOf({ name }: { name: string }): string {
  const { ending, packed } = unpackedEnding(name);
  return ending === undefined ? 'file' : `${ending}${packed} file`;
}

/** Whether a file, by its name, holds the voxels of a header that is in another file. */
export function holdsVoxelsAlone(name: string): boolean {
  const { ending } = unpackedEnding(name);
  return ending !== undefined && voxelEndings.includes(ending);
}

// ---- What is written ----

const written = volumeEndings.filter(({ holds, format }) => holds === 'volume' && format.write);
const extensionIn = ({ ending }: FileEnding) => ending.slice(1) as VolumeExtension;

/** The extensions of written volumes, without the leading dot. */
export const supportedExtensions: readonly VolumeExtension[] = written.map(extensionIn);

/** The default extension of a label map, if no input determines it. */
export const defaultExtension = 'nii.gz' satisfies VolumeExtension;

/** The written extensions of volumes, the default first. */
export const extensionsByChoice: readonly VolumeExtension[] = [
  defaultExtension,
  ...supportedExtensions.filter((extension) => extension !== defaultExtension),
];

/** The media type of written files, by extension. */
export const volumeMediaTypes = Object.fromEntries(
  extensionsByChoice.map((extension) => {
    const found = written.find((one) => extensionIn(one) === extension);
    return [extension, found?.holds === 'volume' && found.mediaType];
  }),
) as Readonly<Record<VolumeExtension, string>>;

const mediaWords = new Set(
  volumeEndings.flatMap((ending) => (ending.holds === 'volume' ? mediaWord(ending.mediaType) : [])),
);

/** `nifti` of `application/x-nifti`, and of `application/nifti; charset=binary`. */
function mediaWord(contentType: string): string {
  return /^application\/(?:x-)?(\w*)/i.exec(contentType)?.[1].toLowerCase() ?? '';
}

/** Whether a Content-Type is that of a volume's file, with or without `x-`. */
export const isVolumeMediaType = (contentType: string): boolean => mediaWords.has(mediaWord(contentType));

/**
 * The extension of a result for an input in a format: compressed as a whole if the input was and the format allows it; the
 * default if the format is not written.
 */
export function resultExtension({ endings }: VolumeFormatRow, packed: boolean): VolumeExtension {
  const whole = written.filter(({ ending }) => endings.some((own) => own.ending === ending));
  const found = whole.find(({ ending }) => isPackedEnding(ending) === packed) ?? whole[0];
  return found ? extensionIn(found) : defaultExtension;
}

/** The extension to write for a file's name, or undefined if it is not a volume's name. */
export function extensionOf(fileName: string): VolumeExtension | undefined {
  const found = endingOf(fileName);
  return found && resultExtension(found.format, isPackedEnding(found.ending));
}

/**
 * The writer of an extension, and whether such a file is compressed as a whole.
 * @throws TomaatError NOT_ACCEPTABLE if volumes are not written with it
 */
export function writerOf(extension: string): {
  write: NonNullable<VolumeFormatRow['write']>;
  packed: boolean;
} {
  const found = written.find((one) => extensionIn(one) === extension);
  if (found?.format.write) return { write: found.format.write, packed: isPackedEnding(found.ending) };
  throw new TomaatError(
    'NOT_ACCEPTABLE',
    `Volumes are not written as ${extension}. Available: ${supportedExtensions.join(', ')}.`,
  );
}
