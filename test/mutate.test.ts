import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sampleOf } from '../mutate/measure.ts';
import { findMutants, markReached, plant } from '../mutate/mutants.ts';
import { filesOf, rooms, sourcesOf } from '../mutate/rooms.ts';
import { messageOf } from '../mutate/run-tests.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

/** The changes of a source, as text. */
const changes = (source: string) =>
  findMutants('source.ts', source).map(({ original, replacement }) => `${original} => ${replacement}`);

describe('findMutants()', () => {
  it.each([
    ['a + b;', ['a + b => (a - b)']],
    ['a % b;', ['a % b => (a * b)']],
    ['a <= b;', ['a <= b => (a < b)', 'a <= b => (a > b)']],
    ['a === b;', ['a === b => (a !== b)']],
    ['a && b;', ['a && b => ((a) || (b))']],
    ['a ?? b;', ['a ?? b => ((a) && (b))']],
    ['-a;', ['-a =>  a']],
    ['!a;', ['!a =>  a']],
    ['(7);', ['7 => 8', '7 => 6']],
    ['(0);', ['0 => 1', '0 => (-1)']],
    ['(5n);', ['5n => 6n']],
    ['(true);', ['true => false']],
    ["f.x = 'word';", ["f.x = 'word'; => ;", "'word' => ''"]],
    ['i++;', ['i++ => i--']],
    ['f(a);', ['f(a); => ;']],
    ['await f(a);', ['await f(a); => ;']],
    ['a += b;', ['a += b => a -= b', 'a += b; => ;']],
    ['if (a) b;', ['a => true', 'a => false']],
    ['while (a) b;', ['a => false']],
    ['const x = Math.floor(a);', ['Math.floor(a) => Math.ceil(a)']],
    ['const x = Math.min(a, b);', ['Math.min(a, b) => Math.max(a, b)']],
    ['const x = a.some(f);', ['a.some(f) => a.every(f)']],
  ])('changes %s', (source, expected) => {
    expect(changes(source)).toEqual(expected);
  });

  it.each([
    "import a from 'a';",
    "export { a } from 'a';",
    "let a: 1 | 'b' = c as 2;",
    "type A = 'a' | 5;",
    "throw new RangeError('the size is wrong');",
    "throw new TomaatError(code, 'Give a size.');",
    "console.log('a', 1);",
    // biome-ignore lint/suspicious/noTemplateCurlyInString: it is a source.
    'const a = `${b + 1} bytes of ${c}`;',
    "const a = 'two words';",
    "const a = b + 'c d';",
    'const a = { 5: b };',
  ])('leaves %s as it is', (source) => {
    expect(changes(source)).toEqual([]);
  });

  it('changes the code of an error', () => {
    expect(changes("throw new TomaatError('BAD_INPUT', 'Give 1.');")).toEqual(["'BAD_INPUT' => ''"]);
  });

  it('states the line, and plant() changes that place alone', () => {
    const source = 'const a = 1;\nconst b = a < 2;\n';
    const mutant = findMutants('source.ts', source).find(({ replacement }) => replacement === '(a <= 2)');
    expect(mutant?.line).toBe(2);
    expect(plant(source, mutant!)).toBe('const a = 1;\nconst b = (a <= 2);\n');
    expect(() => plant(`// moved\n${source}`, mutant!)).toThrow(/changed/);
  });
});

describe('rooms', () => {
  it.each(Object.entries(rooms))('has sources and tests of %s', (_name, room) => {
    expect(sourcesOf(root, room)).not.toEqual([]);
    // A room of the server may have no tests beside its sources, but each file that is named is there.
    const found = room.tests.map((pattern) => filesOf(root, pattern));
    expect(found.flat()).not.toEqual([]);
    for (const [i, files] of found.slice(1).entries()) expect(files, room.tests[i + 1]).toHaveLength(1);
  });
});

