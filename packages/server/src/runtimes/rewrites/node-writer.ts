import type { WrittenNode } from '../graph-messages.ts';
import type { GraphContext } from './rewrite.ts';

/** Writes the operators of a rewrite, in order. */
export interface NodeWriter {
  readonly nodes: readonly WrittenNode[];
  /** Adds an operator, and returns the name of its output: a new one if none is given. */
  add(
    operator: string,
    of: string,
    from: readonly string[],
    attributes?: WrittenNode['attributes'],
    output?: string,
  ): string;
  /** Adds a list of whole numbers as a constant, and returns its name. */
  integers(of: string, values: readonly number[]): string;
}

export function createNodeWriter(graph: GraphContext): NodeWriter {
  const nodes: WrittenNode[] = [];
  return {
    nodes,
    add(operator, of, inputs, attributes, output = graph.newName(of)) {
      nodes.push({ operator, inputs, outputs: [output], attributes });
      return output;
    },
    integers: (of, values) => graph.addConstant(of, [values.length], BigInt64Array.from(values, BigInt)),
  };
}
