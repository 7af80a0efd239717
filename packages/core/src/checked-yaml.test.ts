import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { faultsOfSchema, listFaults, readYaml, soundPart } from './checked-yaml.ts';

describe('readYaml()', () => {
  it.each([
    ['nested lists', '['.repeat(5_000), /too many levels/],
    ['nested maps', '{a: '.repeat(3_000), /too many levels/],
    ['lists in one line', '- '.repeat(5_000), /too many levels/],
    [
      'indented maps',
      Array.from({ length: 1400 }, (_, i) => `${' '.repeat(i)}a:`).join('\n'),
      /too many levels/,
    ],
    ['a million characters', `a: ${'x'.repeat(1_000_000)}`, /more than 1000000 characters/],
  ])('refuses %s with one fault', (_, text, message) => {
    const { data, faults } = readYaml(text);
    expect(data).toBeUndefined();
    expect(faults).toEqual([expect.objectContaining({ message: expect.stringMatching(message) })]);
  });

  it('compares no key of a large map with every other one', () => {
    // The parser alone takes many seconds for this.
    const started = performance.now();
    const { data } = readYaml(Array.from({ length: 20_000 }, (_, i) => `k${i}: b\n`).join(''));
    expect(Object.keys(data as object)).toHaveLength(20_000);
    expect(performance.now() - started).toBeLessThan(8000);
  });

  it('names each key that is there twice, with its line', () => {
    const { faults } = readYaml('a: 1\nb: { c: 1, c: 2 }\na: 2\n');
    expect(faults.map(({ line, message }) => `${line} ${message}`)).toEqual([
      '3 Map keys must be unique: a is there twice',
      '2 Map keys must be unique: c is there twice',
    ]);
  });

  it.each([
    ['a: 1\nb: *c\nc: &c 2\n', '2 *c stands for nothing before it. Write the value out'],
    ['a: 1\n---\nb: 2\n', '2 has several documents. Leave one of them, without ---'],
    ['a:\n\tb: 1\n', '2 Tabs are not allowed as indentation'],
  ])('says in %j what to do in which line', (text, expected) => {
    const { faults } = readYaml(text);
    expect(faults.map(({ line, message }) => `${line} ${message}`)).toEqual([expected]);
  });

  it('refuses aliases that expand into too much', () => {
    const level = (name: string, other: string) => `${name}: &${name} [${`*${other},`.repeat(9)}]\n`;
    const text = `a: &a [x]\n${level('b', 'a')}${level('c', 'b')}${level('d', 'c')}`;
    expect(readYaml(text).faults).toEqual([
      { path: '(YAML)', message: 'aliases (*) stand for too much. Write the values out' },
    ]);
    expect(readYaml('a: &a [1]\nb: *a\n')).toMatchObject({ data: { a: [1], b: [1] }, faults: [] });
  });

  it('gives the line of a value, and of the map around a missing one', () => {
    const { place } = readYaml('a: 1\nb:\n  - c: 1\n  - d: 2\n');
    const faults = place([
      { path: ['b', 1, 'd'], message: 'x' },
      { path: ['b', 1, 'missing'], message: 'y' },
      { path: [], message: 'z' },
    ]);
    expect(faults).toEqual([
      { path: 'b.1.d', message: 'x', line: 4 },
      { path: 'b.1.missing', message: 'y', line: 4 },
      { path: '(whole file)', message: 'z', line: undefined },
    ]);
  });
});

describe('faultsOfSchema()', () => {
  const schema = z.strictObject({ name: z.string(), size: z.number(), kind: z.enum(['a', 'b']) });
  it('says each fault in words, and soundPart() keeps the rest', () => {
    const data = { size: 'x', kind: 'c', more: 1 };
    const faults = faultsOfSchema(schema.safeParse(data).error!.issues);
    expect(faults.map(({ path, message }) => `${path.join('.')}: ${message}`)).toEqual([
      'name: is missing (text)',
      'size: must be a number',
      'kind: must be a or b',
      ': has the unknown key more',
    ]);
    expect(soundPart(schema, { ...data, name: 'n' })).toEqual({ name: 'n' });
  });
});

describe('listFaults()', () => {
  it('shows thirty faults and counts the rest', () => {
    const faults = Array.from({ length: 32 }, (_, i) => ({ path: `a.${i}`, message: 'm', line: i + 1 }));
    const lines = listFaults('f.yaml', faults).split('\n');
    expect(lines[0]).toBe('f.yaml has 32 faults. Correct the following:');
    expect(lines[1]).toBe('  line 1: a.0: m');
    expect(lines.slice(30)).toEqual(['  line 30: a.29: m', '  and 2 more']);
  });
});
