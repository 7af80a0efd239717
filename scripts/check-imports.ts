import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * Guards the rooms: core ← client ← server, and web → client, core; in the server the order below. Core and client
 * are free of Node and of network libraries; no file imports its own package's entry point; no package imports
 * internal files of another; there are no import cycles, types included. Also checks that no text becomes code or a
 * shell command line.
 *
 * `check-imports.ts [ROOT]`: the exit code is 1 if there is an error. ROOT defaults to this repository.
 */
const root = process.argv[2] ?? fileURLToPath(new URL('..', import.meta.url));

const rooms: Record<string, { name: string; may: string[]; pure: boolean }> = {
  core: {
    name: '@tomaat/core',
    may: ['@noble/hashes', '@zip.js/zip.js', 'meshoptimizer', 'pako', 'yaml', 'zod'],
    pure: true,
  },
  client: { name: '@tomaat/client', may: ['@tomaat/core', 'eventsource-parser', 'jose', 'zod'], pure: true },
  server: { name: 'tomaat', may: ['@tomaat/client', '@tomaat/core', '*'], pure: false },
  web: { name: '@tomaat/web', may: ['@tomaat/client', '@tomaat/core', '*'], pure: true },
};

/**
 * The rooms of the server from the top down: folders of `packages/server/src`, and files beside them. A file imports
 * from its own room and from those in the lines below it. A folder in a room that is named, too, is a room of its own.
 */
const serverRooms: readonly (readonly string[])[] = [
  ['main.ts', 'index.ts'],
  ['cli'],
  ['import'],
  ['server.ts', 'config.ts', 'check-app.ts', 'local-app.ts', 'gateway', 'migrate'],
  ['server'],
  ['folder'],
  ['registry', 'faces'],
  ['http'],
  ['access', 'worker'],
  ['problem', 'runtimes', 'audit'],
  ['intake', 'certificates.ts'],
  ['trust', 'apps.ts', 'identity.ts', 'tls.ts'],
  ['store'],
  ['store/jobs', 'store/uploads'],
  ['store/database'],
  ['store/blobs'],
  ['store/files'],
  [
    'addresses.ts',
    'durations.ts',
    'fair-share.ts',
    'node-platform.ts',
    'picture-file.ts',
    'settings.ts',
    'source.ts',
    'version.ts',
  ],
];

/** Ways to turn text into code or a shell command. Programs are started with an array of arguments. */
const forbidden: readonly (readonly [what: string, pattern: RegExp])[] = [
  ['eval', /(?<![.\w'"`])eval\s*\(/],
  ['new Function', /^(?!\s*(\/\/|\*)).*\bnew Function\s*\(/m],
  ['node:vm', /['"](node:)?vm['"]/],
  ['shell: true', /\bshell: *true\b/],
  [
    'exec() of a line',
    /\b(exec|execSync)\b[^;]*from ['"]node:child_process['"]|import \{[^}]*\b(exec|execSync)\b[^}]*\} from ['"]node:child_process['"]/,
  ],
];

const faults: string[] = [];
for (const [room, { name, may, pure }] of Object.entries(rooms)) {
  const folder = join(root, 'packages', room, 'src');
  if (!existsSync(folder)) continue;
  /** The files of the package that each of its files imports, as paths relative to `src`, with slashes. */
  const graph = new Map<string, string[]>();
  for (const found of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    if (!/\.tsx?$/.test(found) || /\.test\.tsx?$/.test(found)) continue;
    const file = found.split(sep).join('/');
    const path = join(folder, file);
    const text = readFileSync(path, 'utf8');
    for (const [what, pattern] of forbidden) {
      if (pattern.test(text))
        faults.push(`${relative(root, path)} uses ${what}: text from outside must never become code`);
    }
    const own: string[] = [];
    for (const target of importsOf(text)) {
      const inside = target.startsWith('.')
        ? relative(folder, join(path, '..', target))
            .split(sep)
            .join('/')
        : undefined;
      const why =
        refuse(target, { inside, name, may, pure }) ??
        (room === 'server' && inside !== undefined ? refuseRoom(file, inside) : undefined);
      if (why) faults.push(`${relative(root, path)} imports ${target}: ${why}`);
      if (inside !== undefined) own.push(inside);
    }
    graph.set(file, own);
  }
  for (const circle of circlesOf(graph)) {
    faults.push(`packages/${room}/src has a circle of imports (types count): ${circle.join(' → ')}`);
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
  /** The path of an imported file of the package, relative to `src`. */
  inside?: string;
  name: string;
  may: string[];
  pure: boolean;
}

function refuse(target: string, { inside, name, may, pure }: Where): string | undefined {
  if (inside !== undefined) {
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

function refuseRoom(from: string, to: string): string | undefined {
  const [own, other] = [from, to].map(roomOf);
  if (own === other) return undefined;
  const [at, below] = [own, other].map((room) => serverRooms.findIndex((line) => line.includes(room)));
  if (at < 0) return `${own} has no place in serverRooms (scripts/check-imports.ts)`;
  return at < below ? undefined : `${other} is not below ${own} in the order of the server’s rooms`;
}

/** The innermost room that a file of the server is in. */
function roomOf(file: string): string {
  const [outer, inner] = file.split('/');
  const named = `${outer}/${inner}`;
  return serverRooms.some((line) => line.includes(named)) ? named : outer;
}

/** Cycles of a graph, each as a path along its files back to its start; one for each file that closes a cycle. */
function circlesOf(graph: ReadonlyMap<string, readonly string[]>): string[][] {
  const circles: string[][] = [];
  const done = new Set<string>();
  const way: string[] = [];
  const visit = (file: string): void => {
    const at = way.indexOf(file);
    if (at >= 0) circles.push([...way.slice(at), file]);
    if (at >= 0 || done.has(file)) return;
    way.push(file);
    for (const next of graph.get(file) ?? []) visit(next);
    way.pop();
    done.add(file);
  };
  for (const file of graph.keys()) visit(file);
  return circles;
}
