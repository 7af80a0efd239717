import { type Document, isScalar, LineCounter, type ParsedNode, parseDocument, visit } from 'yaml';
import type { z } from 'zod';

/*
 * YAML that people write: every fault of a file is found at once, each with its path, its line and what to do. Time and memory are
 * bounded, whatever the text is.
 */

export interface FileFault {
  path: string;
  message: string;
  line?: number;
}

/** A fault at a path in the data, such as `['rules', 0, 'when']`; that of a missing key names the key. */
export interface DataFault {
  readonly path: readonly PropertyKey[];
  readonly message: string;
  /** Where its line is, if not at the path: an unknown key in the map that has the path. */
  readonly at?: readonly PropertyKey[];
}

export interface CheckedYaml {
  readonly data: unknown;
  /** Faults that have no place in `data`: the text is not YAML, or would expand into too much. */
  readonly faults: readonly FileFault[];
  /** With the lines: of the value at a path, or of the nearest one around it. */
  place(faults: readonly DataFault[]): FileFault[];
}

/** Far more than any file that is written by hand has. */
const maxLength = 1_000_000;
/** A file that is something else entirely has a fault in every line. */
const maxFaults = 1000;

/** Of faults whose message from the parser is for programmers. */
const remedies: Readonly<Record<string, string>> = {
  NON_STRING_KEY: 'a key must be text',
  MULTIPLE_DOCS: 'has several documents. Leave one of them, without ---',
};

/** Without the excerpt, and the place, which is told as a line. */
const firstSentence = (message: string) => message.split('\n')[0].split(' at line ')[0];

export function readYaml(text: string): CheckedYaml {
  const broken = (faults: FileFault[]): CheckedYaml => ({ data: undefined, faults, place: () => [] });
  const wrong = (message: string, line?: number): FileFault => ({ path: '(YAML)', message, line });
  if (text.length > maxLength)
    return broken([wrong(`has more than ${maxLength} characters. Give a file that was written by hand`)]);
  const lines = new LineCounter();
  const lineAt = (offset: number) => lines.linePos(offset).line;
  // A key that is itself a map would be written out as its own name, the longer the deeper. Repeated keys are found below: the
  // parser compares each key with every other one of its map.
  const tooManyLevels = 'has too many levels of lists and maps';
  let document: Document.Parsed;
  try {
    document = parseDocument(text, { lineCounter: lines, stringKeys: true, uniqueKeys: false });
  } catch (error) {
    // It reports most of them itself.
    if (error instanceof RangeError) return broken([wrong(tooManyLevels)]);
    throw error;
  }
  const tooDeep = document.errors.find(({ message }) => message.startsWith('Maximum call stack'));
  if (tooDeep) return broken([wrong(tooManyLevels, lineAt(tooDeep.pos[0]))]);
  const faults = document.errors
    .slice(0, maxFaults)
    .map((error) => wrong(remedies[error.code] ?? firstSentence(error.message), lineAt(error.pos[0])));
  if (faults.length > 0) return broken(faults);
  let data: unknown;
  try {
    faults.push(...faultsOfNodes(document, (offset, message) => wrong(message, lineAt(offset))));
    if (faults.length > 0) return broken(faults);
    data = document.toJS({ maxAliasCount: 20 });
  } catch (error) {
    // What the parser has just managed may be too deep for these. What else they throw: a node that contains itself, or
    // aliases that would expand into too much.
    const message =
      error instanceof RangeError ? tooManyLevels : 'aliases (*) stand for too much. Write the values out';
    return broken([wrong(message)]);
  }
  const lineOf = (path: readonly PropertyKey[]): number | undefined => {
    for (let length = path.length; length > 0; length--) {
      const node = document.getIn(path.slice(0, length), true) as
        | { range?: [number, number, number] }
        | undefined;
      if (node?.range) return lineAt(node.range[0]);
    }
    return undefined;
  };
  return {
    data,
    faults: [],
    place: (found) =>
      found.slice(0, maxFaults).map(({ path, message, at = path }) => ({
        path: path.map(String).join('.') || '(whole file)',
        message,
        line: lineOf(at),
      })),
  };
}

