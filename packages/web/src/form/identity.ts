/**
 * Text in volume files that may tell whose scan it is: found, shown, and blanked out before a file is sent. Blanks
 * take exactly the place of the text, so that every offset in the file stays true; voxels are never touched.
 */
export interface IdentifyingField {
  name: string;
  value: string;
}

export interface Identity {
  fields: readonly IdentifyingField[];
  /** The file without that text; the file itself when there is none. */
  strip(): Promise<Blob>;
}

/** A part of the header's bytes, and what is put there instead. */
interface Patch {
  at: number;
  length: number;
  fill: number;
}

const longestHeader = 4 * 2 ** 20;
const longestShown = 300;

/** Looks for identifying text in the header of a NIfTI, MetaImage or NRRD file; a file of raw voxels has none. */
export async function identify(file: Blob): Promise<Identity> {
  const start = new Uint8Array(await file.slice(0, 64).arrayBuffer());
  const gzip = start[0] === 0x1f && start[1] === 0x8b;
  const packing = gzip ? await readGzipHeader(file) : undefined;
  const header = gzip
    ? await inflateStart(file)
    : new Uint8Array(await file.slice(0, longestHeader).arrayBuffer());
  const { fields, patches } = (gzip ? findNifti : findAny)(header);
  const all = [...(packing?.fields ?? []), ...fields];
  return {
    fields: all,
    async strip() {
      if (all.length === 0) return file;
      if (!packing) {
        return new Blob([patched(header, patches), file.slice(header.length)]);
      }
      // RFC 1952: the ten bytes without flags and time; the compressed data is taken over as it is.
      if (patches.length === 0)
        return new Blob([Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255), file.slice(packing.length)]);
      return repack(file, patches);
    },
  };
}

const findAny = (header: Uint8Array) => {
  const text = latin1(header.subarray(0, 4096));
  if (text.startsWith('NRRD')) return findNrrd(header);
  if (/^\s*(ObjectType|NDims)\s*[=:]/m.test(text)) return findMetaImage(header);
  return findNifti(header);
};

// ---- NIfTI (nifti1.h, nifti2.h; free text by offset and length) ----

const nifti1Texts = [
  ['data_type', 4, 10],
  ['db_name', 14, 18],
  ['descrip', 148, 80],
  ['aux_file', 228, 24],
  ['intent_name', 328, 16],
] as const;
const nifti2Texts = [
  ['descrip', 240, 80],
  ['aux_file', 320, 24],
  ['intent_name', 508, 16],
] as const;

function findNifti(header: Uint8Array): { fields: IdentifyingField[]; patches: Patch[] } {
  const fields: IdentifyingField[] = [];
  const patches: Patch[] = [];
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  const size = header.length >= 4 ? [view.getInt32(0, true), view.getInt32(0, false)] : [];
  const headerBytes = size.includes(348) ? 348 : size.includes(540) ? 540 : 0;
  if (headerBytes === 0 || header.length < headerBytes) return { fields, patches };
  const little = size[0] === headerBytes;
  for (const [name, at, length] of headerBytes === 348 ? nifti1Texts : nifti2Texts) {
    const bytes = header.subarray(at, at + length);
    if (bytes.every((byte) => byte === 0 || byte === 32)) continue;
    fields.push({ name, value: printable(bytes) });
    patches.push({ at, length, fill: 0 });
  }
  const isPair =
    headerBytes === 348
      ? latin1(header.subarray(344, 347)) === 'ni1'
      : latin1(header.subarray(4, 7)) === 'ni2';
  const offset = headerBytes === 348 ? view.getFloat32(108, little) : Number(view.getBigInt64(168, little));
  const end = isPair
    ? header.length
    : Math.min(header.length, Number.isFinite(offset) ? Math.max(offset, headerBytes) : headerBytes);
  const rest = header.subarray(headerBytes, end);
  if (rest.some((byte) => byte !== 0)) {
    const text = printable(rest.subarray(12));
    fields.push({ name: 'extension', value: `${rest.length - 4} bytes${text ? `: ${text}` : ''}` });
    patches.push({ at: headerBytes, length: rest.length, fill: 0 });
  }
  return { fields, patches };
}

// ---- MetaImage (MetaIO documentation): every key that says nothing of the image ----

const metaKeys = new Set(
  (
    'objecttype objectsubtype transformtype ndims binarydata binarydatabyteordermsb elementbyteordermsb compresseddata compresseddatasize ' +
    'compressionlevel transformmatrix rotation orientation offset position origin centerofrotation anatomicalorientation distanceunits ' +
    'elementspacing elementsize dimsize headersize headersizeperslice modality elementmin elementmax elementnumberofchannels ' +
    'elementtype elementdatafile elementorigin color elementtointensityfunctionslope elementtointensityfunctionoffset'
  ).split(' '),
);

function findMetaImage(header: Uint8Array) {
  return findLines(header, (line) => {
    const [, key, gap, value] = /^\s*([^=:]+?)(\s*[=:]\s*)(.*)$/.exec(line) ?? [];
    if (key === undefined) return 'next';
    if (metaKeys.has(key.toLowerCase())) return key.toLowerCase() === 'elementdatafile' ? 'end' : 'next';
    if (value.trim() === '') return 'next';
    return { name: key, value, from: line.indexOf(key) + key.length + gap.length };
  });
}

// ---- NRRD (teem.sourceforge.net/nrrd/format.html): comments, key/value pairs and “content” ----

