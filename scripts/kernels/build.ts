/**
 * Compiles scripts/kernels/kernels.as.txt with AssemblyScript and writes
 * packages/core/src/inferers/kernel-module.gen.ts. AssemblyScript is not a dependency of the project; pass the path
 * of an installed copy (0.28):
 *
 *   npm install --prefix /tmp/asc assemblyscript@0.28 && node scripts/kernels/build.ts /tmp/asc
 *
 * The output is the same on every machine; a test fails if the source has changed since the module was built.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const source = join(root, 'scripts/kernels/kernels.as.txt');
const target = join(root, 'packages/core/src/inferers/kernel-module.gen.ts');

const compiler = process.argv[2];
if (!compiler)
  throw new Error('name the folder where AssemblyScript is installed: node scripts/kernels/build.ts DIR');
const folder = mkdtempSync(join(tmpdir(), 'kernels-'));
try {
  copyFileSync(source, join(folder, 'kernels.ts'));
  const asc = resolve(compiler, 'node_modules/assemblyscript/bin/asc.js');
  const flags = ['-O3', '--enable', 'simd', '--runtime', 'stub', '--importMemory', '--noAssert'];
  execFileSync(process.execPath, [asc, 'kernels.ts', ...flags, '--outFile', 'kernels.wasm'], {
    cwd: folder,
    stdio: 'inherit',
  });
  const module = readFileSync(join(folder, 'kernels.wasm'));
  const sourceHash = createHash('sha256').update(readFileSync(source)).digest('hex');
  const lines = module.toString('base64').match(/.{1,100}/g) ?? [];
  writeFileSync(
    target,
    `// Made by scripts/kernels/build.ts from scripts/kernels/kernels.as.txt; do not edit.
/** SHA-256 of the source that this module was compiled from. */
export const sourceSha256 = '${sourceHash}';
/** The WebAssembly module (${module.length} bytes), base64. */
export const moduleBase64 =
${lines.map((line) => `  '${line}'`).join(' +\n')};
`,
  );
  console.log(`${target}: ${module.length} bytes of WebAssembly`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
