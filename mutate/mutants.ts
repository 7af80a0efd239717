/**
 * Small faults to plant in TypeScript, one at a time, derived from the syntax tree: what `npm run mutate` tries
 * against the tests.
 */
import { type ESTree, parseSync } from 'vite';

/** One change of one file: the characters from `start` to `end` become `replacement`. */
export interface Mutant {
  /** Path relative to the root of the repository, with slashes. */
  readonly file: string;
  /** Starts at 1. */
  readonly line: number;
  readonly start: number;
  readonly end: number;
  readonly original: string;
  readonly replacement: string;
  readonly operator: Operator;
  /** Whether it is a whole statement; otherwise an expression. */
  readonly isStatement: boolean;
}

export type Operator =
  | 'arithmetic'
  | 'comparison'
  | 'logical'
  | 'unary'
  | 'number'
  | 'boolean'
  | 'string'
  | 'removed'
  | 'condition'
  | 'rounding'
  | 'update'
  | 'method';

type Node = ESTree.Node;
type Emit = (operator: Operator, node: Node, replacement: string, isStatement?: boolean) => void;

const arithmetic: Readonly<Record<string, string>> = {
  '+': '-',
  '-': '+',
  '*': '/',
  '/': '*',
  '%': '*',
  '&': '|',
  '|': '&',
  '<<': '>>',
  '>>': '<<',
  '>>>': '<<',
};
/** First the shifted boundary, then the opposite. */
const comparisons: Readonly<Record<string, readonly string[]>> = {
  '<': ['<=', '>='],
  '<=': ['<', '>'],
  '>': ['>=', '<='],
  '>=': ['>', '<'],
  '===': ['!=='],
  '!==': ['==='],
  '==': ['!='],
  '!=': ['=='],
};
const logical: Readonly<Record<string, string>> = { '&&': '||', '||': '&&', '??': '&&' };
const mathFunctions: Readonly<Record<string, string>> = {
  floor: 'ceil',
  ceil: 'floor',
  round: 'floor',
  trunc: 'ceil',
  min: 'max',
  max: 'min',
};
const methods: Readonly<Record<string, string>> = { some: 'every', every: 'some' };

/** Keys of a node that hold types, or names rather than values. */
const skippedKeys: ReadonlySet<string> = new Set([
  'typeAnnotation',
  'returnType',
  'typeParameters',
  'typeArguments',
  'superTypeArguments',
  'implements',
  'decorators',
  'superClass',
]);

/** Every mutant of a source, in source order. Texts for people (errors, logs, descriptions) are not changed. */
export function findMutants(file: string, source: string): Mutant[] {
  const { program, errors } = parseSync(file, source);
  if (errors.length > 0) throw new Error(`${file} cannot be parsed: ${errors[0].message}`);
  const mutants: Mutant[] = [];
  const lineAt = lineCounter(source);
  const emit: Emit = (operator, { start, end }, replacement, isStatement = false) => {
    const original = source.slice(start, end);
    if (original === replacement) return;
    mutants.push({ file, line: lineAt(start), start, end, original, replacement, operator, isStatement });
  };
  walk(program, source, emit);
  return mutants.sort((a, b) => a.start - b.start || a.end - b.end);
}

/** The source with the mutant planted. Throws if the source is not the one that the mutant was made from. */
export function plant(source: string, { file, start, end, original, replacement }: Mutant): string {
  if (source.slice(start, end) !== original) throw new Error(`${file} has changed: measure it again`);
  return source.slice(0, start) + replacement + source.slice(end);
}

/**
 * The source with a call of `reach(number)` wherever one of the mutants would take effect; its behaviour is
 * unchanged.
 */
export function markReached(
  source: string,
  mutants: readonly (readonly [id: number, Mutant])[],
  reach: string,
) {
  const inserts = mutants.flatMap(([id, { start, end, isStatement }]) => [
    {
      at: start,
      size: end - start,
      isEnd: false,
      text: isStatement ? `{${reach}(${id});` : `(${reach}(${id}),`,
    },
    { at: end, size: end - start, isEnd: true, text: isStatement ? '}' : ')' },
  ]);
  // At the same position, ends come first, innermost first; then starts, outermost first.
  inserts.sort(
    (a, b) =>
      a.at - b.at || Number(b.isEnd) - Number(a.isEnd) || (a.isEnd ? a.size - b.size : b.size - a.size),
  );
  let out = '';
  let from = 0;
  for (const { at, text } of inserts) {
    out += source.slice(from, at) + text;
    from = at;
  }
  return out + source.slice(from);
}

function walk(node: Node, source: string, emit: Emit): void {
  if (isForPeople(node)) return;
  visit(node, source, emit);
  const keep = messageArguments(node);
  for (const [key, value] of Object.entries(node)) {
    if (skippedKeys.has(key) || isName(node, key)) continue;
    for (const child of Array.isArray(value) ? value : [value]) {
      if (isNode(child) && !keep.includes(child) && !isTypeOnly(child)) walk(child, source, emit);
    }
  }
}

function isNode(value: unknown): value is Node {
  return typeof value === 'object' && value !== null && 'type' in value && typeof value.type === 'string';
}

/** Types, imports, and exports of other files. */
function isTypeOnly(node: Node): boolean {
  if (node.type === 'ImportDeclaration' || node.type === 'ImportExpression') return true;
  if (node.type === 'ExportAllDeclaration') return true;
  if (node.type === 'ExportNamedDeclaration') return node.declaration === null;
  return (
    node.type.startsWith('TS') &&
    !['TSAsExpression', 'TSNonNullExpression', 'TSSatisfiesExpression', 'TSInstantiationExpression'].includes(
      node.type,
    )
  );
}

