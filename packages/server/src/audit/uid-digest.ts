import { createHash } from 'node:crypto';

/** How a study or series is named in the audit log: whoever has its UID finds the lines, and nobody else learns the UID. */
export const digestOfUid = (uid: string): string =>
  `sha256:${createHash('sha256').update(uid).digest('hex')}`;
