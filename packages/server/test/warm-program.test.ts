import { existsSync } from 'node:fs';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type ErrorCode, TomaatError } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findPython } from '../../../test/programs.ts';
import { type LocalApp, type LocalPrediction, type LocalPredictOptions, openApp } from '../src/local-app.ts';
import { writeApp } from './app-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { temporaryFolder } from './test-server.ts';
import { inputs, isAlive, isGone, nextName, nodeApp, outputs } from './warm-fixture.ts';

/* Programs that are kept between predictions, with every way to fall out of step that a program has. */

let work: string;
let scan: Uint8Array;
beforeAll(async () => {
  work = await temporaryFolder();
  scan = await encode(phantom(), 'nii.gz');
});
afterAll(() => rm(work, { recursive: true, force: true }));

interface Said {
  text: string;
  log: string[];
  progress: number[];
}

async function predict(app: LocalApp, options: Partial<LocalPredictOptions> = {}): Promise<Said> {
  const said: Said = { text: '', log: [], progress: [] };
  const result: LocalPrediction = await app.predict({
    volumes: { volume: { name: 'scan.nii.gz', bytes: scan } },
    onLog: (text) => said.log.push(text),
    onProgress: (stage, fraction) => {
      if (stage === 'infer') said.progress.push(fraction);
    },
    ...options,
  });
  said.text = await result.output().text();
  return said;
}

