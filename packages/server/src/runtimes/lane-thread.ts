import { parentPort, workerData } from 'node:worker_threads';
import { TomaatError } from '@tomaat/core';
import type { FromLane, LaneData, LaneRun } from './lane-messages.ts';
import { openOnnxSession } from './onnx.ts';

/* A thread with a session of its own: a run of the engine blocks the thread that asks for it. */

const { modelFile, options } = workerData as LaneData;

function say(message: FromLane, moved: readonly ArrayBuffer[] = []): void {
  parentPort?.postMessage(message, [...moved]);
}

function fail(error: unknown): void {
  const known =
    error instanceof TomaatError
      ? error
      : new TomaatError('APP_FAILED', `The network failed: ${(error as Error)?.message ?? String(error)}`);
  say({ type: 'failed', error: known.toJSON() });
}

try {
  const session = await openOnnxSession(modelFile, options);
  parentPort?.on('message', async ({ data, dims }: LaneRun) => {
    try {
      const output = await session.run({ data, dims });
      // The engine makes a new buffer for each output.
      const { buffer, byteLength } = output.data;
      const whole = buffer.byteLength === byteLength ? output.data : output.data.slice();
      say({ type: 'done', data: whole, dims: output.dims, integer: 'integer' in output }, [
        whole.buffer as ArrayBuffer,
      ]);
    } catch (error) {
      fail(error);
    }
  });
  say({ type: 'ready' });
} catch (error) {
  fail(error);
}
