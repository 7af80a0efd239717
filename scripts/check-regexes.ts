import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { parseSync, Visitor } from 'vite';
import type { Verdict } from './prove-regex.ts';

/**
 * Checks that every regular expression in the sources runs in linear time on any text: otherwise a few hundred bytes
 * could block a server. Each expression is extracted from the parsed source (literals, RegExp(), and strings passed
 * to match(), matchAll() and search()), and recheck proves it linear with its automaton. If it cannot (lookarounds,
 * backreferences), the expression must be rewritten or listed below.
 *
 * `node scripts/check-regexes.ts [FILE…]` checks the given files, or those of the repository. Results are cached in
 * node_modules/.cache. Only the JavaScript build of recheck is used; its native packages are not.
 */
const root = fileURLToPath(new URL('..', import.meta.url));

/** Files whose expressions only match their own texts. */
const ownTexts: readonly (readonly [files: RegExp, reason: string])[] = [
  [/\.test\.tsx?$|(^|\/)test\//, 'tests meet what they made themselves'],
  [/^bench\//, 'benchmarks meet what they made themselves'],
];

/** Expressions that are not proved linear, by file. A source of `dynamic` means that it is built at run time. */
const exceptions: readonly { file: string; pattern: string; reason: string }[] = [
  {
    file: 'packages/server/src/http/methods.ts',
    pattern: 'new RegExp(`^$' + '{pattern}/?$`)',
    reason: 'made of the paths of the routes at the start: [^/]+ between slashes',
  },
  {
    file: 'fuzz/mutate.ts',
    pattern: String.raw`/^[^\r\n]*\r?\n/gm`,
    reason: 'meets the short inputs of the fuzzer alone',
  },
  {
    file: 'fuzz/child.ts',
    pattern: String.raw`/\/(packages|fuzz)\/\S+?:\d+/`,
    reason: 'meets the stack traces of the fuzzer alone',
  },
  ...[
    String.raw`/(?<![.\w'"${'`'}])eval\s*\(/`,
    String.raw`/^(?!\s*(\/\/|\*)).*\bnew Function\s*\(/m`,
    String.raw`/\b(exec|execSync)\b[^;]*from ['"]node:child_process['"]|import \{[^}]*\b(exec|execSync)\b[^}]*\} from ['"]node:child_process['"]/`,
    String.raw`/(?:^|[^.\w])(?:import|export)\s(?:[^'"${'`'};]*?\sfrom\s*)?['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]\s*\)/gm`,
  ].map((pattern) => ({
    file: 'scripts/check-imports.ts',
    pattern,
    reason: 'meets the sources of the repository alone',
  })),
  ...[
    String.raw`/\]\(([^)\s]+)\)|\bsrc="([^"]+)"/g`,
    String.raw`/${'`'}([\w./-]+\.(?:tsx?|m?js))${'`'}/g`,
  ].map((pattern) => ({
    file: 'scripts/check-texts.ts',
    pattern,
    reason: 'meets the texts of the repository alone',
  })),
];

interface Found {
  file: string;
  line: number;
  /** As in the source. */
  text: string;
  /** Undefined if it is known only at run time. */
  pattern?: string;
  flags: string;
}
async function checkAll(): Promise<void> {
  const given = process.argv.slice(2);
  const files = (given.length > 0 ? given.map((file) => relative(root, resolve(file))) : ownFiles()).filter(
    (file) => given.length > 0 || !ownTexts.some(([pattern]) => pattern.test(file)),
  );
  const found = files.flatMap(expressionsIn);
  const used = new Set<(typeof exceptions)[number]>();
  const faults: string[] = [];
  const toProve: Found[] = [];
  for (const one of found) {
    const exception = exceptions.find(({ file, pattern }) => file === one.file && pattern === one.text);
    if (exception) used.add(exception);
    else if (one.pattern === undefined)
      faults.push(
        `${one.file}:${one.line}: ${one.text} is built at run time, so nothing can be proved of it`,
      );
    else if (canRepeat(one.pattern)) toProve.push(one);
  }
  const verdicts = await prove(toProve);
  for (const one of toProve) {
    const { status, what } = verdicts.get(keyOf(one))!;
    if (status !== 'safe') faults.push(`${one.file}:${one.line}: ${one.text} ${what}`);
  }
  for (const { file, pattern } of given.length > 0 ? [] : exceptions.filter((one) => !used.has(one)))
    faults.push(`scripts/check-regexes.ts: the exception ${pattern} is no longer in ${file}`);

  for (const fault of faults) console.error(fault);
  console.log(
    faults.length === 0
      ? `All ${found.length} regular expressions take linear time.`
      : `${faults.length} regular expressions may take more than linear time. Cut the text by index, or write the expression so that no text can be matched in two ways.`,
  );
  process.exitCode = faults.length === 0 ? 0 : 1;
}

function ownFiles(): string[] {
  const args = ['ls-files', '-z', '--cached', '--others', '--exclude-standard'];
  return execFileSync('git', [...args, '*.ts', '*.tsx', '*.js', '*.mjs'], { cwd: root, encoding: 'utf8' })
    .split('\0')
    .filter((file) => file && existsSync(join(root, file)));
}

