/** The network of an ONNX file in PyTorch, in a process of its own that runs it when asked. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { findPython } from '../test/programs.ts';

const script = fileURLToPath(new URL('./engine-torch.py', import.meta.url));
const python = findPython('torch', 'onnx');

export interface TorchNetwork extends AsyncDisposable {
  readonly version: string;
  readonly scores: Float32Array;
  /** Milliseconds of one run. */
  run(): Promise<number>;
}

/** Undefined where there is no Python on the PATH with torch and onnx. */
export async function openTorch(
  model: Uint8Array,
  { data, dims }: { data: Float32Array; dims: readonly number[] },
  threads: number,
): Promise<TorchNetwork | undefined> {
  if (python === undefined) return undefined;
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-torch-'));
  const [modelFile, input, output] = ['model.onnx', 'input', 'output'].map((name) => join(folder, name));
  await writeFile(modelFile, model);
  await writeFile(input, data);
  const child = spawn(python, [script, modelFile, input, output, dims.join(), String(threads)], {
    stdio: ['pipe', 'pipe', 'inherit'],
    // BLAS has threads of its own.
    env: { ...process.env, OPENBLAS_NUM_THREADS: String(threads), MKL_NUM_THREADS: String(threads) },
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error('PyTorch ended before it gave a result');
    return value;
  };
  const close = async () => {
    await end(child);
    await rm(folder, { recursive: true, force: true });
  };
  try {
    const version = await next();
    const bytes = await readFile(output);
    return {
      version,
      scores: new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength)),
      async run() {
        child.stdin.write('\n');
        return Number(await next());
      },
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill();
  await ended;
}
