import { Session } from 'node:inspector';

/**
 * Which blocks of the project's code have run, from V8 itself: inputs that run new code are worth changing further. A
 * query takes milliseconds, so it is done once for many inputs.
 */
export interface Coverage {
  /** The blocks that ran since the last call for the first time. */
  news(): ReadonlySet<string>;
  /** Whether one of these blocks has run since the last call of either function. */
  hit(blocks: ReadonlySet<string>): boolean;
  readonly blocks: number;
  /** Switches coverage off; code then runs at full speed again. */
  close(): void;
}

interface Range {
  startOffset: number;
  endOffset: number;
  count: number;
}

export function watchCoverage(): Coverage {
  const session = new Session();
  session.connect();
  // Within this thread the inspector answers before post() returns.
  const post = <T>(method: string, parameters: object = {}): T => {
    let answer: { error: Error | null; result?: T } | undefined;
    session.post(method, parameters, (error, result) => {
      answer = { error, result: result as T };
    });
    if (!answer || answer.error) throw answer?.error ?? new Error(`${method} was not answered`);
    return answer.result as T;
  };
  post('Profiler.enable');
  post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  const seen = new Set<string>();
  return {
    get blocks() {
      return seen.size;
    },
    close: () => session.disconnect(),
    news() {
      const found = new Set<string>();
      for (const block of taken()) if (!seen.has(block)) found.add(block);
      for (const block of found) seen.add(block);
      return found;
    },
    hit(blocks) {
      let isHit = false;
      for (const block of taken()) isHit ||= blocks.has(block);
      return isHit;
    },
  };

  function* taken(): Generator<string> {
    const { result } = post<{ result: { url: string; functions: { ranges: Range[] }[] }[] }>(
      'Profiler.takePreciseCoverage',
    );
    for (const { url, functions } of result) {
      if (!url.includes('/packages/') || !url.includes('/src/')) continue;
      for (const { ranges } of functions) {
        for (const { startOffset, endOffset, count } of ranges) {
          if (count > 0) yield `${url}:${startOffset}:${endOffset}`;
        }
      }
    }
  }
}
