import { spawnSync } from 'node:child_process';
import { copyFileSync, cpSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { basename, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * Runs before a package is packed, in its folder. Every package gets the licence. The package `tomaat` also gets the
 * bundled apps and the built page: Node refuses TypeScript under node_modules, so the apps' modules are stripped of
 * their types here; their manifests are unchanged, and openApp() finds the .js beside the name in the manifest.
 */
const root = fileURLToPath(new URL('..', import.meta.url));
const target = process.cwd();

copyFileSync(join(root, 'LICENSE'), join(target, 'LICENSE'));
if (basename(target) === 'server') {
  put(buildPage(), 'page');
  put('apps', 'apps');
  stripTypes(join(target, 'apps'));
}

/** Builds the page from its sources: one left over from an older build would be packed unnoticed. Gives its folder, from the root. */
function buildPage(): string {
  // CI has just built it from the same sources.
  const built = process.env.TOMAAT_BUILT_PAGE;
  if (built) return built;
  const ended = spawnSync('npm', ['run', 'build', '-w', '@tomaat/web'], { cwd: root, stdio: 'inherit' });
  if (ended.status === 0 && existsSync(join(root, 'packages/web/dist/index.html')))
    return 'packages/web/dist';
  console.error(
    'The page could not be built (packages/web), and without it the package would have none. Mend what vite says above; npm ci installs what it needs.',
  );
  process.exit(1);
}

function put(from: string, to: string): void {
  rmSync(join(target, to), { recursive: true, force: true });
  cpSync(resolve(root, from), join(target, to), { recursive: true });
}

function stripTypes(folder: string): void {
  for (const file of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    if (!file.endsWith('.ts')) continue;
    const path = join(folder, file);
    writeFileSync(path.replace(/\.ts$/, '.js'), stripTypeScriptTypes(readFileSync(path, 'utf8')));
    rmSync(path);
  }
}
