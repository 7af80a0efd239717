/** The header of an answer, as fastify and node:http hold it. */
export type AnswerHeaders = Readonly<Record<string, string | number | readonly string[] | undefined>>;

/**
 * How long the header of an answer may be in all. By default nginx holds it in one buffer of 4096 bytes and
 * answers 502 for a longer one; the rest is for what proxies add and for nginx's own data in that buffer.
 */
export const longestHeader = 4096 - 256;

/** Status line, Date, Connection, Keep-Alive, the empty line: what node:http writes besides the given headers. */
const ownBytes = 160;

/** Bytes of a header in HTTP/1.1, with what node:http adds. */
export function headerBytes(headers: AnswerHeaders): number {
  let bytes = ownBytes;
  for (const [name, value] of Object.entries(headers)) {
    for (const one of Array.isArray(value) ? value : [value ?? '']) bytes += lineBytes(name, one);
  }
  return bytes;
}

/** Bytes of one header line. */
export const lineBytes = (name: string, value: string | number): number =>
  name.length + Buffer.byteLength(String(value)) + 4;

/** How a registry that forwards an answer states how many bytes it will add. */
export const relayedHeader = 'tomaat-relayed';
/** Registries that state no number add about this many. */
const usualRelayBytes = 600;

/** What is left for the answer to a request that may have come through a registry. */
export function budgetOf(relayed: string | string[] | undefined): number {
  if (relayed === undefined) return longestHeader;
  const said = Number(relayed);
  return longestHeader - (said >= 100 && said <= longestHeader ? said : usualRelayBytes);
}

/** Headers that an answer needs. */
const needed =
  /^(content-type|content-length|content-encoding|content-security-policy|x-content-type-options|vary|access-control-.*)$/;

/** Drops the longest optional headers, one after the other, until the header fits. */
export function fitHeaders<T extends AnswerHeaders>(headers: T): T {
  const kept: Record<string, AnswerHeaders[string]> = { ...headers };
  const rest = Object.entries(kept)
    .filter(([name]) => !needed.test(name))
    .map(([name, value]) => ({ name, bytes: headerBytes({ [name]: value }) - ownBytes }))
    .sort((a, b) => b.bytes - a.bytes);
  let total = headerBytes(kept);
  for (const { name, bytes } of rest) {
    if (total <= longestHeader) break;
    delete kept[name];
    total -= bytes;
  }
  return kept as T;
}
