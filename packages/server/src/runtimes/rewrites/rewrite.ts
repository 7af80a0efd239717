import type { FloatTensor, GraphNode, WrittenNode } from '../graph-messages.ts';

/** What a rewrite may know of the graph around an operator, and what it may add to it. */
export interface GraphContext {
  /** Version of the standard operators. */
  readonly opset: number;
  /** The constant of that name, if it is one of float32 numbers inside the file. */
  floats(name: string): FloatTensor | undefined;
  /** A name that no value of the graph has. */
  newName(of: string): string;
  /** Adds a constant and returns its name. */
  addConstant(of: string, dims: readonly number[], data: Float32Array | BigInt64Array): string;
}

/**
 * An operator and a faster form of it that gives the same numbers but for rounding. Each says why in its own comment.
 */
export interface Rewrite {
  /** As receipts and logs call it. */
  readonly name: string;
  /** What becomes what, in a few words. */
  readonly about: string;
  readonly operator: string;
  /** Whether it depends on the processor that it gains anything, or takes much memory: it is used where a timed run was faster. */
  readonly isTimed?: true;
  /**
   * Operators, in order, that compute the same output from the same inputs; undefined if the rewrite does not know this form of the
   * operator. Must not add a constant unless it returns operators.
   */
  apply(node: GraphNode, graph: GraphContext): readonly WrittenNode[] | undefined;
}
