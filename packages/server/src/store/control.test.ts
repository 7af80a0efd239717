import { existsSync, utimesSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { answerRequests, type ControlHandlers, doAsHolder } from './control.ts';
import { type FolderLock, lockDataFolder } from './database/database.ts';

let folder: string;
let held: FolderLock | undefined;
let faults: unknown[];
const control = () => join(folder, 'control');
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-control-'));
  faults = [];
});
afterEach(async () => {
  vi.useRealTimers();
  vi.restoreAllMocks();
  held?.release();
  held = undefined;
  await rm(folder, { recursive: true, force: true });
});

const rotate = { type: 'rotateAudit' } as const;
const never = () => Promise.reject(new Error('done by the wrong process'));
const handlers = (more: Partial<ControlHandlers> = {}): ControlHandlers => ({
  rotateAudit: never,
  eraseOwner: never,
  ...more,
});
const answering = (more: Partial<ControlHandlers>) =>
  answerRequests(folder, handlers(more), (error) => faults.push(error));
/** Names of the files of requests, without their ids. */
const files = async () =>
  existsSync(control())
    ? (await readdir(control())).map((name) => name.slice(name.indexOf('.') + 1)).sort()
    : [];

describe('doAsHolder()', () => {
  it('does the work itself in an unlocked folder, and locks it meanwhile', async () => {
    const answer = await doAsHolder(folder, rotate, async () => {
      expect(() => lockDataFolder(folder)).toThrow('in use');
      return { closed: 'x' };
    });
    expect(answer).toEqual({ closed: 'x' });
    lockDataFolder(folder).release();
    await expect(doAsHolder(folder, rotate, () => Promise.reject(new Error('no')))).rejects.toThrow('no');
    lockDataFolder(folder).release();
    expect(existsSync(control())).toBe(false);
  });

  it('refuses a missing folder, and creates none', async () => {
    const none = join(folder, 'none');
    await expect(doAsHolder(none, rotate, never)).rejects.toMatchObject({
      code: 'NOT_FOUND',
      message: expect.stringContaining(none),
    });
    expect(existsSync(none)).toBe(false);
    // Why it cannot be held is another matter than who holds it.
    await mkdir(join(folder, 'lock.db'));
    await expect(doAsHolder(folder, rotate, never)).rejects.toMatchObject({ code: 'INTERNAL' });
  });

  it('asks the holder, and returns its answer or error', async () => {
    held = lockDataFolder(folder);
    const asked: object[] = [];
    const internal = new Error('a secret path');
    await using _answers = answering({
      async rotateAudit(request) {
        asked.push(request);
        return { closed: 'audit-1.jsonl' };
      },
      async eraseOwner({ owner }) {
        if (owner === 'a') return { jobs: 1, uploads: 2 };
        throw owner === 'b' ? new TomaatError('CONFLICT', 'Not now.', { field: 'owner' }) : internal;
      },
    });
    const erase = (owner: string) => doAsHolder(folder, { type: 'eraseOwner', owner }, never);
    const answers = await Promise.allSettled([
      doAsHolder(folder, rotate, never),
      erase('a'),
      erase('b'),
      erase('c'),
      doAsHolder(folder, { type: 'toString' } as never, never),
    ]);
    expect(answers).toMatchObject([
      { value: { closed: 'audit-1.jsonl' } },
      { value: { jobs: 1, uploads: 2 } },
      { reason: { code: 'CONFLICT', message: 'Not now.', field: 'owner' } },
      { reason: { code: 'INTERNAL', message: expect.not.stringContaining('secret') } },
      { reason: { code: 'BAD_REQUEST', message: expect.stringContaining('Restart it') } },
    ]);
    expect((answers[1] as { value: object }).value).toEqual({ jobs: 1, uploads: 2 });
    expect(asked).toEqual([rotate]);
    expect(faults).toHaveLength(3);
    expect(faults).toContain(internal);
    await expect.poll(files).toEqual([]);
    if (process.platform !== 'win32') expect((await stat(control())).mode & 0o777).toBe(0o700);
  });

  it('does the work itself when the holder ends before it answers', async () => {
    held = lockDataFolder(folder);
    const answer = doAsHolder(folder, rotate, async () => ({ closed: 'by the command' }));
    await expect.poll(files).toEqual(['request.json']);
    held.release();
    expect(await answer).toEqual({ closed: 'by the command' });
    expect(await files()).toEqual([]);
  });

  it('goes by the lock where the number of the holder says nothing', async () => {
    held = lockDataFolder(folder);
    // Of a process that ended, or of another container.
    await writeFile(join(folder, 'lock.pid'), '999999999');
    const answer = doAsHolder(folder, rotate, never);
    await expect.poll(files).toEqual(['request.json']);
    const [name] = await readdir(control());
    expect(JSON.parse(await readFile(join(control(), name), 'utf8'))).toEqual(rotate);
    await new Promise((resolve) => setTimeout(resolve, 120));
    await writeFile(join(control(), name.replace('request', 'answer')), '{"closed":"x"}');
    expect(await answer).toEqual({ closed: 'x' });
  });

  it('gives up after 15 s if the holder ignores the request', async () => {
    held = lockDataFolder(folder);
    let passedMs = 0;
    vi.spyOn(performance, 'now').mockImplementation(() => 5000 + passedMs);
    let isOver = false;
    const answer = doAsHolder(folder, rotate, never).finally(() => {
      isOver = true;
    });
    const refused = expect(answer).rejects.toMatchObject({
      code: 'BUSY',
      message: expect.stringContaining(folder),
    });
    await expect.poll(files).toEqual(['request.json']);
    passedMs = 14_999;
    await new Promise((resolve) => setTimeout(resolve, 150));
    expect(isOver).toBe(false);
    passedMs = 15_000;
    await refused;
    expect(await files()).toEqual([]);
  });

  it('waits for as long as it takes once the request was taken', async () => {
    held = lockDataFolder(folder);
    let passedMs = 0;
    vi.spyOn(performance, 'now').mockImplementation(() => 5000 + passedMs);
    const answer = doAsHolder(folder, rotate, never);
    await expect.poll(files).toEqual(['request.json']);
    const path = join(control(), (await readdir(control()))[0]);
    await rename(path, path.replace('request', 'taken'));
    passedMs = 100_000;
    await new Promise((resolve) => setTimeout(resolve, 120));
    await writeFile(path.replace('request', 'answer'), '{}');
    expect(await answer).toEqual({});
    expect(await files()).toEqual([]);
  });
});

