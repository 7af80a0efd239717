import { createInterface } from 'node:readline/promises';
import { Writable } from 'node:stream';
import { TomaatError } from '@tomaat/core';
import { plainLines } from './console.ts';
import type { Ask } from './init-questions.ts';

/** Whether somebody can be asked. */
export const hasTerminal = (): boolean => Boolean(process.stdin.isTTY && process.stderr.isTTY);

/**
 * Questions on the terminal; undefined if there is none. Ctrl-C is a SIGINT of the process, as without questions; `ask` throws the
 * reason of the signal, or BAD_INPUT where the input ends (Ctrl-D).
 */
export function openTerminal(signal: AbortSignal): { ask: Ask; [Symbol.dispose](): void } | undefined {
  if (!hasTerminal()) return undefined;
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  lines.on('SIGINT', () => process.kill(process.pid, 'SIGINT'));
  const closed = new Promise<never>((_, reject) => {
    lines.once('close', () =>
      reject(
        new TomaatError(
          'BAD_INPUT',
          'The questions were not answered. Answer them, or give the flags of --help.',
        ),
      ),
    );
  });
  closed.catch(() => {});
  return {
    async ask(question) {
      try {
        return await Promise.race([lines.question(plainLines(question), { signal }), closed]);
      } catch (error) {
        signal.throwIfAborted();
        throw error;
      }
    },
    [Symbol.dispose]: () => lines.close(),
  };
}

/** Asks for a yes on the terminal; without a terminal the answer is no. */
export async function askOnTerminal(question: string): Promise<boolean> {
  if (!hasTerminal()) return false;
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return /^y(es)?$/i.test((await lines.question(question)).trim());
  } finally {
    lines.close();
  }
}

/** Asks for a secret, which is not shown while it is typed. Ctrl-C is a SIGINT of the process. */
export async function askSecret(question: string): Promise<string> {
  process.stderr.write(question);
  const hidden = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({ input: process.stdin, output: hidden, terminal: true });
  lines.on('SIGINT', () => process.kill(process.pid, 'SIGINT'));
  try {
    return await lines.question('');
  } finally {
    lines.close();
    process.stderr.write('\n');
  }
}
