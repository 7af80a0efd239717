/** Ids of jobs that this browser computed itself: those of a server never look like them. */

const localId = /^local-([0-9a-f]{32})$/;

export const localIdOf = (key: string): string => `local-${key}`;
export const isLocalJob = (jobId: string): boolean => localId.test(jobId);
/** The key of its entry in the list. */
export const keyOfLocal = (jobId: string): string => localId.exec(jobId)?.[1] ?? '';