describe('answerRequests()', () => {
  const look = async (passMs: number) => {
    await vi.advanceTimersByTimeAsync(passMs);
  };
  const put = (name: string, text: string) => writeFile(join(control(), name), text);

  it('looks every half second, until it is disposed of', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    const rotations: string[] = [];
    const answers = answering({
      async rotateAudit() {
        rotations.push('');
        return {};
      },
    });
    // Without a folder of requests there is nothing to do.
    await look(500);
    await mkdir(control());
    await put('a.request.json', JSON.stringify(rotate));
    await look(499);
    expect(await files()).toEqual(['request.json']);
    await look(1);
    await expect.poll(files).toEqual(['answer.json']);
    expect(await readFile(join(control(), 'a.answer.json'), 'utf8')).toBe('{}');
    await answers[Symbol.asyncDispose]();
    await put('b.request.json', JSON.stringify(rotate));
    await look(5000);
    expect((await files()).filter((name) => name === 'request.json')).toHaveLength(1);
    expect(rotations).toHaveLength(1);
    expect(faults).toEqual([]);
  });

  it('answers unreadable requests, and continues with the next', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    const answers = answering({ rotateAudit: async () => ({ closed: 'x' }) });
    await mkdir(control());
    await put('a.request.json', 'half of');
    await put('b.request.json', JSON.stringify(rotate));
    await look(500);
    await answers[Symbol.asyncDispose]();
    expect(JSON.parse(await readFile(join(control(), 'a.answer.json'), 'utf8'))).toMatchObject({
      error: { code: 'INTERNAL' },
    });
    expect(await readFile(join(control(), 'b.answer.json'), 'utf8')).toBe('{"closed":"x"}');
    expect(faults).toMatchObject([expect.any(SyntaxError)]);
  });

  it('removes after ten minutes what a command left', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    const nowMs = 1_700_000_000_000;
    vi.spyOn(Date, 'now').mockReturnValue(nowMs);
    await mkdir(control());
    for (const [name, ageMs] of [
      ['new.answer.json', 600_000],
      ['old.answer.json', 601_000],
      ['old.taken.json', 601_000],
    ] as const) {
      await put(name, '{}');
      utimesSync(join(control(), name), (nowMs - ageMs) / 1000, (nowMs - ageMs) / 1000);
    }
    const answers = answering({});
    await look(500);
    await answers[Symbol.asyncDispose]();
    expect(await readdir(control())).toEqual(['new.answer.json']);
    expect(faults).toEqual([]);
  });

  it('reports why it cannot look, each time', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    await writeFile(control(), 'a file');
    const answers = answering({});
    await look(1000);
    await answers[Symbol.asyncDispose]();
    expect(faults.map((error) => (error as NodeJS.ErrnoException).code)).toEqual(['ENOTDIR', 'ENOTDIR']);
  });
});
