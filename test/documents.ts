import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Runs what the documents say, against a server that `npm start` starts. */

export const repository = fileURLToPath(new URL('..', import.meta.url));
export const readText = (file: string): string => readFileSync(join(repository, file), 'utf8');

export interface CodeBlock {
  /** The word after the three backticks. */
  language: string;
  text: string;
  line: number;
}

/** The fenced blocks of a page, in their order. */
export function codeBlocks(markdown: string): CodeBlock[] {
  return [...markdown.matchAll(/^( *)```(\S*).*\n([\s\S]*?)^ *```$/gm)].map((match) => ({
    language: match[2],
    text: match[3].replaceAll(new RegExp(`^${match[1]}`, 'gm'), ''),
    line: markdown.slice(0, match.index).split('\n').length,
  }));
}

/** The files that a page shows, by name: blocks after a line that ends with the name. A second block of a name goes on the first. */
export function shownFiles(markdown: string): Map<string, string[]> {
  const files = new Map<string, string[]>();
  for (const [, name, text] of markdown.matchAll(/`([\w.-]+)`:\n\n```\w+\n([\s\S]*?)^```$/gm))
    files.set(name, [...(files.get(name) ?? []), text]);
  return files;
}

/** A folder that has what a reader's has who stands in the clone: the apps, and the installed packages. */
export async function readerFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-reader-'));
  for (const name of ['apps', 'examples', 'node_modules']) {
    if (existsSync(join(repository, name))) await symlink(join(repository, name), join(folder, name));
  }
  return folder;
}

export interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface Running extends AsyncDisposable {
  readonly output: { stdout: string; stderr: string };
  /** Resolves when stdout matches; rejects with all output when the program ends before, or in time. */
  until(pattern: RegExp, limitMs?: number): Promise<RegExpExecArray>;
  ended: Promise<Ended>;
}

/** Starts a program in a process group of its own, which ends with it. */
export function start(
  command: string,
  args: readonly string[],
  options: { cwd: string; env?: NodeJS.ProcessEnv; input?: string },
): Running {
  const child = spawn(command, args, {
    cwd: options.cwd,
    env: { ...process.env, NO_COLOR: '1', ...options.env, NODE_OPTIONS: '' },
    detached: true,
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const output = { stdout: '', stderr: '' };
  const listeners = new Set<() => void>();
  const changed = () => {
    for (const listener of listeners) listener();
  };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      output[name] += text;
      changed();
    });
  }
  child.stdin.on('error', () => {});
  child.stdin.end(options.input ?? '');
  let code: number | null | undefined;
  const ended = new Promise<Ended>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status) => {
      code = status;
      changed();
      resolve({ code: status, ...output });
    });
  });
  const signal = (name: NodeJS.Signals) => {
    try {
      process.kill(-child.pid!, name);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  };
  return {
    output,
    ended,
    until(pattern, limitMs = 30_000) {
      return new Promise((resolve, reject) => {
        const finish = (run: () => void) => {
          clearTimeout(timer);
          listeners.delete(look);
          run();
        };
        const fail = (why: string) =>
          finish(() => reject(new Error(`${why}: ${pattern}\n${output.stdout}\n${output.stderr}`)));
        const timer = setTimeout(() => fail('not said in time'), limitMs);
        const look = () => {
          const match = pattern.exec(output.stdout);
          if (match) finish(() => resolve(match));
          else if (code !== undefined) fail(`it ended with ${code} and did not say`);
        };
        listeners.add(look);
        look();
      });
    },
    async [Symbol.asyncDispose]() {
      signal('SIGTERM');
      const grace = setTimeout(() => signal('SIGKILL'), 15_000);
      await ended;
      clearTimeout(grace);
    },
  };
}

