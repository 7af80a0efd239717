import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type ErrorData, hasOwnNetworks, type StageTimes, TomaatError } from '@tomaat/core';
import type { App } from '../apps.ts';
import { type ComputeDevice, isCard, processor } from '../runtimes/devices.ts';
import { EndedBySignal, stopSignalOf } from '../runtimes/ended-by-signal.ts';
import { ownExtension } from '../source.ts';
import { type ModelServers, modelServersFor } from '../trust/model-servers.ts';
import { limitedNode } from './limited-node.ts';
import type { MemoryLimit, MemoryPolicy } from './memory-limit.ts';
import type { FromChild, PredictMessage, ToChild, WrittenOutput, WrittenTrace } from './messages.ts';
import { outOfMemory } from './out-of-memory.ts';

/** A child bound to one app: idle or computing one prediction; ended by a signal, never by a message. */
export interface Child {
  readonly app: App;
  /** What computes its networks. */
  readonly device: ComputeDevice;
  readonly pid: number;
  /** The process groups of its programs: of the one that runs, and of those that it keeps between predictions. */
  readonly programs: ReadonlySet<number>;
  predict(message: PredictMessage, handlers: PredictHandlers): Promise<ChildResult>;
  /** Ends the running prediction: a program gets SIGTERM first, a network ends with its process. Resolves when it has ended. */
  stop(): Promise<void>;
  readonly alive: boolean;
}

export interface ChildResult {
  outputs: WrittenOutput[];
  traces: WrittenTrace[];
  /** With `explains`: why the primary label map is empty, in lines. */
  empty?: string[];
  seconds: number;
  /** Milliseconds of each stage. */
  times: StageTimes;
  /** Names of the faster forms in which operators of networks were computed. */
  rewrites: string[];
}

export interface PredictHandlers {
  onProgress(stage: string, fraction: number): void;
  onLog(text: string): void;
  signal: AbortSignal;
}

const childFile = fileURLToPath(new URL(`./child${ownExtension}`, import.meta.url));
const programGraceMs = 6000;
const startLimitMs = 60_000;

/**
 * Starts a child for an app and waits until it has read the app. `permitted` is what it may use of model servers. Throws the errors
 * of the app's manifest. A child that computes on a card has no limit of its process: CUDA maps the memory of the card into it, which would count.
 */
