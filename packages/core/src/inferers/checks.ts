import { TomaatError } from '../errors.ts';
import type { Tensor } from '../tensor.ts';
import type { NetworkSession } from './spec.ts';

/** Throws CANCELED once the signal is aborted. */
export function checkCanceled(signal: AbortSignal | undefined): void {
  if (signal?.aborted)
    throw new TomaatError('CANCELED', 'The prediction was cancelled.', { cause: signal.reason });
}

/** Throws if the input does not match a network's fixed dimensions; `who` says where these dimensions come from. */
export function checkInputDims(session: NetworkSession, dims: readonly number[], who: string): void {
  const wanted = session.inputDims;
  if (!wanted || (wanted.length === dims.length && wanted.every((d, i) => d === null || d === dims[i])))
    return;
  const text = wanted.map((d) => d ?? 'any').join(' × ');
  throw new TomaatError(
    'BAD_MANIFEST',
    `The network takes a tensor of ${text} (batch × components × z × y × x), but ${who} ${dims.join(' × ')}. Change the preprocess steps (resize, divisiblePad, cropForeground …), the number of input volumes or roiSize so that they agree.`,
  );
}

/** The number of classes, after checking the shape of the scores. APP_OUTPUT if the shape is invalid. */
export function checkScoresShape(output: Tensor, inputDims: readonly number[]): number {
  const { data, dims } = output;
  const spatial = dims.slice(2);
  const one = spatial.every((d) => d === 1);
  const same = dims.length === 5 && spatial.every((d, i) => d === inputDims[i + 2]);
  const length = dims.reduce((a, b) => a * b, 1);
  if (dims[0] !== 1 || !(dims[1] >= 1) || !(same || (one && (dims.length === 2 || dims.length === 5)))) {
    throw new TomaatError(
      'APP_OUTPUT',
      `The network took ${inputDims.join(' × ')} and gave ${dims.join(' × ')}; expected: 1 × classes × ${inputDims.slice(2).join(' × ')}, or 1 × classes for the whole volume. Export the network so that its output has the size of its input.`,
    );
  }
  if (data.length !== length) {
    throw new TomaatError(
      'APP_OUTPUT',
      `The network gave ${data.length} numbers for a tensor of ${dims.join(' × ')}.`,
    );
  }
  return dims[1];
}

/** The number of classes, after checking the shape of the scores and some of their values. */
export function checkScores(output: Tensor, inputDims: readonly number[]): number {
  const classes = checkScoresShape(output, inputDims);
  const { data } = output;
  // NaN spreads through a network, so a sample finds it; a prime stride reaches all rows and classes.
  for (let i = 0; i < data.length; i += 1009) {
    if (Number.isNaN(data[i])) {
      throw new TomaatError(
        'APP_OUTPUT',
        'The network gave NaN. Look for voxels that are not finite, for a division by zero in the preprocessing (a constant volume), or for overflow in float16.',
      );
    }
  }
  return classes;
}

export function checkChannel(channel: number, classes: number, step: 'threshold' | 'compose'): void {
  if (Number.isInteger(channel) && channel >= 0 && channel < classes) return;
  throw new TomaatError(
    'BAD_MANIFEST',
    `The step ${step} names channel ${channel}, but the network gives the channels 0 … ${classes - 1}. Correct the channel.`,
  );
}
