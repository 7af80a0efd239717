import { type Serializable, spawn } from 'node:child_process';
import { constants, setPriority } from 'node:os';
import { limitedNode } from './limited-node.ts';

/** What a child that answers once has said; if it died instead, how. */
export type ChildAnswer<T> = { readonly answer: T } | { readonly died: string; readonly lastWords: string };

/**
 * Starts one of this package's files in a process of its own, which sends one message and ends; `message` is sent to it first. Native code that fails takes
 * only that process with it.
 * @throws the reason of `signal` when it aborts
 */
export async function askChild<T>(
  file: string,
  args: readonly string[],
  {
    dataMb,
    message,
    environment,
    isUrgent = true,
    signal,
  }: {
    dataMb?: number;
    message?: Serializable;
    /** Variables in addition to those of this process. */
    environment?: Readonly<Record<string, string>>;
    /** Otherwise the process takes what others leave of the processor. */
    isUrgent?: boolean;
    signal: AbortSignal;
  },
): Promise<ChildAnswer<T>> {
  signal.throwIfAborted();
  const [program, words] = limitedNode(file, args, dataMb);
  const child = spawn(program, words, {
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    serialization: 'json',
    env: { ...process.env, ...environment },
  });
  if (!isUrgent) giveWay(child.pid);
  const stop = () => child.kill('SIGKILL');
  signal.addEventListener('abort', stop, { once: true });
  if (message !== undefined) child.send(message, () => {}); // A failed send is followed by the end.
  let printed = '';
  let answers: { answer: T } | undefined;
  child.stderr?.on('data', (chunk: Buffer) => {
    printed = (printed + chunk.toString('utf8')).slice(-2000);
  });
  child.on('message', (message) => {
    answers = { answer: message as T };
  });
  try {
    const died = await new Promise<string>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, by) => resolve(by ? `was ended by ${by}` : `ended with exit code ${code}`));
    });
    signal.throwIfAborted();
    return answers ?? { died, lastWords: printed.trim().split('\n').at(-1) || 'it printed nothing' };
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

function giveWay(pid: number | undefined): void {
  try {
    if (pid !== undefined) setPriority(pid, constants.priority.PRIORITY_LOW);
  } catch {
    // It has ended already, or the system does not allow it.
  }
}