async function failure(
  app: LocalApp,
  code: ErrorCode,
  options: Partial<LocalPredictOptions> = {},
): Promise<string> {
  const error = await predict(app, options).then(
    () => new Error('it did not fail'),
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(TomaatError);
  expect((error as TomaatError).code, (error as TomaatError).message).toBe(code);
  return (error as TomaatError).message;
}

const pidOf = ({ text }: Said): number => Number(text.split(' ')[0]);
describe('a program with serve: true', () => {
  it('answers fifty predictions in one process, each with its own folders', async () => {
    const folder = await nodeApp(
      work,
      `if (count % 10 === 0) { say({ fraction: 0.25, stage: 'half way' }); await sleep(150); say({ fraction: 0.75 }); await sleep(150); }
      const { input, output, params, id } = request;
      finish(JSON.stringify({ count, id, files: readdirSync(input), left: readdirSync(output), parameters, argv: process.argv.slice(2),
        env: Object.keys(process.env).filter((name) => name.startsWith('TOMAAT_')), cwd: process.cwd() }));`,
      { start: `say({ ready: true }); say('loaded');` },
    );
    await using app = await openApp(folder);
    const pids = new Set<number>();
    for (let i = 1; i <= 50; i++) {
      const level = i % 3 === 0 ? 'b' : 'a';
      const said = await predict(app, { values: { say: level } });
      pids.add(pidOf(said));
      const seen = JSON.parse(said.text.slice(said.text.indexOf('{')));
      expect(seen).toMatchObject({
        count: i,
        id: i,
        files: ['volume.nii.gz'],
        left: [],
        parameters: { say: level },
        argv: ['first'],
        env: ['TOMAAT_SERVE'],
        cwd: folder,
      });
      if (i === 1) expect(said.log).toEqual(['loaded']);
      if (i === 10) {
        expect(said.log).toContain('half way');
        expect(said.progress.map((v) => v.toFixed(2))).toEqual(expect.arrayContaining(['0.30', '0.70']));
      }
    }
    expect(pids.size).toBe(1);
    await app.close();
    await isGone([...pids][0]);
  });

  it('says whose fault an error is, and goes on', async () => {
    const folder = await nodeApp(
      work,
      `
      if (count === 2) answer({ error: ' Turn the patient round. ', fault: 'input' });
      else if (count === 3) answer({ error: 'CUDA error', fault: 'app' });
      else if (count === 4) answer({ error: 'x'.repeat(5000) });
      else if (count === 5) answer({ error: '' });
      else if (count === 6) answer({ ok: true });
      else finish();`,
    );
    await using app = await openApp(folder);
    const pid = pidOf(await predict(app));
    expect(await failure(app, 'BAD_INPUT')).toBe('Turn the patient round.');
    expect(await failure(app, 'APP_FAILED')).toBe('The app’s program failed: CUDA error');
    expect((await failure(app, 'APP_FAILED')).length).toBeLessThan(600);
    expect(await failure(app, 'APP_FAILED')).toContain('without giving a reason');
    expect(await failure(app, 'APP_OUTPUT')).toContain('nothing for its output report');
    expect(pidOf(await predict(app))).toBe(pid);
  });

  it.each([
    ['another id', `say({ id: request.id + 1, ok: true })`, 'answered request 2 instead of 1'],
    [
      'an id that is a text',
      `say({ id: String(request.id), ok: true })`,
      'answered request "1" instead of 1',
    ],
    ['no verdict', `say({ id: request.id })`, 'neither "ok": true nor an "error"'],
    ['ok that is false', `answer({ ok: false })`, 'neither "ok": true nor an "error"'],
    ['half a line', `say('{"id": 1, "ok": tr')`, 'not one line of JSON: {"id": 1, "ok": tr'],
    ['a line too long', `answer({ error: 'x'.repeat(100_000) })`, 'not one line of JSON'],
    ['no line, and closes stdout', `closeSync(1); await sleep(60_000)`, 'closed its stdin or stdout'],
    ['no line, and ends', `process.exit(0)`, 'ended without an answer. With serve: true'],
  ])('that answers with %s fails, and the next prediction starts a new one', async (_, wrong, message) => {
    const folder = await nodeApp(
      work,
      `if (existsSync('second')) finish('right'); else { writeFileSync('second', ''); ${wrong} }`,
    );
    await using app = await openApp(folder);
    expect(await failure(app, 'APP_FAILED')).toContain(message);
    expect((await predict(app)).text).toContain('right');
  });

  it('that answers twice is replaced, and no prediction gets the wrong answer', async () => {
    const folder = await nodeApp(
      work,
      `report(String(process.pid)); process.stdout.write(JSON.stringify({ id: request.id, ok: true }) + '\\n'.repeat(2) + JSON.stringify({ id: request.id, ok: true }) + '\\n');`,
    );
    await using app = await openApp(folder);
    const first = await predict(app);
    const second = await predict(app);
    expect(second.log.join()).toContain('started again: it answered request 1 while no request was running');
    expect(pidOf(second)).not.toBe(pidOf(first));
    await isGone(pidOf(first));
  });

  it('that crashes fails the prediction that runs, and starts again', async () => {
    const folder = await nodeApp(
      work,
      `if (count === 2) { say('working'); process.stderr.write('Traceback\\nno GPU\\n'); await sleep(50); ${'process.exit(3)'}; }
       if (parameters.say === 'b') { say('working'); process.kill(process.pid, 'SIGKILL'); await sleep(60_000); }
       finish();`,
    );
    await using app = await openApp(folder);
    const first = pidOf(await predict(app));
    expect(await failure(app, 'APP_FAILED')).toBe('The app’s program ended with exit code 3: no GPU');
    expect(await failure(app, 'OUT_OF_MEMORY', { values: { say: 'b' } })).toContain('memory');
    expect(pidOf(await predict(app))).not.toBe(first);
  });

  it('that refuses its input by exit code 2 does so once', async () => {
    const folder = await nodeApp(
      work,
      `if (count === 2) { process.stderr.write('Too dark.\\n'); process.exit(2); } finish();`,
      {
        start: `writeFileSync('starts', (existsSync('starts') ? readFileSync('starts', 'utf8') : '') + 'x');`,
      },
    );
    await using app = await openApp(folder);
    await predict(app);
    expect(await failure(app, 'BAD_INPUT')).toBe('Too dark.');
    expect(await readFile(join(folder, 'starts'), 'utf8')).toBe('x');
  });

  it('that ends between two predictions is started again by the next, which does not fail', async () => {
    // It takes the second request while it is ending, and says nothing more.
    const folder = await nodeApp(
      work,
      `if (count === 2) process.exit(1); finish(); if (parameters.say === 'b') process.exit(0);`,
    );
    await using app = await openApp(folder);
    const pids = [await predict(app), await predict(app), await predict(app, { values: { say: 'b' } })].map(
      pidOf,
    );
    pids.push(pidOf(await predict(app)));
    expect(new Set(pids).size).toBe(4);
  });

  it('may print without end and without sense, also while it has nothing to do', async () => {
    const folder = await nodeApp(
      work,
      `for (let i = 0; i < 30_000; i++) say('line');
       process.stdout.write('x'.repeat(3_000_000)); say(''); process.stderr.write('y'.repeat(3_000_000)); process.stderr.write('\\n');
       say({ fraction: 7 }); say('{'); say({}); say('null'); finish();
       if (count === 1) for (let i = 0; i < 30_000; i++) say(i % 2 ? 'idle' : { fraction: 0.5 });`,
    );
    await using app = await openApp(folder);
    const said = await predict(app);
    expect(said.log.length).toBeLessThan(10_100);
    expect(Math.max(...said.log.map((line) => line.length))).toBeLessThanOrEqual(2000);
    expect(said.log.some((line) => line.includes('the rest is omitted'))).toBe(true);
    expect(pidOf(await predict(app))).toBe(pidOf(said));
  });
});

describe('the end of a program with serve: true', () => {
  const cancelAt = (line: string) => {
    const cancel = new AbortController();
    const log: string[] = [];
    return {
      log,
      signal: cancel.signal,
      onLog: (text: string) => {
        log.push(text);
        if (text === line) cancel.abort(new TomaatError('CANCELED', 'The job was cancelled.'));
      },
    };
  };
  const numbersIn = (log: readonly string[]) =>
    log.flatMap((line) => /^pid (\d+)$/.exec(line)?.[1] ?? []).map(Number);

  it('comes by SIGTERM on cancel; an answer that comes then is not used', async () => {
    const folder = await nodeApp(
      work,
      `if (parameters.say === 'a') { finish(); continue; }
       process.on('SIGTERM', () => { finish('late'); writeFileSync('cleaned-up', ''); setTimeout(() => process.exit(0), 100); });
       say('pid ' + process.pid); say('running'); await sleep(60_000);`,
    );
    await using app = await openApp(folder);
    const first = pidOf(await predict(app));
    const cancel = cancelAt('running');
    await failure(app, 'CANCELED', { values: { say: 'b' }, ...cancel });
    expect(numbersIn(cancel.log)).toEqual([first]);
    await expect.poll(() => existsSync(join(folder, 'cleaned-up')), { timeout: 20_000 }).toBe(true);
    expect(pidOf(await predict(app))).not.toBe(first);
    await isGone(first);
  });

  it('comes by SIGKILL, for all that it started, if it ignores SIGTERM', async () => {
    const folder = await nodeApp(
      work,
      `const { pid } = spawn('sleep', ['300']); say('pid ' + pid); say('pid ' + process.pid); say('running'); await sleep(60_000);`,
      { start: `process.on('SIGTERM', () => say('no'));` },
    );
    await using app = await openApp(folder);
    const cancel = cancelAt('running');
    await failure(app, 'CANCELED', cancel);
    const pids = numbersIn(cancel.log);
    expect(pids).toHaveLength(2);
    for (const pid of pids) await isGone(pid);
  });

  it('comes at the time limit, which counts its start', async () => {
    const slow = await nodeApp(work, `finish();`, { start: `await sleep(60_000);`, limits: { seconds: 2 } });
    await using app = await openApp(slow);
    expect(await failure(app, 'TIMEOUT')).toContain('2 s');
  });

  it('comes when the app is closed, while it has nothing to do, for all that it started', async () => {
    const folder = await nodeApp(work, `finish(String(other.pid));`, {
      start: `const other = spawn('sleep', ['300'], { stdio: 'inherit' }); process.on('SIGTERM', () => {});`,
    });
    const app = await openApp(folder);
    const pids = (await predict(app)).text.split(' ').map(Number);
    expect(pids).toHaveLength(2);
    for (const pid of pids) expect(await isAlive(pid)).toBe(true);
    await app.close();
    for (const pid of pids) await isGone(pid);
  });
});

describe.skipIf(!findPython('json'))('a Python program with serve: true', () => {
  const program = (start: string, serve: string) => `
import json, os, resource, sys, time
${start}
for line in sys.stdin:
    request = json.loads(line)
    with open(os.path.join(request["output"], "report.txt"), "w") as file:
        file.write("%d" % os.getpid())
    answer = {"id": request["id"], "ok": True}
    ${serve}
    print(json.dumps(answer))
`;
  async function pythonApp(start: string, serve: string, more: object = {}): Promise<string> {
    const folder = await writeApp(work, nextName(), {
      inputs,
      outputs,
      model: { runtime: 'command', command: [findPython('json')!, 'app.py'], serve: true },
      ...more,
    });
    await writeFile(join(folder, 'app.py'), program(start, serve));
    return folder;
  }

  it('starts once: only the first prediction waits for its imports', async () => {
    const folder = await pythonApp('time.sleep(2)', 'pass');
    await using app = await openApp(folder);
    const seconds: number[] = [];
    const pids = new Set<string>();
    for (let i = 0; i < 10; i++) {
      const startedMs = performance.now();
      pids.add((await predict(app)).text);
      seconds.push((performance.now() - startedMs) / 1000);
    }
    expect(pids.size).toBe(1);
    expect(seconds[0]).toBeGreaterThan(2);
    expect(Math.min(...seconds.slice(1))).toBeLessThan(1);
    if (process.env.TEST_LOG) console.log(seconds.map((s) => s.toFixed(3)).join(' '));
  });

  it('has the memory limit of its app', async () => {
    const folder = await pythonApp(
      '',
      `
    try:
        bytes(2_000_000_000)
    except MemoryError:
        answer = {"id": request["id"], "error": "MemoryError below %d" % resource.getrlimit(resource.RLIMIT_DATA)[0]}`,
      { limits: { memoryMb: 1000 } },
    );
    await using app = await openApp(folder);
    expect(await failure(app, 'APP_FAILED')).toContain('MemoryError below 1024000000');
  });
});
