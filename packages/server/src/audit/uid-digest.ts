import { createHash } from 'node:crypto';

/** How a study or series is named in the audit log: someone with the UID finds the lines, and the lines do not disclose the UID. */
export const digestOfUid = (uid: string): string =>
  `sha256:${createHash('sha256').update(uid).digest('hex')}`;