/** Keys that are repeated in a map, and aliases of nothing. */
function faultsOfNodes(
  document: Document.Parsed,
  faultAt: (offset: number, message: string) => FileFault,
): FileFault[] {
  const faults: FileFault[] = [];
  const add = (node: unknown, message: string) => {
    if (faults.length < maxFaults) faults.push(faultAt((node as ParsedNode).range[0], message));
  };
  const anchors = new Set<string | undefined>();
  const addAnchor = (_: unknown, { anchor }: { anchor?: string }) => void anchors.add(anchor);
  visit(document, {
    Scalar: addAnchor,
    Seq: addAnchor,
    Alias(_, alias) {
      const { source } = alias;
      if (!anchors.has(source))
        add(alias, `*${source.slice(0, 100)} stands for nothing before it. Write the value out`);
    },
    Map(_, { items, anchor }) {
      anchors.add(anchor);
      const known = new Set<unknown>();
      for (const { key } of items) {
        const name = isScalar(key) ? key.value : key;
        if (known.has(name))
          add(key, `Map keys must be unique: ${String(name).slice(0, 100)} is there twice`);
        known.add(name);
      }
    },
  });
  return faults;
}

type Issue = z.core.$ZodIssue;

/** What a schema found, in an author's words. A schema's own message for unknown keys has a line for each of them. */
export const faultsOfSchema = (issues: readonly Issue[]): DataFault[] =>
  flatten(issues).flatMap((issue) => {
    const { path } = issue;
    if (issue.code !== 'unrecognized_keys') return { path, message: describe(issue) };
    if (issue.message.startsWith('Unrecognized key'))
      return { path, message: describe(issue), at: [...path, issue.keys[0]] };
    return issue.message.split('\n').map((message, i) => ({ path, message, at: [...path, issue.keys[i]] }));
  });

/** The valid keys of a map with faults, so that the others can be checked against them. */
export function soundPart<T>(
  schema: { readonly shape: Readonly<Record<string, z.ZodType>> } & z.ZodType<T>,
  data: unknown,
): Partial<T> {
  if (typeof data !== 'object' || data === null) return {};
  const sound: Record<string, unknown> = {};
  for (const [key, part] of Object.entries(schema.shape)) {
    const result = part.safeParse((data as Record<string, unknown>)[key]);
    if (result.success) sound[key] = result.data;
  }
  return sound as Partial<T>;
}

const kinds: Record<string, string> = {
  string: 'text',
  number: 'a number',
  boolean: 'true or false',
  array: 'a list',
};

/** A fault in an author's words: the schema's own, or those for a missing key, a word that is not one of the allowed ones. */
function describe(issue: Issue): string {
  if (issue.code !== 'unrecognized_keys' && !/^(Invalid|Unrecognized) /.test(issue.message))
    return issue.message;
  const wanted = 'expected' in issue ? (kinds[issue.expected] ?? issue.expected) : undefined;
  if (issue.code === 'invalid_type') {
    return issue.message.endsWith('received undefined') ? `is missing (${wanted})` : `must be ${wanted}`;
  }
  if (issue.code === 'invalid_value') return `must be ${issue.values.map(String).join(' or ')}`;
  if (issue.code === 'unrecognized_keys')
    return `has the unknown key ${issue.keys.map((key) => key.slice(0, 100)).join(', ')}`;
  return issue.message.replace('Invalid discriminator value. Expected ', 'must be one of ');
}

/** A union reports its branches' issues inside: the branch with the fewest is most likely the intended one. */
function flatten(issues: readonly Issue[]): Issue[] {
  return issues.flatMap((issue) => {
    if (issue.code !== 'invalid_union' || issue.errors.length === 0) return [issue];
    const best = issue.errors.reduce((a, b) =>
      depth(b) > depth(a) || (depth(b) === depth(a) && b.length < a.length) ? b : a,
    );
    return flatten(best.map((inner) => ({ ...inner, path: [...issue.path, ...inner.path] })));
  });
}

const depth = (issues: readonly Issue[]) => Math.max(...issues.map((issue) => issue.path.length));

const maxShown = 30;

/** “FILE has 2 faults. Correct the following:”, and a line for each. */
export function listFaults(fileName: string, faults: readonly FileFault[]): string {
  const shown = faults.slice(0, maxShown);
  const more = faults.length > shown.length ? `\n  and ${faults.length - shown.length} more` : '';
  const list =
    shown.map((f) => `  ${f.line ? `line ${f.line}: ` : ''}${f.path}: ${f.message}`).join('\n') + more;
  return `${fileName} has ${faults.length === 1 ? 'a fault' : `${faults.length} faults`}. Correct the following:\n${list}`;
}
