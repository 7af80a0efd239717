import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseManifest } from '@tomaat/core';

/**
 * The software bill of materials (CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json/): the packages of
 * package-lock.json that run with TOMAAT, with their hashes, and the models of the bundled apps. Generated from the
 * lock file, so that it needs no registry and is the same on every platform.
 */

const root = fileURLToPath(new URL('..', import.meta.url));

interface LockEntry {
  version?: string;
  resolved?: string;
  integrity?: string;
  license?: string;
  dev?: boolean;
  devOptional?: boolean;
  optional?: boolean;
  link?: boolean;
}

export interface Component {
  type: 'library' | 'machine-learning-model';
  'bom-ref': string;
  name: string;
  version: string;
  description?: string;
  scope?: 'required' | 'optional';
  purl?: string;
  licenses?: { license: { id: string } | { name: string } }[] | { expression: string }[];
  hashes?: { alg: 'SHA-256' | 'SHA-512'; content: string }[];
}

/** A counter of installations in the package of Swagger UI: switched off in package.json, and not part of what is built. */
const notBuilt = '@scarf/scarf';

export async function makeSbom() {
  const lock = JSON.parse(await readFile(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, LockEntry>;
  };
  const components = new Map<string, Component>();
  for (const [path, entry] of Object.entries(lock.packages)) {
    if (!path.includes('node_modules/') || entry.link || entry.dev || entry.version === undefined) continue;
    const name = path.slice(path.lastIndexOf('node_modules/') + 13);
    if (name === notBuilt) continue;
    const purl = `pkg:npm/${name.replace('@', '%40')}@${entry.version}`;
    const [, alg, base64] = /^(sha512)-(.+)$/.exec(entry.integrity ?? '') ?? [];
    components.set(purl, {
      type: 'library',
      'bom-ref': purl,
      name,
      version: entry.version,
      scope: entry.optional || entry.devOptional ? 'optional' : 'required',
      purl,
      licenses: entry.license ? [{ expression: entry.license }] : undefined,
      hashes: alg ? [{ alg: 'SHA-512', content: Buffer.from(base64, 'base64').toString('hex') }] : undefined,
    });
  }
  for (const component of await models()) components.set(component['bom-ref'], component);
  const server = JSON.parse(await readFile(join(root, 'packages/server/package.json'), 'utf8')) as {
    version: string;
  };
  return {
    bomFormat: 'CycloneDX',
    specVersion: '1.6',
    version: 1,
    metadata: {
      component: { type: 'application', 'bom-ref': 'tomaat', name: 'tomaat', version: server.version },
    },
    components: [...components.values()].sort((a, b) => a['bom-ref'].localeCompare(b['bom-ref'])),
  };
}

/** The models of the bundled apps: weights, or the module that computes. */
async function models(): Promise<Component[]> {
  const found: Component[] = [];
  for (const folder of (await readdir(join(root, 'apps'))).sort()) {
    const path = join(root, 'apps', folder);
    const text = await readFile(join(path, 'tomaat.yaml'), 'utf8').catch(() => undefined);
    if (text === undefined) continue;
    const manifest = parseManifest(text, folder);
    for (const model of manifest.model) {
      if (!('file' in model)) continue;
      const content = createHash('sha256')
        .update(await readFile(join(path, model.file)))
        .digest('hex');
      found.push({
        type: 'machine-learning-model',
        'bom-ref': `app:${manifest.id}/${model.file}`,
        name: `${manifest.id}/${model.file}`,
        version: manifest.version,
        description: `${manifest.name}: ${model.runtime}`,
        licenses: [{ expression: manifest.licence }],
        hashes: [{ alg: 'SHA-256', content }],
      });
    }
  }
  return found;
}

if (process.argv[1] && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const file = resolve(process.argv[2] ?? join(root, 'sbom.cdx.json'));
  await mkdir(dirname(file), { recursive: true });
  const sbom = await makeSbom();
  await writeFile(file, `${JSON.stringify(sbom, null, 2)}\n`);
  console.log(`${file}: ${sbom.components.length} components`);
}
