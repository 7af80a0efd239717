import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * Guards the rooms: core ← client ← server, and web → client, core. Core and client are free of Node and of any
 * network library; no file imports its own package's door; no package reaches into another's files. And that no text
 * becomes code or a line for a shell.
 */
const root = fileURLToPath(new URL('..', import.meta.url));

const rooms: Record<string, { name: string; may: string[]; pure: boolean }> = {
  core: { name: '@tomaat/core', may: ['meshoptimizer', 'yaml', 'zod'], pure: true },
  client: { name: '@tomaat/client', may: ['@tomaat/core', 'eventsource-parser', 'jose', 'zod'], pure: true },
  server: { name: 'tomaat', may: ['@tomaat/client', '@tomaat/core', '*'], pure: false },
  web: { name: '@tomaat/web', may: ['@tomaat/client', '@tomaat/core', '*'], pure: true },
};

/** Ways from text to code, or to a shell. Programs are started by an array of words. */
const forbidden: readonly (readonly [what: string, pattern: RegExp])[] = [
  ['eval', /(?<![.\w'"`])eval\s*\(/],
  ['new Function', /^(?!\s*(\/\/|\*)).*\bnew Function\s*\(/m],
  ['node:vm', /['"](node:)?vm['"]/],
  ['shell: true', /\bshell:\s*true\b/],
  [
    'exec() of a line',
    /\b(exec|execSync)\b[^;]*from ['"]node:child_process['"]|import \{[^}]*\b(exec|execSync)\b[^}]*\} from ['"]node:child_process['"]/,
  ],
];

const faults: string[] = [];
for (const [room, { name, may, pure }] of Object.entries(rooms)) {
  const folder = join(root, 'packages', room, 'src');
  for (const file of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    if (!/\.tsx?$/.test(file) || /\.test\.tsx?$/.test(file)) continue;
    const path = join(folder, file);
    const text = readFileSync(path, 'utf8');
    for (const [what, pattern] of forbidden) {
      if (pattern.test(text))
        faults.push(`${relative(root, path)} uses ${what}: text from outside must never become code`);
    }
    for (const target of importsOf(text)) {
      const why = refuse(target, { file, folder, path, name, may, pure });
      if (why) faults.push(`${relative(root, path)} imports ${target}: ${why}`);
    }
  }
}
for (const fault of faults) console.error(fault);
console.log(
  faults.length === 0
    ? 'The direction of imports holds, and no text becomes code.'
    : `${faults.length} faults in what the packages import or run.`,
);
process.exitCode = faults.length === 0 ? 0 : 1;

function* importsOf(text: string): Generator<string> {
  const pattern =
    /(?:^|[^.\w])(?:import|export)\s(?:[^'"`;]*?\sfrom\s*)?['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]\s*\)/gm;
  for (const match of text.matchAll(pattern)) yield match[1] ?? match[2];
}

interface Where {
  file: string;
  folder: string;
  path: string;
  name: string;
  may: string[];
  pure: boolean;
}

function refuse(target: string, { folder, path, name, may, pure }: Where): string | undefined {
  if (target.startsWith('.')) {
    const inside = relative(folder, join(path, '..', target));
    if (inside.startsWith('..')) return 'files of another package are imported by its name';
    if (inside === 'index.ts' && !pure) return undefined;
    return inside === 'index.ts' ? 'no file imports its own package’s door' : undefined;
  }
  if (target === name) return 'no file imports its own package’s door';
  if (target.startsWith('node:')) return pure ? 'this package runs in browsers too' : undefined;
  if (may.some((name) => target === name || target.startsWith(`${name}/`))) return undefined;
  const isRoom = Object.values(rooms).some((room) => room.name === target);
  if (isRoom) return 'that package stands above this one';
  return may.includes('*') ? undefined : 'this package does not depend on it';
}
