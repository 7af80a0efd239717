import type { IncomingHttpHeaders } from 'node:http';
import type { BlobRange } from '../store/blobs/blobs.ts';

/** How to answer a conditional request for a file (RFC 9110, sections 13 and 14). */
export type Selection =
  | { readonly status: 200 }
  | { readonly status: 206; readonly range: Required<BlobRange> }
  | { readonly status: 304 }
  | { readonly status: 416 };

export type SelectionHeaders = Partial<Pick<IncomingHttpHeaders, 'range' | 'if-range' | 'if-none-match'>>;

/**
 * Compares the headers of a GET or HEAD with the file's strong entity tag and size in bytes. One range is answered with
 * 206; several ranges, or other units, with the whole file, as RFC 9110 permits.
 */
export function selectRange(
  method: string,
  headers: SelectionHeaders,
  { etag, sizeBytes }: { etag: string; sizeBytes: number },
): Selection {
  if (matchesTag(headers['if-none-match'], etag)) return { status: 304 };
  const ifRange = headers['if-range']?.toString();
  // A date never matches: the file has none.
  if (method !== 'GET' || headers.range === undefined || (ifRange !== undefined && ifRange.trim() !== etag))
    return { status: 200 };
  const range = parseRange(headers.range, sizeBytes);
  if (range === undefined) return { status: 200 };
  return range === 'unsatisfiable' ? { status: 416 } : { status: 206, range };
}

/** Whether a list of entity tags contains this one; weak comparison, as If-None-Match requires. */
export function matchesTag(list: string | undefined, etag: string): boolean {
  const tags = (list ?? '').split(',').map((tag) => tag.trim());
  return tags.some((tag) => tag === '*' || tag === etag || tag === `W/${etag}`);
}

/** The one range of `bytes=FIRST-LAST`, `bytes=FIRST-` or `bytes=-LENGTH`; undefined for anything else. */
export function parseRange(
  header: string,
  sizeBytes: number,
): Required<BlobRange> | 'unsatisfiable' | undefined {
  const match = /^bytes=[\t ]*(\d*)-(\d*)[\t ]*$/i.exec(header.trim());
  if (!match || (match[1] === '' && match[2] === '')) return undefined;
  // A number of any length: beyond 2^53 it loses digits, but stays beyond every file.
  const [first, last] = [match[1], match[2]].map((digits) => (digits === '' ? undefined : Number(digits)));
  if (first === undefined) {
    const lengthBytes = Math.min(last!, sizeBytes);
    return lengthBytes === 0 ? 'unsatisfiable' : { offsetBytes: sizeBytes - lengthBytes, lengthBytes };
  }
  if (last !== undefined && last < first) return undefined;
  if (first >= sizeBytes) return 'unsatisfiable';
  return { offsetBytes: first, lengthBytes: Math.min(last ?? sizeBytes - 1, sizeBytes - 1) - first + 1 };
}
