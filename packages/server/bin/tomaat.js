#!/usr/bin/env node
// Starts the command line under a Node that is new enough: this one, or the one that is installed as a dependency.
// Plain JavaScript that an old Node can read.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import nodeModule, { createRequire } from 'node:module';
import { constants, homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const oldestMajor = 24;

const here = dirname(fileURLToPath(import.meta.url));
const sources = join(here, '..', 'src', 'main.ts');
// TypeScript runs unbuilt in the workspace, but not in an installed package: there it is built.
const fromSources = existsSync(sources);
const main = fromSources ? sources : join(here, '..', 'dist', 'main.js');
const node = isNewEnough() ? process.execPath : pinnedNode();

// Every command and every child starts in half the time when Node finds its code compiled. What is inherited by
// environment reaches the children, too.
process.env.NODE_COMPILE_CACHE ??= codeCacheFolder();

if (!fromSources && node === process.execPath) {
  if (process.env.NODE_COMPILE_CACHE) nodeModule.enableCompileCache?.(process.env.NODE_COMPILE_CACHE);
  await import(pathToFileURL(main).href);
} else {
  const flags = fromSources ? ['--conditions=tomaat-source'] : [];
  const args = [...process.execArgv, ...flags, main, ...process.argv.slice(2)];
  if (process.platform !== 'win32' && typeof process.execve === 'function') {
    // The same process goes on: its id, its terminal and its signals stay.
    process.execve(node, [node, ...args], process.env);
  } else {
    start(node, args);
  }
}

/** A folder that only this user may write to, for Node runs what lies there; empty (no cache) where there is none. */
function codeCacheFolder() {
  try {
    const { LOCALAPPDATA, XDG_CACHE_HOME } = process.env;
    const caches =
      process.platform === 'win32'
        ? (LOCALAPPDATA ?? join(homedir(), 'AppData', 'Local'))
        : process.platform === 'darwin'
          ? join(homedir(), 'Library', 'Caches')
          : (XDG_CACHE_HOME ?? join(homedir(), '.cache'));
    const folder = join(caches, 'tomaat', 'code');
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    return folder;
  } catch {
    return '';
  }
}

function isNewEnough() {
  return Number(process.versions.node.split('.')[0]) >= oldestMajor;
}

function pinnedNode() {
  const system = process.platform === 'win32' ? 'win' : process.platform;
  const name = `node-${system}-${process.arch}`;
  try {
    const folder = dirname(createRequire(import.meta.url).resolve(`${name}/package.json`));
    const file = join(folder, 'bin', process.platform === 'win32' ? 'node.exe' : 'node');
    if (existsSync(file)) return file;
  } catch {
    // Said below.
  }
  console.error(
    `tomaat needs Node ${oldestMajor} or newer, and this is ${process.version}.\n` +
      `The package ${name}, which would bring it, is not installed: install without --omit=optional, or update Node.`,
  );
  process.exit(1);
}

function start(file, args) {
  const child = spawn(file, args, { stdio: 'inherit' });
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGCONT'];
  for (const signal of process.platform === 'win32' ? ['SIGINT', 'SIGTERM'] : signals) {
    process.on(signal, () => child.kill(signal));
  }
  child.on('error', (error) => {
    console.error(`tomaat cannot start ${file}: ${error.message}`);
    process.exit(1);
  });
  child.on('exit', (code, signal) => {
    if (signal === null) process.exit(code ?? 1);
    // End as the child did, so that a shell sees the same.
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
    setTimeout(() => process.exit(128 + (constants.signals[signal] ?? 0)), 100);
  });
}