export interface Stand extends AsyncDisposable {
  server: string;
  serverTls: string;
  registry: string;
  data: string;
  /** Where the reader stands. */
  folder: string;
  /** The PATH of the reader. */
  path: string;
  /** Milliseconds from the command to the addresses on stdout and a server that is ready. */
  readyMs: number;
  /** What `npm start` printed. */
  running: Running;
  /** A text with the addresses of the documents replaced by those of this server. */
  localize(text: string): string;
  /** Runs a command line, or Python code, as the reader would. */
  shell(line: string): Promise<Ended>;
  python(code: string): Promise<Ended>;
}

/** The sources of tomaat-client, without traces of their use. */
const clientForPython = { PYTHONPATH: join(repository, 'python/src'), PYTHONDONTWRITEBYTECODE: '1' };

/** Makes an `npx` that starts what this repository has, in a folder. npm’s takes longer for that than most commands for their work. */
async function makeQuickNpx(folder: string): Promise<void> {
  await mkdir(folder);
  const script = `#!/bin/sh\nPATH='${join(repository, 'node_modules/.bin')}':"$PATH"\nexec "$@"\n`;
  await writeFile(join(folder, 'npx'), script, { mode: 0o755 });
}

/**
 * `npm start` on free ports with a data folder of its own, and a folder for the reader.
 *
 * @param options.quickNpx for many lines: `npx` is not npm’s
 */
export async function startStand(options: { quickNpx?: boolean } = {}): Promise<Stand> {
  const folder = await readerFolder();
  const npx = join(folder, '.npx');
  if (options.quickNpx) await makeQuickNpx(npx);
  const PATH = `${npx}${delimiter}${process.env.PATH}`;
  const data = await mkdtemp(join(tmpdir(), 'tomaat-data-'));
  const startedMs = performance.now();
  const ports = ['--port', '0', '--tls-port', '0', '--registry-port', '0'];
  const running = start('npm', ['start', '--', ...ports, '--data', data], { cwd: repository });
  const [, server, serverTls] = await running.until(/^Server {2,}(http:\S+) +(https:\S+)$/m);
  const [, registry] = await running.until(/^Registry {2,}(http:\S+)$/m);
  const ready = await fetch(`${server}/health/ready`);
  if (!ready.ok) throw new Error(`not ready: ${ready.status}`);
  await ready.arrayBuffer();
  const readyMs = performance.now() - startedMs;
  const env = { PATH, TOMAAT_REGISTRY: registry, TOMAAT_DATA: data };
  const localize = (text: string) =>
    text
      .replaceAll('http://127.0.0.1:9000', server)
      .replaceAll('https://127.0.0.1:9443', serverTls)
      .replaceAll('http://127.0.0.1:8001', registry);
  return {
    server,
    serverTls,
    registry,
    data,
    folder,
    path: PATH,
    readyMs,
    running,
    localize,
    shell: (line) => start('sh', ['-ec', localize(line)], { cwd: folder, env }).ended,
    python: (code) =>
      start('python3', ['-'], { cwd: folder, env: { ...env, ...clientForPython }, input: localize(code) })
        .ended,
    async [Symbol.asyncDispose]() {
      await running[Symbol.asyncDispose]();
      await rm(folder, { recursive: true, force: true });
      await rm(data, { recursive: true, force: true });
    },
  };
}

/** Starts a `tomaat serve …` line on free ports, waits until it is ready, looks at it, and ends it. */
export async function tryServing(
  line: string,
  stand: Stand,
  look: (url: string) => Promise<void> = async () => {},
): Promise<string> {
  const command = `${stand.localize(line)} --port 0 --tls-port 0`.replace('npx tomaat', 'exec npx tomaat');
  await using serving = start('sh', ['-ec', command], { cwd: stand.folder, env: { PATH: stand.path } });
  const [, url] = await serving.until(/^Server {2,}(http:\S+)/m);
  const ready = await fetch(`${url}/health/ready`);
  if (!ready.ok) throw new Error(`${line}: not ready, ${ready.status}`);
  await look(url);
  return await ready.text();
}