/** Without a loop, a pattern does no more work than its own length at each position. */
const canRepeat = (pattern: string) => ['*', '+', '{'].some((character) => pattern.includes(character));
const keyOf = ({ pattern, flags }: Found) => `/${pattern}/${flags}`;

// ---- Extraction from the source ----

function expressionsIn(file: string): Found[] {
  const source = readFileSync(join(root, file), 'utf8');
  const { program, errors } = parseSync(file, source, {});
  if (errors.length > 0) throw new Error(`${file} cannot be parsed: ${errors[0].message}`);
  const found: Found[] = [];
  const add = (node: Node, pattern: string | undefined, flags: string) => {
    const line = source.slice(0, node.start).split('\n').length;
    found.push({ file, line, text: source.slice(node.start, node.end), pattern, flags });
  };
  const isRegExp = (callee: Node): boolean =>
    (callee.type === 'Identifier' && callee.name === 'RegExp') ||
    (callee.type === 'MemberExpression' && callee.property?.name === 'RegExp');
  /** new RegExp(pattern, flags), with or without new. */
  const construct = (node: Node) => {
    const [pattern, flags] = node.arguments ?? [];
    // Another expression is checked where it is written.
    if (pattern?.regex) return;
    const known = textOf(pattern) !== undefined && (flags === undefined || textOf(flags) !== undefined);
    add(node, known ? textOf(pattern) : undefined, textOf(flags) ?? '');
  };
  new Visitor({
    Literal(node) {
      const { regex } = node as Node;
      if (regex) add(node as Node, regex.pattern, regex.flags);
    },
    NewExpression(node) {
      if (isRegExp(node.callee as Node)) construct(node as unknown as Node);
    },
    CallExpression(node) {
      const callee = node.callee as Node;
      if (isRegExp(callee)) return construct(node as unknown as Node);
      // A string in place of an expression is converted to one.
      const method = callee.type === 'MemberExpression' ? callee.property?.name : undefined;
      const first = node.arguments[0] as Node | undefined;
      if (!['match', 'matchAll', 'search'].includes(method ?? '') || !first) return;
      if (
        textOf(first) !== undefined ||
        first.type === 'TemplateLiteral' ||
        first.type === 'BinaryExpression'
      )
        add(node as unknown as Node, textOf(first), '');
    },
  }).visit(program);
  return found;
}

/** The properties of a node of the parsed source (ESTree) that are used here. */
interface Node {
  type: string;
  start: number;
  end: number;
  name?: string;
  value?: unknown;
  regex?: { pattern: string; flags: string };
  property?: Node;
  arguments?: Node[];
  quasis?: { value: { cooked: string | null } }[];
  expressions?: Node[];
}

/** The constant text of a node: a literal, or a template without substitutions. */
function textOf(node: Node | undefined): string | undefined {
  if (node?.type === 'Literal' && typeof node.value === 'string') return node.value;
  if (node?.type === 'TemplateLiteral' && node.quasis?.length === 1)
    return node.quasis[0].value.cooked ?? undefined;
  return undefined;
}

// ---- The proof ----

/** Distributes the expressions among several threads; cached proofs are not repeated. */
async function prove(list: readonly Found[]): Promise<Map<string, Verdict>> {
  const require = createRequire(import.meta.url);
  const { version } = require('recheck/package.json') as { version: string };
  const file = join(root, 'node_modules/.cache/tomaat/regexes.json');
  const known: Record<string, Verdict> = existsSync(file)
    ? (JSON.parse(readFileSync(file, 'utf8')) as Record<string, Verdict>)
    : {};
  const nameOf = (key: string) => `${version} ${key}`;
  const verdicts = new Map<string, Verdict>();
  const open: Found[] = [];
  for (const one of list) {
    const key = keyOf(one);
    if (verdicts.has(key) || open.some((other) => keyOf(other) === key)) continue;
    if (Object.hasOwn(known, nameOf(key))) verdicts.set(key, known[nameOf(key)]);
    else open.push(one);
  }
  const threads = Array.from(
    { length: Math.min(availableParallelism(), 8, Math.ceil(open.length / 4)) },
    () => {
      const worker = new Worker(new URL('./prove-regex.ts', import.meta.url));
      return new Promise<void>((resolve, reject) => {
        worker.on('error', reject);
        worker.on('exit', () => resolve());
        const next = () => {
          const one = open.pop();
          worker.postMessage(one ? { key: keyOf(one), pattern: one.pattern, flags: one.flags } : undefined);
        };
        worker.on('message', ({ key, verdict }: { key: string; verdict: Verdict }) => {
          verdicts.set(key, verdict);
          next();
        });
        next();
      });
    },
  );
  await Promise.all(threads);
  const proved = [...verdicts]
    .filter(([, { status }]) => status === 'safe')
    .map(([key, verdict]) => [nameOf(key), verdict]);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, JSON.stringify({ ...known, ...Object.fromEntries(proved) }));
  return verdicts;
}

await checkAll();
