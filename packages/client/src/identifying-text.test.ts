import { gunzipSync, gzipSync } from 'node:zlib';
import {
  collectBytes,
  type Platform,
  readVolume,
  type SourceFile,
  type Volume,
  webPlatform,
  writeVolume,
} from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import { anonymousFiles } from './identifying-text.ts';
import { type FileSource, readAll, type UploadFile } from './upload.ts';

/** Anisotropic, oblique, left-handed, every voxel another value. */
const [cos, sin] = [Math.cos(0.3), Math.sin(0.3)];
const volume: Volume = {
  voxels: Int16Array.from({ length: 5 * 4 * 3 }, (_, i) => i * 7 - 11),
  size: [5, 4, 3],
  components: 1,
  affine: [-1.25 * cos, -1.75 * sin, 0, 14, -1.25 * sin, 1.75 * cos, 0, -5, 0, 0, 3, 3.5, 0, 0, 0, 1],
};
const secret = 'ROE^JANE';

type Given = { name: string; bytes: Uint8Array };
const made = async (extension: 'nii' | 'mha' | 'nrrd') =>
  Buffer.from(await collectBytes(writeVolume(volume, extension, webPlatform, { level: 0 })));

function nifti1(file: Buffer, { pair = false, extension = true } = {}): Buffer {
  const header = Buffer.alloc(352);
  file.copy(header, 0, 0, 352);
  header.write(secret, 4, 'latin1');
  header.write(`db ${secret}`, 14, 'latin1');
  header.write(`scan of ${secret}`, 148, 'latin1');
  header.write(secret, 228, 'latin1');
  header.write(secret, 328, 'latin1');
  if (pair) header.write('ni1\0', 344, 'latin1');
  const block = Buffer.alloc(extension ? 64 : 0);
  if (extension) {
    header[348] = 1;
    block.writeInt32LE(64, 0);
    block.writeInt32LE(6, 4);
    block.write(`born to ${secret}`, 8, 'latin1');
  }
  header.writeFloatLE(pair ? 0 : 352 + block.length, 108);
  return Buffer.concat([header, block, pair ? Buffer.alloc(0) : file.subarray(352)]);
}

/** NIfTI-2, big-endian, with an extension; by nifti2.h. */
function nifti2(): Buffer {
  const file = Buffer.alloc(544 + 32 + volume.voxels.length * 2);
  file.writeInt32BE(540, 0);
  file.write('n+2\0\r\n\x1a\n', 4, 'latin1');
  file.writeInt16BE(4, 12);
  file.writeInt16BE(16, 14);
  [3, 5, 4, 3, 1, 1, 1, 1].forEach((v, i) => void file.writeBigInt64BE(BigInt(v), 16 + 8 * i));
  [1, 1, 1, 1, 1, 1, 1, 1].forEach((v, i) => void file.writeDoubleBE(v, 104 + 8 * i));
  file.writeBigInt64BE(BigInt(544 + 32), 168);
  file.write(secret, 240, 'latin1');
  file.write(secret, 320, 'latin1');
  file.writeInt32BE(2, 348);
  volume.affine.slice(0, 12).forEach((v, i) => void file.writeDoubleBE(v, 400 + 8 * i));
  file.writeInt32BE(2, 500);
  file.write(secret, 508, 'latin1');
  file.write(secret, 525, 'latin1');
  file[540] = 1;
  file.writeInt32BE(32, 544);
  file.writeInt32BE(6, 548);
  file.write(secret, 552, 'latin1');
  (volume.voxels as Int16Array).forEach((v, i) => void file.writeInt16BE(v, 576 + 2 * i));
  return file;
}

/** gzip with a name, a comment, an extra field and a time (RFC 1952). */
function named(bytes: Uint8Array): Buffer {
  const packed = gzipSync(bytes);
  const head = Buffer.from(packed.subarray(0, 10));
  head[3] = 4 | 8 | 16;
  head.writeUInt32LE(1_600_000_000, 4);
  const extra = Buffer.concat([Buffer.from([secret.length, 0]), Buffer.from(secret)]);
  return Buffer.concat([head, extra, Buffer.from(`${secret}.nii\0${secret}\0`), packed.subarray(10)]);
}

