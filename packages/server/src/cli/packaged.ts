import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ownExtension } from '../source.ts';

/** A folder shipped with the program: next to the sources in the workspace, in the package when installed. */
function packagedFolder(inPackage: string, inWorkspace: string): string | undefined {
  const path = ownExtension === '.ts' ? `../../../../${inWorkspace}` : `../../${inPackage}`;
  const folder = fileURLToPath(new URL(path, import.meta.url));
  return existsSync(folder) ? folder : undefined;
}

/** The bundled apps; v1 clients that name no service get one of them. */
export function bundledApps(): string[] {
  const folder = packagedFolder('apps', 'apps');
  if (!folder) return [];
  const isApp = (name: string) => existsSync(join(folder, name, 'tomaat.yaml'));
  return readdirSync(folder)
    .filter(isApp)
    .sort()
    .map((name) => join(folder, name));
}

/** The built page. */
export const pageFolder = (): string | undefined => packagedFolder('page', 'packages/web/dist');