/** The name of a property, which is not a value. */
function isName(node: Node, key: string): boolean {
  if (key !== 'key' && key !== 'property') return false;
  return 'computed' in node && node.computed === false;
}

/** Printed output, and texts that contain words. */
function isForPeople(node: Node): boolean {
  if (node.type === 'CallExpression' && node.callee.type === 'MemberExpression') {
    const { object } = node.callee;
    return object.type === 'Identifier' && (object.name === 'console' || object.name === 'log');
  }
  return node.type === 'TemplateLiteral' && node.quasis.some(({ value }) => value.raw.includes(' '));
}

/** The arguments of an error that describe what went wrong: all except the code of a TomaatError. */
function messageArguments(node: Node): readonly unknown[] {
  if (node.type !== 'NewExpression' || node.callee.type !== 'Identifier') return [];
  if (!node.callee.name.endsWith('Error')) return [];
  return node.callee.name === 'TomaatError' ? node.arguments.slice(1) : node.arguments;
}

function visit(node: Node, source: string, emit: Emit): void {
  const text = (part: Node) => source.slice(part.start, part.end);
  switch (node.type) {
    case 'BinaryExpression': {
      const change = (operator: string) => `(${text(node.left)} ${operator} ${text(node.right)})`;
      if (Object.hasOwn(comparisons, node.operator)) {
        for (const other of comparisons[node.operator]) emit('comparison', node, change(other));
      } else if (Object.hasOwn(arithmetic, node.operator) && !isText(node.left) && !isText(node.right)) {
        emit('arithmetic', node, change(arithmetic[node.operator]));
      }
      return;
    }
    case 'LogicalExpression':
      emit('logical', node, `((${text(node.left)}) ${logical[node.operator]} (${text(node.right)}))`);
      return;
    case 'UnaryExpression':
      if (['-', '!', '~'].includes(node.operator)) emit('unary', node, ` ${text(node.argument)}`);
      return;
    case 'UpdateExpression': {
      const other = node.operator === '++' ? '--' : '++';
      const argument = text(node.argument);
      emit('update', node, node.prefix ? other + argument : argument + other);
      return;
    }
    case 'Literal':
      literal(node, emit);
      return;
    case 'IfStatement':
    case 'ConditionalExpression':
      emit('condition', node.test, 'true');
      emit('condition', node.test, 'false');
      return;
    case 'WhileStatement':
    case 'ForStatement':
      // With `true` it never ends, which every test notices.
      if (node.test) emit('condition', node.test, 'false');
      return;
    case 'ExpressionStatement':
      statement(node, text, emit);
      return;
    case 'CallExpression':
      call(node, text, emit);
      return;
  }
}

/** Whether it is certainly a string, so that + concatenates. */
function isText(node: Node): boolean {
  if (node.type === 'BinaryExpression')
    return node.operator === '+' && (isText(node.left) || isText(node.right));
  return node.type === 'TemplateLiteral' || (node.type === 'Literal' && typeof node.value === 'string');
}

function literal(node: Extract<Node, { type: 'Literal' }>, emit: Emit): void {
  const { value } = node;
  if (typeof value === 'number') {
    emit('number', node, String(value + 1));
    emit('number', node, value < 1 ? `(${value - 1})` : String(value - 1));
  } else if (typeof value === 'bigint') emit('number', node, `${value + 1n}n`);
  else if (typeof value === 'boolean') emit('boolean', node, String(!value));
  // A string with a space in it is meant for people.
  else if (typeof value === 'string' && !value.includes(' ')) {
    emit('string', node, value === '' ? "'mutant'" : "''");
  }
}

function statement(
  node: Extract<Node, { type: 'ExpressionStatement' }>,
  text: (part: Node) => string,
  emit: Emit,
): void {
  const expression = node.expression.type === 'AwaitExpression' ? node.expression.argument : node.expression;
  if (expression.type !== 'CallExpression' && expression.type !== 'AssignmentExpression') return;
  if (isForPeople(expression)) return;
  if (expression.type === 'CallExpression' && expression.callee.type === 'Super') return;
  emit('removed', node, ';', true);
  if (expression.type !== 'AssignmentExpression') return;
  const other: Readonly<Record<string, string>> = { '+=': '-=', '-=': '+=', '*=': '/=', '/=': '*=' };
  if (Object.hasOwn(other, expression.operator)) {
    const change = `${text(expression.left)} ${other[expression.operator]} ${text(expression.right)}`;
    emit('arithmetic', expression, change);
  }
}

function call(
  node: Extract<Node, { type: 'CallExpression' }>,
  text: (part: Node) => string,
  emit: Emit,
): void {
  const { callee } = node;
  if (callee.type !== 'MemberExpression' || callee.property.type !== 'Identifier') return;
  const { name } = callee.property;
  const isMath = callee.object.type === 'Identifier' && callee.object.name === 'Math';
  const other = isMath ? mathFunctions : methods;
  if (!Object.hasOwn(other, name)) return;
  // The whole call, so that it can be marked as an expression.
  const rest = text(node).slice(callee.property.end - node.start);
  const before = text(node).slice(0, callee.property.start - node.start);
  emit(isMath ? 'rounding' : 'method', node, `${before}${other[name]}${rest}`);
}

function lineCounter(source: string): (offset: number) => number {
  const starts = [0];
  for (let i = source.indexOf('\n'); i >= 0; i = source.indexOf('\n', i + 1)) starts.push(i + 1);
  return (offset) => {
    let low = 0;
    let high = starts.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (starts[middle] <= offset) low = middle;
      else high = middle;
    }
    return low + 1;
  };
}