const metaText = (file: Buffer) =>
  Buffer.from(
    file
      .toString('latin1')
      .replace(
        'ElementDataFile',
        `Comment = ${secret}\nPatient ${secret} = 1\nModality = ${secret}\nID=${secret}\n${secret}\nElementDataFile`,
      ),
    'latin1',
  );
const nrrdText = (file: Buffer) =>
  Buffer.from(
    file
      .toString('latin1')
      .replace(
        '\n\n',
        `\n# of ${secret}\n${secret}:=x\nx:=${secret}\ncontent: ${secret}\nlabels: "${secret}" "" ""\nold min: ${secret}\n\n`,
      ),
    'latin1',
  );

async function detached(kind: 'mhd' | 'nhdr', dataName: string): Promise<Given[]> {
  const file = kind === 'mhd' ? metaText(await made('mha')) : nrrdText(await made('nrrd'));
  const text = file.toString('latin1');
  const [end, from] =
    kind === 'mhd'
      ? ['ElementDataFile = LOCAL\n', text.indexOf('ElementDataFile = LOCAL\n') + 24]
      : ['\n\n', text.indexOf('\n\n') + 2];
  const header = text
    .slice(0, from)
    .replace(end, kind === 'mhd' ? `ElementDataFile = ${dataName}\n` : `\ndata file: ${dataName}\n\n`);
  return [
    { name: `${secret}.${kind}`, bytes: Buffer.from(header, 'latin1') },
    { name: dataName, bytes: file.subarray(from) },
  ];
}

const cases: Record<string, () => Promise<Given[]>> = {
  'NIfTI-1': async () => [{ name: `${secret}.nii`, bytes: nifti1(await made('nii'), { extension: false }) }],
  'NIfTI-1 with an extension': async () => [{ name: `${secret}.nii`, bytes: nifti1(await made('nii')) }],
  'NIfTI-1 with an extension, packed': async () => [
    { name: `${secret}.nii.gz`, bytes: named(nifti1(await made('nii'))) },
  ],
  'NIfTI-2, big-endian': async () => [{ name: `${secret}.nii`, bytes: nifti2() }],
  'NIfTI-2, packed': async () => [{ name: `${secret}.nii.gz`, bytes: gzipSync(nifti2()) }],
  'a NIfTI-1 pair': async () => {
    const file = await made('nii');
    return [
      { name: `${secret}.hdr`, bytes: nifti1(file, { pair: true }) },
      { name: `${secret}.img`, bytes: file.subarray(352) },
    ];
  },
  'a NIfTI-1 pair, packed': async () => {
    const file = await made('nii');
    return [
      { name: `${secret}.hdr.gz`, bytes: named(nifti1(file, { pair: true })) },
      { name: `${secret}.img.gz`, bytes: named(file.subarray(352)) },
    ];
  },
  'a gzip header alone': async () => [{ name: `${secret}.nii.gz`, bytes: named(await made('nii')) }],
  'a later gzip member': async () => {
    const file = await made('nii');
    const parts = [gzipSync(file.subarray(0, 360)), named(file.subarray(360))];
    return [{ name: 'a.nii.gz', bytes: Buffer.concat(parts) }];
  },
  MetaImage: async () => [{ name: `${secret}.mha`, bytes: metaText(await made('mha')) }],
  NRRD: async () => [{ name: `${secret}.nrrd`, bytes: nrrdText(await made('nrrd')) }],
  'a MetaImage pair': () => detached('mhd', `${secret}.raw`),
  'a MetaImage pair with a strange ending': () => detached('mhd', `${secret}.dat`),
  'an NRRD pair': () => detached('nhdr', `${secret}.raw`),
};

const asBlob = ({ name, bytes }: Given): UploadFile => new File([bytes as Uint8Array<ArrayBuffer>], name);
const asSource =
  (withSlice: boolean) =>
  ({ name, bytes }: Given): FileSource => {
    const read = async function* (start: number, end: number) {
      for (let at = start; at < end; at += 37) yield bytes.subarray(at, Math.min(end, at + 37));
    };
    return {
      name,
      sizeBytes: bytes.length,
      stream: () => read(0, bytes.length),
      slice: withSlice ? read : undefined,
    };
  };

async function bytesOf(file: UploadFile): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of readAll(file)) chunks.push(chunk.slice());
  return Buffer.concat(chunks);
}

const source = (name: string, bytes: Buffer): SourceFile => ({
  name,
  sizeBytes: bytes.length,
  async *open(start = 0) {
    yield bytes.subarray(start);
  },
});

