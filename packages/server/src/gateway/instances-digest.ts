import { createHash } from 'node:crypto';

/** SHA-256, in hex, of the sorted SOP Instance UIDs, each once, joined by line feeds. */
export const digestOfInstances = (uids: Iterable<string>): string =>
  createHash('sha256')
    .update([...new Set(uids)].sort().join('\n'))
    .digest('hex');