describe('markReached()', () => {
  it('reports what is reached and keeps computed results', () => {
    const source = 'let sum = 0; for (let i = 0; i < 3; i++) if (i > 0) sum += 2 * i - 1; return sum;';
    const mutants = [...findMutants('source.ts', `function f() { ${source} }`).entries()];
    const marked = markReached(`function f() { ${source} }`, mutants, 'reach');
    const reached = new Set<number>();
    // biome-ignore lint/security/noGlobalEval: the text is this test's own.
    const value = globalThis.eval(`(reach) => { ${marked}; return f(); }`)((id: number) => reached.add(id));
    // 2 - 1 and 4 - 1.
    expect(value).toBe(4);
    expect(reached.size).toBe(mutants.length);
  });
});

describe('sampleOf()', () => {
  it('draws the same faults for the same seed, each once', () => {
    const sample = (seed: number, count = 50) =>
      sampleOf(root, rooms.geometry, count, seed).map((one) => JSON.stringify(one));
    expect(sample(4)).toEqual(sample(4));
    expect(sample(4)).not.toEqual(sample(5));
    expect(new Set(sample(4)).size).toBe(50);
    // So that what was tried until a stop is a sample, too, and not of the first files alone.
    expect(sample(4, 20)).toEqual(sample(4).slice(0, 20));
    expect(new Set(sample(4, 20).map((one) => JSON.parse(one).file)).size).toBeGreaterThan(3);
  });
});

describe('messageOf()', () => {
  it('reads errors of other processes, which have no prototype', () => {
    expect(messageOf(new Error('a fault'))).toBe('a fault');
    expect(messageOf(Object.assign(Object.create(null), { message: 'sent over' }))).toBe('sent over');
    expect(messageOf(Object.assign(Object.create(null), { code: 7 }))).toContain('code: 7');
    for (const value of ['a text', undefined, null]) expect(messageOf(value)).toContain(String(value));
  });
});

describe('npm run mutate', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tomaat-mutate-test-'));
  });
  afterAll(() => rm(folder, { recursive: true, force: true, maxRetries: 5 }));

  const mutate = (...args: string[]) =>
    promisify(execFile)(
      process.execPath,
      ['--conditions=tomaat-source', join(root, 'mutate/main.ts'), ...args],
      // Not the variables that tell a program that it runs in a test.
      { env: { PATH: process.env.PATH, HOME: process.env.HOME, TMPDIR: folder } },
    );

  it('tries the faults and leaves the sources as they are', async () => {
    const source = join(root, rooms['page-labels'].sources);
    const before = await readFile(source, 'utf8');
    const json = join(folder, 'report.json');
    const { stdout } = await mutate('--room', 'page-labels', '--sample', '2', '--seed', '2', '--json', json);
    expect(stdout).toMatch(/^page-labels +[\d.]+ % of 2 \(seed 2/);
    const [{ outcomes }] = JSON.parse(await readFile(json, 'utf8')).rooms;
    expect(outcomes).toHaveLength(2);
    expect(outcomes.some(({ status }: { status: string }) => status === 'killed')).toBe(true);
    expect(await readFile(source, 'utf8')).toBe(before);
  });

  it('has reported what it tried when it is stopped', async () => {
    const json = join(folder, 'stopped.json');
    const running = mutate('--room', 'page-labels', '--sample', '40', '--json', json);
    const ended = expect(running).rejects.toThrow('Command failed');
    await expect.poll(() => existsSync(json)).toBe(true);
    running.child.kill();
    await ended;
    const [{ outcomes, mutants }] = JSON.parse(await readFile(json, 'utf8')).rooms;
    expect(outcomes.length).toBeGreaterThan(0);
    expect(outcomes.length).toBeLessThan(40);
    expect(mutants).toBeGreaterThanOrEqual(40);
  });

  it('refuses what it does not know', async () => {
    await expect(mutate('--room', 'kitchen')).rejects.toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/"kitchen" is not a room\. Available: formats, geometry/),
    });
    await expect(mutate('--sample', 'many')).rejects.toMatchObject({ code: 2 });
    await expect(mutate('--wrong')).rejects.toMatchObject({ code: 2 });
    expect((await mutate('--help')).stdout).toMatch(/--sample N/);
  });
});