export async function startChild(
  app: App,
  memory: MemoryPolicy,
  onExit: () => void,
  { permitted, device = processor }: { permitted?: ModelServers; device?: ComputeDevice } = {},
): Promise<Child> {
  const limit = memory(app);
  const [file, args] = limitedNode(
    childFile,
    [app.folder, JSON.stringify(limit ?? null), JSON.stringify(device)],
    isCard(device) && hasOwnNetworks(app.manifest) ? undefined : limit?.dataMb,
  );
  const child = spawn(file, args, {
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    serialization: 'json',
    env: { ...process.env, ...device.environment },
    // A separate process group: Ctrl-C in a terminal reaches the server, which decides about its children.
    detached: process.platform !== 'win32',
  });
  const programs = new Set<number>();
  let lastWords = '';
  let ended: { code: number | null; signal: NodeJS.Signals | null } | undefined;
  let stopped = false;
  let onMessage: ((message: FromChild) => void) | undefined;
  /** The current listener for the end of the process; a single one, so that a long-lived child keeps no old ones. */
  let onDeath: (() => void) | undefined;
  child.stdout?.on('data', () => {}); // An app that prints must not fill the pipe.
  child.stderr?.on('data', (chunk: Buffer) => {
    lastWords = (lastWords + chunk.toString('utf8')).slice(-4000);
  });
  child.on('message', (message: FromChild) => {
    if (message.type === 'spawned') {
      programs.add(message.pid);
      if (ended) killGroup(message.pid, 'SIGKILL'); // The message came after the end.
    } else if (message.type === 'exited') programs.delete(message.pid);
    else onMessage?.(message);
  });
  const exit = new Promise<void>((resolve) => {
    const end = (code: number | null, signal: NodeJS.Signals | null) => {
      if (ended) return;
      ended = { code, signal };
      for (const pid of programs) killGroup(pid, 'SIGKILL');
      onExit();
      resolve();
      onDeath?.();
    };
    child.once('exit', end);
    child.once('error', (error) => {
      lastWords += error.message;
      end(null, null);
    });
  });

  function say(message: ToChild): void {
    if (child.connected) child.send(message, () => {}); // A failed send is followed by the exit.
  }
  // As a message, because other users can read arguments.
  const modelServers = modelServersFor(app, permitted);
  if (modelServers) say({ type: 'permit', modelServers });

  async function stop(): Promise<void> {
    if (ended) return;
    stopped = true;
    if (programs.size > 0) {
      say({ type: 'cancel' });
      let timer: NodeJS.Timeout | undefined;
      const grace = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, programGraceMs);
      });
      const gone = new Promise<void>((resolve) => {
        const check = setInterval(() => {
          if (programs.size > 0) return;
          clearInterval(check);
          resolve();
        }, 20);
        void grace.then(() => clearInterval(check));
      });
      await Promise.race([grace, gone, exit]);
      clearTimeout(timer);
    }
    kill(child);
    await exit;
  }

  const why = (): TomaatError => deathOf(ended, lastWords, limit);

  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => {
      kill(child);
      reject(
        new TomaatError(
          'TIMEOUT',
          `The app ${app.manifest.id} did not start within ${startLimitMs / 1000} s.`,
        ),
      );
    }, startLimitMs);
    const settle = (run: () => void) => {
      clearTimeout(timer);
      onMessage = undefined;
      onDeath = undefined;
      run();
    };
    onMessage = (message) => {
      if (message.type === 'ready') settle(resolve);
      else if (message.type === 'failed') {
        kill(child);
        settle(() => reject(TomaatError.from(message.error)));
      }
    };
    onDeath = () => settle(() => reject(why()));
  });

  return {
    app,
    device,
    pid: child.pid!,
    programs,
    get alive() {
      return !ended && !stopped;
    },
    stop,
    predict(message, { onProgress, onLog, signal }) {
      return new Promise((resolve, reject) => {
        const startedMs = performance.now();
        const finish = (run: () => void) => {
          onMessage = undefined;
          onDeath = undefined;
          signal.removeEventListener('abort', abort);
          run();
        };
        const abort = () => {
          const reason = signal.reason;
          void stop().then(() => finish(() => reject(reason)));
        };
        onMessage = (reply) => {
          // After an abort its reason is the result, whatever a program that was stopped says.
          if (signal.aborted || !('job' in reply) || reply.job !== message.job) return;
          if (reply.type === 'progress') onProgress(reply.stage, reply.fraction);
          else if (reply.type === 'log') onLog(reply.text);
          else if (reply.type === 'failed') {
            const revive = reply.bySignal ? EndedBySignal : TomaatError;
            finish(() => reject(revive.from(reply.error as ErrorData)));
          } else if (reply.type === 'done') {
            const { outputs, traces, times, rewrites, empty } = reply;
            finish(() =>
              resolve({
                outputs,
                traces,
                times,
                rewrites,
                empty,
                seconds: (performance.now() - startedMs) / 1000,
              }),
            );
          }
        };
        // Output of earlier predictions does not explain how this one ends.
        if (!ended) lastWords = '';
        if (signal.aborted) return finish(() => reject(signal.reason));
        if (ended) return finish(() => reject(why()));
        signal.addEventListener('abort', abort, { once: true });
        onDeath = () => {
          if (!signal.aborted) finish(() => reject(why()));
        };
        say(message);
      });
    },
  };
}

/** Why a child ended that nobody stopped, in words for the caller who waits for its job. */
function deathOf(
  ended: { code: number | null; signal: NodeJS.Signals | null } | undefined,
  lastWords: string,
  limit: MemoryLimit | undefined,
): TomaatError {
  // Under `ulimit -d` V8 aborts by itself; the kernel's OOM killer sends SIGKILL.
  if (
    ended?.signal === 'SIGKILL' ||
    /out of memory|bad_alloc|Cannot allocate memory|ENOMEM/i.test(lastWords)
  ) {
    return outOfMemory(limit);
  }
  const how = ended?.signal ? `was ended by ${ended.signal}` : `ended with exit code ${ended?.code}`;
  const ErrorClass = stopSignalOf(ended?.code ?? null, ended?.signal ?? null) ? EndedBySignal : TomaatError;
  return new ErrorClass(
    'WORKER_DIED',
    `The process that computed the prediction ${how}. Other jobs are not affected. Try again, and report it to the app’s author if it recurs.`,
  );
}

function kill(child: ChildProcess): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  if (!killGroup(child.pid, 'SIGKILL')) child.kill('SIGKILL');
}

function killGroup(pid: number, signal: NodeJS.Signals): boolean {
  try {
    process.kill(-pid, signal);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ESRCH' && code !== 'EPERM' && code !== 'EINVAL') throw error;
    return false;
  }
}