function findNrrd(header: Uint8Array) {
  return findLines(header, (line) => {
    if (line === '') return 'end';
    if (line.startsWith('#')) {
      const value = line.slice(1).trim();
      const harmless =
        value === '' ||
        /^Complete NRRD file format specification/i.test(value) ||
        value.includes('teem.sourceforge.net');
      return harmless ? 'next' : { name: 'comment', value, from: 1 };
    }
    const pair = /^([^:]*):=(.*)$/.exec(line);
    // The whole line becomes a comment of blanks: the key may be as telling as its value.
    if (pair) return { name: pair[1], value: pair[2], from: 0, mark: '#' };
    const content = /^(content|sample units)\s*:\s*(.*)$/i.exec(line);
    return content ? { name: content[1], value: content[2], from: 0, mark: '#' } : 'next';
  });
}

type Finding = 'next' | 'end' | { name: string; value: string; from: number; mark?: string };

/** Goes through a header of text line by line; what `look` finds is blanked from column `from` on. */
function findLines(
  header: Uint8Array,
  look: (line: string) => Finding,
): { fields: IdentifyingField[]; patches: Patch[] } {
  const fields: IdentifyingField[] = [];
  const patches: Patch[] = [];
  for (let at = 0; at < header.length; ) {
    const newline = header.indexOf(10, at);
    if (newline < 0) break;
    const line = latin1(header.subarray(at, newline)).replace(/\r$/, '');
    const found = look(line);
    if (found === 'end') break;
    if (found !== 'next') {
      fields.push({ name: found.name, value: found.value.slice(0, longestShown) });
      if (found.mark) patches.push({ at, length: 1, fill: found.mark.charCodeAt(0) });
      const from = found.from + (found.mark ? 1 : 0);
      patches.push({ at: at + from, length: line.length - from, fill: 32 });
    }
    at = newline + 1;
  }
  return { fields, patches };
}

// ---- gzip (RFC 1952) ----

/** The member's header: its length, and the texts in it. */
async function readGzipHeader(file: Blob): Promise<{ length: number; fields: IdentifyingField[] }> {
  const bytes = new Uint8Array(await file.slice(0, 70_000).arrayBuffer());
  const flags = bytes[3];
  const fields: IdentifyingField[] = [];
  let at = 10;
  if (flags & 4) {
    const length = bytes[at] | (bytes[at + 1] << 8);
    fields.push({ name: 'gzip extra field', value: `${length} bytes` });
    at += 2 + length;
  }
  for (const [flag, name] of [
    [8, 'gzip file name'],
    [16, 'gzip comment'],
  ] as const) {
    if (!(flags & flag)) continue;
    const end = bytes.indexOf(0, at);
    if (end < 0) return { length: at, fields };
    fields.push({ name, value: printable(bytes.subarray(at, end)) });
    at = end + 1;
  }
  if (flags & 2) at += 2;
  return { length: at, fields };
}

/** The first unpacked bytes, as far as a header goes; what is broken is left for the reader of volumes to explain. */
async function inflateStart(file: Blob): Promise<Uint8Array<ArrayBuffer>> {
  const reader = file.stream().pipeThrough(new DecompressionStream('gzip')).getReader();
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  let wanted = 544;
  try {
    while (length < wanted) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value as Uint8Array<ArrayBuffer>);
      length += value.length;
      if (wanted === 544 && length >= 544) {
        const view = new DataView(await new Blob(parts).arrayBuffer());
        const offsets =
          view.getInt32(0, true) === 540 || view.getInt32(0) === 540
            ? [Number(view.getBigInt64(168, true)), Number(view.getBigInt64(168))]
            : [view.getFloat32(108, true), view.getFloat32(108)];
        wanted = Math.max(544, ...offsets.filter((offset) => offset <= longestHeader));
      }
    }
  } catch {
    return new Uint8Array(0);
  } finally {
    reader.cancel().catch(() => undefined);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer()).slice(0, wanted);
}

/** Unpacks, blanks and packs again, as a stream. The compressor of browsers writes no name and no time. */
function repack(file: Blob, patches: readonly Patch[]): Promise<Blob> {
  let at = 0;
  const blank = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
    transform(chunk, controller) {
      let out = chunk;
      for (const patch of patches) {
        const from = Math.max(patch.at, at);
        const to = Math.min(patch.at + patch.length, at + chunk.length);
        if (from >= to) continue;
        if (out === chunk) out = chunk.slice();
        out.fill(patch.fill, from - at, to - at);
      }
      at += chunk.length;
      controller.enqueue(out);
    },
  });
  const stream = (file.stream() as ReadableStream<Uint8Array<ArrayBuffer>>)
    .pipeThrough(
      new DecompressionStream('gzip') as ReadableWritablePair<
        Uint8Array<ArrayBuffer>,
        Uint8Array<ArrayBuffer>
      >,
    )
    .pipeThrough(blank)
    .pipeThrough(
      new CompressionStream('gzip') as ReadableWritablePair<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>,
    );
  return new Response(stream).blob();
}

function patched(header: Uint8Array<ArrayBuffer>, patches: readonly Patch[]): Uint8Array<ArrayBuffer> {
  const out = header.slice();
  for (const { at, length, fill } of patches) out.fill(fill, at, at + length);
  return out;
}

function latin1(bytes: Uint8Array): string {
  let text = '';
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return text;
}

/** What can be read of some bytes. */
function printable(bytes: Uint8Array): string {
  return latin1(bytes.subarray(0, 4 * longestShown))
    .replace(/[^\x20-\x7e\xa0-\xff]+/g, ' ')
    .trim()
    .slice(0, longestShown);
}
