import { describe, expect, it } from 'vitest';
import type { TomaatError } from '../errors.ts';
import { checkCanceled, checkChannel, checkInputDims, checkScores, checkScoresShape } from './checks.ts';
import type { NetworkSession } from './spec.ts';

/** The error that a call throws. */
function thrown(call: () => unknown): TomaatError {
  try {
    call();
  } catch (error) {
    return error as TomaatError;
  }
  throw new Error('nothing was thrown');
}

describe('checkCanceled()', () => {
  it('throws the reason of the signal as the cause', () => {
    const controller = new AbortController();
    checkCanceled(undefined);
    checkCanceled(controller.signal);
    controller.abort('the client left');
    expect(thrown(() => checkCanceled(controller.signal))).toMatchObject({
      code: 'CANCELED',
      cause: 'the client left',
    });
  });
});

describe('checkInputDims()', () => {
  const session = (inputDims?: (number | null)[]): NetworkSession => ({
    run: async (input) => input,
    inputDims,
  });

  it.each([
    [undefined, [1, 1, 4, 5, 6]],
    [
      [1, 1, 4, 5, 6],
      [1, 1, 4, 5, 6],
    ],
    [
      [null, 2, null, 5, null],
      [1, 2, 7, 5, 9],
    ],
    [
      [null, null, null, null, null],
      [1, 2, 7, 5, 9],
    ],
  ] as [(number | null)[] | undefined, number[]][])('accepts for %j the dimensions %j', (wanted, dims) => {
    expect(() => checkInputDims(session(wanted), dims, '')).not.toThrow();
  });

  it.each([
    [
      [1, 1, 4, 5, 6],
      [1, 1, 4, 5, 7],
    ],
    [
      [1, 1, 4, 5, 6],
      [1, 1, 3, 5, 6],
    ],
    [
      [1, 2, null, null, null],
      [1, 1, 3, 5, 6],
    ],
    [
      [null, null, null, null],
      [1, 1, 3, 5, 6],
    ],
    [
      [null, null, null, null, null, null],
      [1, 1, 3, 5, 6],
    ],
    [
      [1, 1, 4],
      [1, 1, 4, 5, 6],
    ],
  ] as [(number | null)[], number[]][])('refuses for %j the dimensions %j', (wanted, dims) => {
    expect(thrown(() => checkInputDims(session(wanted), dims, '')).code).toBe('BAD_MANIFEST');
  });

  it('says what the network takes and where the other dimensions come from', () => {
    const { message } = thrown(() =>
      checkInputDims(session([1, null, 4, 5, 6]), [1, 2, 4, 5, 7], 'the step makes'),
    );
    expect(message).toContain('1 × any × 4 × 5 × 6');
    expect(message).toContain('the step makes 1 × 2 × 4 × 5 × 7');
  });
});

describe('checkScoresShape()', () => {
  const input = [1, 2, 5, 3, 4];
  const zeros = (dims: readonly number[], length = dims.reduce((a, b) => a * b, 1)) => ({
    data: new Float32Array(length),
    dims,
  });

  it.each([
    [[1, 7, 5, 3, 4], 7],
    [[1, 1, 5, 3, 4], 1],
    [[1, 6], 6],
    [[1, 6, 1, 1, 1], 6],
  ] as [number[], number][])('takes scores of %j', (dims, classes) => {
    expect(checkScoresShape(zeros(dims), input)).toBe(classes);
    expect(checkScores(zeros(dims), input)).toBe(classes);
  });

  it.each([
    [[2, 7, 5, 3, 4]],
    [[0, 7, 5, 3, 4]],
    [[2, 7]],
    [[1, 0, 5, 3, 4]],
    [[1, 0]],
    [[1]],
    [[]],
    [[1, 7, 6, 3, 4]],
    [[1, 7, 5, 2, 4]],
    [[1, 7, 5, 3, 1]],
    [[1, 7, 1, 1, 4]],
    [[1, 7, 4, 3, 5]],
    [[1, 7, 5]],
    [[1, 7, 5, 3]],
    [[1, 7, 1]],
    [[1, 7, 1, 1]],
    [[1, 7, 1, 1, 1, 1]],
    [[1, 7, 5, 3, 4, 1]],
  ])('refuses scores of %j', (dims) => {
    const error = thrown(() => checkScoresShape(zeros(dims), input));
    expect(error.code).toBe('APP_OUTPUT');
    expect(error.message).toContain(`The network took 1 × 2 × 5 × 3 × 4 and gave ${dims.join(' × ')};`);
    expect(error.message).toContain('1 × classes × 5 × 3 × 4,');
  });

  it.each([119, 121, 0])('refuses %i numbers for 120', (length) => {
    const error = thrown(() => checkScoresShape(zeros([1, 2, 5, 3, 4], length), input));
    expect(error.code).toBe('APP_OUTPUT');
    expect(error.message).toContain(`${length} numbers for a tensor of 1 × 2 × 5 × 3 × 4`);
  });
});

describe('checkScores()', () => {
  it.each([0, 1009, 2018])('finds NaN at place %i', (place) => {
    const dims = [1, 1, 3, 673, 1];
    const data = new Float32Array(2019);
    data[place] = Number.NaN;
    const error = thrown(() => checkScores({ data, dims }, dims));
    expect(error.code).toBe('APP_OUTPUT');
    expect(error.message).toContain('gave NaN');
  });

  it('takes infinite scores', () => {
    expect(checkScores({ data: Float32Array.of(-Infinity, Infinity), dims: [1, 2] }, [1, 1, 1, 1, 1])).toBe(
      2,
    );
  });
});

describe('checkChannel()', () => {
  it.each([0, 1, 2])('accepts channel %f of 3', (channel) => {
    expect(() => checkChannel(channel, 3, 'threshold')).not.toThrow();
  });

  it.each([-1, 3, 4, 0.5, Number.NaN])('refuses channel %f of 3', (channel) => {
    const error = thrown(() => checkChannel(channel, 3, 'threshold'));
    expect(error.code).toBe('BAD_MANIFEST');
    expect(error.message).toContain(`channel ${channel}, but the network gives the channels 0 … 2.`);
  });
});