/** Several gzip members in a row are read by zlib, not by every DecompressionStream. */
const zlibPlatform: Platform = {
  ...webPlatform,
  async *inflate(chunks) {
    const parts: Uint8Array[] = [];
    for await (const chunk of chunks) parts.push(chunk);
    yield gunzipSync(Buffer.concat(parts));
  },
};

describe('anonymousFiles()', () => {
  for (const [what, make] of Object.entries(cases)) {
    for (const [kind, open] of [
      ['Blobs', asBlob],
      ['sources', asSource(true)],
      ['sources without slices', asSource(false)],
    ] as const) {
      it(`removes text from ${what} and keeps voxels and geometry (${kind})`, async () => {
        const given = await make();
        // The text is there before.
        expect(
          given.some(({ bytes }) => inflated(Buffer.from(bytes)).some((text) => text.includes(secret))),
        ).toBe(true);
        const before = await readVolume(
          given.map(({ name, bytes }) => source(name, Buffer.from(bytes))),
          zlibPlatform,
        );
        const found = await anonymousFiles('volume', given.map(open));
        expect(found.fields.length).toBeGreaterThan(0);
        const sent = await found.strip();
        const files: SourceFile[] = [];
        for (const file of sent) {
          const bytes = await bytesOf(file);
          const { name } = file as { name: string };
          expect(file instanceof Blob ? file.size : file.sizeBytes).toBe(bytes.length);
          expect(name).toMatch(/^volume(\.[a-z]+){1,2}$/);
          for (const text of inflated(bytes)) expect(text).not.toContain('ROE');
          files.push(source(name, bytes));
          // What a cut upload sends anew is the same.
          if (!(file instanceof Blob) && file.slice) {
            const middle = file.slice(3, bytes.length - 2);
            expect(await bytesOf({ ...file, stream: () => middle })).toEqual(bytes.subarray(3, -2));
          }
        }
        const after = await readVolume(files, zlibPlatform);
        expect(after.volume).toEqual(before.volume);
        expect([...after.volume.voxels]).toEqual([...volume.voxels]);
        // Nothing is left to be found.
        const again = await anonymousFiles('volume', sent);
        expect(again.fields).toEqual([]);
        expect(await again.strip()).toEqual(sent);
      });
    }
  }

  it('gives a file without such text as it is', async () => {
    for (const extension of ['nii', 'mha', 'nrrd'] as const) {
      const file = new File([await made(extension)], `volume.${extension}`);
      const found = await anonymousFiles('volume', [file]);
      expect(found.fields).toEqual([]);
      expect((await found.strip())[0]).toBe(file);
    }
  });

  it('says what it found', async () => {
    const file = metaText(await made('mha'));
    const { fields } = await anonymousFiles('volume', [new File([file], 'a.mha')]);
    expect(fields).toContainEqual({ name: 'Comment', value: secret });
  });

  it('takes voxels that begin with 348 for voxels', async () => {
    const raw = Buffer.alloc(4000);
    raw.writeInt32LE(348, 0);
    raw.write(secret, 148, 'latin1');
    const header = Buffer.from(
      'ObjectType = Image\nNDims = 3\nDimSize = 10 10 10\nElementType = MET_INT\nElementDataFile = a.raw\n',
    );
    const found = await anonymousFiles('t2', [new File([header], 'a.mhd'), new File([raw], 'a.raw')]);
    const [sentHeader, sentRaw] = await found.strip();
    expect(await bytesOf(sentRaw)).toEqual(raw);
    expect((await bytesOf(sentHeader)).toString()).toContain('ElementDataFile = t2.raw\n');
  });

  it('refuses a header that names another file than those given', async () => {
    const [header, data] = await detached('mhd', 'a.raw');
    await expect(
      anonymousFiles('volume', [asBlob(header), asBlob({ ...data, name: 'b.raw' })]),
    ).rejects.toMatchObject({ code: 'BAD_INPUT', field: 'volume' });
  });
});

/** The bytes as text, and what they unpack to. */
function inflated(bytes: Buffer): string[] {
  const raw = bytes.toString('latin1');
  return bytes[0] === 0x1f && bytes[1] === 0x8b ? [raw, gunzipSync(bytes).toString('latin1')] : [raw];
}
