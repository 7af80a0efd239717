import {
  encodeNode,
  encodeTensor,
  type FloatTensor,
  type GraphNode,
  readFloats,
  readNode,
  tensorName,
  valueName,
} from './graph-messages.ts';
import { bytesField, joinParts, readFields, textOf } from './protobuf.ts';
import type { GraphContext, Rewrite } from './rewrites/rewrite.ts';
import { rewrites as table } from './rewrites/table.ts';

/*
 * A network's graph, rewritten into a faster one with the same results but for rounding. It is done with the bytes of the file: an operator
 * that a rewrite knows is replaced in its place by others with the same inputs and outputs, and everything else stays as it is, byte
 * for byte, fields that are unknown here included.
 */

export interface RewriteLimits {
  /** Operators of a graph, and constants; a larger one is left alone. */
  readonly maxNodes: number;
  /** Fields of a graph, or around it: operators, constants, types of values and notes. */
  readonly maxFields: number;
  /** Operators that are rewritten; beyond that they stay as they are. */
  readonly maxRewritten: number;
  /** Bytes of the constants that are added; beyond that no more operators are rewritten. */
  readonly maxAddedBytes: number;
  /** Bytes of one constant; an operator with a larger one stays as it is. Those that replace it take up to twice as much. */
  readonly maxConstantBytes: number;
}

/** The largest networks of the field have some thousand operators, of which some hundred are rewritten, and some hundred MB of weights. */
const defaultLimits: RewriteLimits = {
  maxNodes: 20_000,
  maxFields: 200_000,
  maxRewritten: 1000,
  maxAddedBytes: 256e6,
  maxConstantBytes: 68e6,
};

/** Versions of the standard operators in which those used by the rewrites mean the same. */
const opsets = { least: 10, greatest: 23 };

export type RewrittenGraph =
  /** How often each rewrite was applied, by its name. */
  | { readonly bytes: Uint8Array; readonly applied: Readonly<Record<string, number>> }
  /** Why the graph is left as it is. */
  | { readonly left: string };

/** Names of added values begin with it. */
const prefix = 'tomaat:rewrite:';

/**
 * Rewrites a model (ModelProto). Leaves a graph alone that it does not know as a whole: with graphs inside it, functions, operators or
 * versions that are not standard, weights in other files, quantization notes, a value that is defined twice, or bytes that it cannot
 * read. Time and memory are linear in the size of the file.
 */
export function rewriteGraph(
  model: Uint8Array,
  rewrites: readonly Rewrite[] = table,
  limits: RewriteLimits = defaultLimits,
): RewrittenGraph {
  try {
    return rewriteOperators(model, rewrites, limits);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return { left: `it cannot be read as a whole: ${error.message}` };
  }
}

function rewriteOperators(
  model: Uint8Array,
  rewrites: readonly Rewrite[],
  limits: RewriteLimits,
): RewrittenGraph {
  const parts = partsOf(model, limits);
  if ('left' in parts) return parts;
  const { graph, before, after, opset } = parts;
  const found = readGraph(graph, limits);
  if ('left' in found) return found;

  const added = createAdditions(found.constants, opset, limits);
  const applied: Record<string, number> = {};
  const replaced = new Map<number, Uint8Array>();
  for (const [index, node] of found.nodes) {
    if (replaced.size >= limits.maxRewritten) break;
    const rewrite = rewrites.find(({ operator }) => operator === node.operator);
    if (!rewrite || added.sizeBytes() > limits.maxAddedBytes) continue;
    const nodes = rewrite.apply(node, added.contextOf(replaced.size));
    if (!nodes) continue;
    // In one piece: some million small ones would take more time and memory than all the rest.
    replaced.set(index, joinParts(nodes.flatMap((written) => bytesField(1, encodeNode(written)))));
    for (const name of node.inputs) found.uses.set(name, (found.uses.get(name) ?? 0) - 1);
    for (const name of nodes.flatMap(({ inputs }) => inputs))
      found.uses.set(name, (found.uses.get(name) ?? 0) + 1);
    applied[rewrite.name] = (applied[rewrite.name] ?? 0) + 1;
  }
  if (replaced.size === 0) return { left: 'no operator has a faster form that is known' };

  // What is kept between two changes is one piece.
  const pieces: Uint8Array[] = [];
  let [index, kept] = [0, 0];
  // Weights that nothing uses any longer would be kept in memory, or be asked for where they are inputs, too.
  const isUnused = (name: string) => found.constants.has(name) && found.uses.get(name) === 0;
  for (const { number, kind, value, start, end } of readFields(graph)) {
    if (kind !== 'bytes') continue;
    const instead = number === 1 ? replaced.get(index++) : undefined;
    const isDropped =
      (number === 5 && isUnused(tensorName(value))) || (number === 11 && isUnused(valueName(value)));
    if (!instead && !isDropped) continue;
    pieces.push(graph.subarray(kept, start), ...(instead ? [instead] : []));
    kept = end;
  }
  pieces.push(graph.subarray(kept), ...added.tensors);
  return { bytes: joinParts([before, ...bytesField(7, pieces), after]), applied };
}

