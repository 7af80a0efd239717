/** What a key may do; `admin` includes all the others. Without imports, so that the command line's help is fast. */
export const keyScopes = ['announce', 'predict', 'worker', 'metrics', 'admin'] as const;
/** The permissions of a key. */
export type KeyScope = (typeof keyScopes)[number];
