import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseSync, Visitor } from 'vite';
import { type Setting, settings } from '../packages/server/src/settings.ts';

/**
 * Checks that `settings.ts` is the only home of a setting's default. Nowhere else in the sources may there be
 *
 * - a fallback of that name: `port = 9000`, `config.port ?? 9000`
 * - a schema of that name with a default of its own: `port: number.default(9000)`
 * - a default port as a number, and a flag with a default in its text: `--port <number> (default: 9000)`
 *
 * `check-defaults.ts [ROOT]`: the exit code is 1 if there is an error. ROOT defaults to this repository.
 */
const root = process.argv[2] ?? fileURLToPath(new URL('..', import.meta.url));
const home = 'packages/server/src/settings.ts';

const withDefault = new Map(
  Object.entries<Setting>(settings).flatMap(([key, setting]) =>
    setting.default === undefined ? [] : [[key, setting.default] as const],
  ),
);
/** Numbers that stand for nothing else. */
const ports = new Set([...withDefault].filter(([key]) => /port$/i.test(key)).map(([, value]) => value));

/** As much of a syntax tree as is needed here. */
interface Node {
  readonly type: string;
  readonly start: number;
  readonly [field: string]: unknown;
}

const faults: string[] = [];
for (const room of ['client', 'server', 'web']) {
  const folder = join(root, 'packages', room, 'src');
  for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    const file = relative(root, join(folder, name)).replaceAll('\\', '/');
    if (/\.tsx?$/.test(name) && !/\.test\.tsx?$|\.gen\.ts$/.test(name) && file !== home) check(file);
  }
}
if (faults.length > 0) {
  console.error(faults.join('\n'));
  process.exit(1);
}
console.log('Every default has one home.');

function check(file: string): void {
  const source = readFileSync(join(root, file), 'utf8');
  const fault = (node: Node, what: string) => {
    const line = source.slice(0, node.start).split('\n').length;
    faults.push(`${file}:${line}: ${what} Read it from settings.ts.`);
  };
  const fallback = (node: Node, target: unknown, value: unknown) => {
    const name = nameOf(target as Node);
    // In other packages such a name is not that of a setting.
    if (!file.startsWith('packages/server/')) return;
    if (name !== undefined && withDefault.has(name) && isConstant(value as Node))
      fault(node, `${name} has a second default here.`);
  };
  const text = (node: Node, words: string) => {
    if (/default:? [a-z\d]/i.test(words)) {
      for (const [name, value] of withDefault)
        if (words.includes(`--${kebab(name)} `))
          fault(node, `The default of ${name}, ${value}, is repeated in a text.`);
    }
  };
  // The visitor's nodes have the fields of ESTree; read here by name.
  const visit = (work: (node: Node) => void) => (node: object) => work(node as Node);
  new Visitor({
    AssignmentPattern: visit((node) => fallback(node, node.left, node.right)),
    LogicalExpression: visit((node) => {
      if (node.operator !== '&&') fallback(node, node.left, node.right);
    }),
    Property: visit((node) => {
      for (let call = node.value as Node; call.type === 'CallExpression'; ) {
        const callee = call.callee as Node;
        if (nameOf(callee) === 'default') fallback(node, node.key, (call.arguments as Node[])[0]);
        if (callee.type !== 'MemberExpression') break;
        call = callee.object as Node;
      }
    }),
    Literal: visit((node) => {
      if (typeof node.value === 'number' && ports.has(node.value))
        fault(node, `The default port ${node.value} stands here.`);
      if (typeof node.value === 'string') text(node, node.value);
    }),
    TemplateElement: visit((node) => text(node, (node.value as { raw: string }).raw)),
  }).visit(parseSync(file, source).program);
}

/** The last name of `x`, `a.b.x` or `'x'`. */
function nameOf(node: Node): string | undefined {
  if (node.type === 'Identifier') return node.name as string;
  if (node.type === 'Literal') return String(node.value);
  if (node.type === 'MemberExpression') return node.computed ? undefined : nameOf(node.property as Node);
  return node.type === 'ChainExpression' ? nameOf(node.expression as Node) : undefined;
}

/** Whether a value is written out: a literal, a sum of them, a list of them. Empty texts and lists, 0 and false say “none”. */
function isConstant(node: Node): boolean {
  if (node.type === 'Literal') return Boolean(node.value);
  if (node.type === 'BinaryExpression')
    return isConstant(node.left as Node) && isConstant(node.right as Node);
  if (node.type === 'ArrayExpression') return (node.elements as Node[]).some(isConstant);
  return node.type === 'TemplateLiteral' && (node.expressions as Node[]).length === 0;
}

function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
