import { extname } from 'node:path';

/** The extension of this package's own files as they run: `.ts` in the workspace, `.js` when built. */
export const ownExtension = extname(import.meta.filename);

/** Node options with which a child or thread finds the workspace's packages the way this process does. */
export const ownNodeOptions: readonly string[] = ownExtension === '.ts' ? ['--conditions=tomaat-source'] : [];
