import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import { writeApp } from './app-fixture.ts';

/* Apps with a program in Node that is kept between predictions. */

export const outputs = { report: { type: 'PlainText' } };
export const inputs = {
  volume: { type: 'volume' },
  say: { type: 'radiobutton', options: ['a', 'b'], default: 'a' },
};
let made = 0;
export const nextName = () => `warm-${made++}`;

/**
 * An app whose program is Node code: `start` runs once, `serve` for each request, with `request` and its parsed `parameters`.
 * `answer()` answers it, `finish()` writes a report first.
 */
export async function nodeApp(
  work: string,
  serve: string,
  { start = '', id = nextName(), ...more }: { start?: string; id?: string; [key: string]: unknown } = {},
) {
  const folder = await writeApp(work, id, {
    inputs,
    outputs,
    model: { runtime: 'command', command: [process.execPath, 'program.mjs', 'first'], serve: true },
    ...more,
  });
  const code = `import { closeSync, readdirSync, readFileSync, writeFileSync, existsSync } from 'node:fs';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
const say = (line) => process.stdout.write((typeof line === 'string' ? line : JSON.stringify(line)) + '\\n');
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
let count = 0;
${start}
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  const parameters = JSON.parse(readFileSync(request.params, 'utf8'));
  const answer = (more = { ok: true }) => say({ id: request.id, ...more });
  const report = (text) => writeFileSync(request.output + '/report.txt', text);
  const finish = (text = '') => { report(process.pid + ' ' + text); answer(); };
  count++;
  ${serve}
}
`;
  await writeFile(join(folder, 'program.mjs'), code);
  return folder;
}

/** Whether a process runs; one that has ended and waits for its parent does not. */
export const isAlive = async (pid: number): Promise<boolean> => {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  return !/\) [ZX] /.test(stat);
};
export const isGone = (pid: number) => expect.poll(() => isAlive(pid), { timeout: 20_000 }).toBe(false);