/** The graph of a model, and the bytes around it. */
function partsOf(
  model: Uint8Array,
  { maxFields }: RewriteLimits,
): { graph: Uint8Array; before: Uint8Array; after: Uint8Array; opset: number } | { left: string } {
  let found: { graph: Uint8Array; before: Uint8Array; after: Uint8Array } | undefined;
  let opset: number | undefined;
  let fields = 0;
  for (const { number, kind, value, start, end } of readFields(model)) {
    if (++fields > maxFields) return { left: `it has more than ${maxFields} fields` };
    if (number === 20 || number === 25) return { left: 'it has functions of its own' };
    if (kind !== 'bytes') continue;
    if (number === 7) {
      if (found) return { left: 'the file has several graphs' };
      found = { graph: value, before: model.subarray(0, start), after: model.subarray(end) };
    } else if (number === 8) {
      const version = standardVersion(value);
      if (version !== undefined && opset !== undefined)
        return { left: 'it states the version of its operators twice' };
      opset ??= version;
    }
  }
  if (!found) return { left: 'the file has no graph' };
  if (opset === undefined) return { left: 'it does not state the version of its operators' };
  if (opset < opsets.least || opset > opsets.greatest)
    return { left: `its operators are of version ${opset}, not of ${opsets.least} to ${opsets.greatest}` };
  return { ...found, opset };
}

/** The version of the standard operators, if an entry of `opset_import` states it. */
function standardVersion(entry: Uint8Array): number | undefined {
  let domain = '';
  let version = 0;
  for (const field of readFields(entry)) {
    if (field.number === 1 && field.kind === 'bytes') domain = textOf(field.value);
    if (field.number === 2 && field.kind === 'varint') version = Number(BigInt.asIntN(64, field.value));
  }
  return domain === '' || domain === 'ai.onnx' ? version : undefined;
}

interface ReadGraph {
  /** With their number among all. */
  readonly nodes: readonly (readonly [index: number, node: GraphNode])[];
  /** Weights by name. */
  readonly constants: ReadonlyMap<string, Uint8Array>;
  /** How often a value is used, by operators or as an output of the graph. */
  readonly uses: Map<string, number>;
}

function readGraph(graph: Uint8Array, { maxNodes, maxFields }: RewriteLimits): ReadGraph | { left: string } {
  const nodes: [number, GraphNode][] = [];
  const constants = new Map<string, Uint8Array>();
  const uses = new Map<string, number>();
  const defined = new Set<string>();
  const use = (name: string) => uses.set(name, (uses.get(name) ?? 0) + 1);
  let twice = false;
  const define = (name: string) => {
    if (name === '') return;
    twice ||= defined.has(name);
    defined.add(name);
  };
  const inputs: string[] = [];
  let fields = 0;
  for (const field of readFields(graph)) {
    const { number } = field;
    if (++fields > maxFields) return { left: `its graph has more than ${maxFields} fields` };
    if (field.kind !== 'bytes') continue;
    if (number === 14 || number === 15) return { left: 'it has sparse or quantized weights' };
    if (number === 1) {
      if (nodes.length >= maxNodes) return { left: `it has more than ${maxNodes} operators` };
      const node = readNode(field.value);
      if (node.domain !== '') return { left: 'it has operators that are not standard' };
      for (const attribute of node.attributes.values()) {
        if (attribute.kind === 'graph') return { left: 'it has graphs inside the graph' };
        if (attribute.kind === 'tensors') return { left: 'it has sparse or quantized weights' };
        if (attribute.kind === 'tensor' && isElsewhere(attribute.value)) return elsewhere;
      }
      node.inputs.forEach(use);
      node.outputs.forEach(define);
      nodes.push([nodes.length, node]);
    } else if (number === 5) {
      if (constants.size >= maxNodes) return { left: `it has more than ${maxNodes} constants` };
      const name = tensorName(field.value);
      define(name);
      if (name !== '') constants.set(name, field.value);
      if (isElsewhere(field.value)) return elsewhere;
    } else if (number === 11) inputs.push(valueName(field.value));
    else if (number === 12) use(valueName(field.value));
  }
  // Old files list weights among the inputs, too.
  for (const name of inputs) if (!constants.has(name)) define(name);
  if (twice) return { left: 'it defines a value twice' };
  for (const name of defined) if (name.startsWith(prefix)) return { left: 'it was rewritten before' };
  // A Constant is an operator without inputs; exporters let an Identity name the same weights again.
  for (const [, { operator, inputs, outputs, attributes }] of nodes) {
    const value = attributes.get('value');
    const same = constants.get(inputs[0] ?? '');
    if (operator === 'Constant' && value?.kind === 'tensor') constants.set(outputs[0], value.value);
    else if (operator === 'Identity' && same) constants.set(outputs[0], same);
  }
  return { nodes, constants, uses };
}

/** A graph in memory has no folder, and its files would be looked for in another. */
const elsewhere = { left: 'it has weights in other files' };

/** Whether the numbers of a tensor lie in another file. */
function isElsewhere(tensor: Uint8Array): boolean {
  for (const field of readFields(tensor))
    if (field.number === 13 || (field.number === 14 && field.kind === 'varint' && field.value !== 0n))
      return true;
  return false;
}

/** What rewrites add to a graph. */
function createAdditions(
  constants: ReadonlyMap<string, Uint8Array>,
  opset: number,
  { maxConstantBytes }: RewriteLimits,
) {
  const tensors: Uint8Array[] = [];
  let sizeBytes = 0;
  /** Many operators may use one tensor. */
  const read = new Map<Uint8Array, FloatTensor | undefined>();
  return {
    tensors,
    sizeBytes: () => sizeBytes,
    /** For the operator that is replaced as number `index`. */
    contextOf(index: number): GraphContext {
      const newName = (of: string) => `${prefix}${index}:${of}`;
      return {
        opset,
        floats(name): FloatTensor | undefined {
          const tensor = constants.get(name);
          if (tensor && tensor.length > maxConstantBytes) return undefined;
          if (tensor && !read.has(tensor)) read.set(tensor, readFloats(tensor));
          return tensor && read.get(tensor);
        },
        newName,
        addConstant(of, dims, data) {
          const name = newName(of);
          tensors.push(joinParts(bytesField(5, encodeTensor(name, dims, data))));
          sizeBytes += data.byteLength;
          return name;
        },
      };
    },
  };
}
